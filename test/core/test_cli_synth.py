# SPDX-License-Identifier: Apache-2.0
"""`occany synth`: pictures on disk, and SynthOcc read back from Occ3D's layout."""

import json

import numpy as np
import pytest
from PIL import Image

from occany_core.cli.main import main
from occany_core.datasets.nuscenes import camera_poses, read_voxel_labels, rigid_motion
from occany_core.synthetic import synthocc


def test_render_writes_pictures_depth_and_a_sheet(tmp_path):
    out = tmp_path / "street"
    command = ["synth", "render", "5", "-o", str(out), "--size", "64", "40", "--frames", "2"]
    assert main(command) == 0
    assert len(list(out.glob("*_depth.npy"))) == 12
    assert np.array(Image.open(out / "001_back.png")).shape == (40, 64, 3)
    depth = np.load(out / "000_front_depth.npy")
    assert depth.shape == (40, 64)
    assert np.array(Image.open(out / "sheet.png")).shape == (160, 384, 3)
    plain = np.array(Image.open(out / "000_front.png"))
    bent = tmp_path / "bent"
    assert (
        main([*command[:4], str(bent), *command[5:7], "40", "--distortion", "-0.3", "0.05"]) == 0
    )
    assert not np.array_equal(plain, np.array(Image.open(bent / "000_front.png")))
    np.testing.assert_array_equal(depth, np.load(bent / "000_front_depth.npy"))


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["synth", "render", "-3"], "seed is -3; it must be between 0 and 4294967295"),
        (["synth", "render", "99999999999999999999"], "seed is 99999999999999999999"),
        (["synth", "render", "3", "--frames", "0"], "--frames is 0"),
        (["synth", "render", "3", "--distortion", "nan", "1"], "--distortion is [nan, 1.0]"),
        (["synth", "render", "3", "--distortion", "0", "inf"], "--distortion is [0.0, inf]"),
        (["synth", "render", "3", "--device", "foo"], "the device is 'foo'"),
        (["synth", "render", "3", "--size", "8", "8"], "--size"),
        (["synth", "export", "--limit", "0"], "--limit is 0"),
    ],
)
def test_wrong_numbers_are_refused(tmp_path, capsys, command, words):
    assert main([*command, "-o", str(tmp_path / "out")]) == 1
    assert words in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_last_seed_is_rendered(tmp_path):
    size = ["--size", "16", "16", "--rig", "front"]
    assert main(["synth", "render", "4294967295", "-o", str(tmp_path / "out"), *size]) == 0


def test_a_folder_in_use_is_refused(tmp_path, capsys):
    (tmp_path / "mine.txt").write_text("keep")
    assert main(["synth", "render", "3", "-o", str(tmp_path)]) == 1
    assert "not empty" in capsys.readouterr().err
    assert main(["synth", "render", "3", "-o", str(tmp_path / "mine.txt")]) == 1
    assert "mine.txt is not a folder" in capsys.readouterr().err


def test_export_reads_back_as_occ3d(tmp_path):
    out = tmp_path / "synthocc"
    assert main(["synth", "export", "--limit", "1", "-o", str(out), "--size", "64", "40"]) == 0
    table = json.loads((out / "annotations.json").read_text())
    (name,) = table["val_split"]
    samples = table["scene_infos"][name]
    assert len(samples) == 5
    first = next(iter(samples.values()))
    seed = next(synthocc.usable_seeds(1))
    truth = synthocc.scene(seed, "surround", 64, 40)
    with np.load(out / first["gt_path"]) as labels:
        np.testing.assert_array_equal(labels["semantics"], truth.semantics)
        np.testing.assert_array_equal(labels["mask_camera"], truth.mask_camera)
        assert 0.01 < labels["mask_lidar"].mean() < 0.9
    assert read_voxel_labels(out / first["gt_path"], front_only=False).shape == (200, 200, 16)
    for view in truth.views:
        record = first["camera_sensor"][f"CAM_{view.camera.upper()}"]
        np.testing.assert_allclose(record["intrinsics"], view.K)
        ego_from_cam = rigid_motion(*(np.array(part) for part in record["extrinsic"].values()))
        world_from_ego = rigid_motion(*(np.array(part) for part in record["ego_pose"].values()))
        np.testing.assert_allclose(
            camera_poses(world_from_ego, ego_from_cam),
            view.world_from_rig @ view.rig_from_cam,
            atol=1e-9,
        )
        stored = np.array(Image.open(out / record["img_path"])).astype(int)
        assert np.abs(stored - view.rgb).mean() < 6
    tokens = list(samples)
    assert [sample["next"] for sample in samples.values()] == [*tokens[1:], ""]
