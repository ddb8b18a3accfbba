# SPDX-License-Identifier: Apache-2.0
"""Calibration file -> K and rig_from_cam per camera.

JSON: `{"CAMERA": {"K": 3 x 3, "rig_from_cam": 4 x 4}, ...}`, either one optional. K in pixels of
the pictures as they are on disk, undistorted, centre of the top-left pixel at (0, 0).
`rig_from_cam` maps camera points (x right, y down, z forward) to the rig (x forward, y left, z up,
origin on the ground) in metres.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from occany_core.errors import InputError
from occany_core.view_checks import check_intrinsics

ROTATION_TOLERANCE = 1e-3


@dataclass(frozen=True)
class CameraCalibration:
    """What is known about one camera."""

    K: Float[np.ndarray, "3 3"] | None
    rig_from_cam: Float[np.ndarray, "4 4"] | None


NO_CALIBRATION = CameraCalibration(None, None)


def load_calibration(path: Path, cameras: list[str]) -> dict[str, CameraCalibration]:
    """Read the file; it must know every camera.

    Raises:
        InputError: The file is missing or no such JSON, lacks a camera, or a matrix is wrong.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the calibration {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"the calibration {path} is not valid JSON: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(one, dict) for one in content.values()):
        example = '{"front": {"K": [[...]], "rig_from_cam": [[...]]}}'
        raise InputError(f"the calibration {path} must be an object like {example}")
    found = {}
    for camera in cameras:
        if camera not in content:
            raise InputError(
                f"the calibration {path} has no camera {camera!r}, only "
                f"{', '.join(content) or 'none'}; names are those of the camera folders, or of "
                "the files without their ending"
            )
        found[camera] = _camera(content[camera], camera, path)
    return found


def _camera(content: dict, camera: str, path: Path) -> CameraCalibration:
    unknown = sorted(content.keys() - {"K", "rig_from_cam"})
    if unknown:
        raise InputError(
            f"{camera}.{unknown[0]} in {path} is unknown; a camera has K and rig_from_cam"
        )
    K = _matrix(content.get("K"), 3, f"{camera}.K in {path}")
    check_intrinsics(K, f"{camera} in {path}")
    place = f"{camera}.rig_from_cam in {path}"
    rig_from_cam = _matrix(content.get("rig_from_cam"), 4, place)
    _check_rigid(rig_from_cam, place)
    return CameraCalibration(K, rig_from_cam)


def _matrix(rows: object, side: int, name: str) -> np.ndarray | None:
    if rows is None:
        return None
    try:
        matrix = np.array(rows, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        matrix = np.empty(0)
    if matrix.shape != (side, side) or not np.isfinite(matrix).all():
        raise InputError(f"{name} must be {side} rows of {side} finite numbers")
    return matrix


def _check_rigid(rig_from_cam: np.ndarray | None, name: str) -> None:
    if rig_from_cam is None:
        return
    rotation = rig_from_cam[:3, :3]
    is_rotation = np.allclose(rotation @ rotation.T, np.eye(3), atol=ROTATION_TOLERANCE)
    is_rotation = is_rotation and np.linalg.det(rotation) > 0
    if not (is_rotation and np.allclose(rig_from_cam[3], (0, 0, 0, 1))):
        raise InputError(
            f"{name} is not a rotation and a translation; its last row must be 0 0 0 1"
        )
