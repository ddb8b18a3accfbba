# SPDX-License-Identifier: Apache-2.0
"""Occ3D-nuScenes: voxel labels and poses as arrays (evaluation page 1, 12).

Frames: `cam`, `ego` (vehicle; the grid's frame), `world`. Every camera has an ego pose of its own,
because the cameras fire one after the other.
"""

import zipfile
from pathlib import Path

import numpy as np
from jaxtyping import Float, Integer, UInt8

from occany_core.datasets.class_tables import load_classes
from occany_core.errors import InputError

DATASET = "occ3d_nuscenes"


def rigid_motion(
    translation: Float[np.ndarray, "*batch 3"], quaternion: Float[np.ndarray, "*batch 4"]
) -> Float[np.ndarray, "*batch 4 4"]:
    """Build `parent_from_child` from a `translation` [m] and a `rotation` (w, x, y, z).

    With a record of `calibrated_sensor` that is `ego_from_cam`, with one of `ego_pose`
    `world_from_ego`. Quaternions of any length are normalised.

    Raises:
        InputError: A quaternion is zero or not finite.
    """
    quaternion = np.asarray(quaternion, dtype=np.float64)
    norm = np.linalg.norm(quaternion, axis=-1, keepdims=True)
    if not (np.isfinite(norm).all() and (norm > 0).all()):
        raise InputError(
            "a rotation quaternion is zero or not finite; expected (w, x, y, z) as in the tables "
            "calibrated_sensor and ego_pose"
        )
    w, x, y, z = np.moveaxis(quaternion / norm, -1, 0)
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    motion = np.zeros((*w.shape, 4, 4))
    motion[..., :3, :3] = np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)
    motion[..., :3, 3] = translation
    motion[..., 3, 3] = 1
    return motion


def camera_poses(
    world_from_ego: Float[np.ndarray, "N 4 4"], ego_from_cam: Float[np.ndarray, "N 4 4"]
) -> Float[np.ndarray, "N 4 4"]:
    """Return `world_from_cam`, each camera with the ego pose of its own stamp."""
    return world_from_ego @ ego_from_cam


def poses_in_first_camera(
    world_from_cam: Float[np.ndarray, "N 4 4"],
) -> Float[np.ndarray, "N 4 4"]:
    """Return `first_cam_from_cam`: the true poses, the first camera being the origin."""
    return np.linalg.inv(world_from_cam[0]) @ world_from_cam


def voxel_labels(
    semantics: UInt8[np.ndarray, "X Y Z"],
    mask_camera: Integer[np.ndarray, "X Y Z"],
    *,
    front_only: bool,
) -> UInt8[np.ndarray, "X Y Z"]:
    """Mark what nobody judges with 255 (evaluation page 12).

    Args:
        semantics: Class ids.
        mask_camera: 0 where none of the six cameras looks.
        front_only: Also ignore the half behind the ego origin, as in the front-camera setting.

    Raises:
        InputError: The shapes differ.
    """
    if semantics.ndim != 3 or semantics.shape != mask_camera.shape:
        raise InputError(
            f"semantics {semantics.shape} and mask_camera {mask_camera.shape} must be two grids "
            "of one shape; the file is damaged or of another data set"
        )
    ignore = load_classes(DATASET).convention.ignore
    labels = np.where(mask_camera == 0, np.uint8(ignore), semantics).astype(np.uint8)
    if front_only:
        labels[: labels.shape[0] // 2] = ignore  # the ego origin is in the middle of the grid
    return labels


def read_voxel_labels(path: Path, *, front_only: bool) -> UInt8[np.ndarray, "X Y Z"]:
    """Read a `labels.npz` of Occ3D; see `voxel_labels`.

    Raises:
        InputError: The file is absent, damaged, or not a grid of this data set.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            semantics, mask_camera = file["semantics"], file["mask_camera"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} cannot be read: {error}; expected a labels.npz of Occ3D with semantics and "
            "mask_camera"
        ) from error
    shape = load_classes(DATASET).grid.shape
    if semantics.shape != shape:
        raise InputError(f"{path}: semantics has shape {semantics.shape}; expected {shape}")
    try:
        return voxel_labels(semantics, mask_camera, front_only=front_only)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
