# SPDX-License-Identifier: Apache-2.0
"""Convolutions of the from-scratch stem and up-samplers."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


class ResidualConv(nn.Module):
    """Normalise, mix a 3 x 3 neighbourhood in groups of 16 channels, then mix channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(8, channels),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, 1, 1, groups=max(channels // 16, 1)),
            nn.GELU(),
            nn.Conv2d(channels, channels, 1),
        )

    def forward(self, x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C H W"]:
        return x + self.body(x)


def doubled(x: Float[Tensor, "B C H W"]) -> Float[Tensor, "B C 2H 2W"]:
    """Up-sample to twice the size."""
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
