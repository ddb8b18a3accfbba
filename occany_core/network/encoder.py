# SPDX-License-Identifier: Apache-2.0
"""Images -> tokens: a vision transformer, each view on its own (spec 3-5).

`patch` stem: one strided convolution. `convolutional` stem: four small stages that also see the
pixel coordinates; it learns from far less data, and its 1/4 and 1/8 features help the
convolutional point head.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from occany_core.network.attention import NORM_EPS, TransformerBlock, xavier_linear
from occany_core.network.config import NetworkConfig
from occany_core.network.convolutions import ResidualConv
from occany_core.network.known_cameras import KnownCameras, SightEmbedding
from occany_core.network.rope import RotaryTable, grid_positions

STEM_WIDTHS = (48, 96)
"""Channels of the convolutional stem at 1/4 and 1/8 resolution."""


def pixel_coordinates(
    height: int, width: int, device: torch.device
) -> Float[Tensor, "2 height width"]:
    """Return (x, y) of pixel centres in half-widths from the picture's centre."""
    half = width / 2
    x = (torch.arange(width, device=device) + 0.5 - half) / half
    y = (torch.arange(height, device=device) + 0.5 - height / 2) / half
    return torch.stack((x.expand(height, width), y[:, None].expand(height, width)))


class PatchStem(nn.Module):
    """One strided convolution."""

    def __init__(self, width: int, patch_size: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch_size, patch_size)

    def forward(
        self, images: Float[Tensor, "B 3 H W"], cameras: KnownCameras | None
    ) -> tuple[Tensor, list[Tensor]]:
        del cameras
        return self.proj(images), []


class ConvolutionalStem(nn.Module):
    """Colour and pixel coordinates to 1/16 resolution in four halvings.

    Where the cameras may be known, what pixels see joins in at 1/4.
    """

    def __init__(self, width: int, *, calibration: bool) -> None:
        super().__init__()
        quarter, eighth = STEM_WIDTHS
        self.quarter = nn.Sequential(
            nn.Conv2d(5, 32, 5, 2, 2),
            nn.GELU(),
            nn.Conv2d(32, quarter, 3, 2, 1),
            ResidualConv(quarter),
        )
        self.sight = SightEmbedding(quarter) if calibration else None
        self.eighth = nn.Sequential(
            nn.Conv2d(quarter, eighth, 3, 2, 1), ResidualConv(eighth), ResidualConv(eighth)
        )
        self.sixteenth = nn.Sequential(nn.Conv2d(eighth, width, 3, 2, 1), ResidualConv(width))

    def forward(
        self, images: Float[Tensor, "B 3 H W"], cameras: KnownCameras | None
    ) -> tuple[Tensor, list[Tensor]]:
        batch, _, height, width = images.shape
        coordinates = pixel_coordinates(height, width, images.device).to(images.dtype)
        quarter = self.quarter(torch.cat((images, coordinates.expand(batch, -1, -1, -1)), dim=1))
        if self.sight is not None and cameras is not None:
            quarter = quarter + self.sight(cameras, quarter.shape[-2:], block=4)
        eighth = self.eighth(quarter)
        return self.sixteenth(eighth), [quarter, eighth]


class Encoder(nn.Module):
    """The image encoder."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        dims = config.encoder
        self.patch_size = config.patch_size
        self.head_width = dims.width // dims.heads
        self.stem = (
            PatchStem(dims.width, config.patch_size)
            if config.stem == "patch"
            else ConvolutionalStem(dims.width, calibration=config.calibration)
        )
        self.blocks = nn.ModuleList(
            TransformerBlock(dims.width, dims.heads) for _ in range(dims.depth)
        )
        self.norm = nn.LayerNorm(dims.width, eps=NORM_EPS)
        self.blocks.apply(xavier_linear)

    def forward(
        self, images: Float[Tensor, "B 3 H W"], cameras: KnownCameras | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Encode prepared pictures.

        Args:
            images: Values in [-1, 1]; sides are multiples of the patch size.
            cameras: Of the same views, for networks that are told.

        Returns:
            Tokens (B, N, D), row-major patches; and the stem's finer maps [(B, 48, H/4, W/4),
            (B, 96, H/8, W/8)], or an empty list for the patch stem.
        """
        features, finer = self.stem(images, cameras)
        tokens = features.flatten(2).transpose(1, 2).float()  # residual sums stay float32
        positions = grid_positions(*features.shape[-2:], images.device)
        rotary = RotaryTable(positions, self.head_width)
        for block in self.blocks:
            tokens = block(tokens, rotary)
        return self.norm(tokens), finer
