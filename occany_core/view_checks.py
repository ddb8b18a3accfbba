# SPDX-License-Identifier: Apache-2.0
"""What pictures, intrinsics and mountings must be. Without PyTorch, for programs that only read.

Pixels and metres; the centre of the top-left pixel is (0, 0).
"""

import numpy as np

from occany_core.errors import InputError

LEAST_SIDE = 16
MAX_PIXELS = 100_000_000
"""Pictures above this are refused before any work."""
LEAST_FOCAL_WIDTHS, MOST_FOCAL_WIDTHS = 0.03, 100
"""Other focal lengths, in picture widths, are of no pinhole camera or not in pixels."""
MOST_SKEW = 0.005
"""Part of the focal length that skew, which is ignored, may have."""
ROTATION_TOLERANCE = 0.01
"""Calibration files are rounded; products of rotation rows may be off by this."""


def check_size(width: int, height: int, place: str) -> None:
    """Refuse pictures that are too small or too large.

    Raises:
        InputError: Naming the place and the limits.
    """
    if min(height, width) < LEAST_SIDE or height * width > MAX_PIXELS:
        raise InputError(
            f"{place}: picture is {width}x{height}; its sides must be at least {LEAST_SIDE} px "
            f"and it may have at most {MAX_PIXELS // 1_000_000} megapixels"
        )


def check_picture(rgb: np.ndarray, place: str) -> None:
    """Refuse what is not an 8-bit colour picture of a sensible size.

    Raises:
        InputError: Naming the place, what is wrong and what is expected.
    """
    if (
        not isinstance(rgb, np.ndarray)
        or rgb.dtype != np.uint8
        or rgb.ndim != 3
        or rgb.shape[2] != 3
    ):
        got = f"{rgb.dtype} {rgb.shape}" if isinstance(rgb, np.ndarray) else type(rgb).__name__
        raise InputError(f"{place}: picture is {got}; expected a uint8 array of shape (H, W, 3)")
    check_size(rgb.shape[1], rgb.shape[0], place)


def intrinsics_fault(K: np.ndarray, size: tuple[int, int] | None = None) -> str:
    """Say why a matrix is no pinhole K; empty when it is one.

    Args:
        K: Intrinsics [px].
        size: (height, width) of the picture; None where it is not known yet.
    """
    if not _is_finite_matrix(K, 3) or min(np.diag(np.asarray(K))[:2]) <= 0:
        return (
            f"K is {_in_one_line(K)}; it must be a finite 3 x 3 matrix with positive focal "
            "lengths, or None for an uncalibrated camera"
        )
    K = np.asarray(K, np.float64)
    (fx, skew, cx), (tilt, fy, cy), last = K
    if not np.allclose(last, (0, 0, 1), atol=1e-6) or max(abs(skew), abs(tilt)) > MOST_SKEW * fx:
        return (
            f"K is {_in_one_line(K)}; it must be [[fx, 0, cx], [0, fy, cy], [0, 0, 1]], row by "
            "row and without skew"
        )
    if size is None:
        return ""
    height, width = size
    if not LEAST_FOCAL_WIDTHS * width < min(fx, fy) <= max(fx, fy) < MOST_FOCAL_WIDTHS * width:
        return (
            f"K's focal lengths ({fx:g}, {fy:g}) do not go with a picture {width} px wide; give K "
            "in pixels of this picture"
        )
    if not (-0.5 <= cx <= width - 0.5 and -0.5 <= cy <= height - 0.5):
        return (
            f"K's principal point ({cx:g}, {cy:g}) lies outside the {width}x{height} picture; "
            "give K in pixels of this picture"
        )
    return ""


def check_intrinsics(
    K: np.ndarray | None, place: str, size: tuple[int, int] | None = None
) -> None:
    """Refuse what is no pinhole K; None is an uncalibrated camera.

    Raises:
        InputError: Naming the place and the fault.
    """
    fault = "" if K is None else intrinsics_fault(K, size)
    if fault:
        raise InputError(f"{place}: {fault}")


def check_rigid(a_from_b: np.ndarray | None, name: str) -> None:
    """Refuse what is no rigid motion; None is an unknown one.

    Raises:
        InputError: Naming the matrix.
    """
    if a_from_b is None:
        return
    usable = _is_finite_matrix(a_from_b, 4)
    if usable:
        matrix = np.asarray(a_from_b, dtype=np.float64)
        rotation = matrix[:3, :3]
        usable = (
            np.allclose(rotation @ rotation.T, np.eye(3), atol=ROTATION_TOLERANCE)
            and np.linalg.det(rotation) > 0
            and np.array_equal(matrix[3], (0, 0, 0, 1))
        )
    if not usable:
        raise InputError(
            f"{name} is {_in_one_line(a_from_b)}; it must be a finite 4 x 4 rigid motion "
            "(rotation, metres, last row 0 0 0 1), or None where it is unknown"
        )


def _in_one_line(value: object) -> str:
    return repr(value.tolist() if isinstance(value, np.ndarray) else value)


def _is_finite_matrix(value: object, size: int) -> bool:
    try:
        with np.errstate(over="ignore"):
            matrix = np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError, OverflowError):
        return False
    return matrix.shape == (size, size) and bool(np.isfinite(matrix).all())
