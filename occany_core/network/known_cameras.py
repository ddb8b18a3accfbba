# SPDX-License-Identifier: Apache-2.0
"""What calibration tells the network: where every pixel looks, and where it would meet the ground.

Not of the paper, whose network sees pictures only: an option of networks trained from scratch
(`NetworkConfig.calibration`). The field of view, the height and the tilt of a camera are hard to
see and usually known. `B` scenes, `V` views, `G` = B x V. Rig axes: x forward, y left, z up,
origin on the ground; metres.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from occany_core import camera, rigid
from occany_core.network.point_activation import log_points
from occany_core.network.precision import full_precision

SIGHT_CHANNELS = 7
FARTHEST = 25.0
"""Where the first guess puts what does not meet the level ground before [m]."""
LEAST_HEIGHT = 0.1
"""Of a camera, so that its ground is not where it stands [m]."""
FARTHEST_GROUND = 80.0
"""Where ground ends that rises to the horizon [m]."""
SLOPE_UNIT = 0.05
OTHER_RANGE = 15.0
"""First guess for what is not ground [m]."""
GROUND_GAIN, LIKELY = 60.0, 3.0
"""Logit of being ground, per unit that a ray falls below one that meets the ground at `FARTHEST`;
and its limit."""
MAX_LOG_RANGE = 10.0


@dataclass(frozen=True)
class KnownCameras:
    """Calibration of views, where there is any."""

    K: Float[Tensor, "B V 3 3"]
    """Intrinsics at the size of the network's pictures [px]."""
    rig_from_cam: Float[Tensor, "B V 4 4"]
    """Mounting; of novel views, where they are seen from the reference view's rig."""
    is_known: Bool[Tensor, "B V"]
    """False where the two above mean nothing."""
    rig_from_reference: Float[Tensor, "B 1 4 4"] | None = None
    """Mounting of the reference view; None where that is view 0."""

    @staticmethod
    def unknown(batch: int, views: int, device: torch.device) -> "KnownCameras":
        """Return what stands for cameras of which nothing is known."""
        eye = torch.eye(4, device=device).expand(batch, views, 4, 4)
        known = torch.zeros(batch, views, dtype=torch.bool, device=device)
        return KnownCameras(eye[..., :3, :3], eye, known)

    def to(self, device: torch.device | str) -> "KnownCameras":
        """Return the same on a device."""
        reference = self.rig_from_reference
        return KnownCameras(
            self.K.to(device),
            self.rig_from_cam.to(device),
            self.is_known.to(device),
            None if reference is None else reference.to(device),
        )

    def views(self, picked: slice) -> "KnownCameras":
        """Return some views."""
        return KnownCameras(
            self.K[:, picked],
            self.rig_from_cam[:, picked],
            self.is_known[:, picked],
            self.rig_from_reference,
        )

    @staticmethod
    def joined(parts: "list[KnownCameras]") -> "KnownCameras":
        """Concatenate along views; the first one is the reference view."""
        return KnownCameras(
            torch.cat([part.K for part in parts], dim=1),
            torch.cat([part.rig_from_cam for part in parts], dim=1),
            torch.cat([part.is_known for part in parts], dim=1),
        )

    def directions(self, height: int, width: int, block: int) -> Float[Tensor, "B V h w 3"]:
        """Return unit rays through the centres of blocks of pixels, in the camera frame.

        Args:
            height: Rows of blocks.
            width: Columns of blocks.
            block: Side of a block [px].
        """
        rays = camera.rays(camera.resize(self.K, 1 / block, 1 / block), height, width)
        return rays / rays.norm(dim=-1, keepdim=True)

    def _in_rig(self, directions: Float[Tensor, "B V h w 3"]) -> Float[Tensor, "B V h w 3"]:
        rotation = self.rig_from_cam[:, :, None, :3, :3]
        return directions @ rotation.transpose(-1, -2)

    def first_guess(self, directions: Float[Tensor, "B V h w 3"]) -> Float[Tensor, "B V h w 1"]:
        """Return the range at which rays meet the level ground, at most `FARTHEST` [m]."""
        falls, height = self._falls(directions)
        return height / falls.clamp_min(height / FARTHEST)

    def _falls(self, directions: Float[Tensor, "B V h w 3"]) -> tuple[Tensor, Tensor]:
        """Return by how much rays fall per metre, and the height of their cameras [m]."""
        height = self.rig_from_cam[:, :, None, None, 2:3, 3].clamp_min(LEAST_HEIGHT)
        return -self._in_rig(directions)[..., 2:], height

    def sight(self, height: int, width: int, block: int) -> Float[Tensor, "G 7 h w"]:
        """Return what pixels see, in channels of about 1: rays in camera and rig, first guess.

        Args:
            height: Rows of blocks.
            width: Columns of blocks.
            block: Side of a block [px].
        """
        directions = self.directions(height, width, block)
        in_rig = self._in_rig(directions)
        guess = torch.log1p(self.first_guess(directions)) / 3
        mounted = self.rig_from_cam[:, :, None, None, 2:3, 3].expand_as(guess) / 2
        channels = torch.cat((directions[..., :2], in_rig, guess, mounted), dim=-1)
        return channels.flatten(0, 1).permute(0, 3, 1, 2)

    def place(self, said: Float[Tensor, "G 6 h w"], block: int) -> Float[Tensor, "G 6 h w"]:
        """Put points on the rays: each is ground, whose range follows from its slope, or not.

        Far ground fills few rows, over which its range rises steeply; its slope and whether it is
        ground at all change slowly and can be said at low resolution.

        Args:
            said: What is to be added to the log-point in the reference frame (3), the slope of the
                ground towards the camera in `SLOPE_UNIT`, the log of the range of what is not
                ground, and the logit of being ground.
            block: Side of a block of pixels [px].

        Returns:
            Log-points in the reference frame and in the camera frame.
        """
        maps = said.permute(0, 2, 3, 1).unflatten(0, self.is_known.shape)
        directions = self.directions(*maps.shape[2:4], block)
        log_range = self._log_range(directions, *maps[..., 3:].split(1, dim=-1))
        reference = self.rig_from_reference
        if reference is None:
            reference = self.rig_from_cam[:, :1]
        poses = rigid.invert(reference) @ self.rig_from_cam
        points = (directions * torch.expm1(log_range.clamp_max(MAX_LOG_RANGE))).flatten(2, 3)
        moved = log_points(rigid.apply(poses, points).view_as(directions)) + maps[..., :3]
        placed = torch.cat((moved, directions * log_range), dim=-1)
        return placed.flatten(0, 1).permute(0, 3, 1, 2)

    def _log_range(
        self,
        directions: Float[Tensor, "B V h w 3"],
        slope: Tensor,
        other: Tensor,
        is_ground: Tensor,
    ) -> Float[Tensor, "B V h w 1"]:
        falls, height = self._falls(directions)
        ground = height / (falls + SLOPE_UNIT * slope).clamp_min(height / FARTHEST_GROUND)
        likely = ((falls - height / FARTHEST) * GROUND_GAIN).clamp(-LIKELY, LIKELY)
        share = torch.sigmoid(is_ground + likely)
        return share * torch.log1p(ground) + (1 - share) * (other + math.log1p(OTHER_RANGE))


class SightEmbedding(nn.Module):
    """Features of what pixels see; nothing where that is unknown, and before training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(SIGHT_CHANNELS, width, 1), nn.GELU(), nn.Conv2d(width, width, 1)
        )
        nn.init.zeros_(self.body[-1].weight)
        nn.init.zeros_(self.body[-1].bias)

    def forward(
        self, cameras: KnownCameras, size: tuple[int, int], block: int
    ) -> Float[Tensor, "G width h w"]:
        """Embed the cameras for maps of (rows, columns) blocks."""
        known = cameras.is_known.flatten()[:, None, None, None]
        with full_precision(known.device):  # a degree is little, and all that tells far from near
            sight = cameras.sight(*size, block)
        return self.body(sight) * known
