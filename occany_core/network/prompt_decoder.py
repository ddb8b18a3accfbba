# SPDX-License-Identifier: Apache-2.0
"""Promptable features and prompts -> masks; fine features -> classes.

The mask decoder takes what SAM2's takes: the coarse level as picture, the fine and middle levels
where masks are enlarged, and points with SAM2's labels, so that either can stand behind the same
features. After "Segment Anything" (Kirillov et al. 2023), small enough for the tiny network.

`V` views, `M` prompts of a view, `K` points of a prompt, `C` channels of the coarse level, `s` its
side; the masks have side 4s.
"""

import math
from dataclasses import dataclass
from enum import IntEnum

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from occany_core.network.attention import Mlp, merge_heads, split_heads
from occany_core.network.convolutions import doubled

HEADS = 4
BLOCKS = 2
HINTS = 4
"""In the box, near clicks inside, near clicks outside, unlike what the prompt points to."""
FIRST_GUESS = (-3.0, 5.0, 5.0, -3.0, -1.0)
"""Untrained logits: everywhere, and for each hint."""
SHARPER = 8
"""Power of a drawn click where it picks features."""
CLICK_REACH = 1 / 16
"""Standard deviation of a drawn click, of the side of the picture."""


class PointLabel(IntEnum):
    """What a point of a prompt says, with SAM2's numbers."""

    NONE = -1
    """Fills up prompts with fewer points."""
    OUTSIDE = 0
    INSIDE = 1
    TOP_LEFT = 2
    BOTTOM_RIGHT = 3


@dataclass(frozen=True)
class Prompts:
    """What is asked for: M prompts in each of V views."""

    points: Float[Tensor, "V M K 2"]
    """(x, y) in the square picture, 0 to 1 from its left and upper border."""
    labels: Int[Tensor, "V M K"]
    """`PointLabel`."""

    @staticmethod
    def of_boxes(boxes: Float[Tensor, "V M 4"]) -> "Prompts":
        """Ask with boxes (left, top, right, bottom), 0 to 1 of the picture."""
        corners = torch.tensor([PointLabel.TOP_LEFT, PointLabel.BOTTOM_RIGHT], device=boxes.device)
        points = boxes.unflatten(-1, (2, 2))
        return Prompts(points, corners.expand(points.shape[:-1]))


@dataclass(frozen=True)
class PromptedMasks:
    """The answers."""

    logits: Float[Tensor, "V M s4 s4"]
    """Positive inside; of the square picture."""
    quality: Float[Tensor, "V M"]
    """Predicted intersection over union with the true mask, 0 to 1."""


class TokenAttention(nn.Module):
    """Attention from some tokens to others; positions are added to queries and keys before."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.query, self.key = nn.Linear(width, inner), nn.Linear(width, inner)
        self.value, self.proj = nn.Linear(width, inner), nn.Linear(inner, width)

    def forward(
        self, asking: Float[Tensor, "B N C"], asked: Float[Tensor, "B N2 C"], values: Tensor
    ) -> Float[Tensor, "B N C"]:
        query, key, value = (
            split_heads(part, HEADS)
            for part in (self.query(asking), self.key(asked), self.value(values))
        )
        return self.proj(merge_heads(F.scaled_dot_product_attention(query, key, value)))


class TwoWayBlock(nn.Module):
    """Tokens look at each other and at the picture; then the picture looks at the tokens."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.among = TokenAttention(width, width)
        self.to_picture = TokenAttention(width, width // 2)
        self.mlp = Mlp(width, 8 * width)
        self.from_picture = TokenAttention(width, width // 2)
        self.norms = nn.ModuleList(nn.LayerNorm(width, eps=1e-6) for _ in range(5))

    def forward(
        self, tokens: Tensor, picture: Tensor, token_code: Tensor, place: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Update tokens (B, N, C) and picture (B, s*s, C) given their positions."""
        normed = self.norms[0](tokens)
        tokens = tokens + self.among(normed + token_code, normed + token_code, normed)
        asking, looked = self.norms[1](tokens) + token_code, self.norms[2](picture)
        tokens = tokens + self.to_picture(asking, looked + place, looked)
        tokens = tokens + self.mlp(self.norms[3](tokens))
        told = self.norms[4](tokens)
        return tokens, picture + self.from_picture(looked + place, told + token_code, told)


@dataclass(frozen=True)
class PromptLooks:
    """What can be said of prompts before anything is asked of the picture."""

    fine: Float[Tensor, "V E a a"]
    """Embedded fine features."""
    hints: Float[Tensor, "V M 4 a a"]
    seeds: Float[Tensor, "V M E"]
    """Mean of the embedded features where each prompt points to."""


class PromptHints(nn.Module):
    """Draws prompts, and tells how unlike each cell is to what they point to."""

    def __init__(self, fine: int) -> None:
        super().__init__()
        self.width = 2 * fine
        self.embed = nn.Conv2d(fine, self.width, 1)

    def forward(self, fine: Float[Tensor, "V C3 a a"], prompts: Prompts) -> PromptLooks:
        embedded = self.embed(fine)
        drawn = drawn_prompts(prompts, fine.shape[-1])
        weight = drawn[:, :, 0] + drawn[:, :, 1] ** SHARPER
        total = weight.sum(dim=(-2, -1)).clamp_min(1e-6)[..., None]
        seeds = torch.einsum("vmhw,vchw->vmc", weight, embedded) / total
        crossed = torch.einsum("vmc,vchw->vmhw", seeds, embedded)
        lengths = embedded.square().sum(dim=1)[:, None] + seeds.square().sum(-1)[..., None, None]
        unlike = (lengths - 2 * crossed) / self.width
        return PromptLooks(embedded, torch.cat((drawn, unlike[:, :, None]), dim=2), seeds)


class PromptDecoder(nn.Module):
    """Two-way decoder between prompts and coarse features, enlarged with the finer levels."""

    def __init__(self, dims: tuple[int, int, int]) -> None:
        super().__init__()
        width, middle, fine = dims
        self.width = width
        self.kinds = nn.Embedding(len(PointLabel), width)
        self.answers = nn.Parameter(torch.randn(2, width))
        """Tokens that become the mask and its quality."""
        self.hints = PromptHints(fine)
        self.seed = nn.Linear(self.hints.width, width)
        self.hints_coarse = nn.Conv2d(HINTS, width, 1)
        self.hints_fine = nn.Conv2d(HINTS, self.hints.width, 1)
        self.blocks = nn.ModuleList(TwoWayBlock(width) for _ in range(BLOCKS))
        self.last_look = TokenAttention(width, width // 2)
        self.norm_tokens = nn.LayerNorm(width, eps=1e-6)
        self.norm_picture = nn.LayerNorm(width, eps=1e-6)
        self.to_middle = nn.ConvTranspose2d(width, middle, 2, 2)
        self.to_fine = nn.ConvTranspose2d(middle, self.hints.width, 2, 2)
        self.norm_middle = nn.GroupNorm(1, middle)
        self.guess = nn.Parameter(torch.tensor(FIRST_GUESS))
        self.mask = Mlp(width, width, self.hints.width)
        nn.init.zeros_(self.mask.fc2.weight)
        nn.init.zeros_(self.mask.fc2.bias)
        self.quality = Mlp(width, width, 1)

    def forward(
        self,
        image_embed: Float[Tensor, "V C s s"],
        high_res_feats: tuple[Float[Tensor, "V C3 s4 s4"], Float[Tensor, "V C2 s2 s2"]],
        prompts: Prompts,
    ) -> PromptedMasks:
        """Answer all prompts of all views.

        Args:
            image_embed: Coarse level.
            high_res_feats: Fine level, then middle level.
            prompts: What is asked for.
        """
        fine, middle = high_res_feats
        number, side = prompts.labels.shape[1], image_embed.shape[-1]
        looks = self.hints(fine, prompts)
        tokens, codes = self._tokens(prompts, looks.seeds)
        place = self._places(side, image_embed)
        hints = looks.hints.flatten(0, 1)
        picture = image_embed.repeat_interleave(number, dim=0)
        picture = picture + self.hints_coarse(F.avg_pool2d(hints, 4))
        picture = picture.flatten(2).transpose(1, 2)
        for block in self.blocks:
            tokens, picture = block(tokens, picture, codes, place)
        picture = self.norm_picture(picture)
        asking = self.norm_tokens(tokens) + codes
        answers = self.norm_tokens(tokens + self.last_look(asking, picture + place, picture))
        maps = self.to_middle(picture.transpose(1, 2).unflatten(2, (side, side)))
        maps = F.gelu(self.norm_middle(maps + middle.repeat_interleave(number, dim=0)))
        finest = looks.fine.repeat_interleave(number, dim=0) + self.hints_fine(hints)
        maps = F.gelu(self.to_fine(maps) + finest)
        logits = torch.einsum("bc,bchw->bhw", self.mask(answers[:, 0]), maps)
        logits = logits + torch.einsum("c,bchw->bhw", self.guess[1:], hints) + self.guess[0]
        quality = self.quality(answers[:, 1])[:, 0].sigmoid()
        sizes = prompts.labels.shape[:2]
        return PromptedMasks(logits.unflatten(0, sizes), quality.unflatten(0, sizes))

    def _tokens(self, prompts: Prompts, seeds: Tensor) -> tuple[Tensor, Tensor]:
        """Return tokens (V*M, 2 + K, C), those of the answers first, and their position codes."""
        codes = self._position_codes(prompts.points).flatten(0, 1)
        is_there = (prompts.labels != PointLabel.NONE).flatten(0, 1)[..., None]
        asked = self.kinds(prompts.labels + 1).flatten(0, 1)
        answers = self.answers + self.seed(seeds).flatten(0, 1)[:, None]
        codes = F.pad(codes * is_there, (0, 0, len(self.answers), 0))
        return torch.cat((answers, asked), dim=1), codes

    def _places(self, side: int, like: Tensor) -> Float[Tensor, "1 side*side C"]:
        """Position codes of the cells of the coarse grid."""
        centre = (torch.arange(side, device=like.device, dtype=like.dtype) + 0.5) / side
        x, y = centre.expand(side, side), centre[:, None].expand(side, side)
        return self._position_codes(torch.stack((x, y), dim=-1)).flatten(0, 1)[None]

    def _position_codes(self, points: Float[Tensor, "*batch 2"]) -> Float[Tensor, "*batch C"]:
        """Sines and cosines of x and y; wave lengths from twice the picture to 1/32 of it."""
        steps = torch.linspace(0, 6, self.width // 4, device=points.device, dtype=points.dtype)
        phase = points[..., None] * (math.pi * 2**steps)
        return torch.cat((phase.sin(), phase.cos()), dim=-1).flatten(-2)


def drawn_prompts(prompts: Prompts, side: int) -> Float[Tensor, "V M 3 side side"]:
    """Draw prompts as pictures: filled boxes, clicks inside, clicks outside; 0 to 1."""
    centre = (torch.arange(side, device=prompts.points.device) + 0.5) / side
    away = centre - prompts.points[..., None]  # (V, M, K, 2, side): to the right, and down
    bumps = (-0.5 * (away / CLICK_REACH) ** 2).exp()
    past = (away * side + 0.5).clamp(0, 1)  # share of the cells to the right of, or below, a point
    halves = (
        (PointLabel.TOP_LEFT, past),
        (PointLabel.BOTTOM_RIGHT, 1 - past),
        (PointLabel.INSIDE, bumps),
        (PointLabel.OUTSIDE, bumps),
    )
    parts = []
    for label, values in halves:
        is_meant = (prompts.labels == label)[..., None, None]
        x, y = (values * is_meant).unbind(dim=-2)
        parts.append((y[..., None] * x[..., None, :]).amax(dim=2))
    box = parts[0] * parts[1]
    return torch.stack((box, parts[2], parts[3]), dim=2)


class ClassProbe(nn.Module):
    """Class of each cell of the fine level, by one affine map of all three levels."""

    def __init__(self, dims: tuple[int, int, int], classes: int) -> None:
        super().__init__()
        coarse, middle, fine = dims
        self.coarse = nn.Conv2d(coarse, classes, 1, bias=False)
        self.middle = nn.Conv2d(middle, classes, 1, bias=False)
        self.fine = nn.Conv2d(fine, classes, 1)

    def forward(
        self,
        coarse: Float[Tensor, "V C s s"],
        middle: Float[Tensor, "V C2 s2 s2"],
        fine: Float[Tensor, "V C3 s4 s4"],
    ) -> Float[Tensor, "V classes s4 s4"]:
        """Return logits; coarser levels are read where they are, then interpolated."""
        return self.fine(fine) + doubled(self.middle(middle) + doubled(self.coarse(coarse)))
