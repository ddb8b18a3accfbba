# SPDX-License-Identifier: Apache-2.0
"""Features -> raw maps (spec 7): points and confidence, poses, promptable features, colour.

`B` is any batch of views (of scenes, where `V` views stand apart), `N` = h x w patch tokens, `T` =
N + 1 with the pose token, `D` decoder width.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from occany_core.network.attention import Mlp
from occany_core.network.config import NetworkConfig
from occany_core.network.convolutions import doubled
from occany_core.network.encoder import STEM_WIDTHS
from occany_core.network.known_cameras import KnownCameras
from occany_core.network.point_activation import confidence_from_logit, exponential_points
from occany_core.network.point_heads import (
    ConvolutionalPointHead,
    LinearPointHead,
    pixel_shuffle,
)
from occany_core.network.precision import full_precision

MAX_LOG_LENGTH = 10.0
"""`norm_exp` points end at expm1 of this (22 km), so that float32 never overflows."""


@dataclass(frozen=True)
class RawMaps:
    """What the decoder says about each pixel of a batch of views."""

    points_world: Float[Tensor, "B V H W 3"]
    """Metres, world = optical frame of the reference view."""
    points_cam: Float[Tensor, "B V H W 3"]
    """Metres, optical frame of the view."""
    confidence: Float[Tensor, "B V H W"]
    """In (1, inf)."""
    pose_encoding: Float[Tensor, "B V 7"]
    """Translation [m] and quaternion (real first) of world_from_cam; not used for fusion."""
    segmentation: tuple[Float[Tensor, "B V C s s"], ...]
    """Three promptable levels, or empty."""


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of a map."""

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class SegmentationHead(nn.Module):
    """Features that a SAM2-like mask decoder can be prompted on: three levels of a square grid.

    The square is independent of the picture's aspect. Only the first up-sampling has a norm, as in
    the released weights.
    """

    def __init__(self, width: int, dims: tuple[int, int, int], size: int) -> None:
        super().__init__()
        coarse, middle, fine = dims
        self.side = size // 16
        self.proj = Mlp(width, width, coarse)
        self.middle = nn.Sequential(
            nn.Conv2d(coarse, middle, 3, 1, 1), ChannelNorm(middle, eps=1e-6), nn.GELU()
        )
        self.fine = nn.Sequential(nn.Conv2d(middle, fine, 3, 1, 1), nn.GELU())

    def forward(
        self, features: Float[Tensor, "B N D"], grid: tuple[int, int], finer: list[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return (B, 256, s, s), (B, 64, 2s, 2s), (B, 32, 4s, 4s) with s = size / 16."""
        del finer
        square = _squashed(features.transpose(1, 2).unflatten(2, grid), self.side)
        coarse = self.proj(square.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        middle = self.middle(doubled(coarse))
        return coarse, middle, self.fine(doubled(middle))


class ConvolutionalSegmentationHead(nn.Module):
    """The same levels for training from scratch: they follow the finer maps of the stem.

    Nothing bounds the levels, so that features of zero mean can be learnt. Novel views have no
    picture.
    """

    def __init__(self, config: NetworkConfig, *, has_picture: bool) -> None:
        super().__init__()
        coarse, middle, fine = config.segmentation_dims
        quarter, eighth = STEM_WIDTHS
        width = config.decoder.width
        self.side = config.segmentation_size // 16
        self.proj = Mlp(width, width, coarse)
        self.middle = nn.Conv2d(coarse, middle, 3, 1, 1)
        self.fine = nn.Sequential(
            ChannelNorm(middle, eps=1e-6), nn.GELU(), nn.Conv2d(middle, fine, 3, 1, 1)
        )
        self.has_picture = has_picture
        if has_picture:
            self.seen_middle = nn.Conv2d(eighth, middle, 1)
            self.seen_fine = nn.Sequential(
                nn.Conv2d(quarter, 2 * fine, 3, 1, 1), nn.GELU(), nn.Conv2d(2 * fine, fine, 1)
            )

    def forward(
        self, features: Float[Tensor, "B N D"], grid: tuple[int, int], finer: list[Tensor]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return (B, C, s, s), (B, C', 2s, 2s), (B, C'', 4s, 4s) with s = size / 16."""
        square = _squashed(features.transpose(1, 2).unflatten(2, grid), self.side)
        coarse = self.proj(square.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        middle = self.middle(doubled(coarse))
        if self.has_picture:
            middle = middle + _squashed(self.seen_middle(finer[1]), 2 * self.side)
        fine = self.fine(doubled(middle))
        if self.has_picture:
            fine = fine + _squashed(self.seen_fine(finer[0]), 4 * self.side)
        return coarse, middle, fine


def _squashed(maps: Float[Tensor, "B C H W"], side: int) -> Float[Tensor, "B C side side"]:
    return F.interpolate(maps, size=(side, side), mode="bilinear", align_corners=False)


class RgbHead(nn.Module):
    """Colour per pixel; carried by the released files, evaluated by nobody."""

    def __init__(self, width: int, patch_size: int) -> None:
        super().__init__()
        self.patch_size = patch_size
        self.proj = Mlp(width, width, 3 * patch_size**2)

    def forward(
        self, features: Float[Tensor, "B N D"], grid: tuple[int, int]
    ) -> Float[Tensor, "B 3 H W"]:
        return pixel_shuffle(self.proj(features), grid, self.patch_size)


class Heads(nn.Module):
    """The heads of one decoder and the task tokens that steer its features towards each."""

    def __init__(self, config: NetworkConfig, *, has_picture: bool) -> None:
        super().__init__()
        width = config.decoder.width
        self.activation = config.point_activation
        self.point_token = _task_token(config)
        self.points = (
            LinearPointHead(config)
            if config.point_head == "linear"
            else ConvolutionalPointHead(config, has_picture=has_picture)
        )
        self.pose = Mlp(width, 4 * width, 7)
        self.segmentation = None
        if config.segmentation_dims is not None:
            self.segmentation_token = _task_token(config)
            self.segmentation = (
                SegmentationHead(width, config.segmentation_dims, config.segmentation_size)
                if config.point_head == "linear"
                else ConvolutionalSegmentationHead(config, has_picture=has_picture)
            )
        self.rgb = None
        if config.rgb_head:
            self.rgb_token = _task_token(config)
            self.rgb = RgbHead(width, config.patch_size)

    def maps(
        self,
        features: Float[Tensor, "B V T D"],
        grid: tuple[int, int],
        finer: tuple[Float[Tensor, "B V C h w"], ...],
        with_segmentation: bool,
        cameras: KnownCameras | None = None,
    ) -> RawMaps:
        """Run all heads that inference needs, in float32 whatever the network computes in.

        Args:
            features: Of the decoder, after its final norm; the pose token first.
            grid: Patch rows and columns.
            finer: Maps of the convolutional stem, or empty.
            with_segmentation: Whether the promptable levels are wanted.
            cameras: Of the same views, for networks that are told.
        """
        sizes = features.shape[:2]
        with full_precision(features.device):
            flat = features.float().flatten(0, 1)
            finer = [part.float().flatten(0, 1) for part in finer]
            raw = self.raw_points(flat, grid, finer, cameras)
            raw = raw.permute(0, 2, 3, 1).unflatten(0, sizes)  # (B, V, H, W, 7)
            levels = self.segmentation_levels(flat, grid, finer) if with_segmentation else ()
            return RawMaps(
                points_world=self.activate(raw[..., 0:3]),
                points_cam=self.activate(raw[..., 3:6]),
                confidence=confidence_from_logit(raw[..., 6]),
                pose_encoding=self.pose_encoding(flat).unflatten(0, sizes),
                segmentation=tuple(level.unflatten(0, sizes) for level in levels),
            )

    def raw_points(
        self,
        features: Float[Tensor, "B T D"],
        grid: tuple[int, int],
        finer: list[Tensor],
        cameras: KnownCameras | None = None,
    ) -> Float[Tensor, "B 7 H W"]:
        """Return the seven channels before activation."""
        return self.points(features[:, 1:] + self.point_token, grid, finer, cameras)

    def segmentation_levels(
        self, features: Float[Tensor, "B T D"], grid: tuple[int, int], finer: list[Tensor]
    ) -> tuple[Tensor, ...]:
        """Return the three feature levels, or an empty tuple where the network has none."""
        if self.segmentation is None:
            return ()
        return self.segmentation(features[:, 1:] + self.segmentation_token, grid, finer)

    def pose_encoding(self, features: Float[Tensor, "B T D"]) -> Float[Tensor, "B 7"]:
        """Return translation [m] and quaternion (real first, not normalised) of world_from_cam."""
        return self.pose(features[:, 0])

    def activate(self, raw: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
        """Turn three raw channels into metres."""
        if self.activation == "linear":
            return raw
        return exponential_points(raw, MAX_LOG_LENGTH)


def _task_token(config: NetworkConfig) -> nn.Parameter | float:
    """Return what is added to features before a head; 0 in a network without task tokens."""
    return nn.Parameter(torch.randn(1, 1, config.decoder.width)) if config.task_tokens else 0.0
