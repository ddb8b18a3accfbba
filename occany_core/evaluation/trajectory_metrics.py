# SPDX-License-Identifier: Apache-2.0
"""Predicted against true motion, without alignment or scaling.

Driving paths (evaluation page 15), and poses of cameras.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from occany_core import rigid
from occany_core.errors import InputError

FRAMES = 25
"""Pictures of a sample of the Vista validation list."""
FRAMES_BETWEEN_WAYPOINTS = 5


def predicted_path(
    world_from_cam: Float[Tensor, "*batch T rows 4"],
) -> Float[Tensor, "*batch T 3"]:
    """Return right [m], forward [m] and heading [rad] of every frame, seen from the first.

    Args:
        world_from_cam: Predicted poses, with (4 x 4) or without (3 x 4) their last row.

    Returns:
        The heading, the angle of the optical axis from the right in (-pi, pi], is not scored.
    """
    rotation, translation = world_from_cam[..., :3, :3], world_from_cam[..., :3, 3:]
    first_from_world = rotation[..., :1, :, :].transpose(-1, -2)
    moved = (first_from_world @ (translation - translation[..., :1, :, :]))[..., 0]
    axis = (first_from_world @ rotation)[..., 2]
    heading = torch.atan2(axis[..., 2], axis[..., 0])
    heading = torch.where(heading <= -torch.pi, heading + 2 * torch.pi, heading)
    return torch.stack((moved[..., 0], moved[..., 2], heading), dim=-1)


def annotated_path(
    waypoints: Float[np.ndarray, "N 2"],
    frames: int = FRAMES,
    frames_between: int = FRAMES_BETWEEN_WAYPOINTS,
) -> Float[np.ndarray, "frames 2"]:
    """Return right and forward [m] of every frame from sparse way-points.

    The first way-point becomes the origin. Between way-points the path is straight, beyond the
    last it goes on as before. A list with one point a frame is used as it is.

    Raises:
        InputError: There is no way-point, or one is not a pair of finite numbers.
    """
    points = np.array(waypoints, dtype=np.float64)
    if (
        points.ndim != 2
        or points.shape[1] != 2
        or not len(points)
        or not np.isfinite(points).all()
    ):
        raise InputError(
            f"way-points of shape {points.shape}; expected at least one finite (right, forward)"
        )
    if len(points) == frames:
        return points
    points[0] = 0
    if len(points) == 1:
        return np.zeros((frames, 2))
    position = np.arange(frames) / frames_between
    before = np.minimum(position.astype(int), len(points) - 2)
    share = (position - before)[:, None]
    return points[before] + share * (points[before + 1] - points[before])


def fill_up(pictures: list, frames: int = FRAMES) -> list:
    """Repeat the last picture of a short sample; cut a long one.

    Raises:
        InputError: There is no picture.
    """
    if not pictures:
        raise InputError("a trajectory sample without pictures; check the validation list")
    return [*pictures, *[pictures[-1]] * (frames - len(pictures))][:frames]


def displacement_error(
    predicted: Float[np.ndarray, "*batch T 2"], truth: Float[np.ndarray, "*batch T 2"]
) -> Float[np.ndarray, "*batch"]:
    """Return the mean distance [m] over all frames, the first included (ADE).

    Raises:
        InputError: The shapes differ.
    """
    predicted, truth = np.asarray(predicted, np.float64), np.asarray(truth, np.float64)
    if predicted.shape != truth.shape:
        raise InputError(
            f"predicted path {predicted.shape} and truth {truth.shape} differ in shape; both need "
            "right and forward of every frame"
        )
    return np.linalg.norm(predicted - truth, axis=-1).mean(axis=-1)


@dataclass(frozen=True)
class PoseErrors:
    """How far poses are from the truth, on average over views."""

    translation_m: float
    rotation_deg: float


def pose_errors(predicted: Float[Tensor, "V 4 4"], truth: Float[Tensor, "V 4 4"]) -> PoseErrors:
    """Compare where each later view is and looks, both seen from the first view.

    Args:
        predicted: world_from_cam [m]; the worlds of the two may differ.
        truth: The same.

    Raises:
        InputError: Fewer than two views, or different numbers of them.
    """
    if predicted.shape != truth.shape or len(truth) < 2:
        raise InputError(
            f"predicted poses {tuple(predicted.shape)} and truth {tuple(truth.shape)}; give both "
            "for the same views, of which there must be two or more"
        )
    ours, true = (
        rigid.invert(poses[:1]) @ poses[1:] for poses in (predicted.double(), truth.double())
    )
    return PoseErrors(
        translation_m=float((ours - true)[:, :3, 3].norm(dim=-1).mean()),
        rotation_deg=float(rigid.angle_deg(rigid.invert(true) @ ours).mean()),
    )


def mean_pose_errors(scenes: Sequence[PoseErrors]) -> PoseErrors:
    """Average over scenes, each with the same weight."""
    return PoseErrors(
        translation_m=float(np.mean([one.translation_m for one in scenes])),
        rotation_deg=float(np.mean([one.rotation_deg for one in scenes])),
    )
