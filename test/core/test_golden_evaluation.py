# SPDX-License-Identifier: Apache-2.0
"""The golden checks of preparation, data sets and metrics pass, and find what is wrong."""

import shutil
from collections import Counter
from pathlib import Path

import golden_set as golden
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from occany_core.bench.golden import dataset_sets, metric_sets, preparation_sets

pytestmark = golden.needs_reference

CHECKS = preparation_sets.CHECKS | dataset_sets.CHECKS | metric_sets.CHECKS
INFERENCE = golden.REFERENCE / "golden_inference"
PREPARATION = golden.REFERENCE / "golden"


def folder_of(name: str) -> Path:
    return next(folder for folder in (PREPARATION, INFERENCE) if (folder / name).is_file())


@pytest.mark.parametrize("name", CHECKS)
def test_public_sets_pass_and_nothing_is_left_out(name):
    stages = CHECKS[name](folder_of(name) / name)
    verdicts = Counter(stage.verdict for stage in stages)
    assert set(verdicts) == {"ok"}, [stage for stage in stages if stage.verdict != "ok"]


DAMAGE = {  # an array of the file: the stages that must notice
    "preprocess.safetensors": {
        "case1.resized": {"case1.resized"},
        "case4.eval_K_out": {"case4.eval_K_out"},
        "case2.raw": {"case2.resized"},
    },
    "image_prep.npz": {
        "nuscenes/output": {"nuscenes/output"},
        "fullsize/nusc_512x288/K_out": {"fullsize/nusc_512x288/K_out"},
        "auto_resolution_table": {"auto_resolution_table"},
        "kitti/sam2_tensor": {"kitti/sam2_tensor"},
    },
    "kitti_io.npz": {
        "voxel_label": {"voxel_label"},
        "lidar": {"lidar_depth"},
        "velo_to_world": {"velo_to_world"},
    },
    "nuscenes_io.npz": {
        "ego_t": {"ego_to_world", "cam_to_world"},
        "voxel_label_front_sequence": {"voxel_label_front_sequence"},
    },
    "ssc_metrics.npz": {
        "kitti/original/tps": {"kitti/original/tps"},
        "nuscenes/superclass/mIoU": {"nuscenes/superclass/mIoU"},
        "kitti/original/class_names": {"kitti/original/class_names"},
    },
    "recon_depth.npz": {
        "depth/max80": {"depth/max80"},
        "cloud/pred": {"cloud/d_pred_to_gt"},
        "predcloud/points": {"predcloud/points"},
    },
    "trajectory.npz": {"ade": {"ade"}, "interp/6_in": {"interp/6_out"}},
}


@pytest.mark.parametrize(
    ("name", "array"), [(name, array) for name, arrays in DAMAGE.items() for array in arrays]
)
def test_one_wrong_value_is_found(tmp_path, name, array):
    folder = folder_of(name)
    stages = CHECKS[name](rewritten(folder / name, tmp_path, array))
    failed = {stage.name for stage in stages if stage.verdict == "FAIL"}
    assert failed >= DAMAGE[name][array], failed
    assert not any(stage.verdict == "not checked" for stage in stages)


def rewritten(path: Path, folder: Path, array: str) -> Path:
    """A copy of a set with one value of one array moved."""
    target = folder / path.name
    if path.suffix == ".safetensors":
        shutil.copy(path.with_name(preparation_sets.MANIFEST), folder)
        arrays = load_file(path)
        arrays[array] = moved(arrays[array])
        save_file(arrays, target)
    else:
        with np.load(path) as file:
            arrays = dict(file.items())
        arrays[array] = moved(arrays[array])
        np.savez(target, **arrays)
    return target


def moved(array: np.ndarray) -> np.ndarray:
    changed = array.copy()
    # A middle value: some first ones do not take part (the first way-point becomes the origin).
    where = np.unravel_index(array.size // 2, array.shape)
    if array.dtype.kind == "U":
        changed[where] = "x"
    elif array.dtype.kind == "f":
        changed[...] += 0.01
    else:
        changed[where] ^= 64
    return changed


def test_new_arrays_and_unknown_sensors_are_reported(tmp_path):
    with np.load(INFERENCE / "image_prep.npz") as file:
        arrays = dict(file.items())
    arrays["fullsize/unknown_512x288/K_out"] = np.eye(3)
    arrays["novel"] = np.zeros(3)
    np.savez(tmp_path / "image_prep.npz", **arrays)
    stages = preparation_sets.check_image_prep(tmp_path / "image_prep.npz")
    left = {stage.name for stage in stages if stage.verdict == "not checked"}
    assert left == {"fullsize/unknown_512x288/K_out", "novel"}


def test_another_pillow_is_allowed_two_grey_levels(tmp_path, monkeypatch):
    monkeypatch.setattr(preparation_sets.PIL, "__version__", "0.0")
    with np.load(INFERENCE / "image_prep.npz") as file:
        arrays = dict(file.items())
    for levels, failures in ((2, set()), (3, {"kitti/output"})):
        pixel = int(arrays["kitti/output"][0, 0, 0])
        changed = arrays["kitti/output"].copy()
        changed[0, 0, 0] = pixel + levels if pixel < 128 else pixel - levels
        np.savez(tmp_path / "image_prep.npz", **(arrays | {"kitti/output": changed}))
        stages = preparation_sets.check_image_prep(tmp_path / "image_prep.npz")
        assert {stage.name for stage in stages if stage.verdict == "FAIL"} == failures
