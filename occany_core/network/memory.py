# SPDX-License-Identifier: Apache-2.0
"""Scene memory: what the decoder remembers of the views it has seen (spec 6.3).

Per decoder layer, projected keys and values of every token ever written, heads in front, ready to
attend to. `B` scenes, `M` memory tokens (view after view, `N + 1` each), `L` layers.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

Heads = Float[Tensor, "B heads M head_width"]


class Room:
    """Memory set aside for all tokens to come, so that each is written once and never moved."""

    def __init__(self, rows: Sequence[Heads], capacity: int) -> None:
        batch, heads, _, head_width = rows[0].shape
        self.layers = rows[0].new_empty(len(rows), batch, heads, capacity, head_width)
        self.used = 0

    def holds(self, start: int, count: int) -> bool:
        """Whether `count` tokens fit behind `start` and nobody else has written there."""
        return self.used == start and start + count <= self.layers.shape[3]

    def write(self, rows: Sequence[Heads]) -> None:
        """Append the tokens of every layer."""
        end = self.used + rows[0].shape[2]
        for layer, new in zip(self.layers, rows, strict=True):
            layer[:, :, self.used : end] = new
        self.used = end

    def read(self, count: int) -> tuple[Heads, ...]:
        """Return the first `count` tokens of every layer, without a copy."""
        return tuple(layer[:, :, :count] for layer in self.layers)


class SceneMemory:
    """Keys and values per layer. What one memory shows never changes; `extended` gives a new one.

    Args:
        capacity: Tokens to set room aside for at the first write; more are possible, and cost a
            copy. Where gradients are recorded, memories are concatenated instead.
    """

    def __init__(self, capacity: int = 0) -> None:
        self.num_tokens = 0
        self.keys: tuple[Heads, ...] = ()
        self.values: tuple[Heads, ...] = ()
        self._capacity = capacity
        self._rooms: tuple[Room, Room] | None = None

    def extended(self, keys: Sequence[Heads], values: Sequence[Heads]) -> "SceneMemory":
        """Return a memory that also holds the given tokens of every layer.

        It shares the room of this one: extending does not copy what is there.
        """
        grown = SceneMemory(self._capacity)
        grown.num_tokens = self.num_tokens + keys[0].shape[2]
        if torch.is_grad_enabled():
            grown.keys, grown.values = _joined(self.keys, keys), _joined(self.values, values)
            return grown
        grown._rooms = self._rooms_for(keys, values)
        for room, rows in zip(grown._rooms, (keys, values), strict=True):
            room.write(rows)
        grown.keys, grown.values = (room.read(grown.num_tokens) for room in grown._rooms)
        return grown

    def _rooms_for(self, keys: Sequence[Heads], values: Sequence[Heads]) -> tuple[Room, Room]:
        new = keys[0].shape[2]
        if self._rooms is not None and self._rooms[0].holds(self.num_tokens, new):
            return self._rooms
        capacity = max(self._capacity, self.num_tokens + new)
        rooms = Room(keys, capacity), Room(values, capacity)
        if self.num_tokens:
            rooms[0].write(self.keys)
            rooms[1].write(self.values)
        return rooms


def _joined(old: Sequence[Heads], new: Sequence[Heads]) -> tuple[Heads, ...]:
    if not old:
        return tuple(new)
    return tuple(torch.cat(pair, dim=2) for pair in zip(old, new, strict=True))
