# SPDX-License-Identifier: Apache-2.0
"""Projected points -> tokens of views that nobody photographed (spec 11.3, 11.4; paper 3.2).

A tokenizer of one strided convolution per modality, then transformer blocks in which the tokens of
a novel view attend to each other and to the encoder tokens of the observed views. Depth 0 is the
released function, whose blocks are dead. Novel views do not see each other, so rendering them
together or one by one is equal.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from occany_core.network.attention import NORM_EPS, TransformerBlock, xavier_linear
from occany_core.network.config import SEGMENTATION_LEVELS, NetworkConfig
from occany_core.network.point_activation import log_points
from occany_core.network.rope import RotaryTable, grid_positions

GEOMETRY_CHANNELS = {"points_cam": 3, "points_world": 3, "rgb": 3, "confidence": 1}


def conditioning_channels(config: NetworkConfig) -> dict[str, int]:
    """Return the modalities of a projected picture with their channels, in order (spec 11.1)."""
    levels = dict(zip(SEGMENTATION_LEVELS, config.segmentation_dims or (), strict=False))
    used = {name: n for name, n in levels.items() if name in config.conditioning_levels}
    return GEOMETRY_CHANNELS | used


class NovelViewEncoder(nn.Module):
    """Encodes the projected points of novel views as if they were pictures."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        dims = config.novel_view_encoder
        self.head_width = dims.width // dims.heads
        self.patch_size = config.patch_size
        self.channels = conditioning_channels(config)
        self.compresses_range = config.point_activation == "norm_exp"
        self.tokenizers = nn.ModuleDict(
            {
                name: nn.Conv2d(
                    channels, config.modality_width, config.patch_size, config.patch_size
                )
                for name, channels in self.channels.items()
            }
        )
        self.merge = nn.Linear(config.modality_width * len(self.channels), dims.width)
        self.blocks = nn.ModuleList(
            TransformerBlock(dims.width, dims.heads, affine=False, gelu="tanh")
            for _ in range(dims.depth)
        )
        self.observed = nn.Linear(config.encoder.width, dims.width) if dims.depth else None
        self.proj = nn.Linear(dims.width, config.encoder.width)
        self.norm = nn.LayerNorm(config.encoder.width, eps=NORM_EPS)
        self.blocks.apply(xavier_linear)

    def tokenize(self, projected: Float[Tensor, "G C H W"]) -> Float[Tensor, "G N E"]:
        """Merge the modalities of each patch into one token.

        Args:
            projected: Channels of `conditioning_channels`; zero where no point falls.
        """
        if self.compresses_range:
            projected = _compress_range(projected)
        patches = _patches(projected, self.patch_size)
        parts = patches.split(list(self.channels.values()), dim=-1)
        tokens = [
            F.linear(part.flatten(2), _pixel_major(tokenizer.weight), tokenizer.bias)
            for tokenizer, part in zip(self.tokenizers.values(), parts, strict=True)
        ]
        return self.merge(torch.cat(tokens, dim=-1))

    def forward(
        self,
        tokens: Float[Tensor, "B V N E"],
        grid: tuple[int, int],
        observed_tokens: Float[Tensor, "B Vo N D"],
    ) -> Float[Tensor, "B V N D"]:
        """Encode the tokens of novel views.

        Args:
            tokens: From `tokenize`.
            grid: Patch rows and columns.
            observed_tokens: Encoder tokens of the observed views.

        Returns:
            Tokens in the space of the image encoder's.
        """
        sizes = tokens.shape[:2]
        x = tokens.flatten(0, 1)
        if self.blocks:
            x = self._attend(x, grid, observed_tokens, sizes[1])
        return self.norm(self.proj(x).float()).unflatten(0, sizes)

    def _attend(
        self, x: Tensor, grid: tuple[int, int], observed_tokens: Tensor, views: int
    ) -> Float[Tensor, "G N E"]:
        num_tokens = x.shape[1]
        context = self.observed(observed_tokens).flatten(1, 2).repeat_interleave(views, dim=0)
        positions = grid_positions(*grid, x.device)
        rotary = RotaryTable(positions.repeat(1 + observed_tokens.shape[1], 1), self.head_width)
        x = torch.cat((x, context), dim=1)
        for block in self.blocks:
            x = block(x, rotary)
        return x[:, :num_tokens]


def _patches(maps: Float[Tensor, "G C H W"], size: int) -> Float[Tensor, "G N pixels C"]:
    """Cut maps into patches, row-major; the pixels of a patch are row-major too, channels last."""
    rows = maps.permute(0, 2, 3, 1).unflatten(2, (-1, size)).unflatten(1, (-1, size))
    return rows.transpose(2, 3).flatten(3, 4).flatten(1, 2)


def _pixel_major(kernel: Float[Tensor, "out C p p"]) -> Float[Tensor, "out values"]:
    """Order the weights of a strided convolution like the values of `_patches`.

    As one matrix product it is more than twice as fast on maps whose channels are stored last.
    """
    return kernel.permute(0, 2, 3, 1).flatten(1)


def _compress_range(projected: Float[Tensor, "G C H W"]) -> Float[Tensor, "G C H W"]:
    """Put metres and confidences on a logarithmic scale; empty pixels stay zero."""
    points_cam, points_world, rgb, confidence, rest = projected.split(
        [3, 3, 3, 1, projected.shape[1] - 10], dim=1
    )
    points = (
        log_points(part.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        for part in (points_cam, points_world)
    )
    return torch.cat((*points, rgb, torch.log1p(confidence), rest), dim=1)
