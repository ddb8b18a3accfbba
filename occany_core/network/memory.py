# SPDX-License-Identifier: Apache-2.0
"""Scene memory: what the decoder remembers of the views it has seen (spec 6.3).

Per decoder layer, projected keys and values of every token ever written, heads in front, ready to
attend to. `B` scenes, `M` memory tokens (views after views, `N + 1` each), `L` layers.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class SceneMemory:
    """Keys and values per layer; never changed in place."""

    keys: tuple[Float[Tensor, "B heads M head_width"], ...]
    values: tuple[Float[Tensor, "B heads M head_width"], ...]

    @property
    def num_tokens(self) -> int:
        """Tokens remembered per layer."""
        return self.keys[0].shape[2]

    def extended(
        self, keys: list[Float[Tensor, "B heads M head_width"]], values: list[Tensor]
    ) -> "SceneMemory":
        """Return a memory that also holds the given tokens of every layer."""
        return SceneMemory(
            tuple(torch.cat(pair, dim=2) for pair in zip(self.keys, keys, strict=True)),
            tuple(torch.cat(pair, dim=2) for pair in zip(self.values, values, strict=True)),
        )
