# SPDX-License-Identifier: Apache-2.0
"""Pointmap regression: `L_glo` and `L_loc` of the base model, one global term in the plus model.

Paper 3.4; training page 4.1, 4.2 and 5. Everything in float32.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from occany_core import rigid
from occany_core.errors import ConfigError
from occany_core.training.objectives.regression import (
    Distance,
    Scale,
    distance,
    item_scale,
    per_item,
    valid_mean,
    with_confidence,
)


@dataclass(frozen=True)
class PointmapTruth:
    """Where the surfaces of some views are."""

    points_reference: Float[Tensor, "B N H W 3"]
    """In the camera frame of view 0 [m]; any value where not valid."""
    reference_from_cam: Float[Tensor, "B N 4 4"]
    """Camera poses in the frame of view 0 [m]."""
    valid: Bool[Tensor, "B N H W"]
    is_metric: Bool[Tensor, " B"]
    """Whether the truth is in metres; others are known up to scale."""


@dataclass(frozen=True)
class PointmapPrediction:
    """What a network says about the same views."""

    points_reference: Float[Tensor, "B N H W 3"]
    points_cam: Float[Tensor, "B N H W 3"]
    """Each view in its own camera frame [m]."""
    confidence: Float[Tensor, "B N H W"]
    """Above 1, shared by both pointmaps."""


@dataclass(frozen=True, kw_only=True)
class PointmapSettings:
    """How pointmaps are compared; the defaults are those of the base recipes."""

    alpha: float = 0.2
    """Weight of log C; 0 leaves the confidence out."""
    distance: Distance = "l2"
    scale: Scale = "mean"
    """What errors are relative to; `none` compares metres (validation)."""
    metric_keeps_truth_scale: bool = True
    """Divide the predictions of metric items by the scale of the truth, so that the size of a
    scene is learnt; otherwise every prediction by its own."""

    def __post_init__(self) -> None:
        if self.alpha < 0:
            raise ConfigError(f"alpha is {self.alpha}; the weight of log C must not be negative")


VALIDATION = PointmapSettings(alpha=0.0, scale="none")
"""Plain errors in metres (training page 4.5)."""
PLUS = PointmapSettings(alpha=1.0, distance="l1")
"""The plus recipes (training page 5)."""


@dataclass(frozen=True)
class PointmapLoss:
    """Both terms and what to report of them."""

    reference: Float[Tensor, ""]
    """`L_glo`."""
    local: Float[Tensor, ""]
    """`L_loc`."""
    reference_error: Float[Tensor, ""]
    """Mean distance over valid pixels, without confidence and gradient."""
    local_error: Float[Tensor, ""]

    @property
    def total(self) -> Float[Tensor, ""]:
        """Return `L_glo + L_loc`."""
        return self.reference + self.local


def pointmap_loss(
    predicted: PointmapPrediction, truth: PointmapTruth, settings: PointmapSettings
) -> PointmapLoss:
    """Compare global and local pointmaps with the truth (training page 4.1, 4.2).

    Distances are averaged over all valid pixels of the batch; items without any contribute
    nothing. Gradients reach the pointmaps, the confidence (unless `alpha` is 0) and, where a
    prediction is divided by its own scale, go through that scale too.

    Raises:
        ConfigError: Unknown distance or scale.
    """
    truth_scale = item_scale(truth.points_reference, truth.valid, settings.scale)
    scale = item_scale(predicted.points_reference, truth.valid, settings.scale)
    if settings.metric_keeps_truth_scale:
        scale = torch.where(truth.is_metric, truth_scale, scale)
    confidence = predicted.confidence if settings.alpha > 0 else None
    terms = []
    for ours, points in (
        (predicted.points_reference, truth.points_reference),
        (predicted.points_cam, local_points(truth)),
    ):
        difference = ours / per_item(scale, ours) - points / per_item(truth_scale, points)
        error = distance(difference, truth.valid, settings.distance)
        weighted = with_confidence(error, confidence, settings.alpha)
        terms.append((valid_mean(weighted, truth.valid), valid_mean(error, truth.valid).detach()))
    (reference, reference_error), (local, local_error) = terms
    return PointmapLoss(reference, local, reference_error, local_error)


def reference_pointmap_loss(
    points: Float[Tensor, "B N H W 3"],
    confidence: Float[Tensor, "B N H W"],
    truth: Float[Tensor, "B N H W 3"],
    valid: Bool[Tensor, "B N H W"],
    settings: PointmapSettings = PLUS,
) -> Float[Tensor, ""]:
    """Compare global pointmaps only, both divided by the scale of the truth (training page 5).

    Args:
        points: Predicted, in the frame of view 0 [m].
        confidence: Depth confidence, above 1.
        truth: The same points as they are [m].
        valid: Where the truth is known.
        settings: `metric_keeps_truth_scale` plays no part: the truth's scale serves everywhere.

    Raises:
        ConfigError: Unknown distance or scale.
    """
    scale = per_item(item_scale(truth, valid, settings.scale), truth)
    error = distance((points - truth) / scale, valid, settings.distance)
    weights = confidence if settings.alpha > 0 else None
    return valid_mean(with_confidence(error, weights, settings.alpha), valid)


def local_points(truth: PointmapTruth) -> Float[Tensor, "B N H W 3"]:
    """Return the true points in each view's own camera frame [m]."""
    cam_from_reference = rigid.invert(truth.reference_from_cam)
    points = truth.points_reference
    return rigid.apply(cam_from_reference, points.flatten(2, 3)).view_as(points)
