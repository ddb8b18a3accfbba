# SPDX-License-Identifier: Apache-2.0
"""SAM2's memory attention for many objects in one view (semantics page 3.2).

The weights are those of `transformers.Sam2VideoModel`; the order of the arithmetic is ours:

* what looks only at the view is done once for all objects: its first look around itself, and what
  it asks of the memory first;
* a memory's keys are projected and turned once, when it is made; its age is added later;
* memories are averaged in their own 64 channels and widened to 256 afterwards: shares add up to 1,
  so both orders give the same, at a quarter of the cost.

`B` objects, `P` cells of the coarse level, `C` its channels, `D` channels of a memory, `T` pointer
tokens.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Complex, Float
from torch import Tensor, nn

from occany_core.errors import CheckpointError

CELLS_AT_ONCE = 256
"""Cells that are dealt with together on a CPU, so that what is in between stays in its cache."""


@dataclass(frozen=True)
class LookedView:
    """A view before it is looked at for any object in particular."""

    cells: Float[Tensor, "1 P C"]
    """After the first look around itself."""
    questions: Float[Tensor, "1 P C"]
    """What the first layer asks of the memory."""


@dataclass(frozen=True)
class ViewMemory:
    """What is remembered of some objects in one view."""

    values: Float[Tensor, "B P D"]
    keys: tuple[Float[Tensor, "B C P"], ...]
    """For each layer, turned by their places; without the age."""


@dataclass(frozen=True)
class Pointers:
    """Where objects were, said by the mask decoder in a few tokens."""

    values: Float[Tensor, "B T D"]
    ages: Float[Tensor, "T D"]
    """Codes of the distances in time."""


class MemoryAttention:
    """All layers."""

    def __init__(self, model: Any) -> None:
        """Wrap `transformers.Sam2VideoModel`.

        Raises:
            CheckpointError: Its attention to memory has several heads, which SAM2 does not have.
        """
        attention = model.memory_attention
        weight = attention.layer_norm.weight
        cos, sin = (
            turn[0, :, ::2].to(weight.dtype)
            for turn in attention.rotary_emb(weight, attention.position_ids)
        )
        turns = torch.complex(cos, sin)
        ages = model.memory_temporal_positional_encoding.flatten(1)
        self.layers = [_Layer(layer, turns, ages) for layer in attention.layers]
        self.last_norm = attention.layer_norm
        side = model.memory_attention.config.memory_attention_rope_feat_sizes[0]
        of_memory = model.memory_encoder.position_encoding(
            torch.Size((1, ages.shape[1], side, side)), weight.device, weight.dtype
        )
        of_view = model.vision_encoder.neck.position_encoding(
            torch.Size((1, len(weight), side, side)), weight.device, weight.dtype
        )
        self.memory_places = of_memory.flatten(2).transpose(1, 2)
        self.view_places = of_view.flatten(2).transpose(1, 2)

    def look(self, view: Float[Tensor, "1 C s s"]) -> LookedView:
        """Do what is the same for all objects.

        Args:
            view: Coarse level without SAM2's embedding of pictures without a past.
        """
        cells = view.flatten(2).transpose(1, 2) + 0.1 * self.view_places
        cells = self.layers[0].look_around(cells)
        return LookedView(cells, self.layers[0].questions(cells))

    def memory(self, values: Float[Tensor, "B P D"]) -> ViewMemory:
        """Prepare what is remembered for being asked."""
        placed = values + self.memory_places
        return ViewMemory(values, tuple(layer.turned_keys(placed) for layer in self.layers))

    def recall(
        self, view: LookedView, memories: list[tuple[int, ViewMemory]], pointers: Pointers
    ) -> Float[Tensor, "B P C"]:
        """Return the cells of a view in the light of what is remembered of each object.

        Args:
            view: The view.
            memories: With the slot of their age each, 0 for the view just before.
            pointers: Of the same objects.
        """
        values = torch.cat([m.values for _, m in memories] + [pointers.values], dim=1)
        pointed = pointers.values + pointers.ages
        cells = view.cells
        for index, layer in enumerate(self.layers):
            if index:
                cells = layer.look_around(cells)
            questions = layer.questions(cells) if index else view.questions
            keys = [(slot, m.keys[index]) for slot, m in memories]
            cells = cells + layer.answers(questions, keys, layer.plain_keys(pointed), values)
            cells = cells + layer.digested(cells)
        return self.last_norm(cells)


class _Layer:
    """One layer, with weights put together that are used together."""

    def __init__(
        self, layer: nn.Module, turns: Complex[Tensor, "P C_2"], ages: Float[Tensor, "N D"]
    ) -> None:
        around, memory = layer.self_attn, layer.cross_attn_image
        if {around.num_attention_heads, memory.num_attention_heads} != {1}:
            raise CheckpointError(
                f"this SAM2 attends to memory with {memory.num_attention_heads} heads; use one "
                "with a single head, as all released ones have"
            )
        self.layer, self.turns = layer, turns
        self.is_piecewise = turns.device.type == "cpu"
        parts = around.q_proj, around.k_proj, around.v_proj
        self.weight = torch.cat([part.weight for part in parts])
        self.bias = torch.cat([part.bias for part in parts])
        outwards = memory.o_proj.weight.double()
        self.widen = (outwards @ memory.v_proj.weight.double()).to(self.weight)
        self.widen_bias = (outwards @ memory.v_proj.bias.double() + memory.o_proj.bias).to(
            self.weight
        )
        by_age = F.linear(ages, memory.k_proj.weight)  # the bias is in the keys already
        by_age = self._turned(by_age[:, None].expand(-1, len(turns), -1).contiguous())
        self.by_age = by_age.mT.contiguous()

    def look_around(self, cells: Float[Tensor, "B P C"]) -> Float[Tensor, "B P C"]:
        """Self-attention, with what it is added to."""
        normed = self.layer.layer_norm1(cells)
        query, key, value = F.linear(normed, self.weight, self.bias).chunk(3, dim=-1)
        seen = F.scaled_dot_product_attention(
            self._turned(query)[:, None], self._turned(key)[:, None], value[:, None]
        )
        return cells + self.layer.self_attn.o_proj(seen[:, 0])

    def questions(self, cells: Float[Tensor, "B P C"]) -> Float[Tensor, "B P C"]:
        """What cells ask of the memory, scaled."""
        memory = self.layer.cross_attn_image
        return self._turned(memory.q_proj(self.layer.layer_norm2(cells))) * memory.scaling

    def plain_keys(self, tokens: Float[Tensor, "B T D"]) -> Float[Tensor, "B T C"]:
        """Keys of tokens without a place."""
        return self.layer.cross_attn_image.k_proj(tokens)

    def turned_keys(self, memory: Float[Tensor, "B P D"]) -> Float[Tensor, "B C P"]:
        """Keys of the cells of a memory."""
        return self._turned(self.plain_keys(memory)).mT.contiguous()

    def answers(
        self,
        questions: Float[Tensor, "_ P C"],
        memories: list[tuple[int, Float[Tensor, "B C P"]]],
        pointed: Float[Tensor, "B T C"],
        values: Float[Tensor, "B M D"],
    ) -> Float[Tensor, "B P C"]:
        """What the memory says to the questions; one question may stand for all objects."""
        number, cells = len(values), questions.shape[1]
        together = 1 if self.is_piecewise else number
        keys = values.new_empty(together, questions.shape[2], values.shape[1])
        *of_memories, of_pointers = keys.split([cells] * len(memories) + [pointed.shape[1]], dim=2)
        told = values.new_empty(number, cells, values.shape[2])
        for start in range(0, number, together):
            these = slice(start, start + together)
            for part, (slot, kept) in zip(of_memories, memories, strict=True):
                torch.add(kept[these], self.by_age[slot], out=part)
            of_pointers.copy_(pointed[these].mT)
            asked = questions if len(questions) == 1 else questions[these]
            average = _average_by_pieces if self.is_piecewise else _average
            told[these] = average(asked, keys, values[these])
        return F.linear(told, self.widen, self.widen_bias)

    def digested(self, cells: Float[Tensor, "B P C"]) -> Float[Tensor, "B P C"]:
        """Two linear layers."""
        normed = self.layer.layer_norm3(cells).flatten(0, 1)
        at_once = CELLS_AT_ONCE if self.is_piecewise else len(normed)
        digested = torch.empty_like(normed)
        for some, out in zip(normed.split(at_once), digested.split(at_once), strict=True):
            out.copy_(self.layer.linear2(self.layer.activation(self.layer.linear1(some))))
        return digested.view_as(cells)

    def _turned(self, vectors: Float[Tensor, "B P C"]) -> Float[Tensor, "B P C"]:
        """Turn pairs of channels by the places of the cells."""
        pairs = torch.view_as_complex(vectors.unflatten(-1, (-1, 2)))
        return torch.view_as_real(pairs * self.turns).flatten(-2)


def _average(
    questions: Float[Tensor, "_ P C"], keys: Float[Tensor, "B C M"], values: Float[Tensor, "B M D"]
) -> Float[Tensor, "B P D"]:
    """Attention whose questions are scaled already."""
    asked = questions.expand(len(values), -1, -1)[:, None]
    told = F.scaled_dot_product_attention(asked, keys.mT[:, None], values[:, None], scale=1.0)
    return told[:, 0]


def _average_by_pieces(
    questions: Float[Tensor, "1 P C"], keys: Float[Tensor, "1 C M"], values: Float[Tensor, "1 M D"]
) -> Float[Tensor, "1 P D"]:
    """The same for one object, a few cells at once."""
    told = values.new_empty(1, questions.shape[1], values.shape[2])
    shares = values.new_empty(CELLS_AT_ONCE, keys.shape[2])
    asked = questions[0].split(CELLS_AT_ONCE), told[0].split(CELLS_AT_ONCE)
    for some, out in zip(*asked, strict=True):
        part = shares[: len(some)]
        torch.mm(some, keys[0], out=part)
        torch.mm(torch.softmax(part, dim=-1, out=part), values[0], out=out)
    return told
