# SPDX-License-Identifier: Apache-2.0
"""The voxel grid: where its cells are, what it says about them, and counting points in cells.

Points are in the grid frame (body axes x forward, y left, z up), metres. Cell (i, j, k) covers
`origin + resolution * [i, i + 1) x [j, j + 1) x [k, k + 1)`. `P` points, `X Y Z` cells.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int8, UInt8
from torch import Tensor

from occany_core.config import VoxelsConfig

UNKNOWN, FREE, OCCUPIED = -1, 0, 100
OCCUPIED_FROM = 50
"""Cells with at least this probability [percent] count as occupied."""


@dataclass(frozen=True)
class VoxelGridSpec:
    """Where the cells are."""

    origin: tuple[float, float, float]
    """Minimum corner of cell (0, 0, 0) in the grid frame [m]."""
    resolution: float
    """Edge of a cell [m]."""
    shape: tuple[int, int, int]
    """Cells along x, y, z."""

    @property
    def num_cells(self) -> int:
        """Cells in all."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    @classmethod
    def of(cls, config: VoxelsConfig) -> "VoxelGridSpec":
        """Take the geometry out of the settings."""
        return cls(tuple(config.origin), config.resolution, tuple(config.shape))


@dataclass(frozen=True)
class VoxelGrid:
    """A dense grid in host memory."""

    spec: VoxelGridSpec
    probability: Int8[np.ndarray, "X Y Z"]
    """-1 unknown, else the probability of being occupied in percent, 0 to 100."""
    completed: Bool[np.ndarray, "X Y Z"]
    """Occupied on the word of rendered views only."""
    labels: UInt8[np.ndarray, "X Y Z"] | None = None
    """Class ids, 255 where there is none; or None without semantics."""

    @property
    def occupied(self) -> Bool[np.ndarray, "X Y Z"]:
        """Cells that count as occupied."""
        return self.probability >= OCCUPIED_FROM

    @property
    def free(self) -> Bool[np.ndarray, "X Y Z"]:
        """Cells known to be empty."""
        return (self.probability >= 0) & ~self.occupied

    def occupied_centres(self) -> Float[np.ndarray, "P 3"]:
        """Return the centres of occupied cells [m]."""
        ijk = np.argwhere(self.occupied)
        return (np.asarray(self.spec.origin) + (ijk + 0.5) * self.spec.resolution).astype(
            np.float32
        )


def lattice_coordinates(points: Float[Tensor, "P 3"], spec: VoxelGridSpec) -> Float[Tensor, "P 3"]:
    """Return (point - origin) / resolution in float32."""
    return (points - points.new_tensor(spec.origin)) / points.new_tensor(spec.resolution)


def cell_or_none(q: Float[Tensor, "P 3"], spec: VoxelGridSpec) -> Int[Tensor, " P"]:
    """Return the flat cell of lattice coordinates; `spec.num_cells` where there is none."""
    inside = ((q >= 0) & (q < q.new_tensor(spec.shape))).all(dim=-1)
    i, j, k = q.long().unbind(-1)  # truncation is floor for what is inside
    return torch.where(inside, (i * spec.shape[1] + j) * spec.shape[2] + k, spec.num_cells)


def count_cells(cells: Int[Tensor, " P"], spec: VoxelGridSpec) -> Int[Tensor, "X Y Z"]:
    """Count how often each cell occurs; `spec.num_cells` stands for none."""
    return torch.bincount(cells, minlength=spec.num_cells + 1)[:-1].view(spec.shape)


def count_points(points: Float[Tensor, "P 3"], spec: VoxelGridSpec) -> Int[Tensor, "X Y Z"]:
    """Count the points in every cell; points outside or not finite are left out."""
    return count_cells(cell_or_none(lattice_coordinates(points, spec), spec), spec)
