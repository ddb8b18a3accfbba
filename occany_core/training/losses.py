# SPDX-License-Identifier: Apache-2.0
"""The pointmap loss in log space, for training from scratch (after paper 3.4).

Errors are distances between log-points (direction times log1p of the range), so a metre near the
camera weighs as much as ten far away. Confidence C weighs each error as C e - alpha log C.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from occany_core.network.heads import confidence_from_logit, log_points
from occany_core.training.batches import Targets

SKY_ERROR = 1.0
"""Stand-in error of pixels without a surface: it drives their confidence to 1."""


@dataclass(frozen=True)
class PointLoss:
    """Loss of one batch of views and what to report of it."""

    total: Float[Tensor, ""]
    world_error: Float[Tensor, ""]
    """Mean distance of log-points in the reference frame."""
    camera_error: Float[Tensor, ""]
    """The same in each view's own frame."""


def point_loss(
    raw: Float[Tensor, "B V 7 h w"], targets: Targets, alpha: float, world_weight: float = 1.0
) -> PointLoss:
    """Compare raw quarter-resolution maps of a `norm_exp` network with their targets.

    Args:
        raw: World and camera log-points and the confidence logit.
        targets: Points of the same views.
        alpha: Error [log-metres] at which the best confidence is 1.
        world_weight: Weight of errors in the reference frame beside those in the view's own.
    """
    raw = raw.permute(0, 1, 3, 4, 2)
    confidence = confidence_from_logit(raw[..., 6])
    world = (raw[..., 0:3] - log_points(targets.points_world)).norm(dim=-1)
    cam = (raw[..., 3:6] - log_points(targets.points_cam)).norm(dim=-1)
    valid = targets.valid
    num_valid = valid.sum().clamp_min(1)
    error = (world_weight * world + cam) / (world_weight + 1)
    weighted = confidence * error - alpha * confidence.log()
    sky = confidence * SKY_ERROR - alpha * confidence.log()
    # Plain errors keep pulling where confidence is low; confidence alone would give up on them.
    surfaces = ((weighted + error) * valid).sum() / num_valid
    nothing = (sky * targets.sky).sum() / targets.sky.numel()
    return PointLoss(
        total=surfaces + nothing,
        world_error=((world * valid).sum() / num_valid).detach(),
        camera_error=((cam * valid).sum() / num_valid).detach(),
    )


def depth_scores(
    raw: Float[Tensor, "B V 7 h w"], targets: Targets
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Return mean absolute relative depth error and the share within a factor of 1.25."""
    points = raw[:, :, 3:6].permute(0, 1, 3, 4, 2)
    length = points.norm(dim=-1, keepdim=True).clamp_min(1e-8)
    depth = (points / length * torch.expm1(length))[..., 2][targets.valid].clamp_min(0.1)
    truth = targets.points_cam[..., 2][targets.valid]
    ratio = torch.maximum(depth / truth, truth / depth)
    return ((depth - truth).abs() / truth).mean(), (ratio < 1.25).float().mean()
