# SPDX-License-Identifier: Apache-2.0
"""Pictures of calibrated data sets, cropped as the released evaluation does (evaluation page 2.2).

Crop symmetrically about the principal point, resize, crop to the target. K is float64 throughout;
the centre of the top-left pixel is (0, 0).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from occany_core.errors import InputError
from occany_core.images import ResizePlan, check_picture, resampling_for, resize_and_crop

LEAST_MARGIN = 5
"""The principal point must stand further from each border than the side divided by this."""

EVALUATION_SIZES = {
    "occany": {"semantic_kitti": (160, 512), "occ3d_nuscenes": (288, 512)},
    "occany_plus": {"semantic_kitti": (168, 518), "occ3d_nuscenes": (294, 518)},
    "detector": {"semantic_kitti": (342, 1216), "occ3d_nuscenes": (747, 1328)},
}
"""(height, width) of prepared pictures by model family and data set (evaluation page 2.1)."""


@dataclass(frozen=True)
class CalibratedCrop:
    """What is done to every picture of one camera."""

    source: tuple[int, int]
    """(height, width) of the pictures [px]."""
    box: tuple[int, int, int, int]
    """Left, top, right and bottom of the first crop, about the principal point [px]."""
    plan: ResizePlan
    height: int
    width: int
    """Size of the result [px]."""
    K: Float[np.ndarray, "3 3"]
    """Intrinsics of the result [px]."""


def plan_calibrated(
    K: Float[np.ndarray, "3 3"], source: tuple[int, int], target: tuple[int, int]
) -> CalibratedCrop:
    """Plan the evaluation path for pictures with these intrinsics (evaluation page 2.2).

    Args:
        K: Intrinsics of the pictures [px].
        source: (height, width) of the pictures.
        target: (height, width) wanted, for example 160 x 512 (KITTI) or 288 x 512 (nuScenes).

    Raises:
        InputError: K is no finite 3 x 3 matrix, or its principal point is too near a border for a
            crop about it.
    """
    K = np.array(K, dtype=np.float64)
    if K.shape != (3, 3) or not np.isfinite(K).all():
        raise InputError(f"K is {K!r}; the evaluation crop needs a finite 3 x 3 matrix")
    height, width = target
    box = _box_about_principal_point(K, source)
    K[:2, 2] -= box[:2]
    size = np.array([box[2] - box[0], box[3] - box[1]])
    scale = max(width / size[0], height / size[1]) + 1e-8
    resized = np.floor(size * scale).astype(int)
    K = _resize_about_centre(K, scale, size * scale - resized)
    # Where the principal point goes in a centred crop says where the crop starts, in whole pixels.
    centred = _resize_about_centre(K, 1.0, resized - (width, height))
    left, top = np.round(K[:2, 2] - centred[:2, 2]).astype(int).tolist()
    K[:2, 2] -= (left, top)
    plan = ResizePlan(
        int(resized[0]), int(resized[1]), float(scale), resampling_for(scale), left, top
    )
    return CalibratedCrop(source, box, plan, height, width, K)


def crop_calibrated(
    rgb: UInt8[np.ndarray, "H W 3"], crop: CalibratedCrop
) -> UInt8[np.ndarray, "height width 3"]:
    """Carry out a plan on one picture.

    Raises:
        InputError: The picture is not of the size the plan was made for.
    """
    check_picture(rgb, "evaluation crop")
    if rgb.shape[:2] != crop.source:
        height, width = crop.source
        raise InputError(
            f"the picture is {rgb.shape[1]}x{rgb.shape[0]}, the crop was planned for "
            f"{width}x{height}; plan it again with the K of this camera"
        )
    cropped = np.asarray(Image.fromarray(rgb).crop(crop.box))
    return resize_and_crop(cropped, crop.plan, crop.height, crop.width)


def _box_about_principal_point(
    K: np.ndarray, source: tuple[int, int]
) -> tuple[int, int, int, int]:
    """Return the largest box centred at the rounded principal point."""
    height, width = source
    cx, cy = (round(float(value)) for value in K[:2, 2])
    margin_x, margin_y = min(cx, width - cx), min(cy, height - cy)
    if not (margin_x > width / LEAST_MARGIN and margin_y > height / LEAST_MARGIN):
        raise InputError(
            f"K puts the principal point at ({K[0, 2]:.1f}, {K[1, 2]:.1f}) in a {width}x{height} "
            f"picture; the evaluation crop needs more than 1/{LEAST_MARGIN} of each side around "
            "it: check that K belongs to pictures of this size, or use `images.fit`"
        )
    return cx - margin_x, cy - margin_y, cx + margin_x, cy + margin_y


def _resize_about_centre(K: np.ndarray, scale: float, cut: np.ndarray) -> np.ndarray:
    """Return K of a picture scaled and then cut evenly on both sides by `cut` pixels in all."""
    moved = K.copy()
    moved[:2, 2] += 0.5
    moved[:2] *= scale
    moved[:2, 2] -= 0.5 * cut
    moved[:2, 2] -= 0.5
    return moved
