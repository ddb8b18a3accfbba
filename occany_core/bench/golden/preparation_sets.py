# SPDX-License-Identifier: Apache-2.0
"""Golden files of the preparation of pictures (`preprocess`, `image_prep`)."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL

from occany_core.bench.golden.checklist import Checklist, Stage
from occany_core.calibrated_images import crop_calibrated, plan_calibrated
from occany_core.errors import InputError
from occany_core.images import (
    INPUT_SIZES,
    fit,
    network_size,
    network_tensor,
    plan_fit,
    released_orientation,
    segmentation_tensor,
)

MANIFEST = "misc_manifest.json"
PILLOW = "13.0.0"
"""The version that made the sets that do not name one."""
GREY_LEVELS = 2.0
"""Allowed where another version of Pillow is installed."""
INTRINSICS_TOLERANCE = 1e-6

# Size (height, width) and K of the cameras that `image_prep` names (golden_inference/description).
SENSORS = {
    "kitti_seq08": (
        (370, 1226),
        [[707.0912, 0.0, 601.8873], [0.0, 707.0912, 183.1104], [0.0, 0.0, 1.0]],
    ),
    "nusc": (
        (900, 1600),
        [[1266.4172, 0.0, 816.2670], [0.0, 1266.4172, 491.5071], [0.0, 0.0, 1.0]],
    ),
}


def check_preprocess(path: Path) -> list[Stage]:
    """Compare sizes, resize plans, both crops and tensors with `preprocess` and its manifest."""
    manifest = _manifest(path.with_name(MANIFEST))
    checklist = Checklist.of(path)
    for case, settings in manifest["cases"].items():
        if f"{case}.raw" not in checklist.arrays:
            continue
        target = tuple(settings["resolution_wh"][::-1])
        raw = checklist.given(f"{case}.raw").numpy()
        turned = released_orientation(raw.shape[:2], target)
        picture, *_ = fit(raw, *turned)
        _pixels(checklist, f"{case}.resized", picture, manifest["pillow"])
        if f"{case}.tensor" in checklist.arrays:
            checklist.within(f"{case}.tensor", network_tensor(picture))
        if f"{case}.eval_K_in" in checklist.arrays:
            K = checklist.given(f"{case}.eval_K_in").numpy()
            crop = plan_calibrated(K, raw.shape[:2], target)
            checklist.within(f"{case}.eval_K_out", crop.K, INTRINSICS_TOLERANCE)
            cropped = crop_calibrated(raw, crop)
            _pixels(checklist, f"{case}.eval_resized", cropped, manifest["pillow"])
    return [*_check_manifest(manifest), *checklist.report()]


def check_image_prep(path: Path) -> list[Stage]:
    """Compare both preparations and all network tensors with `image_prep`."""
    checklist = Checklist.of(path)
    for name in [name for name in checklist.arrays if name.endswith("/input")]:
        _check_case(checklist, name.removesuffix("/input"))
    for name in [name for name in checklist.arrays if name.startswith("fullsize/")]:
        sensor, _, size = name.split("/")[1].rpartition("_")
        if sensor in SENSORS:
            source, K = SENSORS[sensor]
            width, height = map(int, size.split("x"))
            crop = plan_calibrated(np.array(K), source, (height, width))
            checklist.within(name, crop.K, INTRINSICS_TOLERANCE)
    table = checklist.arrays["auto_resolution_table"].numpy()
    families, ours = list(INPUT_SIZES.values()), table.copy()
    for row in ours:
        family, width, height = row[:3].tolist()
        known = family in range(len(families))
        row[3:] = network_size(height, width, *families[family])[::-1] if known else -1
    checklist.exact("auto_resolution_table", ours)
    return checklist.report()


def _check_case(checklist: Checklist, case: str) -> None:
    raw, K = (checklist.given(f"{case}/{name}").numpy() for name in ("input", "K"))
    target = tuple(checklist.given(f"{case}/resolution").tolist()[::-1])
    crop = plan_calibrated(K, raw.shape[:2], target)
    picture = crop_calibrated(raw, crop)
    checklist.within(f"{case}/K_out", crop.K, INTRINSICS_TOLERANCE)
    _pixels(checklist, f"{case}/output", picture, PILLOW)
    uncalibrated, *_ = fit(raw, *released_orientation(raw.shape[:2], target))
    _pixels(checklist, f"{case}/output_uncalibrated", uncalibrated, PILLOW)
    # Tensors are made of our own picture, so another Pillow shows in them too.
    scale = 255.0 * 0.22  # at least the smallest deviation of the normalisations, in grey levels
    tolerance = None if PIL.__version__ == PILLOW else GREY_LEVELS / scale
    rows, columns = checklist.arrays[f"{case}/must3r_tensor_head"].shape[-2:]
    head = network_tensor(picture)[:, :rows, :columns]
    checklist.within(f"{case}/must3r_tensor_head", head, tolerance)
    side = checklist.arrays[f"{case}/sam2_tensor"].shape[-1]
    square = segmentation_tensor(picture[None], side)[0]
    checklist.within(f"{case}/sam2_tensor", square, tolerance)


def _pixels(checklist: Checklist, name: str, ours: np.ndarray, pillow: str) -> None:
    if ours.shape == checklist.arrays[name].shape and PIL.__version__ != pillow:
        checklist.within(name, ours, GREY_LEVELS)
    else:
        checklist.exact(name, ours)


def _check_manifest(manifest: dict) -> list[Stage]:
    """Count the rows of the manifest's tables that we see differently."""
    sizes = [
        network_size(*source[::-1], max(expected)) == tuple(expected[::-1])
        for source, expected in manifest["get_output_resolution"]
    ]
    plans = [_same_plan(entry) for entry in manifest["resize_plan"]]
    return [
        Stage(MANIFEST, name, float(rows.count(False)), 0.0)
        for name, rows in (("get_output_resolution", sizes), ("resize_plan", plans))
    ]


def _same_plan(entry: dict) -> bool:
    source, target = (tuple(entry[name][::-1]) for name in ("size_wh", "resolution_wh"))
    target = released_orientation(source, target)
    plan = plan_fit(source, target)
    box = [plan.left, plan.top, plan.left + target[1], plan.top + target[0]]
    return (
        [plan.width, plan.height] == entry["resized_wh"]
        and plan.resampling == entry["filter"]
        and box == entry["crop_ltrb"]
    )


def _manifest(path: Path) -> dict:
    try:
        return json.loads(path.read_text(encoding="utf-8"))["preprocess"]
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"the manifest {path} cannot be read: {error}; it belongs to preprocess.safetensors"
        ) from error


CHECKS: dict[str, Callable[[Path], list[Stage]]] = {
    "preprocess.safetensors": check_preprocess,
    "image_prep.npz": check_image_prep,
}
