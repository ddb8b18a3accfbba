# SPDX-License-Identifier: Apache-2.0
"""Ray against primitive, in the primitive's own axes: origin and direction -> ray parameter.

Vectors are passed as three tensors x, y, z (structure of arrays): on a CPU this is several times
faster than a trailing axis of three. Camera rays have unit camera depth, so the ray parameter of
a hit is its z-depth in metres.
"""

import math

import torch

from occany_core.synthetic.noise import lattice_hash
from occany_core.synthetic.primitives import Shape

NEAR = 0.15  # metres; nothing closer is hit
LEAF_CLUMP = 0.24  # metres, side of the clumps of leaves and of the holes between them
LEAF_HOLES = 0.3  # share of a crown's surface that is open
RAIL_GAP, RAIL_WIDTH, CROSS_RAIL_GAP = 0.18, 0.05, 0.75  # metres

Vector = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def rotate_about_z(v: Vector, cos: torch.Tensor, sin: torch.Tensor) -> Vector:
    """World vector in axes turned by the angle of (cos, sin); negate `sin` for the way back."""
    x, y, z = v
    return cos * x + sin * y, -sin * x + cos * y, z


def in_body_axes(
    v: Vector, turn: tuple[torch.Tensor, torch.Tensor], shear: tuple[torch.Tensor, torch.Tensor]
) -> Vector:
    """World vector in the axes of a body turned by (cos, sin) and sheared along z.

    shear is the body's rise per metre along world x and y.
    """
    x, y, z = v
    return rotate_about_z((x, y, z - shear[0] * x - shear[1] * y), *turn)


def intersect(
    shape: Shape, half_extent: Vector, origin: Vector, ray: Vector, pierced: bool = False
) -> torch.Tensor:
    """First ray parameter beyond `NEAR` at which each ray meets its primitive; inf for a miss.

    `half_extent`, `origin` and `ray` broadcast together; all lengths in metres. Boxes that are
    `pierced` are rails, other shapes leaves: a ray through a hole goes on to the far side.
    """
    meet = _meet_box if shape == Shape.BOX else _meet_round
    enter, leave, hit = meet(shape, half_extent, origin, ray)
    if not pierced:
        return torch.where(hit, torch.where(enter > NEAR, enter, leave), math.inf)
    leaves_by = torch.where(hit & ~_hole(shape, origin, ray, leave), leave, math.inf)
    stopped = hit & (enter > NEAR) & ~_hole(shape, origin, ray, enter)
    return torch.where(stopped, enter, leaves_by)


def _hole(shape: Shape, origin: Vector, ray: Vector, t: torch.Tensor) -> torch.Tensor:
    """Whether the surface is open at ray parameter `t`."""
    x, y, z = (o + t * d for o, d in zip(origin, ray, strict=True))
    if shape == Shape.BOX:
        return ((x % RAIL_GAP) > RAIL_WIDTH) & ((z % CROSS_RAIL_GAP) > RAIL_WIDTH)
    cells = (torch.floor(part / LEAF_CLUMP) for part in (x, y, z))
    return lattice_hash(*cells) < LEAF_HOLES


def _reciprocal(v: torch.Tensor) -> torch.Tensor:
    return 1.0 / torch.where(v.abs() < 1e-9, 1e-9, v)


def _meet_box(
    _: Shape, half_extent: Vector, origin: Vector, ray: Vector
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ray parameters where each ray enters and leaves, and whether there is anything to hit."""
    enter, leave = None, None
    for h, o, d in zip(half_extent, origin, ray, strict=True):
        inverse = _reciprocal(d)
        a, b = (-h - o) * inverse, (h - o) * inverse
        low, high = torch.minimum(a, b), torch.maximum(a, b)
        enter = low if enter is None else torch.maximum(enter, low)
        leave = high if leave is None else torch.minimum(leave, high)
    return enter, leave, (leave >= enter) & (leave > NEAR)


def _meet_round(
    shape: Shape, half_extent: Vector, origin: Vector, ray: Vector
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """As `_meet_box`, for cylinders and ellipsoids."""
    ox, oy, oz = (o / h for o, h in zip(origin, half_extent, strict=True))
    dx, dy, dz = (d / h for d, h in zip(ray, half_extent, strict=True))
    if shape == Shape.ELLIPSOID:
        a = dx * dx + dy * dy + dz * dz
        b = ox * dx + oy * dy + oz * dz
        c = ox * ox + oy * oy + oz * oz - 1
    else:
        a = dx * dx + dy * dy + 1e-12
        b = ox * dx + oy * dy
        c = ox * ox + oy * oy - 1
    discriminant = b * b - a * c
    root = torch.sqrt(discriminant.clamp_min(0))
    enter, leave = (-b - root) / a, (-b + root) / a
    hit = discriminant > 0
    if shape == Shape.CYLINDER:
        inverse = _reciprocal(ray[2])
        bottom = (-half_extent[2] - origin[2]) * inverse
        top = (half_extent[2] - origin[2]) * inverse
        enter = torch.maximum(enter, torch.minimum(bottom, top))
        leave = torch.minimum(leave, torch.maximum(bottom, top))
        hit = hit & (leave >= enter)
    return enter, leave, hit & (leave > NEAR)
