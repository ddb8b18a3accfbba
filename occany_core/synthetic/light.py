# SPDX-License-Identifier: Apache-2.0
"""Time of day and weather of a world: seed -> light, sky, fog, rain and the camera's tone."""

import math
from dataclasses import dataclass

import torch

NIGHT_SHARE = 0.14
RAIN_SHARE = 0.14
MOON = (0.030, 0.036, 0.050)
NIGHT_SKY = (0.020, 0.024, 0.038)
NIGHT_AMBIENT = (0.030, 0.032, 0.040)


@dataclass(frozen=True)
class Light:
    """Weather and camera tone of one world.

    sun (3,) unit vector towards the sun (at night the moon); sun_color, sky_color, ambient (3,)
    linear light; cloud_cover 0..1; fog in 1/m; rain 0..1; lamps: light of lamps and windows, 0 by
    day; daylight: brightness of clouds and horizon; exposure, red_gain, noise (standard
    deviation), vignette.
    """

    overcast: bool
    sun: torch.Tensor
    sun_color: torch.Tensor
    sky_color: torch.Tensor
    ambient: torch.Tensor
    cloud_cover: float
    fog: float
    rain: float
    lamps: float
    daylight: float
    exposure: float
    red_gain: float
    noise: float
    vignette: float


def draw_light(seed: int, device: torch.device) -> Light:
    """Weather and tone of the world with this seed."""
    u = torch.rand(16, generator=torch.Generator().manual_seed(seed)).tolist()
    elevation, azimuth = math.radians(8 + 62 * u[0]), 2 * math.pi * u[1]
    night, rain = u[10] < NIGHT_SHARE, (0.3 + 0.7 * u[12]) * (u[11] < RAIN_SHARE)
    overcast = u[2] < 0.3 or rain > 0
    warmth = max(0.0, 1 - elevation / 0.6)
    sun = [
        math.cos(azimuth) * math.cos(elevation),
        math.sin(azimuth) * math.cos(elevation),
        math.sin(elevation),
    ]
    sun_color = torch.tensor([1.25, 1.12 - 0.25 * warmth, 0.95 - 0.5 * warmth]) * 1.15
    blue_sky = [0.45 + 0.3 * warmth, 0.62, 0.92 - 0.2 * warmth]
    sky_color = torch.tensor([0.75, 0.78, 0.82] if overcast else blue_sky)
    ambient = (0.78 if overcast else 0.42) * (0.55 + 0.45 * sky_color)
    if night:
        sun_color, sky_color, ambient = (torch.tensor(c) for c in (MOON, NIGHT_SKY, NIGHT_AMBIENT))
    haze = 0.0 if u[4] < 0.6 else 0.004 + 0.02 * u[5] ** 2
    return Light(
        overcast=overcast,
        sun=torch.tensor(sun).to(device),
        sun_color=(sun_color * (0.25 if overcast else 1.0)).to(device),
        sky_color=sky_color.to(device),
        ambient=ambient.to(device),
        cloud_cover=0.2 + 0.7 * u[3],
        fog=haze * (0.4 if night else 1.0) + 0.006 * rain,
        rain=rain,
        lamps=1.0 if night else 0.0,
        daylight=0.06 if night else 1.0,
        exposure=(0.75 + 0.55 * u[6]) * (1.9 if night else 1.0),
        red_gain=0.92 + 0.16 * u[7],
        noise=(0.004 + 0.02 * u[8]) * (1.5 if night else 1.0),
        vignette=0.25 * u[9],
    )
