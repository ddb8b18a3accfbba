# SPDX-License-Identifier: Apache-2.0
"""Messages: the fields of a grid, in memory and as the two messages carry them, and their checks.

`GridCells` holds arrays of shape (X, Y, Z) with axes x forward, y left, z up, and the pose of the
grid's minimum corner [m]. `DenseGrid` and `CompactGrid` carry the fields of VoxelGrid.msg and
VoxelGridCompact.msg (the comments in msg/ are their specification), except that the header stays
with the ROS side and the pose is a `GridPose`. Conversions are in `grid_codec`.
"""

from dataclasses import dataclass
from math import isfinite, prod

import numpy as np

from occany_core.errors import InputError

UNKNOWN = -1
"""Probability of a cell about which nothing is known."""

OCCUPIED_FROM = 50
"""Cells with at least this probability [%] are occupied; known cells below it are free."""

UNLABELED = 255
"""Label of a cell without a class."""

MAX_CELLS = 2**26
"""Largest grid that is read or written: far above any real one, small enough to allocate."""

PROBABILITY_NONE, PROBABILITY_PER_OCCUPIED_CELL, PROBABILITY_PER_CELL = range(3)
"""Values of `CompactGrid.probability_layout`."""

SCALE_SOURCES = ("model", "camera_info", "extrinsics", "odometry", "user")
"""Names of the values of `CompactGrid.scale_source`."""

FRAME_SOURCES = ("extrinsics", "assumed level", "ground plane")
"""Names of the values of `CompactGrid.frame_source`."""


@dataclass(frozen=True)
class GridPose:
    """Pose of the minimum corner of cell (0, 0, 0): `frame_from_grid` as the message states it."""

    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Metres."""
    quat_xyzw: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 1.0)
    """Unit quaternion, ROS order."""


@dataclass(frozen=True)
class GridCells:
    """A grid as arrays."""

    pose: GridPose
    resolution: float
    """Edge of a cell [m]."""
    probability: np.ndarray
    """(X, Y, Z) int8: -1 unknown, else the probability of being occupied [%]."""
    labels: np.ndarray | None = None
    """(X, Y, Z) uint8, 255 = no class; None when no classes are known."""
    completed: np.ndarray | None = None
    """(X, Y, Z) bool, True = occupied only according to rendered views; None = all observed."""

    @property
    def known(self) -> np.ndarray:
        """(X, Y, Z) bool: free or occupied."""
        return self.probability >= 0

    @property
    def occupied(self) -> np.ndarray:
        """(X, Y, Z) bool."""
        return self.probability >= OCCUPIED_FROM


@dataclass(frozen=True)
class DenseGrid:
    """The fields of VoxelGrid.msg; arrays are flat, x fastest."""

    pose: GridPose
    resolution: float
    size_x: int
    size_y: int
    size_z: int
    data: np.ndarray
    labels: np.ndarray
    completed: np.ndarray


@dataclass(frozen=True)
class CompactGrid:
    """The fields of VoxelGridCompact.msg; bit-planes, z fastest."""

    pose: GridPose
    resolution: float
    size_x: int
    size_y: int
    size_z: int
    known: np.ndarray
    occupied: np.ndarray
    probability_layout: int
    probability: np.ndarray
    label: np.ndarray
    completed: np.ndarray
    scale_source: int
    frame_source: int


def check_cells(cells: GridCells) -> tuple[int, int, int]:
    """Check what a caller wants to encode; return the shape (X, Y, Z)."""
    probability = cells.probability
    _check_array("probability", probability, np.int8, None)
    if probability.ndim != 3:
        raise InputError(
            f"probability has shape {probability.shape}; it must be three-dimensional (X, Y, Z)"
        )
    shape = probability.shape
    _check_shape(shape, MAX_CELLS)
    if cells.labels is not None:
        _check_array("labels", cells.labels, np.uint8, shape)
    if cells.completed is not None:
        _check_array("completed", cells.completed, np.bool_, shape)
    _check_pose(cells.pose, cells.resolution)
    check_probability(probability)
    return shape


def _check_array(
    name: str, array: np.ndarray, dtype: type[np.generic], shape: tuple[int, ...] | None
) -> None:
    if array.dtype != dtype:
        raise InputError(
            f"{name} is of type {array.dtype}; convert it with .astype(np.{np.dtype(dtype)})"
        )
    if shape is not None and array.shape != shape:
        raise InputError(f"{name} has shape {array.shape}; probability has {shape}: make it equal")


def check_box(grid: DenseGrid | CompactGrid, max_cells: int) -> tuple[int, int, int]:
    """Check size and pose of a received grid; return the shape (X, Y, Z)."""
    shape = (int(grid.size_x), int(grid.size_y), int(grid.size_z))
    _check_shape(shape, max_cells)
    _check_pose(grid.pose, grid.resolution)
    return shape


def _check_shape(shape: tuple[int, ...], max_cells: int) -> None:
    if min(shape) < 1:
        raise InputError(f"the grid has size {shape}; each side must be at least one cell")
    if prod(shape) > max_cells:
        raise InputError(
            f"the grid has {prod(shape)} cells ({' x '.join(map(str, shape))}), more than the "
            f"limit of {max_cells}; make it smaller or its cells larger"
        )


def _check_pose(pose: GridPose, resolution: float) -> None:
    if not (isfinite(resolution) and resolution > 0):
        raise InputError(f"resolution is {resolution} m; it must be finite and more than zero")
    if not all(isfinite(value) for value in (*pose.position, *pose.quat_xyzw)):
        raise InputError(
            f"the grid's origin is not finite: position {pose.position}, "
            f"quaternion {pose.quat_xyzw}; the sender must not publish it"
        )
    norm = sum(value * value for value in pose.quat_xyzw) ** 0.5
    if abs(norm - 1.0) > 1e-3:
        raise InputError(
            f"the quaternion {pose.quat_xyzw} of the grid's origin has length {norm:.4g}; "
            "it must have length one (no rotation is 0, 0, 0, 1)"
        )


def check_probability(percent: np.ndarray) -> None:
    """Refuse probabilities other than -1 and 0 to 100 percent."""
    lowest, highest = int(percent.min()), int(percent.max())
    if lowest < UNKNOWN or highest > 100:
        wrong = lowest if lowest < UNKNOWN else highest
        raise InputError(
            f"a cell has probability {wrong}; values are -1 for unknown, or 0 to 100 percent"
        )


def check_layout(layout: int) -> int:
    """Refuse values of `probability_layout` that do not exist."""
    if layout not in (PROBABILITY_NONE, PROBABILITY_PER_OCCUPIED_CELL, PROBABILITY_PER_CELL):
        raise InputError(
            f"probability_layout is {layout}; it must be 0 (none), 1 (per occupied cell) "
            "or 2 (per cell)"
        )
    return layout


def check_length(name: str, values: np.ndarray, expected: int, meaning: str) -> None:
    """Refuse an array of another length than expected."""
    if values.size != expected:
        raise InputError(
            f"{name} has {values.size} entries where {expected} belong ({meaning}); "
            "sender and reader must use the same definition of the message"
        )


def check_length_or_empty(name: str, values: np.ndarray, expected: int, meaning: str) -> None:
    """Refuse an array that is neither empty nor of the expected length."""
    if values.size:
        check_length(name, values, expected, f"{meaning}, or nothing")


def code_of(name: str, names: tuple[str, ...], field: str) -> int:
    """The number that a message carries for a name."""
    if name not in names:
        raise InputError(f"{field} is '{name}'; it must be one of {', '.join(names)}")
    return names.index(name)


def name_of(code: int, names: tuple[str, ...], field: str) -> str:
    """The name of a number that a message carries."""
    if not 0 <= code < len(names):
        raise InputError(
            f"{field} is {code}; known are 0 to {len(names) - 1} ({', '.join(names)})"
        )
    return names[code]
