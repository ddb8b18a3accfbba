# SPDX-License-Identifier: Apache-2.0
"""Where the rig is: known or assumed camera mountings -> world_from_rig.

The rig frame has body axes (x forward, y left, z up) with its origin on the ground; world is the
optical frame of the reference view. Metres.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from occany_core import rigid
from occany_core.pointmaps import Pointmaps

BODY_FROM_OPTICAL = ((0.0, 0.0, 1.0), (-1.0, 0.0, 0.0), (0.0, -1.0, 0.0))
"""Optical axes (x right, y down, z forward) seen in body axes (REP 103)."""


def grid_from_reference(camera_height: float, camera_pitch_deg: float) -> Float[Tensor, "4 4"]:
    """Return the mounting of a forward camera at this height, pitched down by this angle."""
    pitch = math.radians(camera_pitch_deg)
    cosine, sine = math.cos(pitch), math.sin(pitch)
    tilt = torch.tensor([[cosine, 0.0, sine], [0.0, 1.0, 0.0], [-sine, 0.0, cosine]])
    rotation = tilt @ torch.tensor(BODY_FROM_OPTICAL)
    return rigid.compose(rotation, torch.tensor([0.0, 0.0, camera_height]))


def known_cameras(
    points: Pointmaps, rig_from_cam: Float[Tensor, "V 4 4"], set_index: Int[Tensor, " V"]
) -> tuple[Float[Tensor, "V 4 4"], Float[Tensor, "S 4 4"]]:
    """Return camera and rig poses where the mounting of every camera is known.

    The first set defines the world. How the rig moved until a later set is read off the predicted
    pointmaps, by aligning all its cameras at once.

    Args:
        points: Camera points on calibrated rays, world points as predicted.
        rig_from_cam: Mounting of each view's camera.
        set_index: View set of each view, starting at 0.
    """
    world_from_rig = [rigid.invert(rig_from_cam[0])]
    for later in range(1, int(set_index.max()) + 1):
        views = set_index == later
        in_rig = rigid.apply(rig_from_cam[views], points.points_cam[views].flatten(1, 2))
        world_from_rig.append(
            rigid.align(
                points.points_world[views].reshape(-1, 3),
                in_rig.reshape(-1, 3),
                (points.confidence[views] - 1).flatten(),
            )
        )
    world_from_rig = torch.stack(world_from_rig)
    return world_from_rig[set_index] @ rig_from_cam, world_from_rig
