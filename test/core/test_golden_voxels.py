# SPDX-License-Identifier: Apache-2.0
"""The golden checks of voxels and painting pass on the public sets and notice what is wrong."""

from pathlib import Path

import golden_set as golden
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from occany_core.bench.golden import painting_set, voxel_sets
from occany_core.errors import InputError

pytestmark = golden.needs_reference

CHECKS = voxel_sets.CHECKS | painting_set.CHECKS
FILES = [
    (path, check)
    for pattern, check in CHECKS.items()
    for folder in ("golden", "golden_inference")
    for path in sorted((golden.REFERENCE / folder).glob(pattern))
]


@pytest.mark.parametrize(("path", "check"), FILES, ids=[path.name for path, _ in FILES])
def test_public_sets_pass_and_nothing_is_left_out(path, check):
    stages = check(path)
    assert stages
    assert [stage for stage in stages if stage.verdict != "ok"] == []


def test_every_kind_of_file_is_there():
    assert len(FILES) == 6


def copy_with(path: Path, folder: Path, **changes: np.ndarray) -> Path:
    """Write the file anew with some arrays replaced."""
    copy = folder / path.name
    if path.suffix == ".safetensors":
        save_file(load_file(path) | changes, copy)
    else:
        with np.load(path) as file:
            np.savez(copy, **(dict(file) | changes))
    return copy


def arrays_of(path: Path) -> dict[str, np.ndarray]:
    if path.suffix == ".safetensors":
        return load_file(path)
    with np.load(path) as file:
        return dict(file)


def with_one_wrong_value(array: np.ndarray) -> np.ndarray:
    wrong = array.copy()
    if wrong.dtype.kind == "U":
        wrong[0] = "nothing"
    elif wrong.ndim:
        wrong.flat[wrong.argmax()] -= 1
    else:
        wrong += 1
    return wrong


@pytest.mark.parametrize(("path", "check"), FILES, ids=[path.name for path, _ in FILES])
def test_one_wrong_value_in_any_expected_array_is_found(path, check, tmp_path):
    arrays, names = arrays_of(path), [stage.name for stage in check(path)]
    # Points are compared, and then an input: apart from the others, which must fail by themselves.
    points = {name for name in names if name.startswith("points_voxel_frame")}
    for group in filter(None, (points, set(names) - points)):
        wrong = {name: with_one_wrong_value(arrays[name]) for name in group}
        stages = check(copy_with(path, tmp_path, **wrong))
        assert group <= {stage.name for stage in stages if stage.verdict == "FAIL"}


def test_an_array_that_nobody_knows_is_reported(tmp_path):
    for path, check in FILES:
        changed = copy_with(path, tmp_path, surprise=np.zeros(3, np.float32))
        left = [stage.name for stage in check(changed) if stage.verdict == "not checked"]
        assert left == ["surprise"]


def test_a_set_in_an_unknown_convention_says_so(tmp_path):
    path = golden.REFERENCE / "golden" / "voxel.safetensors"
    geometry = arrays_of(path)["pred.geometry"]
    changed = np.where(geometry == 17, 9, geometry).astype(np.uint8)
    with pytest.raises(InputError, match=r"hold 9; .* 17 or 0"):
        voxel_sets.check_voxel(copy_with(path, tmp_path, **{"pred.geometry": changed}))
