# SPDX-License-Identifier: Apache-2.0
"""Where the carriageways are: roads -> map of the distance to their edges, read between cells.

The map, not the polylines, decides what is road and what is raised, so rays, voxels and colours
agree. Corners of crossings come out rounded by about half a metre.
"""

from dataclasses import dataclass

import numpy as np
import torch

from occany_core.synthetic.classes import SemanticClass
from occany_core.synthetic.ragged import rows
from occany_core.synthetic.roads import Road

CELL = 1.0  # metres
FARTHEST = 12.0  # metres beyond an edge up to which distances are told apart


@dataclass(frozen=True)
class EdgeMap:
    """Distances beyond the nearest carriageway's edge, negative inside, metres.

    values (X,Y) float32 at origin + index * CELL; sidewalk (X,Y) float32: width of the sidewalk of
    the nearest road there; origin (2,) world frame, metres.
    """

    values: torch.Tensor
    sidewalk: torch.Tensor
    origin: torch.Tensor

    def to(self, device: torch.device) -> "EdgeMap":
        """The same map on a device."""
        parts = (part.to(device) for part in (self.values, self.sidewalk, self.origin))
        return EdgeMap(*parts)

    def at(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Distance beyond the nearest edge at points (M,), `FARTHEST` outside the map."""
        cells_x, cells_y = self.values.shape
        x = ((x - self.origin[0]) / CELL).clamp(0, cells_x - 1.001)
        y = ((y - self.origin[1]) / CELL).clamp(0, cells_y - 1.001)
        column, row = x.floor(), y.floor()
        x, y = x - column, y - row
        first = column.long() * cells_y + row.long()
        flat = self.values.view(-1)
        near = torch.lerp(rows(flat, first), rows(flat, first + 1), y)
        far = torch.lerp(rows(flat, first + cells_y), rows(flat, first + cells_y + 1), y)
        return torch.lerp(near, far, x)

    def sidewalk_at(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Width (M,) of the sidewalk of the road nearest to points (M,), metres."""
        cells_x, cells_y = self.values.shape
        column = ((x - self.origin[0]) / CELL).round().long().clamp(0, cells_x - 1)
        row = ((y - self.origin[1]) / CELL).round().long().clamp(0, cells_y - 1)
        return rows(self.sidewalk.view(-1), column * cells_y + row)

    def classes_at(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        """Occ3D class (M,) int64 of the ground at points (M,)."""
        return classes_beyond(self.at(x, y), self.sidewalk_at(x, y))


def classes_beyond(edge_distance: torch.Tensor, sidewalk: torch.Tensor) -> torch.Tensor:
    """Occ3D class (M,) int64 at a distance beyond the edge of a carriageway, metres."""
    semantics = torch.full_like(edge_distance, int(SemanticClass.TERRAIN), dtype=torch.int64)
    semantics[edge_distance < sidewalk] = int(SemanticClass.SIDEWALK)
    semantics[edge_distance < 0] = int(SemanticClass.DRIVEABLE_SURFACE)
    return semantics


def map_edges(roads: list[Road]) -> EdgeMap:
    """Map around all roads; its border lies more than `FARTHEST` from every edge."""
    widest = max(road.half_width for road in roads) + FARTHEST + 2 * CELL
    points = np.concatenate([road.points for road in roads])
    origin = np.floor(points.min(0) - widest)
    shape = np.ceil((points.max(0) + widest - origin) / CELL).astype(int) + 1
    values, sidewalk = np.full(shape, FARTHEST, np.float32), np.zeros(shape, np.float32)
    for road in roads:
        reach = road.half_width + FARTHEST
        low = np.floor((np.minimum(road.points[:-1], road.points[1:]) - reach - origin) / CELL)
        high = np.ceil((np.maximum(road.points[:-1], road.points[1:]) + reach - origin) / CELL)
        for k, (first, last) in enumerate(zip(low.astype(int), high.astype(int), strict=True)):
            window = np.s_[first[0] : last[0] + 1, first[1] : last[1] + 1]
            x = np.arange(first[0], last[0] + 1, dtype=np.float32) * CELL + origin[0]
            y = np.arange(first[1], last[1] + 1, dtype=np.float32) * CELL + origin[1]
            beyond = _distance(x, y, road.points[k], road.points[k + 1]) - road.half_width
            closer = beyond < values[window]
            values[window][closer] = beyond[closer]
            sidewalk[window][closer] = road.sidewalk
    origin = torch.tensor(origin, dtype=torch.float32)
    return EdgeMap(torch.from_numpy(values), torch.from_numpy(sidewalk), origin)


def _distance(x: np.ndarray, y: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Distance (X,Y) of grid points x (X,), y (Y,) to the segment from start (2,) to end (2,)."""
    dx, dy = (end - start).astype(np.float32)
    ox, oy = x[:, None] - np.float32(start[0]), y[None] - np.float32(start[1])
    share = ((ox * dx + oy * dy) / (dx * dx + dy * dy)).clip(0, 1)
    rest_x, rest_y = ox - share * dx, oy - share * dy
    return np.sqrt(rest_x * rest_x + rest_y * rest_y)
