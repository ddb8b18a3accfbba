# SPDX-License-Identifier: Apache-2.0
"""Features that masks are asked of: SAM2's three levels of the picture, squashed to a square.

`V` views, `s` side of the coarse level: a 16th of the square picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from occany_core.errors import InputError


@dataclass(frozen=True)
class PromptableFeatures:
    """Of some views; SAM2's own have 256, 64 and 32 channels."""

    coarse: Float[Tensor, "V C s s"]
    """With SAM2's embedding of pictures without a past added, as its mask decoder wants it."""
    middle: Float[Tensor, "V C2 s2 s2"]
    """Projected as the mask decoder wants it; so is `fine`."""
    fine: Float[Tensor, "V C3 s4 s4"]

    def __post_init__(self) -> None:
        """Check that the levels belong together."""
        side = self.coarse.shape[-1]
        sizes = [(len(level), *level.shape[2:]) for level in self.levels]
        if sizes != [(len(self.coarse), factor * side, factor * side) for factor in (1, 2, 4)]:
            raise InputError(
                f"promptable levels have views, rows and columns {sizes}; give squares of the "
                "same views, coarse first, each twice as large as the one before"
            )

    @property
    def levels(self) -> tuple[Tensor, Tensor, Tensor]:
        """Coarse, middle and fine."""
        return self.coarse, self.middle, self.fine

    def __len__(self) -> int:
        """Return the number of views."""
        return len(self.coarse)

    def views(self, chosen: slice | Tensor) -> "PromptableFeatures":
        """Return some of the views."""
        return PromptableFeatures(*(level[chosen] for level in self.levels))

    @staticmethod
    def joined(parts: Sequence["PromptableFeatures"]) -> "PromptableFeatures":
        """Put the views of several together.

        Raises:
            InputError: There are none.
        """
        if not parts:
            raise InputError("no promptable features were given; give those of at least one view")
        levels = zip(*(part.levels for part in parts), strict=True)
        return PromptableFeatures(*(torch.cat(level) for level in levels))
