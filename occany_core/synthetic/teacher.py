# SPDX-License-Identifier: Apache-2.0
"""Segmentation teacher of rendered streets: what is seen -> promptable feature levels, no weights.

It stands in for a pretrained segmentation model. Every channel is a function of what a camera can
see, so that a student can predict it, and of world-fixed quantities where possible, so that it
agrees between views. A fixed random mixture of these channels fills the three levels of the
contract of `NetworkConfig.segmentation_dims`. Source: embedded default 4.

`V` views, `H W` pixels, `I` instances, `s` = side of the coarse grid.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from occany_core.errors import ConfigError, InputError
from occany_core.synthetic.classes import SemanticClass
from occany_core.synthetic.renderer import Frames
from occany_core.synthetic.scene import Scene

MOST_CHANNELS = (256, 64, 32)
"""Of the coarse, middle and fine level; fewer are the first of these."""
STATISTICS = Path(__file__).with_name("teacher_statistics.npz")
SEED = 20260101
CLASS_CODE = 12
FREQUENCIES = (1.0, 2.0)
"""Of the code of an instance's centre [1 / log-metre]."""
FIELD_CHANNELS = CLASS_CODE + 1 + 2 + 6 * len(FREQUENCIES) + 3 + 3 + 2
CLASS_STRENGTH = BOUNDARY_STRENGTH = 1.5
BAND_SHARE = 1 / 64
"""Half width of the band around outlines, of the width of the picture."""
BAND_END = 0.25
"""What is left of the band at its rim."""
OFFSET_SHARE = 1 / 8
"""Offset to the centroid at which its channel is tanh(1), of the size of the picture."""
MEAN_COLOR = 0.45
GRADIENT_GAIN = 4.0
NONLINEAR_SHARE = 0.5


@dataclass(frozen=True)
class SeenViews:
    """What V rendered views show; the reference frame is the optical frame of a chosen view."""

    rgb: Float[Tensor, "V H W 3"]
    """0 to 1."""
    semantics: Int[Tensor, "V H W"]
    """`SemanticClass`."""
    instance: Int[Tensor, "V H W"]
    """0 where ground or sky."""
    normal: Float[Tensor, "V H W 3"]
    """Unit vectors, reference frame; 0 in the sky."""
    centres: Float[Tensor, "V I 3"]
    """Where instance i stands when the view is taken [m], reference frame; row 0 is unused."""

    def __post_init__(self) -> None:
        """Check that the parts belong together.

        Raises:
            InputError: Shapes differ, or there is an instance without a centre.
        """
        size = self.semantics.shape
        shapes = [self.rgb.shape[:-1], self.instance.shape, self.normal.shape[:-1]]
        if any(shape != size for shape in shapes) or len(self.centres) != size[0]:
            raise InputError(
                f"classes are {tuple(size)}, but colours, instances and normals are "
                f"{[tuple(shape) for shape in shapes]} and centres are for {len(self.centres)} "
                "views; give all of the same views and pixels"
            )
        highest = int(self.instance.max())
        if highest >= self.centres.shape[1]:
            raise InputError(
                f"instance {highest} is seen, but centres end at {self.centres.shape[1] - 1}; "
                "take both from the same world"
            )


def seen_views(
    scene: Scene,
    frames: Frames,
    seconds: Float[Tensor, " V"],
    reference_from_world: Float[Tensor, "4 4"],
) -> SeenViews:
    """Collect what the teacher needs of the rendered views of one world.

    Args:
        scene: The world.
        frames: Its pictures.
        seconds: Their times; moving things stand where they are then.
        reference_from_world: Pose of the reference camera, inverted [m].
    """
    rotation = reference_from_world[:3, :3]
    centres = instance_centres(scene, seconds)
    return SeenViews(
        rgb=frames.rgb,
        semantics=frames.semantics,
        instance=frames.instance,
        normal=frames.normal @ rotation.T,
        centres=centres @ rotation.T + reference_from_world[:3, 3],
    )


def instance_centres(scene: Scene, seconds: Float[Tensor, " V"]) -> Float[Tensor, "V I 3"]:
    """Return the middle of the box around each whole instance [m], world frame; row 0 is zero.

    The whole, not what is seen of it, so that views agree.
    """
    centres, _ = scene.placed_at(seconds)
    number = int(scene.instance.max()) + 1 if len(scene) else 1
    where = scene.instance[None, :, None].expand_as(centres)
    blank = centres.new_zeros(len(seconds), number, 3)
    lowest = blank.scatter_reduce(1, where, centres - scene.reach, "amin", include_self=False)
    highest = blank.scatter_reduce(1, where, centres + scene.reach, "amax", include_self=False)
    return (lowest + highest) / 2


def field(seen: SeenViews) -> Float[Tensor, "V 35 H W"]:
    """Return the channels that are mixed into features, at the size of the pictures.

    Class code (12), band around outlines (1), offset to the visible centroid (2), code of the
    instance's centre (12), normal (3), blurred colour (3), gradient of the brightness (2).
    """
    codes = torch.from_numpy(_class_codes()).to(seen.rgb)
    is_thing = (seen.instance > 0)[:, None]
    parts = (
        codes[seen.semantics].movedim(-1, 1),
        _outline_band(seen),
        _centroid_offsets(seen.instance) * is_thing,
        _centre_codes(seen) * is_thing,
        seen.normal.movedim(-1, 1),
        *_look(seen.rgb.movedim(-1, 1)),
    )
    return torch.cat(parts, dim=1)


def _class_codes() -> np.ndarray:
    """Vectors of equal length, one for each class, float32."""
    codes = np.random.default_rng(SEED).normal(size=(len(SemanticClass), CLASS_CODE))
    codes *= CLASS_STRENGTH / np.linalg.norm(codes, axis=1, keepdims=True)
    return codes.astype(np.float32)


def _outline_band(seen: SeenViews) -> Float[Tensor, "V 1 H W"]:
    """Highest on borders between instances or classes, falling to 0 a few pixels away."""
    ids = seen.instance * len(SemanticClass) + seen.semantics
    edge = torch.zeros_like(ids, dtype=torch.bool)
    across, down = ids[:, :, 1:] != ids[:, :, :-1], ids[:, 1:] != ids[:, :-1]
    edge[:, :, 1:] |= across
    edge[:, :, :-1] |= across
    edge[:, 1:] |= down
    edge[:, :-1] |= down
    band = edge[:, None].to(seen.rgb)
    steps = max(round(ids.shape[-1] * BAND_SHARE), 1)
    for _ in range(steps):
        band = torch.maximum(band, F.max_pool2d(band, 3, 1, 1) * BAND_END ** (1 / steps))
    return band * BOUNDARY_STRENGTH


def _centroid_offsets(instance: Int[Tensor, "V H W"]) -> Float[Tensor, "V 2 H W"]:
    """Squashed way (x, y) from each pixel to the centroid of what is seen of its instance."""
    views, height, width = instance.shape
    number = int(instance.max()) + 1
    first = number * torch.arange(views, device=instance.device)
    which = (instance + first[:, None, None]).flatten()
    count = torch.bincount(which, minlength=views * number).clamp_min(1)
    offsets = []
    for axis, length in ((1, width), (0, height)):
        shape = (1, -1) if axis else (-1, 1)
        place = torch.arange(length, device=instance.device).view(shape).expand(height, width)
        # Whole numbers: the sum is exact, so every device finds the same centroid.
        total = torch.zeros_like(count).index_add_(0, which, place.repeat(views, 1, 1).flatten())
        centroid = (total / count)[which].view_as(instance)
        offsets.append((centroid - place) / (length * OFFSET_SHARE))
    return torch.tanh(torch.stack(offsets, dim=1))


def _centre_codes(seen: SeenViews) -> Float[Tensor, "V 12 H W"]:
    """Sines and cosines of the centre of each pixel's instance, its distance in log-metres."""
    distance = seen.centres.norm(dim=-1, keepdim=True).clamp_min(1e-3)
    place = seen.centres / distance * torch.log1p(distance)
    waves = [wave(place * step) for wave in (torch.sin, torch.cos) for step in FREQUENCIES]
    codes = torch.cat(waves, dim=-1)
    view = torch.arange(len(codes), device=codes.device)[:, None, None]
    return codes[view, seen.instance].movedim(-1, 1)


def _look(rgb: Float[Tensor, "V 3 H W"]) -> tuple[Tensor, Tensor]:
    """Blurred colour (V, 3, H, W) and gradient of the brightness (V, 2, H, W)."""
    blurred = F.avg_pool2d(F.pad(rgb, (3, 3, 3, 3), mode="replicate"), 7, 1)
    brightness = rgb.mean(dim=1, keepdim=True)
    before = F.pad(brightness, (1, 0, 1, 0), mode="replicate")
    slopes = (brightness - before[:, :, 1:, :-1], brightness - before[:, :, :-1, 1:])
    return blurred - MEAN_COLOR, (torch.cat(slopes, dim=1) * GRADIENT_GAIN).clamp(-1, 1)


class StreetTeacher:
    """Turns rendered views into three levels of features of zero mean and unit variance.

    The same on every machine: all its numbers come from NumPy's generator and a stored file.
    """

    def __init__(
        self,
        dims: tuple[int, int, int],
        segmentation_size: int,
        device: str | torch.device = "cpu",
        *,
        statistics: Path | None = STATISTICS,
    ) -> None:
        """Prepare the mixtures.

        Args:
            dims: Channels of the coarse, middle and fine level.
            segmentation_size: Side of the square that the levels describe [px]; as in
                `NetworkConfig`.
            device: Where the views will be.
            statistics: Mean and deviation of each channel (`teacher_statistics.py`); None leaves
                features as they are.

        Raises:
            ConfigError: More channels than there are.
        """
        if any(not 1 <= n <= most for n, most in zip(dims, MOST_CHANNELS, strict=True)):
            raise ConfigError(
                f"segmentation_dims are {dims}; this teacher has 1 to {MOST_CHANNELS} channels"
            )
        self.sides = tuple(segmentation_size // 16 * step for step in (1, 2, 4))
        mixtures = zip(dims, _mixtures(), strict=True)
        self._mixtures = [torch.from_numpy(both[:, :n]).to(device) for n, both in mixtures]
        self._moments = None
        if statistics is not None:
            with np.load(statistics) as stored:
                moments = [stored[name] for name in ("coarse", "middle", "fine")]
            self._moments = [
                torch.from_numpy(m[:, :n]).to(device) for n, m in zip(dims, moments, strict=True)
            ]

    @torch.no_grad()
    def __call__(self, seen: SeenViews) -> tuple[Tensor, Tensor, Tensor]:
        """Return (V, C, s, s), (V, C', 2s, 2s) and (V, C'', 4s, 4s), float32.

        The square is the whole picture, squashed. Nothing here is learned.
        """
        channels = field(seen)
        levels = []
        for level, side in enumerate(self.sides):
            pooled = F.adaptive_avg_pool2d(channels, (side, side))
            straight, bent = torch.einsum("koc,vchw->kvohw", self._mixtures[level], pooled)
            mixed = straight + NONLINEAR_SHARE * F.gelu(bent)
            if self._moments is not None:
                mean, deviation = self._moments[level][..., None, None]
                mixed = (mixed - mean) / deviation
            levels.append(mixed)
        coarse, middle, fine = levels
        return coarse, middle, fine


def _mixtures() -> list[np.ndarray]:
    """Per level the straight and the bent mixture (2, channels, 35), float32, rows of length 1."""
    random = np.random.default_rng(SEED + 1)
    mixtures = []
    for channels in MOST_CHANNELS:
        most, fewest = max(channels, FIELD_CHANNELS), min(channels, FIELD_CHANNELS)
        pair = []
        for _ in range(2):
            q, r = np.linalg.qr(random.normal(size=(most, fewest)))
            q = q * np.sign(np.diag(r))  # the only choice that libraries leave open
            mixture = q if channels == most else q.T
            pair.append(mixture * math.sqrt(most / FIELD_CHANNELS))
        mixtures.append(np.stack(pair).astype(np.float32))
    return mixtures
