# SPDX-License-Identifier: Apache-2.0
"""Raw channels <-> metres and confidences (spec 7)."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def exponential_points(
    raw: Float[Tensor, "*batch 3"], longest: float | None
) -> Float[Tensor, "*batch 3"]:
    """Apply `norm_exp`: direction times expm1 of the length, in metres.

    Args:
        raw: Three channels of the point head.
        longest: Longer ones end here; None is the released function, which can overflow.
    """
    length = raw.norm(dim=-1, keepdim=True).clamp_min(1e-8)
    limited = length if longest is None else length.clamp_max(longest)
    return raw / length * torch.expm1(limited)


def log_points(points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """Undo `norm_exp`: direction times log1p of the length in metres."""
    length = points.norm(dim=-1, keepdim=True).clamp_min(1e-8)
    return points / length * torch.log1p(length)


def confidence_from_logit(logit: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch"]:
    """Return 1 + exp(logit), in (1, inf)."""
    return 1 + torch.exp(logit.clamp_max(math.log(1e6)))
