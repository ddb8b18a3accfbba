# SPDX-License-Identifier: Apache-2.0
"""Random crops and colours of training pictures (training page 3.3)."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageEnhance

from occany_core.calibrated_images import CalibratedCrop, plan_calibrated
from occany_core.errors import ConfigError
from occany_core.images import ResizePlan, resampling_for

Generator = np.random.Generator | np.random.RandomState


@dataclass(frozen=True, kw_only=True)
class CropRanges:
    """How far crops vary; the defaults change nothing."""

    least_part: float = 1.0
    """Smallest part of both sides that is kept, as if with a longer focal length."""
    size_jitter: int = 0
    """The picture is resized to fewer than this many pixels above the target."""

    def __post_init__(self) -> None:
        if not 0 < self.least_part <= 1 or self.size_jitter < 0:
            raise ConfigError(
                f"least_part is {self.least_part}, size_jitter {self.size_jitter}; they must lie "
                "in (0, 1] and not be negative"
            )


RECONSTRUCTION_CROPS = CropRanges(least_part=0.9, size_jitter=128)
RENDERING_CROPS = CropRanges(least_part=0.9, size_jitter=112)
"""Of the released recipes."""


@dataclass(frozen=True)
class CropDraws:
    """Where the randomness of a crop comes from."""

    rng: np.random.Generator
    """Decides orientation and size."""
    zoom: Generator
    """Decides which part is kept. The released code has a second generator for it; give `rng`
    again to use one."""


def plan_training_crop(
    K: Float[np.ndarray, "3 3"],
    source: tuple[int, int],
    target: tuple[int, int],
    ranges: CropRanges,
    draws: CropDraws,
) -> CalibratedCrop:
    """Plan a random crop; `calibrated_images.crop_calibrated` carries it out.

    The picture is cropped about its principal point, perhaps zoomed into, resized to at least the
    target, and cropped to the target's centre. Tall pictures, and every other nearly square one,
    take the upright form of the target. Without randomness this is the evaluation crop, with K in
    float32.

    Args:
        K: Intrinsics of the picture [px].
        source: Its (height, width).
        target: (height, width) of a landscape training resolution.
        ranges: How far the crop may vary.
        draws: Generators.

    Raises:
        InputError: K is no finite 3 x 3 matrix, or its principal point is too near a border.
    """
    left, top, right, bottom = plan_calibrated(K, source, target).box
    target = _oriented((bottom - top, right - left), target, draws.rng)
    size = np.array([right - left, bottom - top])
    kept = size
    if ranges.least_part < 1:
        part = ranges.least_part + (1 - ranges.least_part) * draws.zoom.beta(0.5, 0.5)
        kept = np.floor(size * part).astype(int)
    corner = np.array([left, top]) + (size - kept) // 2
    wanted = np.array(target[::-1])
    extra = int(draws.rng.integers(0, ranges.size_jitter)) if ranges.size_jitter else 0
    K = np.array(K, dtype=np.float32)
    K[:2, 2] -= corner
    plan, K = _resized(K, kept, wanted, extra)
    box = (*corner.tolist(), *(corner + kept).tolist())
    return CalibratedCrop(source, box, plan, *target, K)


def _oriented(
    size: tuple[int, int], target: tuple[int, int], rng: np.random.Generator
) -> tuple[int, int]:
    height, width = size
    if height > 1.1 * width:
        return max(target), min(target)
    near_square = 0.9 < height / width < 1.1 and target[0] != target[1]
    return target[::-1] if near_square and rng.integers(2) else target


def _resized(
    K: Float[np.ndarray, "3 3"], size: np.ndarray, wanted: np.ndarray, extra: int
) -> tuple[ResizePlan, np.ndarray]:
    """Cover the wanted (width, height) and `extra` pixels; return plan and K after the crop."""
    scale = np.float64(((wanted + extra) / size).max() + 1e-8)
    resized = np.floor(size * scale).astype(int)
    K = _about_centre(K, scale, size * scale - resized)
    centred = _about_centre(K, np.float64(1.0), resized - wanted)
    corner = np.round(K[:2, 2] - centred[:2, 2]).astype(int)
    K[:2, 2] -= corner
    (width, height), (left, top) = resized.tolist(), corner.tolist()
    return ResizePlan(width, height, float(scale), resampling_for(scale), left, top), K


def _about_centre(
    K: Float[np.ndarray, "3 3"], scale: np.float64, cut: np.ndarray
) -> Float[np.ndarray, "3 3"]:
    """Return K of a picture scaled and then cut evenly on both sides by `cut` pixels in all.

    Every step is rounded to float32, as in the released code: where LiDAR values fall half-way
    between two pixels, the last bit decides.
    """
    moved = K.astype(np.float32)
    moved[:2, 2] += 0.5
    moved[:2] *= scale
    moved[:2, 2] -= 0.5 * cut
    moved[:2, 2] -= 0.5
    return moved


@dataclass(frozen=True, kw_only=True)
class ColourRanges:
    """How far colours vary about 1 (hue: about 0, in turns), by default as in the base recipes."""

    brightness: float = 0.5
    contrast: float = 0.5
    saturation: float = 0.5
    hue: float = 0.1

    def __post_init__(self) -> None:
        factors = (self.brightness, self.contrast, self.saturation)
        if not all(0 <= value <= 1 for value in factors) or not 0 <= self.hue <= 0.5:
            raise ConfigError(f"{self}: hue must lie in [0, 0.5] and the others in [0, 1]")


@dataclass(frozen=True)
class ColourJitter:
    """One change of colours, the same for all pictures of a sample."""

    order: tuple[int, ...]
    """Order of brightness (0), contrast (1), saturation (2) and hue (3)."""
    brightness: float
    contrast: float
    saturation: float
    hue: float
    """Turns of the colour circle."""

    @classmethod
    def draw(cls, ranges: ColourRanges, generator: torch.Generator) -> "ColourJitter":
        """Draw an order and four strengths, in the sequence of the released code."""
        order = torch.randperm(4, generator=generator).tolist()
        spans = ((1, ranges.brightness), (1, ranges.contrast), (1, ranges.saturation))
        values = [
            torch.empty(1).uniform_(middle - span, middle + span, generator=generator).item()
            for middle, span in (*spans, (0, ranges.hue))
        ]
        return cls(tuple(order), *values)

    def apply(self, rgb: UInt8[np.ndarray, "H W 3"]) -> UInt8[np.ndarray, "H W 3"]:
        """Change one picture."""
        picture = Image.fromarray(rgb)
        changes = (
            lambda image: ImageEnhance.Brightness(image).enhance(self.brightness),
            lambda image: ImageEnhance.Contrast(image).enhance(self.contrast),
            lambda image: ImageEnhance.Color(image).enhance(self.saturation),
            lambda image: _turned(image, self.hue),
        )
        for change in self.order:
            picture = changes[change](picture)
        return np.array(picture)


def _turned(picture: Image.Image, turns: float) -> Image.Image:
    """Turn all hues; Pillow counts 256 steps around the circle."""
    hue, saturation, value = picture.convert("HSV").split()
    steps = np.uint8(int(turns * 255) % 256)
    hue = Image.fromarray(np.asarray(hue) + steps)
    return Image.merge("HSV", (hue, saturation, value)).convert("RGB")
