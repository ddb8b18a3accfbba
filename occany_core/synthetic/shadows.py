# SPDX-License-Identifier: Apache-2.0
"""Sun shadows: surface points of one frame -> which of them the sun reaches.

Primitives are binned on the ground plane along the direction of the sun; every point is tested
against the primitives of its cell.
"""

import torch

from occany_core.synthetic.intersections import intersect, rotate_about_z
from occany_core.synthetic.primitives import Shape
from occany_core.synthetic.ragged import expand_ranges, expand_rectangles, rows
from occany_core.synthetic.scene import Scene

CELLS = 96  # cells along each side of the bin grid
CELL = 2.5  # metres
TALLEST_CASTER = 60.0  # metres
SURFACE_OFFSET = 0.04  # metres along the normal, so that a surface does not shade itself


def sunlit(
    scene: Scene, points: torch.Tensor, normals: torch.Tensor, centers: torch.Tensor
) -> torch.Tensor:
    """Bool (M,): False where a primitive stands between the point and the sun.

    points and normals (M,3) world frame, metres; centers (P,3) primitive centres at that time.
    Points outside the 240 m bin grid count as lit.
    """
    sun = scene.light.sun
    slant = sun[:2] / sun[2]
    origin = points[:, :2].mean(0) - CELLS * CELL / 2
    members, count, start = _bin_casters(scene, centers, slant, origin)

    cell = ((points[:, :2] - points[:, 2:3] * slant - origin) / CELL).floor().long()
    inside = ((cell >= 0) & (cell < CELLS)).all(-1) & ((normals * sun).sum(-1) > 0)
    cell = (cell[:, 1] * CELLS + cell[:, 0]).clamp(0, CELLS * CELLS - 1)
    point, index = expand_ranges(torch.where(inside, rows(count, cell), 0))
    primitive = rows(members, rows(rows(start, cell), point) + index)

    lit = torch.ones(len(points), device=points.device, dtype=torch.bool)
    raised = points + normals * SURFACE_OFFSET
    for shape in Shape:
        chosen = scene.indices_of(shape, primitive)
        caster, target = rows(primitive, chosen), rows(point, chosen)
        cos, sin = rows(scene.cos, caster), rows(scene.sin, caster)
        to_origin = (rows(raised, target) - rows(centers, caster)).unbind(-1)
        depth = intersect(
            shape,
            rows(scene.half_extent, caster).unbind(-1),
            rotate_about_z(to_origin, cos, sin),
            rotate_about_z(sun.unbind(0), cos, sin),
        )
        lit[target[torch.isfinite(depth)]] = False
    return lit


def _bin_casters(
    scene: Scene, centers: torch.Tensor, slant: torch.Tensor, origin: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Primitives sorted by cell: members (N,), count and start per cell (CELLS * CELLS,)."""
    bottom = (centers[:, 2] - scene.reach[:, 2]).clamp_min(0)[:, None]
    top = (centers[:, 2] + scene.reach[:, 2]).clamp(max=TALLEST_CASTER)[:, None]
    near, far = centers[:, :2] - bottom * slant, centers[:, :2] - top * slant
    low = torch.minimum(near, far) - scene.reach[:, :2]
    high = torch.maximum(near, far) + scene.reach[:, :2]
    first = ((low - origin) / CELL).floor().clamp(0, CELLS).long()
    last = ((high - origin) / CELL).floor().clamp(-1, CELLS - 1).long()
    owner, x, y = expand_rectangles(first, last)
    cell = y * CELLS + x
    count = torch.bincount(cell, minlength=CELLS * CELLS)
    return owner[torch.argsort(cell)], count, torch.cumsum(count, 0) - count
