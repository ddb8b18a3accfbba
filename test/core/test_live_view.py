# SPDX-License-Identifier: Apache-2.0
"""What people see in Rerun is what was predicted: written by the real package and read back."""

import io

import numpy as np
import pytest
from PIL import Image
from street_views import sequence, small_street_model, street_config, surround

pytest.importorskip("rerun", reason="rerun-sdk is not installed (extra [view])")

from recordings_of_rerun import contents

from occany_core import live_view, predict
from occany_core.cli.main import main
from occany_core.errors import InputError
from occany_core.live_view import LiveView
from occany_core.results import load_scene, save_scene
from occany_core.voxels import VoxelGrid, VoxelGridSpec


@pytest.fixture
def street(tmp_path):
    config = street_config(window__view_sets=2)
    scene = predict(small_street_model(), [surround(0), surround(1, stamp=0.5)], config)
    save_scene(tmp_path / "street", scene, config, title="A street")
    return tmp_path / "street"


def test_a_result_folder_is_shown_with_voxels_cameras_pictures_and_path(street, tmp_path, capsys):
    file = tmp_path / "street.rrd"
    assert main(["view", str(street), "--rerun", "-o", str(file)]) == 0
    assert capsys.readouterr().out == f"wrote {file}\n"
    scene, found = load_scene(street), contents(file)
    voxels = "/world/rig/voxels:Boxes3D"
    centres = np.array(found[f"{voxels}:centers"])
    np.testing.assert_allclose(centres, scene.grid.occupied_centres(), atol=1e-5)
    sizes = np.array(found[f"{voxels}:half_sizes"])
    np.testing.assert_allclose(sizes, scene.grid.spec.resolution / 2)
    for index, view in enumerate(scene.poses["views"]):
        camera = f"/world/rig/cameras/{index:03d}_{view['camera']}"
        grid_from_cam = np.array(scene.poses["grid_from_world"]) @ view["world_from_cam"]
        np.testing.assert_allclose(
            found[f"{camera}:Transform3D:translation"][0], grid_from_cam[:3, 3], atol=1e-5
        )
        turn = np.reshape(found[f"{camera}:Transform3D:mat3x3"][0], (3, 3)).T  # by columns
        np.testing.assert_allclose(turn, grid_from_cam[:3, :3], atol=1e-5)
        K = np.reshape(found[f"{camera}/picture:Pinhole:image_from_camera"][0], (3, 3)).T
        np.testing.assert_allclose(K, view["K"], rtol=1e-5)
        data = bytes(found[f"{camera}/picture:EncodedImage:blob"][0])
        shown = np.asarray(Image.open(io.BytesIO(data)), float)
        others = [np.corrcoef(shown.flat, rgb.flat)[0, 1] for rgb in scene.pictures]
        assert int(np.argmax(others)) == index  # pictures of noise, as JPEG
    strip = found["/world/path:LineStrips3D:strips"][0]
    assert len(strip) == 2
    assert "A street: metres from camera_info" in found["/log:TextLog:text"][0]


def test_a_map_is_seen_from_above_with_forward_up(tmp_path):
    view = LiveView(tmp_path / "map.rrd")
    view.at(1.0)
    columns = np.full((2, 3), -1, np.int8)  # (y, x)
    columns[0, 2] = 100  # to the right, ahead
    columns[1, 0] = 0  # to the left, behind
    view.floor_map("obstacles", columns)
    view.close()
    found = contents(tmp_path / "map.rrd")
    grey = np.array(found["/map/obstacles:Image:buffer"][0], np.uint8).reshape(3, 2)
    expected = np.full((3, 2), live_view.UNKNOWN_GREY)
    expected[0, 1], expected[2, 0] = live_view.OCCUPIED_GREY, live_view.FREE_GREY
    np.testing.assert_array_equal(grey, expected)


def test_very_many_voxels_are_thinned(tmp_path, monkeypatch):
    monkeypatch.setattr(live_view, "MOST_BOXES", 100)
    spec = VoxelGridSpec((0.0, 0.0, 0.0), 0.5, (10, 10, 5))
    grid = VoxelGrid(spec, np.full((10, 10, 5), 90, np.int8), np.zeros((10, 10, 5), bool))
    view = LiveView(tmp_path / "full.rrd")
    view.voxels(grid, np.eye(4))
    view.close()
    found = contents(tmp_path / "full.rrd", timeline="log_tick")
    assert len(found["/world/rig/voxels:Boxes3D:centers"]) == 100


@pytest.mark.parametrize("name", ["street.png", "missing/street.rrd"])
def test_a_file_that_cannot_be_is_refused(street, tmp_path, capsys, name):
    assert main(["view", str(street), "--rerun", "-o", str(tmp_path / name)]) == 1
    assert "must end in .rrd and lie in a folder that exists" in capsys.readouterr().err


def test_without_the_package_the_remedy_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(live_view.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="rerun-sdk is not installed; run `pip install"):
        LiveView(tmp_path / "street.rrd")


def test_pictures_without_intrinsics_stand_beside_the_world(tmp_path):
    (views,) = sequence(1)
    view = LiveView(tmp_path / "one.rrd")
    view.at(0.0)
    view.picture("front", views[0].rgb)
    view.close()
    assert "/pictures/front:EncodedImage:blob" in contents(tmp_path / "one.rrd")
