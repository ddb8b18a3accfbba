# SPDX-License-Identifier: Apache-2.0
"""Camera rigs and camera moves: names or a random generator -> cameras with K and rig_from_cam.

Rig frame: x forward, y left, z up, metres, origin on the ground below the vehicle. Camera frame:
x right, y down, z forward. Pixel (0,0) is the centre of the top-left pixel.
"""

import math
from dataclasses import dataclass

import numpy as np

from occany_core.errors import ConfigError
from occany_core.synthetic.primitives import Numbers

SURROUND_CAMERAS = (  # name, yaw in degrees (left positive); the front camera comes first
    ("front", 0),
    ("front_right", -55),
    ("front_left", 55),
    ("back", 180),
    ("back_left", 110),
    ("back_right", -110),
)
RIG_NAMES = ("surround6", "front")
MOUNT_AHEAD, MOUNT_ASIDE, MOUNT_HEIGHT = 1.5, 0.9, 1.55  # metres
FRONT_VIEW, REAR_VIEW = 70.0, 110.0  # horizontal field of view, degrees


@dataclass(frozen=True)
class RigCamera:
    """One camera of a rig: K (3,3) in pixels, rig_from_cam (4,4) in metres; float64."""

    name: str
    K: np.ndarray
    rig_from_cam: np.ndarray


def mounted_camera(
    name: str,
    yaw: float,
    field_of_view: float,
    position: Numbers,
    pitch: float,
    size: tuple[int, int],
) -> RigCamera:
    """A camera looking along `yaw` (left positive) and `pitch` (up positive), in degrees.

    field_of_view is horizontal, in degrees; position (3,) metres in the rig; size is
    (width, height) in pixels.
    """
    width, height = size
    focal = width / 2 / math.tan(math.radians(field_of_view) / 2)
    K = np.array([[focal, 0, width / 2 - 0.5], [0, focal, height / 2 - 0.5], [0, 0, 1.0]])
    cos_yaw, sin_yaw = math.cos(math.radians(yaw)), math.sin(math.radians(yaw))
    cos_pitch, sin_pitch = math.cos(math.radians(pitch)), math.sin(math.radians(pitch))
    forward = np.array([cos_yaw * cos_pitch, sin_yaw * cos_pitch, sin_pitch])
    right = np.array([sin_yaw, -cos_yaw, 0.0])
    rig_from_cam = np.eye(4)
    rig_from_cam[:3, 0] = right
    rig_from_cam[:3, 1] = np.cross(forward, right)
    rig_from_cam[:3, 2] = forward
    rig_from_cam[:3, 3] = position
    return RigCamera(name, K, rig_from_cam)


def named_rig(name: str, width: int, height: int) -> list[RigCamera]:
    """The fixed rigs: "surround6" (six cameras all around) or "front" (its first camera).

    Raises ConfigError for any other name.
    """
    if name not in RIG_NAMES:
        raise ConfigError(f"rig is {name!r}; it must be one of {', '.join(RIG_NAMES)}")
    cameras = []
    for camera, yaw in SURROUND_CAMERAS:
        angle = math.radians(yaw)
        position = (MOUNT_AHEAD * math.cos(angle), MOUNT_ASIDE * math.sin(angle), MOUNT_HEIGHT)
        view = REAR_VIEW if camera == "back" else FRONT_VIEW
        cameras.append(mounted_camera(camera, yaw, view, position, 0.0, (width, height)))
    return cameras if name == "surround6" else cameras[:1]


def jittered_surround(rng: np.random.Generator, width: int, height: int) -> list[RigCamera]:
    """A six-camera rig as `surround6` with drawn height, field of view and mounting errors."""
    mount_height = rng.uniform(1.35, 1.85)
    field_of_view = rng.uniform(60, 80)
    rear_view = REAR_VIEW if rng.random() < 0.6 else field_of_view
    cameras = []
    for camera, yaw in SURROUND_CAMERAS:
        angle = math.radians(yaw)
        turned = yaw + rng.normal(0, 2.5)
        if camera == "back":
            view = rear_view + rng.normal(0, 2)
        else:
            view = field_of_view + rng.normal(0, 1)
        position = (
            MOUNT_AHEAD * math.cos(angle) + rng.normal(0, 0.1),
            MOUNT_ASIDE * math.sin(angle) + rng.normal(0, 0.1),
            mount_height + rng.normal(0, 0.04),
        )
        pitch = rng.normal(0, 1.2)
        cameras.append(mounted_camera(camera, turned, view, position, pitch, (width, height)))
    return cameras


def novel_view_pose(world_from_cam: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A pose (4,4) of a camera moved forward, and perhaps aside and turned about its y axis.

    0.5 to 9 m ahead; one in three straight, one right, one left by up to 2 m and 20 to 60 degrees.
    """
    variant = rng.integers(3)
    degrees = rng.uniform(20, 60)
    aside = rng.uniform(0, 2)
    ahead = world_from_cam @ _shift(0, rng.uniform(0.5, 9))
    if variant == 0:
        return ahead
    sign = 1 if variant == 1 else -1
    return ahead @ _shift(sign * aside, 0) @ _turn(sign * degrees)


def _shift(x: float, z: float) -> np.ndarray:
    moved = np.eye(4)
    moved[0, 3], moved[2, 3] = x, z
    return moved


def _turn(degrees: float) -> np.ndarray:
    angle = math.radians(degrees)
    turned = np.eye(4)
    turned[0, 0] = turned[2, 2] = math.cos(angle)
    turned[0, 2] = math.sin(angle)
    turned[2, 0] = -math.sin(angle)
    return turned
