# SPDX-License-Identifier: Apache-2.0
"""How predicted maps are compared with targets, in log space or in metres (paper 3.4).

In log space errors are distances between log-points (direction times log1p of the range), so a
metre near the camera weighs as much as ten far away. Confidence C weighs errors as
C e - alpha log C. Everything in float32.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from occany_core.network import KnownCameras
from occany_core.network.point_activation import log_points
from occany_core.training.batches import LEAST_DEPTH, Targets
from occany_core.training.objectives.pointmaps import (
    PointmapPrediction,
    PointmapSettings,
    PointmapTruth,
    pointmap_loss,
)
from occany_core.training.objectives.regression import distance, valid_mean, with_confidence
from occany_core.training.recipe import Objective

SLOPE, TILT = 0.01, 0.0025
"""Errors of the angle at which one pixel sees the ground, and of the tilt of all of it, count
linearly above this."""
LEVELLING = 0.02
"""What speaks for no error of the tilt, of the weight of all ground."""
SKY_ERROR = 1.0
"""Stand-in error of pixels without a surface: it drives their confidence to 1."""


@dataclass(frozen=True)
class PointLoss:
    """Loss of the points of some views and what to report of it."""

    total: Float[Tensor, ""]
    world_error: Float[Tensor, ""]
    """Mean distance in the reference frame; log-metres, or relative to the scene."""
    camera_error: Float[Tensor, ""]
    """The same in each view's own frame."""


def point_loss(
    predicted: PointmapPrediction, targets: Targets, objective: Objective, *, is_rig: bool
) -> PointLoss:
    """Compare pointmaps with their targets.

    Args:
        predicted: In metres.
        targets: Of the same views at the same resolution.
        objective: Space and weights.
        is_rig: The views are those of a rig, whose errors in the reference frame have a weight of
            their own.
    """
    weight = objective.rig_reference if is_rig else objective.reference
    compare = _log_loss if objective.space == "log" else _metric_loss
    loss = compare(predicted, targets, objective, weight)
    if objective.sky == 0:
        return loss
    C = predicted.confidence
    sky = with_confidence(torch.full_like(C, SKY_ERROR), C, objective.alpha)
    nothing = torch.where(targets.sky, sky, 0.0).mean()
    return PointLoss(loss.total + objective.sky * nothing, loss.world_error, loss.camera_error)


def _log_loss(
    predicted: PointmapPrediction, targets: Targets, objective: Objective, weight: float
) -> PointLoss:
    valid = targets.valid
    world, cam = (
        distance(log_points(ours) - log_points(truth.where(valid[..., None], 1.0)), valid, "l2")
        for ours, truth in (
            (predicted.points_reference, targets.points_world),
            (predicted.points_cam, targets.points_cam),
        )
    )
    error = (weight * world + objective.local * cam) / (weight + objective.local)
    weighted = with_confidence(error, predicted.confidence, objective.alpha)
    return PointLoss(
        total=valid_mean(weighted + objective.plain * error, valid),
        world_error=valid_mean(world, valid).detach(),
        camera_error=valid_mean(cam, valid).detach(),
    )


def _metric_loss(
    predicted: PointmapPrediction, targets: Targets, objective: Objective, weight: float
) -> PointLoss:
    truth = PointmapTruth(
        points_reference=targets.points_world,
        reference_from_cam=targets.world_from_cam,
        valid=targets.valid,
        is_metric=torch.ones(len(targets.valid), dtype=torch.bool, device=targets.valid.device),
    )
    loss = pointmap_loss(predicted, truth, PointmapSettings(alpha=objective.alpha))
    total = weight * loss.reference + objective.local * loss.local
    if objective.plain > 0:
        plain = pointmap_loss(predicted, truth, PointmapSettings(alpha=0.0))
        total = total + objective.plain * (
            weight * plain.reference + objective.local * plain.local
        )
    return PointLoss(total, loss.reference_error, loss.local_error)


def ground_loss(
    points_cam: Float[Tensor, "B V h w 3"], targets: Targets, cameras: KnownCameras
) -> Float[Tensor, ""]:
    """Compare how steeply known cameras look down on the ground, pixel by pixel and together.

    Camera height over range is the sine of that angle. Its error is that of the ground's tilt,
    which is the same at every range and in all cameras of a rig, while log-ranges far away are
    uncertain for many reasons. Squared, so that what is learnt first is not less than the truth.
    What the pixels of a scene have in common, a tilt ahead and a tilt aside, counts once more: it
    moves all cells of the ground, and would drown in what they have not.

    Args:
        points_cam: Predicted [m].
        targets: Of the same views.
        cameras: Theirs; those that are unknown do not count.
    """
    height = cameras.rig_from_cam[:, :, None, None, 2, 3]
    known = targets.ground & cameras.is_known[:, :, None, None]
    ours, truth = (
        height / points.norm(dim=-1).clamp_min(LEAST_DEPTH)
        for points in (points_cam, targets.points_cam)
    )
    error = F.smooth_l1_loss(ours / SLOPE, truth / SLOPE, reduction="none")
    tilt = _common_tilt(ours - truth, known, targets.points_cam, cameras)
    together = F.smooth_l1_loss(tilt / TILT, torch.zeros_like(tilt))
    return valid_mean(error, known) + together


def _common_tilt(
    error: Float[Tensor, "B V h w"],
    known: Bool[Tensor, "B V h w"],
    points_cam: Float[Tensor, "B V h w 3"],
    cameras: KnownCameras,
) -> Float[Tensor, "B 2"]:
    """Fit errors of the angle at which ground is seen by a tilt of it, ahead and aside.

    Least squares; far ground weighs more, for it is moved more.

    Args:
        error: Of camera height over range.
        known: Where it counts.
        points_cam: True ones [m].
        cameras: Of the same views.
    """
    in_rig = points_cam @ cameras.rig_from_cam[:, :, None, :3, :3].transpose(-1, -2)
    ahead = F.normalize(in_rig[..., :2], dim=-1).flatten(1, 3)
    weight = (points_cam.norm(dim=-1) * known).flatten(1)
    share = weight / weight.sum(dim=1, keepdim=True).clamp_min(LEAST_DEPTH)
    error = torch.where(known, error, 0.0).flatten(1)
    normal = torch.einsum("bp,bpi,bpj->bij", share, ahead, ahead)
    normal = normal + LEVELLING * torch.eye(2, device=normal.device)
    return torch.linalg.solve(normal, torch.einsum("bp,bpi,bp->bi", share, ahead, error))


def depth_scores(
    depth: Float[Tensor, "B V h w"], targets: Targets
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Return mean absolute relative depth error and the share within a factor of 1.25."""
    ours = depth[targets.valid].clamp_min(0.1)
    truth = targets.points_cam[..., 2][targets.valid]
    ratio = torch.maximum(ours / truth, truth / ours)
    return ((ours - truth).abs() / truth).mean(), (ratio < 1.25).float().mean()
