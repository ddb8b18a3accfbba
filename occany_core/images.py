# SPDX-License-Identifier: Apache-2.0
"""Pictures -> network input with matching K (spec 2).

uint8 RGB of any size in; one batch of equal size out, values in [-1, 1]. The first picture of a
view set sets the size for all of it. What the released programs do with pictures of evaluation
data sets stands in `calibrated_images`.
"""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor

from occany_core import camera
from occany_core.errors import InputError
from occany_core.view_checks import check_intrinsics, check_picture, check_rigid

STRIDE = 16
LEAST_SEEN = 0.01
"""Part of a picture that a mask must leave: poses cannot be told from less."""

INPUT_SIZES = {"occany": (512, STRIDE), "occany_plus": (518, 14)}
"""Long side and patch [px] of the released families (evaluation page 2.1)."""
ORIENTATION_SEED = 0
"""The released demo draws the orientation of a near-square picture from a generator that starts
with this seed for every picture (evaluation page 2.3)."""


@dataclass(frozen=True)
class Normalisation:
    """Per-channel shift and scale of colours in [0, 1] (evaluation page 2.4)."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]


SIGNED = Normalisation((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""OccAny: values in [-1, 1]."""
IMAGENET = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""OccAny+ and SAM2: statistics of ImageNet."""


@dataclass(frozen=True)
class ResizePlan:
    """How a picture is resized and then cropped."""

    width: int
    height: int
    """Size after resizing [px]."""
    scale: float
    resampling: Image.Resampling
    left: int
    top: int
    """Corner of the crop in the resized picture [px]."""


@dataclass(frozen=True)
class View:
    """One picture with what is known about its camera."""

    rgb: UInt8[np.ndarray, "H W 3"]
    camera: str = ""
    """Name of the camera, for messages and reports."""
    stamp: float = 0.0
    """Capture time [s]."""
    K: Float[np.ndarray, "3 3"] | None = None
    """Intrinsics [px] at the size of `rgb`, undistorted; None if unknown."""
    rig_from_cam: Float[np.ndarray, "4 4"] | None = None
    """Mounting on the rig (body axes x forward, y left, z up) [m]; None if unknown."""
    odom_from_rig: Float[np.ndarray, "4 4"] | None = None
    """Where the vehicle's own odometry has the rig [m], to take its metres; None if unknown."""
    ignored: Bool[np.ndarray, "H W"] | None = None
    """Pixels that show nothing of the scene, such as the vehicle itself: no points and no rays
    come of them. None if all show something."""


@dataclass(frozen=True)
class ImageBatch:
    """Views of one scene at network size."""

    images: Float[Tensor, "V 3 H W"]
    """Values in [-1, 1]."""
    rgb: UInt8[np.ndarray, "V H W 3"]
    K: tuple[Float[Tensor, "3 3"] | None, ...]
    """Intrinsics at this size, or None where unknown."""
    ignored: Bool[Tensor, "V H W"]
    """Pixels that give no points and no rays."""


def check_views(views: object) -> None:
    """Refuse what is no view set, before anything is asked of its views.

    Raises:
        InputError: Showing what is expected.
    """
    is_list = isinstance(views, list | tuple)
    wrong = [type(one).__name__ for one in views if not isinstance(one, View)] if is_list else []
    if wrong or not is_list:
        got = f"holds {wrong[0]}" if wrong else f"is {type(views).__name__}"
        raise InputError(
            f"a view set {got}; it must be a list of `View`, as in predict(model, [[View(rgb)]]) "
            "or stream.add([View(rgb)])"
        )


def network_size(height: int, width: int, long_side: int, patch: int = STRIDE) -> tuple[int, int]:
    """Return the network's (height, width) for a scene whose first picture has this size.

    The long side becomes `long_side`, the short side the nearest multiple of `patch` (halves up,
    at least one patch). Released pairs: `INPUT_SIZES` (evaluation page 2.1).
    """
    short, long = sorted((height, width))
    # Integer form of patch * floor(short * long_side / long / patch + 0.5).
    short_side = max(patch, patch * ((2 * short * long_side + patch * long) // (2 * patch * long)))
    return (short_side, long_side) if width >= height else (long_side, short_side)


def released_orientation(
    source: tuple[int, int], target: tuple[int, int], seed: int = ORIENTATION_SEED
) -> tuple[int, int]:
    """Return the target of one picture as the released demo turns it (evaluation page 2.3).

    A portrait picture swaps a landscape target; a near-square picture swaps any target by the
    toss of a coin. The sizes of a scene may then differ, so `prepare` keeps to one target for all;
    this is for reproducing the demo's crops.

    Args:
        source: (height, width) of the picture.
        target: (height, width) of the scene.
        seed: Of the generator that is made afresh for every picture.

    Returns:
        (height, width) of the prepared picture.
    """
    height, width = source
    swapped = target[::-1]
    if height > 1.1 * width and target[1] > target[0]:
        return swapped
    near_square = 0.9 < height / width < 1.1 and target[0] != target[1]
    return swapped if near_square and np.random.default_rng(seed).integers(2) else target


def plan_fit(source: tuple[int, int], target: tuple[int, int]) -> ResizePlan:
    """Plan to resize until the target is covered and to crop its centre (spec 2, demo path).

    Args:
        source: (height, width) of the picture.
        target: (height, width) wanted.
    """
    (source_height, source_width), (height, width) = source, target
    one = np.float32
    scale = max(one(width) / one(source_width), one(height) / one(source_height)) + one(1e-8)
    new_width, new_height = (
        int(np.floor(one(side) * scale)) for side in (source_width, source_height)
    )
    left, top = max(int((new_width - width) / 2), 0), max(int((new_height - height) / 2), 0)
    return ResizePlan(new_width, new_height, float(scale), resampling_for(scale), left, top)


def resampling_for(scale: float) -> Image.Resampling:
    """Return the filter of the released code: Lanczos to shrink, bicubic otherwise."""
    return Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC


def resize_and_crop(
    rgb: UInt8[np.ndarray, "H W 3"], plan: ResizePlan, height: int, width: int
) -> UInt8[np.ndarray, "height width 3"]:
    """Carry out a plan; where the resized picture ends early, the crop is black."""
    picture = Image.fromarray(rgb).resize((plan.width, plan.height), plan.resampling)
    return np.array(picture.crop((plan.left, plan.top, plan.left + width, plan.top + height)))


def fit(
    rgb: UInt8[np.ndarray, "H W 3"], height: int, width: int
) -> tuple[np.ndarray, float, int, int]:
    """Resize until the target is covered, then crop its centre (spec 2, demo path).

    Returns:
        The picture, the scale, and the left and top crop [px, after scaling].
    """
    plan = plan_fit(rgb.shape[:2], (height, width))
    return resize_and_crop(rgb, plan, height, width), plan.scale, plan.left, plan.top


def seen_part(
    rgb: UInt8[np.ndarray, "H W 3"], height: int, width: int
) -> UInt8[np.ndarray, "H2 W2 3"]:
    """Return what `fit` keeps of a picture, at the resolution of the picture.

    Borders are rounded to whole pixels.
    """
    plan = plan_fit(rgb.shape[:2], (height, width))
    rows, columns = (
        slice(round(start / plan.scale), round((start + side) / plan.scale))
        for start, side in ((plan.top, height), (plan.left, width))
    )
    return rgb[rows, columns]


def network_tensor(
    rgb: UInt8[np.ndarray, "*batch H W 3"], normalisation: Normalisation = SIGNED
) -> Float[Tensor, "*batch 3 H W"]:
    """Bring colours to the range a network was trained on (evaluation page 2.4)."""
    return _normalise(_unit_range(rgb), normalisation)


def segmentation_tensor(
    rgb: UInt8[np.ndarray | Tensor, "V H W 3"], side: int, by: Normalisation = IMAGENET
) -> Float[Tensor, "V 3 side side"]:
    """Stretch prepared pictures to the square that SAM2 or SAM3 encodes (evaluation page 2.4).

    The aspect ratio is not kept, as with the distilled features. Released side: 512 for SAM2, and
    1008 for SAM3, with another normalisation.
    """
    square = F.interpolate(_unit_range(rgb), (side, side), mode="bilinear", antialias=True)
    return _normalise(square, by)


def prepare(views: list[View], long_side: int) -> ImageBatch:
    """Bring the pictures of a view set to one network size.

    Args:
        views: At least one view; the first sets the size. A portrait picture in a landscape
            set (or the reverse) is cropped to the set's shape.
        long_side: Long side of the network's picture [px], a multiple of 16.

    Raises:
        InputError: No views, or a picture, K, rig_from_cam or mask that cannot be used.
    """
    if not views:
        raise InputError("no pictures were given; at least one is needed")
    for index, view in enumerate(views):
        place = _place(index, view)
        check_picture(view.rgb, place)
        check_intrinsics(view.K, place, view.rgb.shape[:2])
        check_rigid(view.rig_from_cam, f"{place}: rig_from_cam")
        check_rigid(view.odom_from_rig, f"{place}: odom_from_rig")
    height, width = network_size(*views[0].rgb.shape[:2], long_side)
    pictures, intrinsics, masks = [], [], []
    for index, view in enumerate(views):
        masks.append(_network_mask(view, _place(index, view), height, width))
        picture, scale, left, top = fit(view.rgb, height, width)
        pictures.append(picture)
        intrinsics.append(_network_intrinsics(view, scale, left, top))
    rgb = np.stack(pictures)
    return ImageBatch(network_tensor(rgb), rgb, tuple(intrinsics), torch.stack(masks))


def _place(index: int, view: View) -> str:
    return f"view {index} ({view.camera or 'unnamed camera'})"


def _unit_range(rgb: np.ndarray | Tensor) -> Tensor:
    values = rgb if isinstance(rgb, Tensor) else torch.from_numpy(np.array(rgb))
    return values.movedim(-1, -3).float() / 255


def _normalise(images: Tensor, normalisation: Normalisation) -> Tensor:
    mean, std = (
        images.new_tensor(values)[:, None, None]
        for values in (normalisation.mean, normalisation.std)
    )
    return (images - mean) / std


def _network_intrinsics(view: View, scale: float, left: int, top: int) -> Tensor | None:
    if view.K is None:
        return None
    K = torch.as_tensor(np.asarray(view.K, dtype=np.float32))
    return camera.crop(camera.resize(K, scale, scale), left, top)


def _network_mask(view: View, place: str, height: int, width: int) -> Bool[Tensor, "height width"]:
    """Bring a mask to the network's picture; a pixel that is partly ignored is ignored."""
    mask, size = view.ignored, view.rgb.shape[:2]
    if mask is None:
        return torch.zeros(height, width, dtype=torch.bool)
    got = f"{mask.dtype} {mask.shape}" if isinstance(mask, np.ndarray) else type(mask).__name__
    if got != f"bool {size}":
        raise InputError(
            f"{place}: ignored is {got}; expected a bool array of the picture's shape {size}, "
            "or None"
        )
    plan = plan_fit(size, (height, width))
    picture = Image.fromarray(mask.astype(np.float32))
    picture = picture.resize((plan.width, plan.height), Image.Resampling.BOX)
    box = (plan.left, plan.top, plan.left + width, plan.top + height)
    ignored = torch.from_numpy(np.array(picture.crop(box)) > 0)
    seen = int((~ignored).sum())
    if seen < LEAST_SEEN * ignored.numel():
        raise InputError(
            f"{place}: ignored leaves {seen} of the {ignored.numel()} pixels that the network "
            "sees; leave the view out instead"
        )
    return ignored
