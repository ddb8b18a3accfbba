# SPDX-License-Identifier: Apache-2.0
"""Ray against primitive, in the primitive's own axes: origin and direction -> ray parameter.

Vectors are passed as three tensors x, y, z (structure of arrays): on a CPU this is several times
faster than a trailing axis of three. Camera rays have unit camera depth, so the ray parameter of
a hit is its z-depth in metres.
"""

import math

import torch

from occany_core.synthetic.primitives import Shape

NEAR = 0.15  # metres; nothing closer is hit

Vector = tuple[torch.Tensor, torch.Tensor, torch.Tensor]


def rotate_about_z(v: Vector, cos: torch.Tensor, sin: torch.Tensor) -> Vector:
    """World vector in axes turned by the angle of (cos, sin); negate `sin` for the way back."""
    x, y, z = v
    return cos * x + sin * y, -sin * x + cos * y, z


def intersect(shape: Shape, half_extent: Vector, origin: Vector, ray: Vector) -> torch.Tensor:
    """First ray parameter beyond `NEAR` at which each ray meets its primitive; inf for a miss.

    `half_extent`, `origin` and `ray` broadcast together; all lengths in metres.
    """
    if shape == Shape.BOX:
        return _intersect_box(half_extent, origin, ray)
    return _intersect_round(shape, half_extent, origin, ray)


def _reciprocal(v: torch.Tensor) -> torch.Tensor:
    return 1.0 / torch.where(v.abs() < 1e-9, 1e-9, v)


def _intersect_box(half_extent: Vector, origin: Vector, ray: Vector) -> torch.Tensor:
    enter, leave = None, None
    for h, o, d in zip(half_extent, origin, ray, strict=True):
        inverse = _reciprocal(d)
        a, b = (-h - o) * inverse, (h - o) * inverse
        low, high = torch.minimum(a, b), torch.maximum(a, b)
        enter = low if enter is None else torch.maximum(enter, low)
        leave = high if leave is None else torch.minimum(leave, high)
    t = torch.where(enter > NEAR, enter, leave)
    return torch.where((leave >= enter) & (leave > NEAR), t, math.inf)


def _intersect_round(
    shape: Shape, half_extent: Vector, origin: Vector, ray: Vector
) -> torch.Tensor:
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
    t = torch.where(enter > NEAR, enter, leave)
    return torch.where(hit & (t > NEAR), t, math.inf)
