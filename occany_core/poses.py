# SPDX-License-Identifier: Apache-2.0
"""Pointmaps -> focal length and world_from_cam of every view (spec 9).

World is the optical frame of the reference view. The reference view's own pose is estimated like
the others and stays close to, but not exactly, the identity. `B` scenes, `V` views.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from occany_core import camera, rigid
from occany_core.errors import DegenerateGeometryError

WEISZFELD_STEPS = 10


@dataclass(frozen=True)
class Cameras:
    """Cameras of the views of one scene."""

    K: Float[Tensor, "V 3 3"]
    """Pixels at network size."""
    world_from_cam: Float[Tensor, "V 4 4"]
    """Metres."""

    def views(self, picked: slice) -> "Cameras":
        """Return some of the cameras."""
        return Cameras(self.K[picked], self.world_from_cam[picked])

    def cpu(self) -> "Cameras":
        """Return a copy in host memory."""
        return Cameras(self.K.cpu(), self.world_from_cam.cpu())


def estimate_focal(points_cam: Float[Tensor, "B H W 3"]) -> Float[Tensor, " B"]:
    """Fit one focal length [px] to a pointmap in its own camera frame.

    Ten steps of a re-weighted least-squares fit with the principal point at (W / 2, H / 2) and an
    integer pixel grid, not below 0.
    """
    height, width = points_cam.shape[1:3]
    grid = camera.pixel_grid(height, width, points_cam.device)
    pixels = (grid - grid.new_tensor([width / 2, height / 2])).flatten(0, 1)
    slopes = (points_cam[..., :2] / points_cam[..., 2:]).flatten(1, 2)
    slopes = torch.nan_to_num(slopes, nan=0.0, posinf=0.0, neginf=0.0)
    agreement = (slopes * pixels).sum(dim=-1)
    strength = (slopes * slopes).sum(dim=-1)
    focal = agreement.mean(dim=-1) / strength.mean(dim=-1)
    for _ in range(WEISZFELD_STEPS):
        misfit = (pixels - focal[:, None, None] * slopes).norm(dim=-1)
        weight = 1 / misfit.clamp_min(1e-8)
        focal = (weight * agreement).mean(dim=-1) / (weight * strength).mean(dim=-1)
    return focal.clamp_min(0)


def register(
    points_world: Float[Tensor, "*batch H W 3"],
    points_cam: Float[Tensor, "*batch H W 3"],
    confidence: Float[Tensor, "*batch H W"],
) -> Float[Tensor, "*batch 4 4"]:
    """Return the world_from_cam that maps each camera pointmap onto its world pointmap.

    Every pixel counts with its confidence minus one.
    """
    return rigid.align(
        points_world.flatten(-3, -2), points_cam.flatten(-3, -2), (confidence - 1).flatten(-2)
    )


def estimate_cameras(
    points_world: Float[Tensor, "V H W 3"],
    points_cam: Float[Tensor, "V H W 3"],
    confidence: Float[Tensor, "V H W"],
) -> Cameras:
    """Estimate the cameras of one scene; the reference view's focal length serves all views.

    Raises:
        DegenerateGeometryError: The prediction is not finite or determines no focal length.
    """
    height, width = points_cam.shape[1:3]
    focal_px = estimate_focal(points_cam[:1])
    if not (bool(torch.isfinite(focal_px)) and focal_px.item() > 0):
        raise DegenerateGeometryError(
            "the predicted points of the reference view give a focal length of "
            f"{focal_px.item()} px; "
            "give the camera's K, or check that the picture shows a scene and not a blank surface"
        )
    world_from_cam = register(points_world, points_cam, confidence)
    return Cameras(
        camera.pinhole(focal_px, height, width).expand(len(points_cam), 3, 3), world_from_cam
    )


def pose_from_encoding(encoding: Float[Tensor, "*batch 7"]) -> Float[Tensor, "*batch 4 4"]:
    """Turn the pose head's translation [m] and quaternion (real first) into world_from_cam."""
    w, x, y, z = encoding[..., 3:].unbind(-1)
    scale = 2 / (encoding[..., 3:] ** 2).sum(dim=-1)
    rows = (
        1 - scale * (y * y + z * z), scale * (x * y - w * z), scale * (x * z + w * y),
        scale * (x * y + w * z), 1 - scale * (x * x + z * z), scale * (y * z - w * x),
        scale * (x * z - w * y), scale * (y * z + w * x), 1 - scale * (x * x + y * y),
    )  # fmt: skip
    return rigid.compose(torch.stack(rows, dim=-1).unflatten(-1, (3, 3)), encoding[..., :3])


def encoding_from_pose(world_from_cam: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 7"]:
    """Turn world_from_cam into translation [m] and unit quaternion (real first, not negative).

    The inverse of `pose_from_encoding`; what the pose head is trained towards (spec 14).
    """
    rotation = world_from_cam[..., :3, :3]
    xx, yy, zz = rotation.diagonal(dim1=-2, dim2=-1).unbind(-1)
    squares = torch.stack((1 + xx + yy + zz, 1 + xx - yy - zz, 1 - xx + yy - zz, 1 - xx - yy + zz))
    a, b, c = (rotation[..., i, j] for i, j in ((2, 1), (0, 2), (1, 0)))
    d, e, f = (rotation[..., i, j] for i, j in ((1, 2), (2, 0), (0, 1)))
    # Row k is the quaternion times four times its entry k: the largest divisor is the safest.
    rows = torch.stack(
        (
            torch.stack((squares[0], a - d, b - e, c - f), dim=-1),
            torch.stack((a - d, squares[1], c + f, b + e), dim=-1),
            torch.stack((b - e, c + f, squares[2], a + d), dim=-1),
            torch.stack((c - f, b + e, a + d, squares[3]), dim=-1),
        )
    )
    largest = squares.argmax(dim=0)[None, ..., None].expand(1, *rows.shape[1:])
    quaternion = torch.nn.functional.normalize(rows.gather(0, largest)[0], dim=-1)
    quaternion = torch.where(quaternion[..., :1] < 0, -quaternion, quaternion)
    return torch.cat((world_from_cam[..., :3, 3], quaternion), dim=-1)
