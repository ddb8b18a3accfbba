# SPDX-License-Identifier: Apache-2.0
"""A synthetic street: seed -> roads, style, primitives, and the path of the ego vehicle.

World frame: x forward, y left, z up, metres; the ground is a relief with kerbs. The same seed
gives the same world on every machine because only NumPy's generator draws.
"""

import math

import numpy as np
import torch

from occany_core.synthetic.carriageways import map_edges
from occany_core.synthetic.ground_rays import Ground
from occany_core.synthetic.lean import draw_lean
from occany_core.synthetic.primitives import Numbers, PrimitiveBuilder, Primitives
from occany_core.synthetic.relief import draw_relief, lifted, standing_frame
from occany_core.synthetic.roads import draw_roads, lane_region, left_of
from occany_core.synthetic.street_filling import EGO_START, StreetFiller
from occany_core.synthetic.street_style import draw_style

EGO_SEED_OFFSET = 17
RELIEF_SEED_OFFSET = 23
LEAN_SEED_OFFSET = 31
EGO_TOP_SPEED = 12.0  # m/s


class StreetWorld:
    """One seeded street world.

    Fields: `seed`, `roads` (the first is the ego road), `style`, `ground` (on the CPU), `lean` of
    the ego vehicle, and `primitives` in street coordinates, those beside the carriageways raised
    by the kerb.

    Args:
        seed: Decides everything.
        lean: How many times as strongly as usual the ego vehicle leans.
    """

    def __init__(self, seed: int, lean: float = 1.0) -> None:
        rng = np.random.default_rng(seed)
        builder = PrimitiveBuilder(rng)
        self.seed = seed
        self.roads = draw_roads(rng)
        self.style = draw_style(rng)
        StreetFiller(builder, self.roads, self.style).fill()
        relief = draw_relief(np.random.default_rng(seed + RELIEF_SEED_OFFSET))
        self.ground = Ground(relief, map_edges(self.roads))
        self.lean = draw_lean(np.random.default_rng(seed + LEAN_SEED_OFFSET), lean)
        self.primitives = builder.pack()
        _raise_by_kerb(self.primitives, self.ground)

    def placed_at(self, seconds: float) -> tuple[np.ndarray, np.ndarray]:
        """Centres (P,3) in the world, metres, and shears (P,2) in rise per metre along x and y."""
        bodies = self.primitives
        center = bodies.centers_at(seconds)
        slants = bodies.slant * np.cos(bodies.yaw), bodies.slant * np.sin(bodies.yaw)
        center[:, 2], *shear = lifted(self.ground.relief, center, bodies.leaning, slants)
        return center, np.stack(shear, -1)

    def ego_poses(
        self, seconds: Numbers, speed: float | None = None, start: float = EGO_START
    ) -> np.ndarray:
        """`world_from_rig` (T,4,4) at the given times, on the right-hand lane of the ego road.

        seconds (T,) from the start; speed in m/s (drawn from the seed when None);
        start is the arc length in metres at second 0. The rig's origin lies on the ground, its x
        axis points along the lane, its z axis is the normal of the ground there (not gravity's),
        but for the lean of the vehicle on its springs.
        """
        rng = np.random.default_rng(self.seed + EGO_SEED_OFFSET)
        speed = rng.uniform(0, EGO_TOP_SPEED) if speed is None else speed
        road = self.roads[0]
        lateral = -0.5 * lane_region(road, self.style.parking) / max(road.lanes, 1)
        poses = []
        for second in seconds:
            point, heading = road.at(start + speed * second)
            drift = lateral + 0.15 * math.sin(0.3 * second)
            x, y = point + drift * left_of(heading)
            poses.append(standing_frame(self.ground.relief, x, y, heading) @ self.lean.at(second))
        return np.stack(poses)


def _raise_by_kerb(primitives: Primitives, ground: Ground) -> None:
    """Lifts what stands beside the carriageways, whole instances by where their first part is."""
    _, first, owner = np.unique(primitives.instance, return_index=True, return_inverse=True)
    x, y = torch.from_numpy(np.ascontiguousarray(primitives.center[first, :2].T))
    raised = (ground.edges.at(x, y) >= 0).numpy()
    primitives.center[:, 2] += ground.relief.kerb * raised[owner]
