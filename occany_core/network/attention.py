# SPDX-License-Identifier: Apache-2.0
"""Attention and MLP, the parts of every transformer block here.

Scale is 1/sqrt(head width); PyTorch chooses the kernel. `B` batch, `N` tokens, `M` keys, `D`
width.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from occany_core.network.rope import RotaryTable

NORM_EPS = 1e-6


def split_heads(x: Float[Tensor, "B N D"], heads: int) -> Float[Tensor, "B heads N head_width"]:
    """Move heads in front of tokens."""
    batch, tokens, width = x.shape
    return x.view(batch, tokens, heads, width // heads).transpose(1, 2)


def merge_heads(x: Float[Tensor, "B heads N head_width"]) -> Float[Tensor, "B N D"]:
    """Undo `split_heads`."""
    return x.transpose(1, 2).flatten(2)


def attend(
    query: Float[Tensor, "B heads N head_width"],
    key: Float[Tensor, "B heads M head_width"],
    value: Float[Tensor, "B heads M head_width"],
) -> Float[Tensor, "B heads N head_width"]:
    """Return values weighted by the softmax of scaled products.

    PyTorch chooses the kernel, except for learning in bfloat16 on a CPU: there its kernel takes
    over three times as long backwards as the plain products.
    """
    learns = query.requires_grad or key.requires_grad
    if query.device.type != "cpu" or query.dtype != torch.bfloat16 or not learns:
        return F.scaled_dot_product_attention(query, key, value)
    logits = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    return logits.softmax(dim=-1) @ value


class SelfAttention(nn.Module):
    """Self-attention with rotary positions on queries and keys."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Float[Tensor, "B N D"], rotary: RotaryTable) -> Float[Tensor, "B N D"]:
        query, key, value = (
            split_heads(part, self.heads) for part in self.qkv(x).chunk(3, dim=-1)
        )
        attended = attend(rotary.rotate(query), rotary.rotate(key), value)
        return self.proj(merge_heads(attended))


class MemoryAttention(nn.Module):
    """Cross-attention to keys and values that the memory holds; no positions (spec 6.2)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.proj = nn.Linear(width, width)

    def forward(
        self,
        x: Float[Tensor, "B N D"],
        keys: Float[Tensor, "B heads M head_width"],
        values: Float[Tensor, "B heads M head_width"],
    ) -> Float[Tensor, "B N D"]:
        query = split_heads(self.query(x), self.heads)
        return self.proj(merge_heads(attend(query, keys, values)))


class Mlp(nn.Module):
    """Two affine maps around a GELU."""

    def __init__(
        self, width: int, hidden: int, out: int | None = None, *, gelu: str = "none"
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.activation = nn.GELU(approximate=gelu)
        self.fc2 = nn.Linear(hidden, width if out is None else out)

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch out"]:
        return self.fc2(self.activation(self.fc1(x)))


class TransformerBlock(nn.Module):
    """Pre-norm self-attention and MLP with plain residuals."""

    def __init__(self, width: int, heads: int, *, affine: bool = True, gelu: str = "none") -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=NORM_EPS, elementwise_affine=affine)
        self.attn = SelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width, eps=NORM_EPS, elementwise_affine=affine)
        self.mlp = Mlp(width, 4 * width, gelu=gelu)

    def forward(self, x: Float[Tensor, "B N D"], rotary: RotaryTable) -> Float[Tensor, "B N D"]:
        x = x + self.attn(self.norm1(x), rotary)
        return x + self.mlp(self.norm2(x))


def xavier_linear(module: nn.Module) -> None:
    """Initialise affine maps as the encoders are (spec 14): Xavier weights, zero bias."""
    if isinstance(module, nn.Linear):
        torch.nn.init.xavier_uniform_(module.weight)
        torch.nn.init.zeros_(module.bias)
