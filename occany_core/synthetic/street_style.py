# SPDX-License-Identifier: Apache-2.0
"""Character of one street: random generator -> densities and colours."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class StreetStyle:
    """Character of one world; shares lie in 0..1, colours are linear albedo.

    building_share: continuity of the building line; height_class: 0 low, 1 middle, 2 high;
    greenery, furniture, traffic, parking: densities; palette (6,3): wall colours;
    asphalt, sidewalk: grey levels; terrain (3,): colour.
    """

    building_share: float
    height_class: int
    greenery: float
    furniture: float
    traffic: float
    parking: float
    palette: np.ndarray
    asphalt: float
    sidewalk: float
    terrain: np.ndarray


def draw_style(rng: np.random.Generator) -> StreetStyle:
    """Draws the densities and colours of one world."""
    building_share = rng.uniform(0.25, 1.0)
    height_class = rng.choice([0, 0, 1, 2])
    greenery = rng.uniform(0, 1)
    furniture = rng.uniform(0.2, 1)
    traffic = rng.uniform(0.1, 1)
    parking = rng.uniform(0, 1)
    grey = rng.uniform(0.28, 0.82, (6, 1))
    saturation = rng.uniform(0.05, 0.45, (6, 1))
    tint = rng.uniform(0.15, 0.9, (6, 3))
    palette = (grey * (1 - saturation) + saturation * tint) * np.array([1.06, 1, 0.93])
    asphalt = rng.uniform(0.10, 0.34)
    sidewalk = rng.uniform(0.35, 0.7)
    grass, soil = np.array([0.22, 0.34, 0.12]), np.array([0.42, 0.36, 0.27])
    terrain = (grass if rng.random() < 0.65 else soil) * rng.uniform(0.7, 1.3)
    return StreetStyle(
        building_share=building_share,
        height_class=height_class,
        greenery=greenery,
        furniture=furniture,
        traffic=traffic,
        parking=parking,
        palette=palette,
        asphalt=asphalt,
        sidewalk=sidewalk,
        terrain=terrain,
    )
