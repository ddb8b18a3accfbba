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

    Rays are sampled once per cell length and end one cell before their point, at `max_range`, or
    where nothing of the grid can follow.
    """
    direction = points - centres
    length = direction.norm(dim=-1, keepdim=True)
    direction = direction / length.clamp_min(1e-6)
    reach, order = (length[:, 0] - spec.resolution).sort(descending=True)
    direction, start = (
        direction[order] / spec.resolution,
        lattice_coordinates(centres, spec)[order],
    )
    first = 0.5 * spec.resolution
    end = max(first, min(max_range, _farthest_cell(centres, spec)))
    distances = torch.arange(first, end, spec.resolution, device=points.device)
    num_alive = torch.searchsorted(-reach, -distances)
    distances, num_alive = distances[num_alive > 0], num_alive[num_alive > 0]
    passed = [reach.new_zeros(0, dtype=torch.long)]
    for distance, count in zip(distances.tolist(), num_alive.tolist(), strict=True):
        samples = start[:count] + direction[:count] * distance
        passed.append(cell_or_none(samples, spec))
    return count_cells(torch.cat(passed), spec)


def _farthest_cell(centres: Float[Tensor, "P 3"], spec: VoxelGridSpec) -> float:
    """Return a distance from any of the centres within which the whole grid lies [m]."""
    if not len(centres):
        return spec.resolution
    low = centres.new_tensor(spec.origin)
    high = low + spec.resolution * centres.new_tensor(spec.shape)
    farthest = torch.maximum((centres - low).abs(), (centres - high).abs())
    return farthest.norm(dim=-1).max().item() + spec.resolution
