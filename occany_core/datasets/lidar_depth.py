# SPDX-License-Identifier: Apache-2.0
"""LiDAR points -> sparse depth pictures, each data set by its own rule (evaluation page 14).

Depth is along the camera's z [m]; 0 means no value.
"""

import numpy as np
from jaxtyping import Float

NUSCENES_NEAREST = 0.1
"""Points nearer than this to the camera plane are not drawn [m]."""


def depth_last_wins(
    points: Float[np.ndarray, "P 3"],
    cam_from_points: Float[np.ndarray, "4 4"],
    K: Float[np.ndarray, "3 3"],
    size: tuple[int, int],
) -> Float[np.ndarray, "height width"]:
    """Draw a scan as for SemanticKITTI: later points overwrite earlier ones, whatever their depth.

    Args:
        points: In the frame of the scanner [m].
        cam_from_points: Scanner to camera.
        K: Intrinsics of the picture [px].
        size: (height, width) of the picture.
    """
    height, width = size
    pixels, z = _project(points, cam_from_points, K)
    u, v = pixels.T
    inside = (z > 0) & (u > 0) & (u < width) & (v > 0) & (v < height)
    columns = np.clip(np.round(u[inside]).astype(int), 0, width - 1)
    rows = np.clip(np.round(v[inside]).astype(int), 0, height - 1)
    # Keep the last point of every pixel: the first one in reverse.
    flat = rows[::-1] * width + columns[::-1]
    where, last = np.unique(flat, return_index=True)
    return _picture(where, z[inside][::-1][last], size)


def depth_nearest_wins(
    points: Float[np.ndarray, "P 3"],
    cam_from_points: Float[np.ndarray, "4 4"],
    K: Float[np.ndarray, "3 3"],
    size: tuple[int, int],
) -> Float[np.ndarray, "height width"]:
    """Draw a sweep as for nuScenes: the smallest depth wins a pixel; arguments as above."""
    height, width = size
    pixels, z = _project(points, cam_from_points, K)
    columns, rows = np.round(pixels).T
    inside = (
        (z > NUSCENES_NEAREST) & (columns >= 0) & (columns < width) & (rows >= 0) & (rows < height)
    )
    flat, depth = (rows[inside] * width + columns[inside]).astype(int), z[inside]
    order = np.lexsort((depth, flat))
    where, first = np.unique(flat[order], return_index=True)
    return _picture(where, depth[order][first], size)


def _project(
    points: np.ndarray, cam_from_points: np.ndarray, K: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return (u, v) [px] and z [m] of every point; (u, v) means nothing where z <= 0."""
    motion = np.asarray(cam_from_points, dtype=np.float64)
    points_cam = points @ motion[:3, :3].T + motion[:3, 3]
    z = points_cam[:, 2]
    homogeneous = points_cam @ np.asarray(K, dtype=np.float64).T
    return homogeneous[:, :2] / np.where(z > 0, z, 1.0)[:, None], z


def _picture(where: np.ndarray, depth: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    picture = np.zeros(size, dtype=np.float32)
    picture.reshape(-1)[where] = depth
    return picture
