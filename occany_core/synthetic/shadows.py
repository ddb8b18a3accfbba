# SPDX-License-Identifier: Apache-2.0
"""Sun shadows: surface points -> which of them the sun reaches.

Primitives are binned on the plane along the direction of the sun, frame by frame in one table;
every point is tested against the primitives of its cell.
"""

import torch

from occany_core.synthetic.intersections import in_body_axes, intersect
from occany_core.synthetic.ragged import expand_ranges, expand_rectangles, rows
from occany_core.synthetic.scene import Scene
from occany_core.synthetic.visibility import Visibility

CELLS = 96  # cells along each side of the bin grid
CELL = 2.5  # metres
TALLEST_CASTER = 60.0  # metres above the lowest point
SURFACE_OFFSET = 0.04  # metres along the normal, so that a surface does not shade itself


def sunlit(
    scene: Scene,
    seen: Visibility,
    frame: torch.Tensor,
    points: torch.Tensor,
    normals: torch.Tensor,
) -> torch.Tensor:
    """Bool (M,): False where a primitive or a kerb stands between the point and the sun.

    frame (M,) of `seen` whose primitives count; points and normals (M,3) world frame, metres.
    Points outside the 240 m bin grid around the points of their frame count as lit.
    """
    sun = scene.light.sun
    slant = sun[:2] / sun[2]
    origin = _grid_origins(points, frame, len(seen.centers))
    members, count, start = _bin_casters(scene, seen.centers, slant, origin, points[:, 2].min())

    cell = ((points[:, :2] - points[:, 2:3] * slant - rows(origin, frame)) / CELL).floor().long()
    inside = ((cell >= 0) & (cell < CELLS)).all(-1) & ((normals * sun).sum(-1) > 0)
    cell = (frame * CELLS + cell[:, 1].clamp(0, CELLS - 1)) * CELLS + cell[:, 0].clamp(
        0, CELLS - 1
    )
    point, index = expand_ranges(torch.where(inside, rows(count, cell), 0))
    body = rows(members, rows(rows(start, cell), point) + index)
    primitive = body % len(scene)

    lit = ~_behind_kerb(scene, points)
    raised = points + normals * SURFACE_OFFSET
    for shape, pierced, chosen in scene.kinds(primitive):
        caster, owner, target = rows(primitive, chosen), rows(body, chosen), rows(point, chosen)
        turn = rows(scene.cos, caster), rows(scene.sin, caster)
        shear = rows(seen.shears.view(-1, 2), owner).unbind(-1)
        to_origin = rows(raised, target) - rows(seen.centers.view(-1, 3), owner)
        depth = intersect(
            shape,
            rows(scene.half_extent, caster).unbind(-1),
            in_body_axes(to_origin.unbind(-1), turn, shear),
            in_body_axes(sun.unbind(0), turn, shear),
            pierced,
        )
        lit[target[torch.isfinite(depth)]] = False
    return lit


def _grid_origins(points: torch.Tensor, frame: torch.Tensor, frames: int) -> torch.Tensor:
    """Corner (F,2) of each frame's bin grid, which is centred on its points."""
    total = points.new_zeros(frames, 2).index_add_(0, frame, points[:, :2])
    count = torch.bincount(frame, minlength=frames).clamp_min(1)
    return total / count[:, None] - CELLS * CELL / 2


def _bin_casters(
    scene: Scene,
    centers: torch.Tensor,
    slant: torch.Tensor,
    origin: torch.Tensor,
    lowest: torch.Tensor,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Bodies (frame * P + primitive) sorted by cell, with count and start per cell.

    members (N,); count and start (F * CELLS * CELLS,). Nothing below `lowest` metres is shaded.
    """
    bottom = (centers[..., 2] - scene.reach[:, 2]).clamp_min(lowest)[..., None]
    top = (centers[..., 2] + scene.reach[:, 2]).clamp_max(lowest + TALLEST_CASTER)[..., None]
    near, far = centers[..., :2] - bottom * slant, centers[..., :2] - top * slant
    low = torch.minimum(near, far) - scene.reach[:, :2]
    high = torch.maximum(near, far) + scene.reach[:, :2]
    first = ((low - origin[:, None]) / CELL).floor().clamp(0, CELLS).long()
    last = ((high - origin[:, None]) / CELL).floor().clamp(-1, CELLS - 1).long()
    body, x, y = expand_rectangles(first.view(-1, 2), last.view(-1, 2))
    frame = torch.div(body, len(scene), rounding_mode="floor")
    cell = (frame * CELLS + y) * CELLS + x
    count = torch.bincount(cell, minlength=len(centers) * CELLS * CELLS)
    return body[torch.argsort(cell)], count, torch.cumsum(count, 0) - count


def _behind_kerb(scene: Scene, points: torch.Tensor) -> torch.Tensor:
    """Points (M,3) low beside a kerb, where the sun only comes over its edge."""
    ground, sun = scene.ground, scene.light.sun
    x, y, z = points.unbind(-1)
    to_rise = (ground.relief.height(x, y) + ground.relief.kerb - z) / sun[2]
    below = torch.nonzero(to_rise > SURFACE_OFFSET)[:, 0]
    x, y, to_rise = rows(x, below), rows(y, below), rows(to_rise, below)
    hidden = (ground.edges.at(x, y) < 0) & (
        ground.edges.at(x + to_rise * sun[0], y + to_rise * sun[1]) >= 0
    )
    shaded = torch.zeros_like(points[:, 0], dtype=torch.bool)
    shaded[below] = hidden
    return shaded
