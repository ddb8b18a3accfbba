# SPDX-License-Identifier: Apache-2.0
"""Pointmaps: what the network predicts per pixel, and how known calibration corrects it.

World is the optical frame of the reference view (x right, y down, z forward), metres. `V` views,
`H W` pixels.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from occany_core import camera, rigid
from occany_core.errors import DegenerateGeometryError
from occany_core.network import RawMaps


@dataclass(frozen=True)
class Pointmaps:
    """Points and their trust, one per pixel of each view of one scene."""

    points_world: Float[Tensor, "V H W 3"]
    points_cam: Float[Tensor, "V H W 3"]
    confidence: Float[Tensor, "V H W"]
    """In (1, inf)."""

    def views(self, picked: slice) -> "Pointmaps":
        """Return some views."""
        return Pointmaps(
            self.points_world[picked], self.points_cam[picked], self.confidence[picked]
        )

    def cpu(self) -> "Pointmaps":
        """Return a copy in host memory."""
        return Pointmaps(self.points_world.cpu(), self.points_cam.cpu(), self.confidence.cpu())


def of_scene(raw: RawMaps) -> Pointmaps:
    """Take the pointmaps of the only scene of a batch."""
    return Pointmaps(raw.points_world[0], raw.points_cam[0], raw.confidence[0])


def check_finite(raw: RawMaps, which: str) -> None:
    """Refuse maps that hold anything but numbers.

    Args:
        raw: As the network gave them.
        which: Views these are, for the message.

    Raises:
        DegenerateGeometryError: Names the views.
    """
    maps = (raw.points_world, raw.points_cam, raw.confidence[..., None])
    finite = torch.stack([torch.isfinite(part).all(-1).all(-1).all(-1) for part in maps])
    bad = torch.nonzero(~finite.all(dim=0).all(dim=0)).flatten().tolist()
    if bad:
        raise DegenerateGeometryError(
            f"the network's output for {which} view {', '.join(map(str, bad))} is not finite "
            "(NaN or infinite), no grid is made of it; if it lasts, set runtime.dtype to float32 "
            "and compare the weights with their checksum"
        )


def joined(parts: list[Pointmaps]) -> Pointmaps:
    """Concatenate along views."""
    return Pointmaps(
        torch.cat([part.points_world for part in parts]),
        torch.cat([part.points_cam for part in parts]),
        torch.cat([part.confidence for part in parts]),
    )


def scaled(maps: Pointmaps, factor: float) -> Pointmaps:
    """Multiply all distances."""
    return Pointmaps(maps.points_world * factor, maps.points_cam * factor, maps.confidence)


def calibrate(
    predicted: Pointmaps,
    K: Float[Tensor, "V 3 3"],
    world_from_cam: Float[Tensor, "V 4 4"] | None,
) -> Pointmaps:
    """Put predicted points on the rays of known cameras.

    The depth of a predicted point is kept, its direction replaced: the network has to guess the
    field of view of a picture, a calibration knows it.

    Args:
        predicted: From the network.
        K: Intrinsics [px] at the pictures' size.
        world_from_cam: True poses, from which world points then follow; None keeps the
            predicted ones.
    """
    depth = predicted.points_cam[..., 2].clamp_min(0)
    points_cam = camera.backproject(K, depth)
    if world_from_cam is None:
        return Pointmaps(predicted.points_world, points_cam, predicted.confidence)
    points_world = rigid.apply(world_from_cam, points_cam.flatten(1, 2)).view_as(points_cam)
    return Pointmaps(points_world, points_cam, predicted.confidence)
