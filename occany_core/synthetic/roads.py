# SPDX-License-Identifier: Apache-2.0
"""Roads of a synthetic street: random generator -> polylines with carriageway and sidewalk width.

World frame, metres. The first road is the one the ego vehicle drives along.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

MAIN_ROAD_STEP = 2.0  # metres between the points of the main road
MAIN_ROAD_POINTS = 130
HEADING_PROBE = 0.5  # metres to either side between which the heading is measured
SIDE_ROAD_REACH = 110.0  # metres from the crossing to either end


@dataclass(frozen=True)
class Road:
    """A polyline in the plane with constant cross-section.

    points (K,2) metres; half_width of the carriageway, sidewalk width, metres;
    lanes per direction; arc_length (K,) metres at each point.
    """

    points: np.ndarray
    half_width: float
    sidewalk: float
    lanes: int
    arc_length: np.ndarray

    @property
    def length(self) -> float:
        """Length of the centre line in metres."""
        return self.arc_length[-1]

    @property
    def has_parking(self) -> bool:
        """Whether a row of parked cars fits beside the lanes."""
        return self.half_width >= self.lanes * 3.0 + 1.2

    def at(self, s: float) -> tuple[np.ndarray, float]:
        """Point (2,) and heading in radians at arc length `s` metres (clamped to the ends)."""
        probes = np.array([s, s + HEADING_PROBE, s - HEADING_PROBE])
        x = np.interp(probes, self.arc_length, self._x)
        y = np.interp(probes, self.arc_length, self._y)
        return np.array([x[0], y[0]]), np.arctan2(y[1] - y[2], x[1] - x[2])

    def beside(self, s: float, offset: float, side: int) -> tuple[np.ndarray, float]:
        """Point `offset` metres left (side 1) or right (side -1) of `at(s)`, and heading."""
        point, heading = self.at(s)
        return point + offset * side * left_of(heading), heading

    def distance(self, query: np.ndarray) -> np.ndarray:
        """Distance in metres of points (...,2) to the centre line, shape (...)."""
        dx, dy = self._step_x, self._step_y
        ox, oy = query[..., 0, None] - self._x[:-1], query[..., 1, None] - self._y[:-1]
        along = ((ox * dx + oy * dy) / self._squared_lengths).clip(0, 1)
        rest_x, rest_y = ox - along * dx, oy - along * dy
        return np.sqrt((rest_x * rest_x + rest_y * rest_y).min(-1))

    @cached_property
    def _x(self) -> np.ndarray:
        return np.ascontiguousarray(self.points[:, 0])

    @cached_property
    def _y(self) -> np.ndarray:
        return np.ascontiguousarray(self.points[:, 1])

    @cached_property
    def _step_x(self) -> np.ndarray:
        return np.diff(self._x)

    @cached_property
    def _step_y(self) -> np.ndarray:
        return np.diff(self._y)

    @cached_property
    def _squared_lengths(self) -> np.ndarray:
        return self._step_x * self._step_x + self._step_y * self._step_y


def left_of(heading: float) -> np.ndarray:
    """Unit vector (2,) pointing left of a heading in radians."""
    return np.array([-math.sin(heading), math.cos(heading)])


def lane_region(road: Road, parking_share: float) -> float:
    """Width in metres from the centre line that moving traffic uses in one direction."""
    return road.half_width - (2.2 if road.has_parking and parking_share > 0.05 else 0.2)


def draw_roads(rng: np.random.Generator) -> list[Road]:
    """Main road with gentle bends, then zero to three straight side roads across it."""
    main = _draw_main_road(rng)
    roads = [main]
    for _ in range(int(rng.choice([0, 1, 1, 2, 3]))):
        crossing, heading = main.at(rng.uniform(50, 190))
        angle = heading + rng.uniform(1.2, 1.95)
        direction = np.array([math.cos(angle), math.sin(angle)])
        lanes = int(rng.choice([1, 1, 2]))
        ends = np.stack(
            [crossing - SIDE_ROAD_REACH * direction, crossing + SIDE_ROAD_REACH * direction]
        )
        half_width = lanes * 3.2 + rng.uniform(0, 1.5)
        roads.append(_road(ends, half_width, rng.uniform(1.4, 3.5), lanes))
    return roads


def _draw_main_road(rng: np.random.Generator) -> Road:
    lanes = int(rng.choice([1, 2, 2, 3]))
    lane_width = rng.uniform(2.9, 3.6)
    shoulder = rng.uniform(0, 2.2) if rng.random() < 0.6 else 0
    x, y, heading, curvature, remaining = -70.0, 0.0, 0.0, 0.0, 0
    points = []
    for _ in range(MAIN_ROAD_POINTS):
        points.append((x, y))
        if remaining <= 0:
            remaining = int(rng.integers(8, 30))
            curvature = float(rng.choice([0, 0, 0, 1, -1])) * rng.uniform(0.004, 0.03)
        remaining -= 1
        if x > -60:
            heading += curvature * MAIN_ROAD_STEP
        heading = float(np.clip(heading, -1.1, 1.1))
        x += MAIN_ROAD_STEP * math.cos(heading)
        y += MAIN_ROAD_STEP * math.sin(heading)
    half_width = lanes * lane_width + shoulder
    return _road(np.array(points), half_width, rng.uniform(1.4, 4.5), lanes)


def _road(points: np.ndarray, half_width: float, sidewalk: float, lanes: int) -> Road:
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    arc_length = np.concatenate([[0.0], np.cumsum(steps)])
    return Road(points, half_width, sidewalk, lanes, arc_length)
