# SPDX-License-Identifier: Apache-2.0
"""Parts that the pixelwise terms share: valid pixels, distances, scales, confidence.

`B` items, `N` views, `H W` pixels. Invalid pixels carry neither loss nor gradient, whatever number
stands there.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from occany_core.errors import ConfigError

Distance = Literal["l1", "l2"]
"""Sum of absolute coordinates, or Euclidean length."""
Scale = Literal["none", "mean", "median"]
"""What a pointmap is divided by: nothing, or this of its valid distances to the origin."""

LEAST_SCALE = 1e-8
"""Scale of an item without valid pixels [m] (training page 4.1)."""


def distance(
    difference: Float[Tensor, "*pixels C"], valid: Bool[Tensor, "*pixels"], kind: Distance
) -> Float[Tensor, "*pixels"]:
    """Return the length of differences; 0 without gradient where a pixel is not valid.

    Raises:
        ConfigError: Unknown kind.
    """
    orders = {"l1": 1, "l2": 2}
    if kind not in orders:
        raise ConfigError(f"unknown distance {kind!r}; choose one of {', '.join(orders)}")
    difference = torch.where(valid[..., None], difference, 0.0)
    return torch.linalg.vector_norm(difference, ord=orders[kind], dim=-1)


def valid_mean(
    values: Float[Tensor, "*pixels"], valid: Bool[Tensor, "*pixels"]
) -> Float[Tensor, ""]:
    """Return the mean over all valid pixels of the batch; 0 where there are none."""
    return torch.where(valid, values, 0.0).sum() / valid.sum().clamp_min(1)


def with_confidence(
    error: Float[Tensor, "*pixels"], confidence: Float[Tensor, "*pixels"] | None, alpha: float
) -> Float[Tensor, "*pixels"]:
    """Weigh errors: C e - alpha log C (paper 3.4, training page 4.2).

    The confidence that minimises it is alpha / e, so alpha is the error at which it is 1.

    Args:
        error: Not negative.
        confidence: C, above 0; None leaves the errors as they are.
        alpha: Weight of the logarithm [unit of the error].
    """
    return error if confidence is None else confidence * error - alpha * confidence.log()


def item_scale(
    points: Float[Tensor, "B *pixels 3"], valid: Bool[Tensor, " B *pixels"], kind: Scale
) -> Float[Tensor, " B"]:
    """Return the typical distance of each item's valid points to the origin [m].

    All views of an item are taken together (training page 4.1). Of an even number of distances
    the median is the lower middle one. An item without valid pixels has `LEAST_SCALE`.

    Raises:
        ConfigError: Unknown kind.
    """
    if kind == "none":
        return points.new_ones(len(points))
    valid = valid.flatten(1)
    points = torch.where(valid[..., None], points.flatten(1, -2), 0.0)
    length = torch.linalg.vector_norm(points, dim=-1)
    if kind == "mean":
        scale = length.sum(dim=1) / valid.sum(dim=1).clamp_min(1)
    elif kind == "median":
        scale = torch.where(valid, length, torch.nan).nanmedian(dim=1).values
        scale = torch.where(valid.any(dim=1), scale, LEAST_SCALE)
    else:
        raise ConfigError(f"unknown scale {kind!r}; choose none, mean or median")
    return scale.clamp_min(LEAST_SCALE)


def per_item(values: Float[Tensor, " B"], like: Tensor) -> Tensor:
    """Shape one value per item so that it broadcasts over the rest of `like`."""
    return values.reshape(-1, *(1,) * (like.dim() - 1))


def step_error(
    difference: Float[Tensor, "*batch H W"], valid: Bool[Tensor, "*batch H W"]
) -> Float[Tensor, ""]:
    """Return the mean change of a difference from pixel to pixel, along x plus along y.

    Both pixels of a pair must be valid (training page 5).
    """
    total = difference.new_zeros(())
    clean = torch.where(valid, difference, 0.0)
    for axis in (-1, -2):
        length = clean.shape[axis]
        pairs = valid.narrow(axis, 1, length - 1) & valid.narrow(axis, 0, length - 1)
        total = total + valid_mean(clean.diff(dim=axis).abs(), pairs)
    return total
