# SPDX-License-Identifier: Apache-2.0
"""A synthetic street: seed -> roads, style, primitives, and the path of the ego vehicle.

World frame: x forward, y left, z up, metres; ground plane z = 0. The same seed gives the same
world on every machine because only NumPy's generator draws.
"""

import math

import numpy as np

from occany_core.synthetic.primitives import Numbers, PrimitiveBuilder
from occany_core.synthetic.roads import draw_roads, lane_region, left_of
from occany_core.synthetic.street_filling import EGO_START, StreetFiller
from occany_core.synthetic.street_style import draw_style

EGO_SEED_OFFSET = 17
EGO_TOP_SPEED = 12.0  # m/s


class StreetWorld:
    """One seeded street world.

    Fields: `seed`, `roads` (the first is the ego road), `style`, `primitives`.
    """

    def __init__(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        builder = PrimitiveBuilder(rng)
        self.seed = seed
        self.roads = draw_roads(rng)
        self.style = draw_style(rng)
        StreetFiller(builder, self.roads, self.style).fill()
        self.primitives = builder.pack()

    def ego_poses(
        self, seconds: Numbers, speed: float | None = None, start: float = EGO_START
    ) -> np.ndarray:
        """`world_from_rig` (T,4,4) at the given times, on the right-hand lane of the ego road.

        seconds (T,) from the start; speed in m/s (drawn from the seed when None);
        start is the arc length in metres at second 0. The rig's origin lies on the ground.
        """
        rng = np.random.default_rng(self.seed + EGO_SEED_OFFSET)
        speed = rng.uniform(0, EGO_TOP_SPEED) if speed is None else speed
        road = self.roads[0]
        lateral = -0.5 * lane_region(road, self.style.parking) / max(road.lanes, 1)
        poses = []
        for second in seconds:
            point, heading = road.at(start + speed * second)
            drift = lateral + 0.15 * math.sin(0.3 * second)
            pose = np.eye(4)
            pose[:2, :2] = [
                [math.cos(heading), -math.sin(heading)],
                [math.sin(heading), math.cos(heading)],
            ]
            pose[:2, 3] = point + drift * left_of(heading)
            poses.append(pose)
        return np.stack(poses)
