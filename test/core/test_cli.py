# SPDX-License-Identifier: Apache-2.0
"""The command line with a tiny network: what it writes; one sentence for every bad input."""

import json
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from small_model import SMALL, save_small_model, write_pictures
from street_views import probed_model

from occany_core.checkpoints import save_model
from occany_core.cli.main import CLOSED_PIPE, VERBS, build_parser, main
from occany_core.results import load_grid, load_grid_classes, load_scene

SETTINGS = [part for setting in SMALL for part in ("--set", setting)]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return save_small_model(tmp_path_factory.mktemp("weights"))


def predict(weights, *arguments):
    return main(["predict", "--model", str(weights), *SETTINGS, *map(str, arguments)])


def failure(capsys, code, *, within):
    """The one sentence on stderr."""
    assert code == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    last = err.strip().splitlines()[-1]
    assert last.startswith("occany: ")
    for part in within:
        assert part in last, last
    return last


# --- what it writes -----------------------------------------------------------------------------


def test_what_is_named_is_what_was_asked_for(tmp_path, capsys):
    pictures = write_pictures(tmp_path / "street", 2)
    named = tmp_path / "probed.safetensors"
    save_model(probed_model(4).network, {"name": "probed", "licence": "Apache-2.0"}, named)
    assert predict(named, pictures, "-o", tmp_path / "cars", "--labels", "Car, tree") == 0
    cars = {one.name: one.id for one in load_grid_classes(tmp_path / "cars" / "grid.npz")}
    assert cars == {"car": 4, "vegetation": 16}
    assert set(np.unique(load_grid(tmp_path / "cars" / "grid.npz").labels)) == {4, 255}
    assert predict(named, pictures, "-o", tmp_path / "trees", "--labels", "tree") == 0
    assert set(np.unique(load_grid(tmp_path / "trees" / "grid.npz").labels)) == {255}
    capsys.readouterr()
    for texts, words in (("car, unicorn", "'unicorn', which is none of"), ("car,,", "texts of 1")):
        code = predict(named, pictures, "-o", tmp_path / "no", "--labels", texts)
        failure(capsys, code, within=[words])
        assert not (tmp_path / "no").exists()


def test_sequence_gives_grid_points_poses_and_picture(weights, tmp_path, capsys):
    pictures = write_pictures(tmp_path / "street", 3, ["f10.png", "f9.png", "f1.png"])
    assert predict(weights, pictures, "-o", tmp_path / "out" / "a") == 0
    assert "occupied cells" in capsys.readouterr().out
    scene = load_scene(tmp_path / "out" / "a")
    assert scene.captions == ("f1.png", "f9.png", "f10.png")
    assert len(scene.poses["world_from_rig"]) == 3
    assert scene.poses["frame_source"] == "assumed level"
    assert scene.grid.probability.shape == (20, 20, 8)
    assert (tmp_path / "out" / "a" / "points.ply").read_bytes().startswith(b"ply\n")
    with Image.open(tmp_path / "out" / "a" / "scene.png") as picture:
        assert picture.width > 1000
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a"]


def test_picture_files_are_taken_as_given(weights, tmp_path):
    pictures = write_pictures(tmp_path / "p", 2)
    assert predict(weights, pictures / "1.png", pictures / "0.png", "-o", tmp_path / "o") == 0
    assert load_scene(tmp_path / "o").captions == ("1.png", "0.png")


def test_one_picture_is_enough(weights, tmp_path):
    pictures = write_pictures(tmp_path / "p", 1)
    assert predict(weights, pictures, "-o", tmp_path / "o", "--rig", "monocular") == 0
    assert predict(weights, pictures, "-o", tmp_path / "o") == 0  # replaces the first result


def test_surround_takes_loose_pictures_as_one_set_front_first(weights, tmp_path):
    names = ["back.png", "cam_front.png", "left.png"]
    pictures = write_pictures(tmp_path / "p", 3, names)
    assert predict(weights, pictures, "-o", tmp_path / "o", "--rig", "surround") == 0
    poses = load_scene(tmp_path / "o").poses
    assert [view["camera"] for view in poses["views"]] == ["cam_front", "back", "left"]
    assert len(poses["world_from_rig"]) == 1


def test_subfolders_are_cameras_and_calibration_gives_the_frame(weights, tmp_path):
    for camera in ("back", "front"):
        write_pictures(tmp_path / "p" / camera, 2)
    turn = {
        "front": [[0, 0, 1], [-1, 0, 0], [0, -1, 0]],
        "back": [[0, 0, -1], [1, 0, 0], [0, -1, 0]],
    }
    content = {
        camera: {
            "K": [[40, 0, 23.5], [0, 40, 15.5], [0, 0, 1]],
            "rig_from_cam": [[*row, 1.5 * (axis == 2)] for axis, row in enumerate(rotation)]
            + [[0, 0, 0, 1]],
        }
        for camera, rotation in turn.items()
    }
    calibration = tmp_path / "calibration.json"
    calibration.write_text(json.dumps(content))
    code = predict(weights, tmp_path / "p", "-o", tmp_path / "o", "--calibration", calibration)
    assert code == 0
    poses = load_scene(tmp_path / "o").poses
    assert [view["camera"] for view in poses["views"]] == ["front", "back"] * 2
    assert [view["view_set"] for view in poses["views"]] == [0, 0, 1, 1]
    assert poses["frame_source"] == "extrinsics"
    np.testing.assert_allclose(poses["views"][0]["K"], content["front"]["K"], atol=0.05)


def test_masks_hide_what_they_cover(weights, tmp_path, capsys):
    for camera in ("front", "back"):
        write_pictures(tmp_path / "p" / camera, 1)
    (tmp_path / "masks").mkdir()
    mask = np.zeros((32, 48, 3), np.uint8)
    mask[4:] = 255
    Image.fromarray(mask).save(tmp_path / "masks" / "front.png")
    sizes = []
    for more in ((), ("--masks", tmp_path / "masks")):
        plain = ("--set", "novel_views.steps=0", *more)
        assert predict(weights, tmp_path / "p", "-o", tmp_path / "o", *plain) == 0
        sizes.append((tmp_path / "o" / "points.ply").stat().st_size)
    assert sizes[1] < 0.7 * sizes[0]
    capsys.readouterr()
    Image.fromarray(mask).save(tmp_path / "masks" / "roof.png")
    code = predict(weights, tmp_path / "p", "-o", tmp_path / "o", "--masks", tmp_path / "masks")
    failure(capsys, code, within=["holds masks of roof", "which are front, back"])
    code = predict(weights, tmp_path / "p", "-o", tmp_path / "o", "--masks", tmp_path / "none")
    failure(capsys, code, within=["there is no folder of masks"])


def test_view_inspect_and_config(weights, tmp_path, capsys):
    pictures = write_pictures(tmp_path / "p", 1)
    assert predict(weights, pictures, "-o", tmp_path / "o") == 0
    capsys.readouterr()
    assert main(["view", str(tmp_path / "o"), "-o", str(tmp_path / "again.png")]) == 0
    assert (tmp_path / "again.png").exists()
    assert main(["view", str(tmp_path / "o" / "grid.npz"), "-o", str(tmp_path / "grid.jpg")]) == 0
    assert (tmp_path / "grid.jpg").exists()
    capsys.readouterr()
    grid = load_grid(tmp_path / "o" / "grid.npz")
    for thing in (tmp_path / "o", tmp_path / "o" / "grid.npz"):
        assert main(["inspect", str(thing)]) == 0
        assert f"{int(grid.occupied.sum()):,} cells" in capsys.readouterr().out
    assert main(["inspect", str(weights)]) == 0
    assert "random" in capsys.readouterr().out


def test_view_colours_by_class_where_there_are_classes(weights, tmp_path, capsys):
    pictures = write_pictures(tmp_path / "p", 1)
    assert predict(weights, pictures, "-o", tmp_path / "o") == 0
    capsys.readouterr()
    by_class = ["view", str(tmp_path / "o"), "--colour", "class"]
    failure(capsys, main(by_class), within=["has no classes", "--set labels.use=true"])
    labelled = tmp_path / "car.safetensors"
    save_model(probed_model(4).network, {"name": "car", "licence": "Apache-2.0"}, labelled)
    assert predict(labelled, pictures, "-o", tmp_path / "o") == 0
    assert main([*by_class, "-o", str(tmp_path / "class.png")]) == 0
    assert (tmp_path / "class.png").read_bytes() != (tmp_path / "o/scene.png").read_bytes()


def test_config_prints_what_config_reads(tmp_path, capsys):
    assert main(["config", "--set", "voxels.resolution=0.25"]) == 0
    text = capsys.readouterr().out
    assert yaml.safe_load(text)["voxels"]["resolution"] == 0.25
    (tmp_path / "c.yaml").write_text(text)
    assert main(["config", "--config", str(tmp_path / "c.yaml")]) == 0
    assert capsys.readouterr().out == text
    assert main(["config", "--list"]) == 0
    assert "voxels.resolution" in capsys.readouterr().out


def test_every_verb_has_help_with_an_example(capsys):
    for verb in VERBS:
        with pytest.raises(SystemExit) as ended:
            main([verb.NAME, "--help"])
        assert ended.value.code == 0
        assert verb.EXAMPLE in " ".join(capsys.readouterr().out.split())
        assert verb.EXAMPLE.split()[:2] == ["occany", verb.NAME]


# --- bad input ----------------------------------------------------------------------------------


def test_wrong_usage_ends_with_2(capsys):
    for arguments in ([], ["conquer"], ["predict"], ["predict", "x", "-o", "y", "--rig", "z"]):
        with pytest.raises(SystemExit) as ended:
            build_parser().parse_args(arguments)
        assert ended.value.code == 2
    capsys.readouterr()


def missing_folder(root):
    return [root / "nowhere"], ["nowhere", "check the path"]


def empty_folder(root):
    (root / "p").mkdir()
    return [root / "p"], ["no pictures", ".png"]


def no_picture(root):
    (root / "notes.txt").write_text("hello")
    return [root / "notes.txt"], ["notes.txt", ".jpg"]


def damaged_picture(root):
    write_pictures(root / "p", 2)
    whole = (root / "p" / "1.png").read_bytes()
    (root / "p" / "1.png").write_bytes(whole[: len(whole) // 2])
    return [root / "p"], ["1.png", "replace or remove"]


def text_called_picture(root):
    write_pictures(root / "p", 1)
    (root / "p" / "1.jpg").write_text("not a picture")
    return [root / "p"], ["1.jpg", "not a readable picture"]


def sixteen_bits(root):
    (root / "p").mkdir()
    Image.fromarray(np.zeros((32, 48), np.uint16)).save(root / "p" / "deep.png")
    return [root / "p"], ["deep.png", "8-bit"]


def write_black_png(path, width, height, bits):
    """As Pillow does not: of 16 bits, or without memory for the pixels."""
    path.parent.mkdir()
    header = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    rows = zlib.compress(bytes(min(height * (1 + width * 3 * bits // 8), 100_000)))
    with path.open("wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for kind, data in ((b"IHDR", header), (b"IDAT", rows), (b"IEND", b"")):
            file.write(struct.pack(">I", len(data)) + kind + data)
            file.write(struct.pack(">I", zlib.crc32(kind + data)))


def sixteen_bits_of_colour(root):
    write_black_png(root / "p" / "deep.png", 48, 32, 16)
    return [root / "p"], ["deep.png", "8-bit"]


def tiny_picture(root):
    (root / "p").mkdir()
    Image.new("RGB", (8, 8)).save(root / "p" / "dot.png")
    return [root / "p"], ["dot.png", "8x8"]


def huge_picture(root):
    write_black_png(root / "p" / "wall.png", 12_000, 9_000, 8)
    return [root / "p"], ["wall.png", "12000x9000", "100 megapixels"]


def pictures_of_one_name(root):
    pictures = [write_pictures(root / "kit" / camera, 1) / "0.png" for camera in ("a", "b")]
    return [*pictures, "--rig", "surround"], ["2 pictures are named 0;", "folder of its name"]


def picture_beside_cameras(root):
    write_pictures(root / "p" / "left", 1)
    write_pictures(root / "p", 1, ["preview.png"])
    return [root / "p"], ["preview.png", "subfolders of pictures (left)", "move it away"]


def too_many_pictures(root):
    write_pictures(root / "p", 61)
    return [root / "p"], ["61 pictures", "60"]


def cameras_with_different_counts(root):
    write_pictures(root / "p" / "left", 2)
    write_pictures(root / "p" / "right", 1)
    return [root / "p"], ["left 2", "right 1"]


def sequence_of_cameras(root):
    write_pictures(root / "p" / "left", 1)
    write_pictures(root / "p" / "right", 1)
    return [root / "p", "--rig", "sequence"], ["left, right", "surround"]


def monocular_of_many(root):
    return [write_pictures(root / "p", 2), "--rig", "monocular"], ["2 pictures"]


def folder_and_file(root):
    write_pictures(root / "p", 1)
    return [root / "p", root / "p" / "0.png"], ["folder among several"]


def unknown_setting(root):
    arguments = [write_pictures(root / "p", 1), "--set", "voxels.resolutoin=0.2"]
    return arguments, ["voxels.resolutoin", "did you mean voxels.resolution?"]


def value_out_of_range(root):
    return [write_pictures(root / "p", 1), "--set", "voxels.resolution=-1"], ["voxels.resolution"]


def value_that_is_no_yaml(root):
    return [write_pictures(root / "p", 1), "--set", "voxels.origin=[1"], ["--set"]


def missing_config(root):
    return [write_pictures(root / "p", 1), "--config", root / "c.yaml"], ["c.yaml"]


def missing_weights(root):
    return [write_pictures(root / "p", 1), "--model", root / "w.safetensors"], ["w.safetensors"]


def weights_of_another_kind(root):
    (root / "w.pth").write_bytes(b"pickle")
    return [write_pictures(root / "p", 1), "--model", root / "w.pth"], ["w.pth", ".safetensors"]


def weights_without_a_card(root):
    (root / "w.safetensors").write_bytes(b"nothing")
    return [write_pictures(root / "p", 1), "--model", root / "w.safetensors"], ["card", "w.json"]


def missing_calibration(root):
    return [write_pictures(root / "p", 1), "--calibration", root / "k.json"], ["k.json"]


def calibration_of_another_camera(root):
    (root / "k.json").write_text('{"front": {}}')
    arguments = [write_pictures(root / "p", 1), "--calibration", root / "k.json"]
    return arguments, ["'camera'", "front"]


def calibration_with_a_small_matrix(root):
    (root / "k.json").write_text('{"camera": {"K": [[1, 0], [0, 1]]}}')
    arguments = [write_pictures(root / "p", 1), "--calibration", root / "k.json"]
    return arguments, ["camera.K", "3 rows"]


def calibration_that_is_no_rotation(root):
    (root / "k.json").write_text(
        json.dumps({"camera": {"rig_from_cam": np.ones((4, 4)).tolist()}})
    )
    arguments = [write_pictures(root / "p", 1), "--calibration", root / "k.json"]
    return arguments, ["camera.rig_from_cam", "rotation"]


def calibration_with_a_huge_number(root):
    K = [[10**400, 0, 0], [0, 1, 0], [0, 0, 1]]
    (root / "k.json").write_text(json.dumps({"camera": {"K": K}}))
    arguments = [write_pictures(root / "p", 1), "--calibration", root / "k.json"]
    return arguments, ["camera.K", "3 finite numbers"]


def calibration_by_columns(root):
    K = [[40, 0, 0], [0, 40, 0], [23.5, 15.5, 1]]
    (root / "k.json").write_text(json.dumps({"camera": {"K": K}}))
    arguments = [write_pictures(root / "p", 1), "--calibration", root / "k.json"]
    return arguments, ["camera in ", "k.json", "row by row"]


def calibration_of_larger_pictures(root):
    K = [[1266, 0, 816], [0, 1266, 491], [0, 0, 1]]
    (root / "k.json").write_text(json.dumps({"camera": {"K": K}}))
    arguments = [write_pictures(root / "p", 1), "--calibration", root / "k.json"]
    return arguments, ["0.png (camera)", "(816, 491) lies outside the 48x32 picture"]


BAD_INPUTS = [
    missing_folder, empty_folder, no_picture, damaged_picture, text_called_picture, sixteen_bits,
    tiny_picture, too_many_pictures, cameras_with_different_counts, sequence_of_cameras,
    monocular_of_many, folder_and_file, unknown_setting, value_out_of_range, value_that_is_no_yaml,
    missing_config, missing_weights, weights_of_another_kind, weights_without_a_card,
    missing_calibration, calibration_of_another_camera, calibration_with_a_small_matrix,
    calibration_that_is_no_rotation, calibration_with_a_huge_number, calibration_by_columns,
    calibration_of_larger_pictures, sixteen_bits_of_colour, huge_picture, pictures_of_one_name,
    picture_beside_cameras,
]  # fmt: skip


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("case", BAD_INPUTS)
def test_bad_input_is_one_sentence_and_leaves_nothing(case, weights, tmp_path, capsys):
    arguments, within = case(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    code = predict(weights, *arguments, "-o", tmp_path / "out" / "a")
    failure(capsys, code, within=within)
    assert sorted(tmp_path.rglob("*")) == before


def test_damaged_weights_are_named(weights, tmp_path, capsys):
    copy = tmp_path / "random.safetensors"
    copy.write_bytes(weights.read_bytes()[:-4] + b"\0\1\2\3")
    copy.with_suffix(".json").write_text(weights.with_suffix(".json").read_text())
    code = predict(copy, write_pictures(tmp_path / "p", 1), "-o", tmp_path / "o")
    failure(capsys, code, within=["random.safetensors", "sha256"])
    assert not (tmp_path / "o").exists()


def test_output_that_is_a_file_or_holds_other_files_is_left_alone(weights, tmp_path, capsys):
    pictures = write_pictures(tmp_path / "p", 1)
    code = predict(weights, pictures, "-o", pictures / "0.png")
    failure(capsys, code, within=["0.png", "not a folder"])
    code = predict(weights, pictures, "-o", pictures)
    failure(capsys, code, within=["holds other files"])
    code = predict(weights, pictures, "-o", pictures / "0.png" / "sub")
    failure(capsys, code, within=["0.png/sub", "Not a directory"])
    assert [path.name for path in pictures.iterdir()] == ["0.png"]


def test_bad_results_are_one_sentence(tmp_path, capsys):
    failure(capsys, main(["view", str(tmp_path / "none")]), within=["none"])
    (tmp_path / "bad.npz").write_bytes(b"PK but no archive")
    failure(capsys, main(["inspect", str(tmp_path / "bad.npz")]), within=["bad.npz"])
    failure(capsys, main(["inspect", str(tmp_path / "no.txt")]), within=["no.txt"])


def test_a_place_for_a_file_is_sought_before_the_work(weights, tmp_path, capsys, monkeypatch):
    taken, missing = tmp_path / "taken.png", tmp_path / "no" / "x.png"
    taken.mkdir()
    result = str(tmp_path / "no_result")
    for words in (["view", result, "-o"], ["view", "features", result, "-o"]):
        failure(capsys, main([*words, str(missing)]), within=["x.png: there is no folder", "no;"])
        failure(capsys, main([*words, str(taken)]), within=["taken.png: it is a folder"])
    card = ["inspect", str(tmp_path / "none.safetensors"), "--card"]
    failure(capsys, main([*card, str(missing)]), within=["x.png: there is no folder"])
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    failure(capsys, main([*card, str(tmp_path / "x.md")]), within=["x.md: you may not"])


def test_a_picture_is_written_whole_or_not_at_all(weights, tmp_path, capsys, monkeypatch):
    assert predict(weights, write_pictures(tmp_path / "p", 1), "-o", tmp_path / "o") == 0
    capsys.readouterr()
    (tmp_path / "pages").mkdir()
    page = tmp_path / "pages" / "street.png"

    def fill_the_disk(picture, file):
        Path(file).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as full:
        full.setattr(Image.Image, "save", fill_the_disk)
        code = main(["view", str(tmp_path / "o"), "-o", str(page)])
        failure(capsys, code, within=["a file: No space left on device; name another place or"])
        assert list(page.parent.iterdir()) == []
    assert main(["view", str(tmp_path / "o"), "-o", str(page)]) == 0
    assert list(page.parent.iterdir()) == [page]


def test_a_failure_of_the_disk_is_one_sentence(tmp_path, capsys):
    words = ["synth", "render", "3", "-o", str(tmp_path / "file" / "out")]
    (tmp_path / "file").touch()
    failure(capsys, main(words), within=["cannot read or write", "file", "Not a directory; name"])


def test_debug_shows_where(weights, tmp_path):
    with pytest.raises(Exception, match="nowhere"):
        predict(weights, tmp_path / "nowhere", "-o", tmp_path / "o", "--debug")


def test_points_without_confidence_are_mentioned(weights, tmp_path, capsys):
    pictures = write_pictures(tmp_path / "p", 1)
    arguments = ["-o", tmp_path / "o", "--set", "voxels.min_confidence=1000"]
    assert predict(weights, pictures, *arguments) == 0
    assert "lower it for these weights" in capsys.readouterr().err


def test_a_reader_that_stops_early_is_no_error():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "occany_core.cli.main", "config", "--list"],
        cwd=Path(__file__).resolve().parents[2],
        stdout=writer,
        stderr=subprocess.PIPE,
    )
    os.close(writer)
    assert done.stderr == b""
    assert done.returncode == CLOSED_PIPE


def test_module_runs_as_a_program():
    done = subprocess.run(
        [sys.executable, "-m", "occany_core.cli.main", "config", "--set", "x.y=1"],
        cwd=Path(__file__).resolve().parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("occany: unknown setting 'x.y'")
    assert len(done.stderr.splitlines()) == 1
