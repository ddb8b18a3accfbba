# SPDX-License-Identifier: Apache-2.0
"""A voxel grid seen from above: slices of height as 2D maps for planners. Without ROS.

The grid is upright and lies in the vehicle's frame (x forward, y left, z up, metres), so a column
of cells is one place on the ground. `X Y Z` cells.
"""

import math
from dataclasses import dataclass

import numpy as np

from occany_core import VoxelGrid
from occany_core.errors import ConfigError

UNKNOWN, FREE, OCCUPIED = -1, 0, 100
UNKNOWN_IS = {"unknown": UNKNOWN, "free": FREE, "occupied": OCCUPIED}
OCCUPIED_FROM = 50
"""Percent; cells below it are free, whatever `BandRules.min_probability` asks for."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Band:
    """A slice of height: the cells whose centre lies in [z_min, z_max) [m]."""

    name: str
    z_min: float
    z_max: float


@dataclass(frozen=True, kw_only=True, slots=True)
class BandRules:
    """When a column of a band is occupied, free or unknown."""

    bands: tuple[Band, ...] = ()
    min_probability: int = OCCUPIED_FROM
    """Percent that a cell needs to count as an obstacle."""
    min_cells: int = 1
    """Such cells that make a column occupied."""
    min_known_share: float = 0.0
    """Part of a column's cells that must be known to be free for the column to be free."""
    unknown_is: str = "unknown"
    completed_counts: bool = True
    """Whether cells that only rendered views filled are obstacles; otherwise they are unknown."""
    scaled: bool = False
    """Give percent of the most probable cell instead of 0 and 100."""
    free_labels: tuple[int, ...] = ()
    """Classes that are no obstacles, such as road; for grids with labels."""
    max_tilt_deg: float = 10.0
    """Tilt of the grid against the vertical above which there are no bands."""
    footprint: tuple[float, ...] = ()
    """Corners x, y, x, y, ... of the vehicle [m]; columns inside are free."""


def tilt_error(upright_from_base: np.ndarray | None, max_tilt_deg: float, base_frame: str) -> str:
    """Say why a grid is too tilted to be looked at from above; empty where it is not.

    Args:
        upright_from_base: Pose (4, 4) of the grid's frame in one whose z axis is vertical; None
            where none is known, and the grid is taken to be upright.
        max_tilt_deg: Limit.
        base_frame: Name of the grid's frame.
    """
    if upright_from_base is None:
        return ""
    tilt = math.degrees(math.acos(np.clip(upright_from_base[2, 2], -1.0, 1.0)))
    if tilt <= max_tilt_deg:
        return ""
    return (
        f"{base_frame} is tilted {tilt:.1f} deg against the vertical, so heights in it are not "
        f"heights above the ground; no height band is published above {max_tilt_deg:g} deg: set "
        "frames.base_frame to a frame that stays upright, or raise projection.max_tilt_deg"
    )


def layers_of(band: Band, origin_z: float, resolution: float, count: int) -> slice:
    """Return the layers of cells that belong to a band.

    Args:
        band: The slice of height.
        origin_z: Lower face of the lowest layer [m].
        resolution: Edge of a cell [m].
        count: Layers of the grid.

    Raises:
        ConfigError: No layer has its centre in the band.
    """
    centres = origin_z + (np.arange(count) + 0.5) * resolution
    inside = np.flatnonzero((centres >= band.z_min - 1e-6) & (centres < band.z_max - 1e-6))
    if not len(inside):
        raise ConfigError(
            f"the height band {band.name!r} from {band.z_min} to {band.z_max} m holds the centre "
            f"of no layer of cells; the grid has {count} from {centres[0]:.2f} to "
            f"{centres[-1]:.2f} m, {resolution} m apart: change projection.z_min and z_max"
        )
    return slice(int(inside[0]), int(inside[-1]) + 1)


def project(grid: VoxelGrid, band: Band, rules: BandRules) -> np.ndarray:
    """Look at a band from above.

    A column is occupied when enough of its cells are obstacles. It is free when none of its cells
    is occupied and enough of them are known to be free. Everything else is unknown, also a column
    whose obstacles are too few or not probable enough.

    Returns:
        int8 (Y, X): the rows of nav_msgs/OccupancyGrid; -1 unknown, 0 to 100 percent.

    Raises:
        ConfigError: As `layers_of`.
    """
    origin, resolution, shape = grid.spec.origin, grid.spec.resolution, grid.spec.shape
    layers = layers_of(band, float(origin[2]), float(resolution), shape[2])
    probability = np.asarray(grid.probability)[:, :, layers]
    free = (probability >= 0) & (probability < OCCUPIED_FROM)
    occupied = probability >= OCCUPIED_FROM
    if not rules.completed_counts:
        occupied &= ~np.asarray(grid.completed)[:, :, layers]
    harmless = np.zeros_like(occupied)
    if grid.labels is not None and rules.free_labels:
        harmless = occupied & np.isin(np.asarray(grid.labels)[:, :, layers], rules.free_labels)
        occupied &= ~harmless
    obstacles = occupied & (probability >= rules.min_probability)
    is_occupied = obstacles.sum(axis=2) >= rules.min_cells
    known = (free | harmless).sum(axis=2)
    enough = max(1, rules.min_known_share * probability.shape[2] - 1e-6)
    is_free = ~occupied.any(axis=2) & (known >= enough)
    columns = np.full(shape[:2], UNKNOWN_IS[rules.unknown_is], np.int8)
    columns[is_occupied], columns[is_free] = OCCUPIED, FREE
    if rules.scaled:
        columns[is_occupied] = np.where(obstacles, probability, 0).max(axis=2)[is_occupied]
        columns[is_free] = np.where(free, probability, 0).max(axis=2)[is_free]
    if rules.footprint:
        x, y = (
            float(origin[axis]) + (np.arange(shape[axis]) + 0.5) * float(resolution)
            for axis in (0, 1)
        )
        columns[_inside(x[:, None], y[None, :], rules.footprint)] = FREE
    return np.ascontiguousarray(columns.T)


def _inside(x: np.ndarray, y: np.ndarray, corners: tuple[float, ...]) -> np.ndarray:
    """Tell which places lie in a polygon, by counting the edges to their right."""
    polygon = np.reshape(np.asarray(corners, np.float64), (-1, 2))
    inside = np.zeros(np.broadcast_shapes(x.shape, y.shape), bool)
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, axis=0), strict=True):
        crosses = (y0 > y) != (y1 > y)
        slope = (x1 - x0) / (y1 - y0) if y1 != y0 else 0.0
        inside ^= crosses & (x < x0 + (y - y0) * slope)
    return inside
