# SPDX-License-Identifier: Apache-2.0
"""A box cut out of a voxel grid. Without ROS. Metres."""

import itertools

import numpy as np

from occany_core import VoxelGrid, VoxelGridSpec
from occany_core.errors import InputError


def cut_box(
    grid: VoxelGrid, grid_from_box: np.ndarray, lower: np.ndarray, upper: np.ndarray
) -> VoxelGrid:
    """Return the cells that a box touches; both corners zero: the whole grid.

    Args:
        grid: To cut from.
        grid_from_box: (4, 4), from the frame of the corners to the grid's.
        lower: One corner (3,) [m].
        upper: The opposite corner (3,) [m].

    Raises:
        InputError: The box is not finite, or lies outside.
    """
    corners = np.array([lower, upper], np.float64)
    if not np.isfinite(corners).all():
        raise InputError(
            f"the box from {corners[0].tolist()} to {corners[1].tolist()} is not finite; give two "
            "corners in metres, or zeros for the whole grid"
        )
    if not corners.any():
        return grid
    all_corners = np.array(list(itertools.product(*corners.T)))
    in_grid = all_corners @ grid_from_box[:3, :3].T + grid_from_box[:3, 3]
    lattice = (in_grid - np.asarray(grid.spec.origin)) / grid.spec.resolution
    shape = np.asarray(grid.spec.shape)
    first = np.clip(np.floor(lattice.min(axis=0)), 0, shape).astype(int)
    last = np.clip(np.ceil(lattice.max(axis=0)), 0, shape).astype(int)
    if (last <= first).any():
        begin = np.asarray(grid.spec.origin)
        end = begin + shape * grid.spec.resolution
        raise InputError(
            f"the box {_span(in_grid.min(axis=0), in_grid.max(axis=0))} lies outside of the grid, "
            f"which is {_span(begin, end)} in the base frame"
        )
    part = tuple(slice(low, high) for low, high in zip(first, last, strict=True))
    origin = np.asarray(grid.spec.origin) + first * grid.spec.resolution
    cells = np.ascontiguousarray(grid.probability[part])
    return VoxelGrid(
        VoxelGridSpec(tuple(origin.tolist()), grid.spec.resolution, cells.shape),
        cells,
        np.ascontiguousarray(grid.completed[part]),
        None if grid.labels is None else np.ascontiguousarray(grid.labels[part]),
    )


def _span(begin: np.ndarray, end: np.ndarray) -> str:
    ranges = (f"{low:.1f} to {high:.1f}" for low, high in zip(begin, end, strict=True))
    return " x ".join(ranges) + " m"
