# SPDX-License-Identifier: Apache-2.0
"""Fills the sides of every road: buildings, trees, furniture, parked cars, people, traffic.

World frame, metres. The order of random draws is part of the layout: a seed names one world.
"""

import math

import numpy as np

from occany_core.synthetic.classes import SemanticClass
from occany_core.synthetic.primitives import Material, PrimitiveBuilder, Shape
from occany_core.synthetic.roads import Road, lane_region, left_of
from occany_core.synthetic.street_furniture import (
    FURNITURE_MIX,
    add_building,
    add_fence,
    add_furniture,
)
from occany_core.synthetic.street_objects import add_person, add_tree, add_vehicle
from occany_core.synthetic.street_style import StreetStyle

EGO_START = 70.0  # arc length in metres where the ego vehicle starts on the main road
EGO_CLEARANCE = 16.0  # metres before and behind it that its own lane stays empty


class StreetFiller:
    """Places everything beside and on a list of roads; the first road is the ego vehicle's."""

    def __init__(self, builder: PrimitiveBuilder, roads: list[Road], style: StreetStyle) -> None:
        self.builder = builder
        self.rng = builder.rng
        self.roads = roads
        self.style = style

    def fill(self) -> None:
        """Adds all objects of the world to the builder."""
        for road in self.roads:
            for side in (1, -1):
                self._building_line(road, side)
                self._lamps_and_trees(road, side)
                self._furniture(road, side)
                self._parked_cars(road, side)
                self._pedestrians(road, side)
                self._traffic(road, side)
        self._hills()
        self._overpass()

    def _building_line(self, road: Road, side: int) -> None:
        rng = self.rng
        s = rng.uniform(0, 8)
        while s < road.length:
            width, depth = rng.uniform(7, 26), rng.uniform(7, 18)
            if rng.random() < self.style.building_share:
                self._building(road, side, s + width / 2, width, depth)
            elif rng.random() < 0.5:
                self._garden(road, side, s + width / 2, width)
            s += width + (rng.uniform(0, 1) if rng.random() < 0.6 else rng.uniform(2, 9))

    def _building(self, road: Road, side: int, s: float, width: float, depth: float) -> None:
        rng = self.rng
        setback = rng.uniform(0, 1.0) if rng.random() < 0.7 else rng.uniform(2, 12)
        center, heading = road.beside(
            s, road.half_width + road.sidewalk + depth / 2 + setback, side
        )
        along = np.array([math.cos(heading), math.sin(heading)])
        outline = np.stack(
            [
                center + (a * width / 2 * along + b * depth / 2 * left_of(heading))
                for a in (-1, 0, 1)
                for b in (-1, 0, 1)
            ]
        )
        if self._off_road(outline, 0.2):
            add_building(self.builder, center, heading, width, depth, self.style)

    def _garden(self, road: Road, side: int, s: float, width: float) -> None:
        rng = self.rng
        offset = road.half_width + road.sidewalk + rng.uniform(0.3, 1.0)
        position, heading = road.beside(s, offset, side)
        if self._off_road(position, 0) and rng.random() < 0.6:
            add_fence(self.builder, position, heading, width, self.style.palette[0])
        point, heading = road.at(s)
        for _ in range(int(rng.integers(0, 3))):
            shifted = point + (offset + rng.uniform(2, 10)) * side * left_of(heading)
            position = shifted + rng.normal(0, 3, 2)
            if self._off_road(position, 0.5):
                add_tree(self.builder, position)

    def _lamps_and_trees(self, road: Road, side: int) -> None:
        rng = self.rng
        for s in self._spaced(road, rng.uniform(18, 32)):
            position, heading = road.beside(s, road.half_width + 0.5, side)
            if self._clear_of_carriageways(position) and rng.random() < 0.8:
                add_furniture(self.builder, position, heading - side * math.pi / 2, "lamp")
        if rng.random() < 0.3 + 0.6 * self.style.greenery:
            for s in self._spaced(road, rng.uniform(6, 14)):
                along = s + rng.normal(0, 0.5)
                position, _ = road.beside(along, road.half_width + rng.uniform(0.8, 1.4), side)
                if self._clear_of_carriageways(position) and rng.random() < 0.75:
                    add_tree(self.builder, position)

    def _furniture(self, road: Road, side: int) -> None:
        rng = self.rng
        for s in self._spaced(road, 9 / self.style.furniture):
            offset = road.half_width + rng.uniform(0.4, road.sidewalk)
            position, heading = road.beside(s, offset, side)
            if self._clear_of_carriageways(position):
                kind = str(rng.choice(FURNITURE_MIX))
                yaw = heading + (0 if side > 0 else math.pi)
                add_furniture(self.builder, position, yaw, kind)

    def _parked_cars(self, road: Road, side: int) -> None:
        rng = self.rng
        for s in self._spaced(road, 6.2):
            if not (road.has_parking and rng.random() < self.style.parking * 0.8):
                continue
            position, heading = road.beside(s, road.half_width - 1.15, side)
            if not all(o.distance(position) > o.half_width + 2.5 for o in self._others(road)):
                continue
            position = position + rng.normal(0, 0.12, 2)
            yaw = heading + (math.pi if side > 0 else 0) + rng.normal(0, 0.03)
            kind = str(rng.choice(["car", "suv", "van"], p=[0.55, 0.33, 0.12]))
            add_vehicle(self.builder, position, yaw, kind=kind)

    def _pedestrians(self, road: Road, side: int) -> None:
        rng = self.rng
        for s in self._spaced(road, rng.uniform(5, 30) / max(self.style.traffic, 0.2)):
            offset = road.half_width + rng.uniform(0.5, max(0.6, road.sidewalk))
            position, heading = road.beside(s, offset, side)
            if self._clear_of_carriageways(position):
                yaw = heading + rng.choice([0, math.pi]) + rng.normal(0, 0.3)
                speed = rng.choice([0, rng.uniform(0.6, 1.6)])
                add_person(self.builder, position, yaw, speed=speed)

    def _traffic(self, road: Road, side: int) -> None:
        """Moving vehicles and cyclists, driving on the right."""
        rng = self.rng
        lane_width = lane_region(road, self.style.parking) / max(road.lanes, 1)
        for s in self._spaced(road, rng.uniform(12, 50) / max(self.style.traffic, 0.15)):
            lane = int(rng.integers(road.lanes))
            position, heading = road.beside(s, (lane + 0.5) * lane_width, side)
            in_ego_lane = road is self.roads[0] and side < 0 and lane == 0
            if in_ego_lane and (abs(s - EGO_START) < EGO_CLEARANCE or rng.random() < 0.5):
                continue
            yaw = heading + (math.pi if side > 0 else 0)
            if rng.random() < 0.06:
                add_person(self.builder, position, yaw, speed=rng.uniform(2, 6), cyclist=True)
            else:
                speed = float(rng.choice([0, rng.uniform(2, 13)]))
                add_vehicle(self.builder, position, yaw, speed=speed)

    def _hills(self) -> None:
        rng = self.rng
        if rng.random() >= 0.3:
            return
        for _ in range(int(rng.integers(1, 4))):
            angle = rng.uniform(0, 2 * math.pi)
            center = np.array([30, 0]) + 140 * np.array([math.cos(angle), math.sin(angle)])
            self.builder.add(
                Shape.ELLIPSOID,
                (*center, -4),
                (rng.uniform(40, 70), rng.uniform(40, 70), rng.uniform(8, 24)),
                angle,
                Material.HEDGE,
                SemanticClass.TERRAIN,
                self.builder.new_instance(),
                self.style.terrain,
            )

    def _overpass(self) -> None:
        rng = self.rng
        if rng.random() >= 0.12:
            return
        position, heading = self.roads[0].at(rng.uniform(100, 150))
        self.builder.add(
            Shape.BOX,
            (*position, 6.0),
            (3.5, 40, 0.6),
            heading,
            Material.PLAIN,
            SemanticClass.MANMADE,
            self.builder.new_instance(),
            (0.5, 0.5, 0.48),
        )

    def _spaced(self, road: Road, gap: float) -> np.ndarray:
        """Arc lengths every `gap` metres, starting at a random one below `gap`."""
        return np.arange(self.rng.uniform(0, gap), road.length, gap)

    def _others(self, road: Road) -> list[Road]:
        return [other for other in self.roads if other is not road]

    def _off_road(self, points: np.ndarray, margin: float) -> bool:
        """Whether all points (...,2) keep `margin` metres from every carriageway and kerb zone."""
        return all(
            np.all(road.distance(points) > road.half_width + road.sidewalk * 0.5 + margin)
            for road in self.roads
        )

    def _clear_of_carriageways(self, position: np.ndarray) -> bool:
        """Whether a point (2,) lies beside every carriageway (its edge zone of 0.3 m counts)."""
        return all(road.distance(position) > road.half_width - 0.9 + 0.6 for road in self.roads)
