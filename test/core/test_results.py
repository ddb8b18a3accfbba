# SPDX-License-Identifier: Apache-2.0
"""Results on disk: what is written is read back, and failures leave nothing half-written."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_model import SMALL, save_small_model, write_pictures
from street_views import probed_model, street_config, surround

from occany_core import OccAnyConfig, OccAnyError, View, load_model, predict, rigid
from occany_core.cli.picture_files import read_picture
from occany_core.config import with_overrides
from occany_core.errors import InputError
from occany_core.results import (
    POINT,
    check_folder,
    load_grid,
    load_grid_classes,
    load_scene,
    save_scene,
)
from occany_core.semantics.class_prompts import vocabulary


@pytest.fixture(scope="module")
def config():
    return with_overrides(OccAnyConfig(), list(SMALL))


@pytest.fixture(scope="module")
def scene(tmp_path_factory, config):
    model = load_model(save_small_model(tmp_path_factory.mktemp("weights")), "cpu")
    pictures = write_pictures(tmp_path_factory.mktemp("pictures"), 2)
    views = [
        View(read_picture(path), "front/../left", float(index))
        for index, path in enumerate(sorted(pictures.iterdir()))
    ]
    return predict(model, [[view] for view in views], config)


def read_points(path):
    """Read a binary PLY by its own header."""
    header, data = path.read_bytes().split(b"end_header\n", 1)
    lines = header.decode().splitlines()
    assert lines[:2] == ["ply", "format binary_little_endian 1.0"]
    kinds = {"float": "<f4", "uchar": "u1"}
    fields = [line.split()[1:] for line in lines if line.startswith("property")]
    dtype = np.dtype([(name, kinds[kind]) for kind, name in fields])
    assert dtype == POINT
    points = np.frombuffer(data, dtype)
    assert len(points) == int(lines[2].split()[-1])
    return points


def test_everything_is_read_back(scene, config, tmp_path):
    save_scene(tmp_path / "deep" / "result", scene, config, "a title", ["one.png", "two.png"])
    saved = load_scene(tmp_path / "deep" / "result")
    assert saved.title == "a title"
    assert saved.captions == ("one.png", "two.png")
    assert saved.grid.spec == scene.grid.spec
    np.testing.assert_array_equal(saved.grid.probability, scene.grid.probability)
    np.testing.assert_array_equal(saved.grid.completed, scene.grid.completed)
    np.testing.assert_array_equal(np.stack(saved.pictures), scene.rgb)
    view = saved.poses["views"][1]
    np.testing.assert_allclose(view["world_from_cam"], scene.cameras.world_from_cam[1], atol=1e-6)
    np.testing.assert_allclose(view["K"], scene.cameras.K[1], rtol=1e-6)
    assert (view["stamp"], view["view_set"]) == (1.0, 1)
    assert all("/" not in path.name for path in (tmp_path / "deep" / "result" / "views").iterdir())


def test_points_are_the_confident_ones_in_the_grid_frame(scene, config, tmp_path):
    save_scene(tmp_path / "result", scene, config)
    points = read_points(tmp_path / "result" / "points.ply")
    kept = scene.observed.confidence > config.voxels.min_confidence
    kept &= scene.observed.points_cam.norm(dim=-1) < config.voxels.max_range
    seen = points[points["rendered"] == 0]
    assert len(seen) == int(kept.sum()) > 0
    expected = rigid.apply(scene.grid_from_world, scene.observed.points_world[kept]).numpy()
    np.testing.assert_array_equal(np.stack([seen["x"], seen["y"], seen["z"]], 1), expected)
    colours = np.stack([seen["red"], seen["green"], seen["blue"]], 1)
    np.testing.assert_array_equal(colours, scene.rgb[kept.numpy()])
    np.testing.assert_array_equal(seen["confidence"], scene.observed.confidence[kept].numpy())
    assert (points["rendered"] == 1).any()


def test_an_earlier_result_is_replaced_and_other_files_are_not(scene, config, tmp_path):
    save_scene(tmp_path / "result", scene, config, "first")
    save_scene(tmp_path / "result", scene, config, "second")
    assert load_scene(tmp_path / "result").title == "second"
    assert [path.name for path in tmp_path.iterdir()] == ["result"]
    (tmp_path / "result" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes\.txt"):
        save_scene(tmp_path / "result", scene, config, "third")
    assert load_scene(tmp_path / "result").title == "second"


@pytest.mark.parametrize("kind", ["current directory", "link to a folder", "link to nothing"])
def test_folders_that_cannot_be_exchanged_stay_and_get_the_result(
    scene, config, tmp_path, monkeypatch, kind
):
    folder, named = tmp_path / "mine", tmp_path / "link"
    if kind != "link to nothing":
        folder.mkdir(mode=0o770)
        (folder / "labels").mkdir()
        (folder / "labels" / "of_an_earlier_result.png").write_text("")
        (folder / ".unfinished-killed").mkdir()
        before = folder.stat()
    if kind == "current directory":
        monkeypatch.chdir(folder)
        named = Path()
    else:
        named.symlink_to(folder)
    for title in ("first", "second"):
        save_scene(named, scene, config, title)
        assert load_scene(folder).title == title
    names = {"grid.npz", "points.ply", "poses.json", "scene.png", "views"}
    assert {path.name for path in folder.iterdir()} - {".unfinished-killed"} == names
    assert {path.name for path in tmp_path.iterdir()} <= {"mine", "link"}
    if kind != "link to nothing":
        assert (folder.stat().st_ino, folder.stat().st_mode) == (before.st_ino, before.st_mode)
    assert kind == "current directory" or named.is_symlink()


def test_a_failure_in_the_middle_leaves_the_earlier_result(scene, config, tmp_path):
    save_scene(tmp_path / "result", scene, config, "first")
    with pytest.raises(InputError, match="3 captions"):
        save_scene(tmp_path / "result", scene, config, "second", ["a", "b", "c"])
    assert load_scene(tmp_path / "result").title == "first"
    assert [path.name for path in tmp_path.iterdir()] == ["result"]


def test_a_disk_that_refuses_is_one_sentence(scene, config, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OccAnyError, match=r"cannot use the output folder .*result: Not a dir"):
        save_scene(tmp_path / "file" / "result", scene, config)
    long = tmp_path / ("x" * 300)
    with pytest.raises(OccAnyError, match=r"cannot use the output folder .*too long"):
        save_scene(long, scene, config)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_places_that_cannot_hold_a_result_are_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="not a folder"):
        check_folder(tmp_path / "file")
    with pytest.raises(InputError, match="other files"):
        check_folder(tmp_path)
    for place in (tmp_path / "file" / "sub", tmp_path / "file" / "sub" / "deep", Path("/proc/x")):
        with pytest.raises(InputError, match=r"cannot use the output folder .*may write to"):
            check_folder(place)
    check_folder(tmp_path / "deep" / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def changed_grid(path, **changes):
    with np.load(path) as content:
        arrays = dict(content.items()) | changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


def test_damaged_grids_are_refused(scene, config, tmp_path):
    save_scene(tmp_path / "result", scene, config)
    path = tmp_path / "result" / "grid.npz"
    whole = path.read_bytes()
    for damaged, message in (
        (b"", "not a grid"),
        (b"text", "not a grid"),
        (whole[:200], "not a grid"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=message):
            load_grid(path)
    for changes, message in (
        ({"completed": None}, "has no completed"),
        ({"probability": np.zeros((2, 2, 2), np.int8)}, "other types or shapes"),
        ({"probability": np.zeros((20, 20, 8), np.float32)}, "other types or shapes"),
        ({"format": np.int64(99)}, "other types or shapes|version"),
    ):
        path.write_bytes(whole)
        changed_grid(path, **changes)
        with pytest.raises(InputError, match=message):
            load_grid(path)
    with pytest.raises(InputError, match="cannot read"):
        load_grid(tmp_path / "none.npz")


def test_damaged_poses_are_refused(scene, config, tmp_path):
    save_scene(tmp_path / "result", scene, config)
    path = tmp_path / "result" / "poses.json"
    content = json.loads(path.read_text())
    for text in ("{", "[]", json.dumps({**content, "views": [{}]})):
        path.write_text(text)
        with pytest.raises(InputError, match=r"poses\.json"):
            load_scene(tmp_path / "result")
    path.write_text(json.dumps(content))
    (tmp_path / "result" / content["views"][0]["picture"]).unlink()
    with pytest.raises(InputError, match="cannot read"):
        load_scene(tmp_path / "result")


def test_classes_are_saved_with_their_names_and_checked_when_read(tmp_path):
    config = street_config()
    scene = predict(probed_model(4), [surround()], config)
    save_scene(tmp_path / "result", scene, config)
    path = tmp_path / "result" / "grid.npz"
    np.testing.assert_array_equal(load_grid(path).labels, scene.grid.labels)
    with np.load(path) as content:
        arrays = dict(content.items())
    assert arrays["label_names"][4] == "car"
    assert len(arrays["label_names"]) == len(scene.classes) == 18
    for wrong in (arrays["labels"][:2], arrays["labels"].astype(np.int64)):
        np.savez_compressed(path, **(arrays | {"labels": wrong}))
        with pytest.raises(InputError, match="other types or shapes"):
            load_grid(path)


def test_labels_of_pixels_are_pictures_whose_colours_are_those_of_the_classes(tmp_path):
    config = street_config(labels__classes=["car", "driveable_surface"])
    scene = predict(probed_model(4), [surround()], config)
    save_scene(tmp_path / "result", scene, config)
    paths = sorted((tmp_path / "result" / "labels").iterdir())
    pictures = sorted((tmp_path / "result" / "views").iterdir())
    assert [path.name for path in paths] == [path.name for path in pictures]
    picture = Image.open(paths[0])
    np.testing.assert_array_equal(np.asarray(picture), scene.labels[0])
    assert np.asarray(picture.convert("RGB"))[0, 0].tolist() == [255, 158, 0]
    poses = json.loads((tmp_path / "result" / "poses.json").read_text())
    assert poses["views"][0]["labels"] == f"labels/{paths[0].name}"


def test_what_labels_mean_is_read_back_also_for_texts_of_ones_own(tmp_path):
    config = street_config()
    scene = predict(probed_model(4), [surround()], config)
    lorry = vocabulary(("a red lorry",)).classes[0]
    save_scene(tmp_path / "result", replace(scene, classes=(*scene.classes, lorry)), config)
    path = tmp_path / "result" / "grid.npz"
    found = {one.id: (one.name, one.colour) for one in load_grid_classes(path)}
    assert found[4] == ("car", (255, 158, 0))
    assert found[lorry.id] == ("a red lorry", lorry.colour)
    with np.load(path) as content:
        arrays = dict(content.items())
    del arrays["label_colours"]
    np.savez_compressed(path, **arrays)
    with pytest.raises(InputError, match="does not say what its labels mean"):
        load_grid_classes(path)
