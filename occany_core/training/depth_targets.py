# SPDX-License-Identifier: Apache-2.0
"""Sparse depth of a cropped training picture, and the points it stands for (training page 3.3).

Depth is along the camera's z [m]; 0 means no value. The centre of the top-left pixel is (0, 0).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from torch import Tensor

from occany_core import camera, rigid
from occany_core.datasets.lidar_depth import depth_last_wins

MOST_DEPTH = 50.0
"""Depths from here on are not supervised [m]."""


@dataclass(frozen=True)
class DepthTargets:
    """What a depth picture says about the scene."""

    points_reference: Float[Tensor, "*views H W 3"]
    """Frame of view 0 [m]; where there is no depth, the camera's own place."""
    valid: Bool[Tensor, "*views H W"]
    """Depth is finite, above 0 and below `MOST_DEPTH`."""


def depth_targets(
    depth: Float[Tensor, "*views H W"],
    K: Float[Tensor, "*views 3 3"],
    reference_from_cam: Float[Tensor, "*views 4 4"],
) -> DepthTargets:
    """Return the points of depth pictures.

    Args:
        depth: Along z [m].
        K: Intrinsics [px].
        reference_from_cam: Poses in the frame of view 0 [m].
    """
    points_cam = camera.backproject(K, depth).flatten(-3, -2)
    points = rigid.apply(reference_from_cam, points_cam).unflatten(-2, depth.shape[-2:])
    return DepthTargets(points, (depth > 0) & (depth < MOST_DEPTH) & depth.isfinite())


def redraw_depth(
    depth: Float[np.ndarray, "H W"],
    K: Float[np.ndarray, "3 3"],
    new_K: Float[np.ndarray, "3 3"],
    size: tuple[int, int],
    *,
    nearest_wins: bool = True,
) -> Float[np.ndarray, "height width"]:
    """Draw sparse depth into another crop of the same picture, without interpolation.

    Every value goes to the nearest pixel of the crop.

    Args:
        depth: Before the crop [m].
        K: Intrinsics before [px].
        new_K: Intrinsics of the crop [px].
        size: (height, width) of the crop.
        nearest_wins: The smallest depth wins a pixel. The released code lets the last value win,
            in row-major order of the source.
    """
    K, (v, u) = np.asarray(K, dtype=np.float64), np.nonzero(depth > 0)
    z = depth[v, u].astype(np.float64)
    points = np.stack(((u - K[0, 2]) * z / K[0, 0], (v - K[1, 2]) * z / K[1, 1], z), axis=-1)
    if nearest_wins:
        points = points[np.argsort(-z, kind="stable")]
    return depth_last_wins(points.astype(np.float32), np.eye(4), new_K, size)


def points_in_picture(
    points: Float[np.ndarray, "P 3"],
    cam_from_points: Float[np.ndarray, "4 4"],
    K: Float[np.ndarray, "3 3"],
    size: tuple[int, int],
) -> Int[np.ndarray, " inside"]:
    """Return the indices of points that `depth_last_wins` draws; arguments as there."""
    motion = np.asarray(cam_from_points, dtype=np.float64)
    points_cam = points @ motion[:3, :3].T + motion[:3, 3]
    depth = points_cam[:, 2:]
    # What lies behind the camera has no pixel; 1 keeps the division harmless.
    pixels = (points_cam @ np.asarray(K, dtype=np.float64).T)[:, :2]
    pixels = pixels / np.where(depth > 0, depth, 1.0)
    inside = (depth > 0) & (pixels > 0) & (pixels < size[::-1])
    return np.flatnonzero(inside.all(axis=1))
