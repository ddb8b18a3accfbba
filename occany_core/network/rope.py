# SPDX-License-Identifier: Apache-2.0
"""Two-dimensional rotary position embedding (spec 4).

The first half of every head is rotated by the row of its token, the second half by the column.
Attention logits then depend on relative positions only.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

BASE = 100.0


def grid_positions(rows: int, columns: int, device: torch.device) -> Int[Tensor, "tokens 2"]:
    """Return the (row, column) of every patch, row-major from (0, 0)."""
    return torch.cartesian_prod(
        torch.arange(rows, device=device), torch.arange(columns, device=device)
    ).view(-1, 2)


class RotaryTable:
    """Cosines and sines for one set of token positions, ready to apply to heads of one width."""

    def __init__(self, token_yx: Int[Tensor, "tokens 2"], head_width: int) -> None:
        quarter = head_width // 4
        frequencies = BASE ** (
            -2
            * torch.arange(quarter, device=token_yx.device, dtype=torch.float32)
            / (head_width // 2)
        )
        angles = token_yx[:, :, None].float() * frequencies  # (tokens, 2, quarter)
        angles = angles.repeat(1, 1, 2).flatten(1)  # (tokens, head_width)
        self.cosine = angles.cos()
        self.sine = angles.sin()

    def rotate(
        self, heads: Float[Tensor, "*batch tokens head_width"]
    ) -> Float[Tensor, "*batch tokens head_width"]:
        """Rotate queries or keys; element j of a half pairs with element j + quarter."""
        a, b, c, d = heads.chunk(4, dim=-1)
        partner = torch.cat((-b, a, -d, c), dim=-1)
        return (heads * self.cosine + partner * self.sine).to(heads.dtype)
