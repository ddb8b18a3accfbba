# SPDX-License-Identifier: Apache-2.0
"""Tokens x scene memory -> features: `update` grows the memory, `render` reads it (spec 6).

`B` scenes, `V` views, `T` = patch tokens + 1 pose token per view, `D` width, `L` layers. The pose
token is token 0 of its view.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from occany_core.network.attention import (
    NORM_EPS,
    MemoryAttention,
    Mlp,
    SelfAttention,
    split_heads,
)
from occany_core.network.config import NetworkConfig
from occany_core.network.memory import SceneMemory
from occany_core.network.rope import RotaryTable, grid_positions

FEEDBACK_NORM_EPS = 1e-5
"""PyTorch's default; differs from the other norms on purpose (spec 6.4)."""


class MemoryWriter(nn.Module):
    """Turns the input of one layer into the keys and values that others may attend to."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)

    def forward(self, tokens: Float[Tensor, "B T D"]) -> tuple[Tensor, Tensor]:
        y = self.norm(tokens)
        return split_heads(self.key(y), self.heads), split_heads(self.value(y), self.heads)


class DecoderBlock(nn.Module):
    """Self-attention, attention to memory, pose injection, MLP."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_self = nn.LayerNorm(width, eps=NORM_EPS)
        self.self_attention = SelfAttention(width, heads)
        self.norm_memory = nn.LayerNorm(width, eps=NORM_EPS)
        self.memory_attention = MemoryAttention(width, heads)
        self.pose_injection = Mlp(width, width)
        self.norm_mlp = nn.LayerNorm(width, eps=NORM_EPS)
        self.mlp = Mlp(width, 4 * width)

    def forward(
        self,
        x: Float[Tensor, "G T D"],
        rotary: RotaryTable,
        keys: Float[Tensor, "B heads M head_width"],
        values: Float[Tensor, "B heads M head_width"],
    ) -> Float[Tensor, "G T D"]:
        """Run one layer over G = B x k views; k views share each of the B sets of keys."""
        pose = x[:, :1]  # as it comes in
        x = x + self.self_attention(self.norm_self(x), rotary)
        folded = self.norm_memory(x).reshape(keys.shape[0], -1, x.shape[-1])  # (B, k*T, D)
        x = x + self.memory_attention(folded, keys, values).view_as(x)
        x[:, 1:] += self.pose_injection(pose)
        return x + self.mlp(self.norm_mlp(x))


class Decoder(nn.Module):
    """The decoder with scene memory; without `writes_memory` it can only render (spec 11.5)."""

    def __init__(self, config: NetworkConfig, *, writes_memory: bool) -> None:
        super().__init__()
        width, depth, heads = config.decoder.width, config.decoder.depth, config.decoder.heads
        self.head_width = width // heads
        self.embed = nn.Linear(config.encoder.width, width)
        self.pose_token = nn.Parameter(torch.randn(1, 1, width) * 1e-6)
        self.not_reference = nn.Parameter(torch.randn(1, 1, width) * 0.02)
        self.blocks = nn.ModuleList(DecoderBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.writers = nn.ModuleList(
            MemoryWriter(width, heads) for _ in range(depth if writes_memory else 0)
        )
        if writes_memory:
            self.feedback_norm = nn.LayerNorm(width, eps=FEEDBACK_NORM_EPS)
            self.feedback = Mlp(width, 4 * width)
            nn.init.zeros_(self.feedback.fc2.weight)
            nn.init.zeros_(self.feedback.fc2.bias)

    def _prepare(
        self, tokens: Float[Tensor, "B V N D"], has_reference: bool
    ) -> Float[Tensor, "B V T D"]:
        """Embed, prepend the pose token, and mark every view except a reference view."""
        batch, views = tokens.shape[:2]
        x = self.embed(tokens).float()  # residual sums stay float32
        x = torch.cat((self.pose_token.expand(batch, views, 1, -1), x), dim=2)
        if not has_reference:
            return x + self.not_reference
        return torch.cat((x[:, :1], x[:, 1:] + self.not_reference), dim=1)

    def _rotary(self, rows: int, columns: int, device: torch.device) -> RotaryTable:
        """Positions: the pose token at (0, 0), patches from (1, 1) on."""
        patches = grid_positions(rows, columns, device) + 1
        return RotaryTable(torch.cat((patches.new_zeros(1, 2), patches)), self.head_width)

    def update(
        self, tokens: Float[Tensor, "B V N D"], grid: tuple[int, int], memory: SceneMemory
    ) -> SceneMemory:
        """Write one group of views into the memory (spec 6.4).

        The first group may have any number of views: they attend to each other, never to
        themselves (only a single view sees itself), and view 0 is the reference view. Later groups
        have one view, which attends to the memory.

        Args:
            tokens: Encoder tokens of the group.
            grid: Patch rows and columns.
            memory: What was seen before; empty for the first group.

        Returns:
            The grown memory.
        """
        return self._grown(self._layer_inputs(tokens, grid, memory), len(tokens), memory)

    def update_online(
        self, tokens: Float[Tensor, "B V N D"], grid: tuple[int, int], memory: SceneMemory
    ) -> tuple[Float[Tensor, "B V T D"], SceneMemory]:
        """Do what `update` does, and also return the features of the group.

        Returns:
            The online features (after the final norm), which only training uses, and the grown
            memory.
        """
        *layer_inputs, x = self._layer_inputs(tokens, grid, memory, runs_last=True)
        grown = self._grown(layer_inputs, len(tokens), memory)
        return self.norm(x).unflatten(0, tokens.shape[:2]), grown

    def _layer_inputs(
        self,
        tokens: Float[Tensor, "B V N D"],
        grid: tuple[int, int],
        memory: SceneMemory,
        *,
        runs_last: bool = False,
    ) -> list[Float[Tensor, "BV T D"]]:
        """Return what enters each layer and, if it runs, what leaves the last one.

        The memory needs nothing of the last layer but its input.
        """
        batch, views = tokens.shape[:2]
        is_first = memory.num_tokens == 0
        x = self._prepare(tokens, has_reference=is_first).flatten(0, 1)
        rotary = self._rotary(*grid, tokens.device)
        inputs = [x]
        for layer in range(len(self.blocks) if runs_last else len(self.blocks) - 1):
            if is_first:
                written = self.writers[layer](x)
                keys, values = (_of_others(part, batch, views) for part in written)
            else:
                keys, values = memory.keys[layer], memory.values[layer]
            x = self.blocks[layer](x, rotary, keys, values)
            inputs.append(x)
        return inputs

    def _grown(self, layer_inputs: list[Tensor], batch: int, memory: SceneMemory) -> SceneMemory:
        """Remember every layer's input, corrected by the feedback of the last one."""
        feedback = self.feedback(self.feedback_norm(layer_inputs[-1]))
        keys, values = [], []
        for layer, (tokens, writer) in enumerate(zip(layer_inputs, self.writers, strict=True)):
            is_last = layer == len(layer_inputs) - 1
            written = tokens if is_last else tokens + feedback
            key, value = writer(written.reshape(batch, -1, written.shape[-1]))
            keys.append(key)
            values.append(value)
        return memory.extended(keys, values)

    def render(
        self, tokens: Float[Tensor, "B V N D"], grid: tuple[int, int], memory: SceneMemory
    ) -> Float[Tensor, "B V T D"]:
        """Decode views against a finished memory, which stays as it is (spec 6.5).

        Every view is marked as not the reference and is independent of the others of the call.

        Returns:
            Features after the final norm.
        """
        batch, views = tokens.shape[:2]
        x = self._prepare(tokens, has_reference=False).flatten(0, 1)
        rotary = self._rotary(*grid, tokens.device)
        for layer, block in enumerate(self.blocks):
            x = block(x, rotary, memory.keys[layer], memory.values[layer])
        return self.norm(x).unflatten(0, (batch, views))


def _of_others(
    part: Float[Tensor, "BV heads T head_width"], batch: int, views: int
) -> Float[Tensor, "BV heads others head_width"]:
    """Give every view of the group the keys (or values) of the group's other views."""
    if views == 1:
        return part
    others = [[other for other in range(views) if other != view] for view in range(views)]
    picked = part.unflatten(0, (batch, views))[:, others]  # (B, V, V-1, heads, T, head_width)
    return picked.transpose(2, 3).flatten(3, 4).flatten(0, 1)
