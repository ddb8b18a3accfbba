# SPDX-License-Identifier: Apache-2.0
"""Which cells the rays from cameras to points pass through."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from occany_core.voxels.grid import (
    VoxelGridSpec,
    cell_or_none,
    count_cells,
    lattice_coordinates,
)


def count_rays(
    centres: Float[Tensor, "P 3"],
    points: Float[Tensor, "P 3"],
    spec: VoxelGridSpec,
    max_range: float,
) -> Int[Tensor, "X Y Z"]:
    """Count the rays from camera centres to points that pass through each cell.

    Rays are sampled once per cell length and end one cell before their point.
    """
    direction = points - centres
    length = direction.norm(dim=-1, keepdim=True)
    direction = direction / length.clamp_min(1e-6)
    reach, order = (length[:, 0] - spec.resolution).sort(descending=True)
    direction, start = (
        direction[order] / spec.resolution,
        lattice_coordinates(centres, spec)[order],
    )
    distances = torch.arange(
        0.5 * spec.resolution, max_range, spec.resolution, device=points.device
    )
    num_alive = torch.searchsorted(-reach, -distances)
    passed = [reach.new_zeros(0, dtype=torch.long)]
    for distance, count in zip(distances.tolist(), num_alive.tolist(), strict=True):
        samples = start[:count] + direction[:count] * distance
        passed.append(cell_or_none(samples, spec))
    return count_cells(torch.cat(passed), spec)
