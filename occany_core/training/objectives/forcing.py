# SPDX-License-Identifier: Apache-2.0
"""Segmentation Forcing: features are to look like those of a segmentation model (paper 3.4).

The confidence of the geometry weighs the features but never learns from them, and teachers learn
nothing (training page 4.4 and 5).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from occany_core.errors import ConfigError, InputError

LEAST_WEIGHT = 1e-6
"""Floor of a resized confidence."""


@dataclass(frozen=True, kw_only=True)
class ForcingSettings:
    """How features are compared; the defaults are those of the base recipes."""

    distance: Literal["squared", "absolute"] = "squared"
    weighting: Literal["none", "plain", "normalised"] = "plain"
    """`plain` multiplies each cell by the confidence, resized to the features. `normalised`
    enlarges the errors to the size of the confidence and takes the weighted mean of each view."""

    def __post_init__(self) -> None:
        if self.distance not in ("squared", "absolute"):
            raise ConfigError(f"unknown distance {self.distance!r}; squared or absolute")
        if self.weighting not in ("none", "plain", "normalised"):
            raise ConfigError(f"unknown weighting {self.weighting!r}; none, plain or normalised")


PLUS = ForcingSettings(distance="absolute", weighting="none")
"""The plus recipes; the paper's weighting describes the base model (training page 5)."""


@dataclass(frozen=True)
class ForcingLoss:
    """The term, level by level."""

    levels: tuple[Float[Tensor, ""], ...]

    @property
    def total(self) -> Float[Tensor, ""]:
        """Return the sum of the levels."""
        return torch.stack(self.levels).sum()


def segmentation_forcing(
    student: Sequence[Float[Tensor, "B N C h w"]],
    teacher: Sequence[Float[Tensor, "B N C h2 w2"]],
    confidence: Float[Tensor, "B N H W"],
    settings: ForcingSettings,
) -> ForcingLoss:
    """Compare features with those of a teacher.

    Args:
        student: Levels of predicted features, each of its own size.
        teacher: The same levels of the segmentation model; another size is resized bilinearly.
        confidence: Confidence of the pointmaps of the same views, at any size.
        settings: Distance and weighting.

    Raises:
        InputError: Student and teacher have different numbers of levels, views or channels.
    """
    shapes = [[tuple(level.shape[:3]) for level in levels] for levels in (student, teacher)]
    if shapes[0] != shapes[1]:
        raise InputError(
            f"student features have batch, views and channels {shapes[0]}, the teacher's "
            f"{shapes[1]}; give the same levels of both"
        )
    weights = confidence.detach().flatten(0, 1)
    levels = (
        _level(ours.flatten(0, 1), theirs.detach().flatten(0, 1), weights, settings)
        for ours, theirs in zip(student, teacher, strict=True)
    )
    return ForcingLoss(tuple(levels))


def _level(
    ours: Float[Tensor, "V C h w"],
    theirs: Float[Tensor, "V C h2 w2"],
    confidence: Float[Tensor, "V H W"],
    settings: ForcingSettings,
) -> Float[Tensor, ""]:
    size = ours.shape[-2:]
    difference = ours - (theirs if theirs.shape[-2:] == size else _resized(theirs, size))
    error = difference.square() if settings.distance == "squared" else difference.abs()
    error = error.mean(dim=1)
    if settings.weighting == "none":
        return error.mean()
    if settings.weighting == "plain":
        weight = _resized(confidence[:, None], size)[:, 0].clamp_min(LEAST_WEIGHT)
        return (error * weight).mean()
    error = _resized(error[:, None], confidence.shape[-2:])[:, 0]
    weight = confidence.clamp_min(LEAST_WEIGHT)
    return ((error * weight).sum(dim=(1, 2)) / weight.sum(dim=(1, 2))).mean()


def _resized(maps: Float[Tensor, "V C h w"], size: Sequence[int]) -> Tensor:
    return F.interpolate(maps, tuple(size), mode="bilinear", align_corners=False)
