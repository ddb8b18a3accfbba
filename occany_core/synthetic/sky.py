# SPDX-License-Identifier: Apache-2.0
"""Colour of the sky: world directions -> linear light with clouds and the sun's disc."""

import torch

from occany_core.synthetic.noise import value_noise
from occany_core.synthetic.scene import Scene

HORIZON_GLOW = (0.32, 0.28, 0.2)


def sky_color(scene: Scene, directions: torch.Tensor) -> torch.Tensor:
    """Linear light (M,3) seen along world directions (M,3) of any length."""
    light = scene.light
    directions = directions / directions.norm(dim=-1, keepdim=True)
    elevation = directions[:, 2].clamp(0, 1)[:, None]
    glow = torch.tensor(HORIZON_GLOW, device=directions.device)
    base = (
        light.sky_color * (1.0 - 0.45 * elevation) + (1 - elevation) ** 6 * glow * light.daylight
    )
    plane = directions[:, :2] / (directions[:, 2:].abs() + 0.12)
    x, y = plane[:, 0], plane[:, 1]
    density = (
        value_noise(x * 1.5 + scene.world.seed % 97, y * 1.5) * 0.6
        + value_noise(x * 4 + 5, y * 4) * 0.3
        + value_noise(x * 9, y * 9) * 0.1
    )
    cloud = ((density - 1 + light.cloud_cover) * 2.5).clamp(0, 1)[:, None]
    if light.overcast:
        return base * (1 - cloud) + cloud * 0.7 * light.daylight
    towards_sun = (directions @ light.sun).clamp(0, 1)
    disc = (towards_sun**300 * 6 + towards_sun**8 * 0.15)[:, None]
    return base * (1 - cloud) + cloud * 0.82 * light.daylight + light.sun_color * disc
