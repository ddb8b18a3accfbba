# SPDX-License-Identifier: Apache-2.0
"""Rays against the relief: origins and directions -> depth of the first point on the ground.

Both surfaces, the level of the carriageways and the one raised by the kerb, are chains of
parabolas, so a ray meets each in closed form. A ray that passes over the raised level of a
carriageway goes on to the lower one, or to a kerb's face on the way.
"""

import math
from dataclasses import dataclass

import torch

from occany_core.synthetic.carriageways import EdgeMap
from occany_core.synthetic.intersections import NEAR, Vector
from occany_core.synthetic.ragged import rows
from occany_core.synthetic.relief import Relief

JOINT = 1e-3  # metres by which pieces overlap, so that rounding leaves no gap between them
SHORT_SLIDE = 1.5  # metres between both surfaces that need no look at what lies between them
LONGEST_SLIDE = 60.0  # ray parameter after which a ray over a crest has left the lower surface
SLIDE_STEPS = 8  # places looked at along a longer slide; narrower kerbs there may be missed
BISECTIONS = 20  # of the metres between both surfaces: a kerb's face to millimetres


@dataclass(frozen=True)
class Ground:
    """Relief and carriageways of one world, on one device."""

    relief: Relief
    edges: EdgeMap

    def height(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Height (M,) of what one stands on, kerb included, metres."""
        raised = self.edges.at(x, y) >= 0
        return self.relief.height(x, y) + raised * self.relief.kerb


def ground_depth(ground: Ground, origins: Vector, rays: Vector, farthest: float) -> torch.Tensor:
    """First ray parameter at which each of M rays meets the ground, inf beyond `farthest`.

    origins (N,1) and rays (N,M): x, y, z parts, world frame, metres; returns (N,M). Origins lie
    above the ground.
    """
    relief = ground.relief
    depth = _level_depth(relief, origins, rays, relief.kerb)
    if relief.kerb:
        flat = depth.view(-1)
        over_road = torch.nonzero(flat < farthest)[:, 0]
        start, ray = _take(origins, rays, over_road)
        low = _edge(ground, start, ray, rows(flat, over_road)) < 0
        over_road = over_road[low]
        start, ray = _take(origins, rays, over_road)
        lower = _level_depth(relief, start, ray, 0.0)
        flat[over_road] = _or_kerb_face(ground, start, ray, rows(flat, over_road), lower)
    return torch.where(depth < farthest, depth, math.inf)


def _take(origins: Vector, rays: Vector, pixel: torch.Tensor) -> tuple[Vector, Vector]:
    """Origins and rays, parts (M,), at flat positions (M,) of what `ground_depth` is given."""
    owner = torch.div(pixel, rays[0].shape[1], rounding_mode="floor")
    start, ray = (
        tuple(rows(part.reshape(-1), index) for part in vector)
        for vector, index in ((origins, owner), (rays, pixel))
    )
    return start, ray


def _edge(ground: Ground, origins: Vector, rays: Vector, depth: torch.Tensor) -> torch.Tensor:
    """Distance beyond the nearest carriageway at the ray parameter `depth` (M,)."""
    return ground.edges.at(origins[0] + depth * rays[0], origins[1] + depth * rays[1])


def _or_kerb_face(
    ground: Ground, origins: Vector, rays: Vector, upper: torch.Tensor, lower: torch.Tensor
) -> torch.Tensor:
    """Depth (M,): `lower` where the ray gets there, else where it meets a kerb before."""
    end = torch.minimum(lower, upper + LONGEST_SLIDE)
    before, after = _first_raised(ground, (origins, rays), (upper, end), 1)
    slide = (end - upper) * torch.hypot(rays[0], rays[1])
    far = torch.nonzero(slide > SHORT_SLIDE)[:, 0]
    part = tuple(tuple(rows(axis, far) for axis in vector) for vector in (origins, rays))
    before[far], after[far] = _first_raised(
        ground, part, (rows(upper, far), rows(end, far)), SLIDE_STEPS
    )
    face = torch.nonzero(torch.isfinite(after))[:, 0]
    origins, rays = (tuple(rows(axis, face) for axis in vector) for vector in (origins, rays))
    over, inside = rows(before, face), rows(after, face)
    for _ in range(BISECTIONS):
        middle = (over + inside) / 2
        raised = _edge(ground, origins, rays, middle) >= 0
        over, inside = torch.where(raised, over, middle), torch.where(raised, middle, inside)
    x, y, z = (o + inside * r for o, r in zip(origins, rays, strict=True))
    low_enough = z < ground.relief.height(x, y) + ground.relief.kerb + JOINT
    lower[face] = torch.where(low_enough, inside, rows(lower, face))
    return lower


def _first_raised(
    ground: Ground,
    cast: tuple[Vector, Vector],
    span: tuple[torch.Tensor, torch.Tensor],
    steps: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Ray parameters (M,) before and at the first of `steps` probes beside a carriageway.

    cast: origins and rays; span: ray parameters (M,) between which probes are spread evenly. The
    second result is inf where no probe leaves the carriageway.
    """
    first, last = span
    before, at = first.clone(), torch.full_like(first, math.inf)
    for step in range(steps, 0, -1):
        probe = torch.lerp(first, last, step / steps)
        raised = _edge(ground, *cast, probe) >= 0
        before = torch.where(raised, torch.lerp(first, last, (step - 1) / steps), before)
        at = torch.where(raised, probe, at)
    return before, at


def _level_depth(relief: Relief, origins: Vector, rays: Vector, lift: float) -> torch.Tensor:
    """First ray parameter on the level raised by `lift` metres, inf where there is none."""
    (ax, ay), tilt = relief.axis, relief.tilt
    start, ahead = (v[0] * ax + v[1] * ay for v in (origins, rays))
    above, climb = (v[2] - (v[1] * ax - v[0] * ay) * tilt for v in (origins, rays))
    above = above - lift
    nearest = torch.full_like(climb, math.inf)
    for low, high, constant, linear, square in relief.pieces():
        # Height above this parabola is gap + rate t - bend t^2; it falls through 0 once.
        gap = above - (constant + start * (linear + start * square))
        rate = climb - ahead * (linear + 2 * square * start)
        bend = square * ahead * ahead
        root = (rate * rate + 4 * bend * gap).sqrt()  # not a number where it never reaches 0
        t = 2 * gap / (root - rate)
        reached = start + t * ahead
        valid = (t > NEAR) & (reached >= low - JOINT) & (reached <= high + JOINT)
        nearest = torch.where(valid & (t < nearest), t, nearest)
    return nearest
