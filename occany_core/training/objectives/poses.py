# SPDX-License-Identifier: Apache-2.0
"""The pose term: what the pose head says against the true camera poses (training page 4.3)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from occany_core import rigid
from occany_core.poses import encoding_from_pose, pose_from_encoding


@dataclass(frozen=True)
class PoseErrors:
    """Mean errors of some camera poses, to report; without gradient."""

    rotation_deg: Float[Tensor, ""]
    translation: Float[Tensor, ""]
    """Metres."""


def pose_loss(
    encoding: Float[Tensor, "B N 7"], reference_from_cam: Float[Tensor, "B N 4 4"]
) -> Float[Tensor, ""]:
    """Return the mean Euclidean distance of pose encodings.

    Metres and the entries of a unit quaternion count alike; scenes are not scaled.

    Args:
        encoding: Translation [m] and quaternion (real part first) as the pose head gives them; the
            quaternion need not have length 1.
        reference_from_cam: True poses in the frame of view 0 [m].
    """
    difference = encoding_from_pose(reference_from_cam) - encoding
    return torch.linalg.vector_norm(difference, dim=-1).mean()


@torch.no_grad()
def pose_errors(
    ours: Float[Tensor, "B N 4 4"], reference_from_cam: Float[Tensor, "B N 4 4"]
) -> PoseErrors:
    """Return mean errors of poses, from the pose head or from registration."""
    turned = rigid.angle_deg(rigid.invert(ours) @ reference_from_cam).mean()
    moved = torch.linalg.vector_norm(ours[..., :3, 3] - reference_from_cam[..., :3, 3], dim=-1)
    return PoseErrors(turned, moved.mean())


@torch.no_grad()
def encoding_errors(
    encoding: Float[Tensor, "B N 7"], reference_from_cam: Float[Tensor, "B N 4 4"]
) -> PoseErrors:
    """Return mean errors of the poses that encodings stand for."""
    return pose_errors(pose_from_encoding(encoding), reference_from_cam)
