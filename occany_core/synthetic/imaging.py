# SPDX-License-Identifier: Apache-2.0
"""What a camera adds: motion blur, tone, rain, dirt, a bonnet, noise, JPEG; seeded per world.

Pictures keep their pinhole: depth and K stay exact. `distorted` bends a finished picture as a lens
does; nothing calls it for pictures that are given out with a K.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.functional import grid_sample, pad

from occany_core.synthetic.light import Light

GAMMA = 2.2
NOISE_SEED_STRIDE = 7
SEED_OFFSET = 4_000_037
BLUR_TAPS = 5
STREAKS = 140  # of heaviest rain, per picture
BLOCK = 8  # pixels of a JPEG block
LUMA_STEPS = (  # quantisation of ITU-T T.81, table K.1
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
LUMA_FROM_RGB = (
    (0.299, 0.587, 0.114),
    (-0.168736, -0.331264, 0.5),
    (0.5, -0.418688, -0.081312),
)


@dataclass(frozen=True)
class Imaging:
    """Faults of the cameras of one world.

    exposure_time in seconds (0: no motion blur); jpeg_quality 1..100, or 0 for none; dirt: spots
    (x, y, radius, opacity) in shares of the picture's width; bonnet: share of the height that the
    vehicle's own bonnet covers at most, in views straight ahead; shot_noise: variance per light.
    """

    exposure_time: float
    jpeg_quality: int
    dirt: tuple[tuple[float, float, float, float], ...]
    bonnet: float
    shot_noise: float


def draw_imaging(seed: int, night: bool) -> Imaging:
    """Faults of the cameras of the world with this seed."""
    rng = np.random.default_rng(seed + SEED_OFFSET)
    blur = rng.uniform(0.004, 0.018) * (1.8 if night else 1.0)
    spots = rng.uniform([0, 0, 0.01, 0.15], [1, 0.6, 0.05, 0.6], (6, 4))
    return Imaging(
        exposure_time=blur if rng.random() < 0.35 else 0.0,
        jpeg_quality=int(rng.integers(45, 96)) if rng.random() < 0.5 else 0,
        dirt=tuple(map(tuple, spots[: rng.integers(1, 7)])) if rng.random() < 0.12 else (),
        bonnet=rng.uniform(0.04, 0.11) if rng.random() < 0.08 else 0.0,
        shot_noise=rng.uniform(0.0, 0.0008),
    )


def motion_blurred(picture: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Mean of a picture (F,H,W,3) along the path of each pixel, shift (F,H,W,2) in pixels."""
    height, width = picture.shape[1:3]
    size = picture.new_tensor([width, height])
    y, x = torch.meshgrid(
        torch.arange(height, device=picture.device, dtype=picture.dtype),
        torch.arange(width, device=picture.device, dtype=picture.dtype),
        indexing="ij",
    )
    pixel = torch.stack([x, y], -1)
    shift = shift.clamp(-width / 16, width / 16)
    channels, total = picture.permute(0, 3, 1, 2), torch.zeros_like(picture)
    for tap in range(BLUR_TAPS):
        at = pixel + shift * (tap / (BLUR_TAPS - 1) - 0.5)
        at = (at + 0.5) / size * 2 - 1
        sampled = grid_sample(channels, at, padding_mode="border", align_corners=False)
        total += sampled.permute(0, 2, 3, 1)
    return total / BLUR_TAPS


def developed(
    light_field: torch.Tensor, light: Light, imaging: Imaging, seed: int, ahead: torch.Tensor
) -> torch.Tensor:
    """Linear light (F,H,W,3) -> display values 0..1.

    seed names the noise; ahead (F,) bool: cameras that look along the vehicle and see its bonnet.
    """
    generator = torch.Generator(device=light_field.device).manual_seed(seed)
    gains = light_field.new_tensor([light.red_gain, 1.0, 2 - light.red_gain])
    picture = light_field * light.exposure * gains
    noise = torch.randn(picture.shape, generator=generator, device=picture.device)
    picture = picture.clamp_min(0)
    picture = (picture + noise * (picture * imaging.shot_noise).sqrt()).clamp_min(0)
    picture = (picture / (1 + 0.35 * picture)).clamp(0, 1) ** (1 / GAMMA)
    x, y = _shares(picture)
    picture = picture * (1 - light.vignette * 0.5 * (x**2 + y**2)[..., None])
    if light.rain:
        picture = _rained_on(picture, light, generator)
    picture = _occluded(picture, imaging, ahead)
    picture = (picture + noise * light.noise).clamp(0, 1)
    return jpeg_like(picture, imaging.jpeg_quality) if imaging.jpeg_quality else picture


def _shares(picture: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """X and y (H,W) of the pixels of (F,H,W,3), from -1 to 1."""
    height, width = picture.shape[1:3]
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, height, device=picture.device),
        torch.linspace(-1, 1, width, device=picture.device),
        indexing="ij",
    )
    return x, y


def _rained_on(picture: torch.Tensor, light: Light, generator: torch.Generator) -> torch.Tensor:
    """Slanted bright streaks over pictures (F,H,W,3)."""
    frames, height, width = picture.shape[:3]
    count = max(1, round(STREAKS * light.rain))
    steps = torch.arange(max(3, height // 12), device=picture.device)
    draws = torch.rand((4, frames, count, 1), generator=generator, device=picture.device)
    y = (draws[1] * height + steps * (0.4 + 0.6 * draws[2])).long()
    x = (draws[0] * width + steps * 0.12).long()
    frame = torch.arange(frames, device=picture.device)[:, None, None]
    inside = (x < width) & (y < height)
    pixel = ((frame * height + y) * width + x)[inside]
    opacity = picture.new_zeros(frames * height * width)
    opacity[pixel] = (0.08 + 0.17 * draws[3]).expand_as(inside)[inside]
    tone = 0.75 if not light.lamps else 0.3
    return torch.lerp(picture, torch.full_like(picture, tone), opacity.view(*picture.shape[:3], 1))


def _occluded(picture: torch.Tensor, imaging: Imaging, ahead: torch.Tensor) -> torch.Tensor:
    """Dirt on the glass, and the bonnet below."""
    height, width = picture.shape[1:3]
    x, y = _shares(picture)
    for spot_x, spot_y, radius, opacity in imaging.dirt:
        squared = (x / 2 + 0.5 - spot_x) ** 2 + ((y / 2 + 0.5) * height / width - spot_y) ** 2
        veil = opacity * torch.exp(-((squared / radius**2) ** 2))[..., None]
        picture = torch.lerp(picture, torch.full_like(picture, 0.32), veil)
    if imaging.bonnet:
        edge = 1 - 2 * imaging.bonnet * (1 - 0.5 * x**2)
        covered = ahead[:, None, None] & (y > edge)
        paint = (0.08 + 0.35 * (y - edge).clamp(0, 1))[..., None].expand_as(picture)
        picture = torch.where(covered[..., None], paint, picture)
    return picture


def jpeg_like(picture: torch.Tensor, quality: int) -> torch.Tensor:
    """Display values (F,H,W,3) after JPEG quantisation at a quality of 1..100.

    Colours are quantised by the luma table, at twice its steps.
    """
    frames, height, width, _ = picture.shape
    scale = (5000 / quality if quality < 50 else 200 - 2 * quality) / 100
    steps = (picture.new_tensor(LUMA_STEPS) * scale).round().clamp(1, 255)
    to_luma = picture.new_tensor(LUMA_FROM_RGB)
    channels = torch.einsum("cr,fyxr->fcyx", to_luma, picture * 255)
    channels = pad(channels, (0, -width % BLOCK, 0, -height % BLOCK), mode="replicate")
    rows_of_blocks, blocks = channels.shape[2] // BLOCK, channels.shape[3] // BLOCK
    tiles = channels.view(frames, 3, rows_of_blocks, BLOCK, blocks, BLOCK).transpose(3, 4)
    transform = _cosines(picture)
    steps = torch.stack([steps, 2 * steps, 2 * steps])[:, None, None]
    waves = (transform @ tiles @ transform.T / steps).round() * steps
    tiles = (transform.T @ waves @ transform).transpose(3, 4)
    channels = tiles.reshape(frames, 3, rows_of_blocks * BLOCK, blocks * BLOCK)
    channels = channels[:, :, :height, :width]
    rgb = torch.einsum("rc,fcyx->fyxr", torch.linalg.inv(to_luma), channels)
    return (rgb / 255).clamp(0, 1)


def _cosines(like: torch.Tensor) -> torch.Tensor:
    """Orthonormal cosine transform (8,8) of a block's row."""
    k = torch.arange(BLOCK, device=like.device, dtype=like.dtype)
    waves = torch.cos((2 * k[None] + 1) * k[:, None] * math.pi / (2 * BLOCK)) / 2
    waves[0] /= math.sqrt(2)
    return waves


def distorted(picture: torch.Tensor, K: torch.Tensor, radial: tuple[float, float]) -> torch.Tensor:
    """A pinhole picture (F,H,W,3) as a lens with radial factors k1, k2 would show it.

    K (F,3,3) pixels belongs to the pinhole and to the lens (OpenCV's model). Pixels that the
    pinhole did not see repeat its border.
    """
    height, width = picture.shape[1:3]
    focal = torch.stack([K[:, 0, 0], K[:, 1, 1]], -1)[:, None, None]
    centre = torch.stack([K[:, 0, 2], K[:, 1, 2]], -1)[:, None, None]
    y, x = torch.meshgrid(
        torch.arange(height, device=K.device, dtype=K.dtype),
        torch.arange(width, device=K.device, dtype=K.dtype),
        indexing="ij",
    )
    bent = (torch.stack([x, y], -1) - centre) / focal
    straight = bent
    for _ in range(8):
        squared = (straight**2).sum(-1, keepdim=True)
        straight = bent / (1 + radial[0] * squared + radial[1] * squared**2)
    source = (straight * focal + centre + 0.5) / picture.new_tensor([width, height]) * 2 - 1
    channels = picture.permute(0, 3, 1, 2)
    sampled = grid_sample(channels, source, padding_mode="border", align_corners=False)
    return sampled.permute(0, 2, 3, 1)
