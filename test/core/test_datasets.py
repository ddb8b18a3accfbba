# SPDX-License-Identifier: Apache-2.0
"""Labels, poses, LiDAR depth and samples of the evaluation sets, from files and from arrays."""

import golden_set as golden
import numpy as np
import pytest
import yaml

from occany_core.datasets import nuscenes, semantic_kitti
from occany_core.datasets.class_tables import load_classes
from occany_core.datasets.lidar_depth import depth_last_wins, depth_nearest_wins
from occany_core.datasets.sampling import (
    kitti_frames,
    kitti_start_frames,
    nuscenes_frames,
    shard,
)
from occany_core.errors import InputError

RNG = np.random.default_rng(3)
KITTI_SHAPE = (256, 256, 32)
CELLS = int(np.prod(KITTI_SHAPE))

# --- class tables -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["semantic_kitti", "occ3d_nuscenes"])
def test_class_tables_are_complete(name):
    table = load_classes(name)
    ids = [entry.id for entry in table.classes]
    assert ids == list(range(len(table.convention.names)))
    assert len({entry.name for entry in table.classes}) == len(ids)
    assert all(entry.prompts for entry in table.classes)
    assert {entry.superclass for entry in table.classes} == set(
        range(len(table.superclasses.names))
    )
    empty = table.classes[table.convention.empty]
    assert empty.superclass == table.superclasses.empty
    assert set(table.raw_to_class.values()) <= {*ids, table.convention.ignore}


def test_means_leave_out_the_empty_class_only():
    kitti, occ3d = load_classes("semantic_kitti"), load_classes("occ3d_nuscenes")
    assert len(kitti.convention.averaged) == 19 and len(kitti.superclasses.averaged) == 6
    assert len(occ3d.convention.averaged) == 17 and len(occ3d.superclasses.averaged) == 7


def test_values_that_are_no_class_keep_themselves():
    lookup = load_classes("semantic_kitti").superclass_lookup
    assert lookup[20] == 20 and lookup[255] == 255
    assert lookup[9] == 1  # road is ground


def test_unknown_tables_are_refused():
    with pytest.raises(InputError, match=r"'kitti'.*semantic_kitti"):
        load_classes("kitti")


@golden.needs_reference
@pytest.mark.parametrize("name", ["semantic_kitti", "occ3d_nuscenes"])
def test_class_tables_hold_the_published_facts(name):
    facts = yaml.safe_load((golden.REFERENCE / "classes.yaml").read_text())[name]
    table = load_classes(name)
    for entry, fact in zip(table.classes, facts["classes"], strict=True):
        assert (entry.id, entry.name, entry.superclass) == tuple(
            fact[key] for key in ("id", "name", "superclass")
        )
        assert entry.colour == tuple(fact["rgb"]) and entry.prompts == tuple(fact["prompts"])
    assert table.convention.empty == facts["empty_class"]
    assert table.other == facts["other_class"]
    assert table.convention.ignore == facts["ignore_label"]
    assert len(table.convention.names) == facts["n_classes"]
    assert table.superclasses.names == tuple(facts["superclasses"]["names"])
    assert table.superclasses.empty == facts["superclasses"]["empty_class"]
    assert table.grid.shape == tuple(facts["grid"]["dims"])
    assert table.grid.resolution == facts["grid"]["voxel_size"]
    assert table.grid.origin == tuple(facts["grid"]["origin"])
    assert table.raw_to_class == facts.get("raw_label_to_class", {})
    assert table.surround_cameras == tuple(facts.get("surround_cameras", ()))


# --- SemanticKITTI ------------------------------------------------------------------------------


@pytest.fixture
def voxel_folder(tmp_path):
    """One grid: a car in a corner, an outlier, a cell without a listed id, an invalid cell."""
    raw = np.zeros(KITTI_SHAPE, "<u2")
    raw[0, 0, 0], raw[0, 0, 1], raw[0, 1, 0], raw[255, 255, 31] = 10, 1, 7, 48
    invalid = np.zeros(CELLS, bool)
    invalid[[3, CELLS - 1]] = True
    (tmp_path / "000000.label").write_bytes(raw.tobytes())
    (tmp_path / "000000.invalid").write_bytes(np.packbits(invalid).tobytes())
    return tmp_path


def test_voxel_labels_of_files(voxel_folder):
    labels = semantic_kitti.read_voxel_labels(voxel_folder / "000000.label")
    assert labels.shape == KITTI_SHAPE and labels.dtype == np.uint8
    assert labels[0, 0, 0] == 1 and labels[0, 0, 2] == 0
    ignored = {(0, 0, 1), (0, 1, 0), (0, 0, 3), (255, 255, 31)}
    assert {tuple(cell) for cell in np.argwhere(labels == 255).tolist()} == ignored


@pytest.mark.parametrize("name", ["000000.label", "000000.invalid"])
@pytest.mark.parametrize("damage", ["absent", "odd", "short"])
def test_damaged_voxel_files_are_refused(voxel_folder, name, damage):
    path = voxel_folder / name
    if damage == "absent":
        path.unlink()
    else:
        content = path.read_bytes()
        path.write_bytes(content[: -1 if damage == "odd" else len(content) // 2])
    with pytest.raises(InputError) as error:
        semantic_kitti.read_voxel_labels(voxel_folder / "000000.label")
    assert str(voxel_folder) in str(error.value)
    assert "truncated" in str(error.value) or "cannot be read" in str(error.value)


CALIBRATION = {
    "P0": "700 0 600 0 0 700 180 0 0 0 1 0",
    "P1": "700 0 600 -350 0 700 180 0 0 0 1 0",
    "P2": "710 0 601 45 0 711 181 0.2 0 0 1 0.003",
    "P3": "700 0 600 -330 0 700 180 0 0 0 1 0",
    "Tr": "0 -1 0 0.1 0 0 -1 0.2 1 0 0 0.3",
}


def calibration_text(**changes: str) -> str:
    entries = CALIBRATION | changes
    return "".join(f"{name}: {value}\n" for name, value in entries.items() if value)


def test_calibration_places_the_scanner(tmp_path):
    path = tmp_path / "calib.txt"
    path.write_text(calibration_text())
    calibration = semantic_kitti.read_calibration(path)
    # One metre ahead of the scanner is one metre ahead of the camera, plus the mounting.
    ahead = calibration.cam0_from_velodyne @ (1, 0, 0, 1)
    np.testing.assert_allclose(ahead, (0.1, 0.2, 1.3, 1))
    np.testing.assert_allclose(calibration.velodyne_from_cam0 @ ahead, (1, 0, 0, 1), atol=1e-12)
    np.testing.assert_array_equal(
        calibration.intrinsics, [[710, 0, 601], [0, 711, 181], [0, 0, 1]]
    )


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"Tr": ""}, "no entry 'Tr'"),
        ({"P2": "1 2 3"}, "'P2': 3 numbers"),
        ({"P2": "1 2 x"}, "could not convert"),
        ({"Tr": " ".join(["nan"] * 12)}, "finite"),
    ],
)
def test_broken_calibration_is_refused(tmp_path, changes, named):
    path = tmp_path / "calib.txt"
    path.write_text(calibration_text(**changes))
    with pytest.raises(InputError) as error:
        semantic_kitti.read_calibration(path)
    assert str(path) in str(error.value) and named in str(error.value)


def test_camera_motion_is_relative_to_the_first(tmp_path):
    """The car drives on by two metres; its camera does too, whatever the mounting."""
    path = tmp_path / "poses.txt"
    path.write_text("1 0 0 5 0 1 0 6 0 0 1 7\n1 0 0 5 0 1 0 6 0 0 1 9\n\n")
    world_from_cam0 = semantic_kitti.read_poses(path)
    calibration = semantic_kitti.parse_calibration(calibration_text())
    world_from_velodyne = semantic_kitti.velodyne_poses(world_from_cam0, calibration)
    moved = np.linalg.inv(world_from_velodyne[0]) @ world_from_velodyne[1]
    np.testing.assert_allclose(moved[:3, 3], (2, 0, 0), atol=1e-12)
    first_cam_from_cam = semantic_kitti.poses_in_first_camera(world_from_velodyne, calibration)
    np.testing.assert_allclose(first_cam_from_cam[0], np.eye(4), atol=1e-12)
    np.testing.assert_allclose(first_cam_from_cam[1, :3, 3], (0, 0, 2), atol=1e-12)


@pytest.mark.parametrize(("text", "named"), [("\n", "no poses"), ("1 0 0\n", "line 1: 3 numbers")])
def test_broken_poses_are_refused(tmp_path, text, named):
    path = tmp_path / "poses.txt"
    path.write_text(text)
    with pytest.raises(InputError, match=named):
        semantic_kitti.read_poses(path)
    with pytest.raises(InputError, match="cannot be read"):
        semantic_kitti.read_poses(tmp_path / "absent.txt")


def test_scans_lose_their_reflectance(tmp_path):
    path = tmp_path / "000000.bin"
    points = np.arange(8, dtype="<f4").reshape(2, 4)
    path.write_bytes(points.tobytes())
    np.testing.assert_array_equal(semantic_kitti.read_scan(path), points[:, :3])
    path.write_bytes(points.tobytes()[:-4])
    with pytest.raises(InputError, match="multiple of 4"):
        semantic_kitti.read_scan(path)


# --- nuScenes -----------------------------------------------------------------------------------


def test_quaternions_turn():
    """A quarter turn about z, and about x; any length."""
    half = np.sqrt(0.5)
    motions = nuscenes.rigid_motion(
        np.array([[1.0, 2, 3], [0, 0, 0]]), np.array([[half, 0, 0, half], [3.0, 3, 0, 0]])
    )
    np.testing.assert_allclose(motions[0] @ (1, 0, 0, 1), (1, 3, 3, 1), atol=1e-12)
    np.testing.assert_allclose(motions[1] @ (0, 1, 0, 1), (0, 0, 1, 1), atol=1e-12)


@pytest.mark.parametrize("quaternion", [np.zeros(4), np.array([1, 0, np.nan, 0])])
def test_impossible_quaternions_are_refused(quaternion):
    with pytest.raises(InputError, match="quaternion"):
        nuscenes.rigid_motion(np.zeros(3), quaternion)


def test_cameras_use_the_ego_pose_of_their_stamp():
    still, moved = np.eye(4), np.eye(4)
    moved[0, 3] = 1.5
    mounting = nuscenes.rigid_motion(np.array([1.0, 0, 2]), np.array([1.0, 0, 0, 0]))
    world_from_cam = nuscenes.camera_poses(np.stack((still, moved)), np.stack((mounting,) * 2))
    relative = nuscenes.poses_in_first_camera(world_from_cam)
    np.testing.assert_allclose(relative[1][:3, 3], (1.5, 0, 0))


@pytest.fixture
def occ3d_file(tmp_path):
    shape = load_classes("occ3d_nuscenes").grid.shape
    semantics = RNG.integers(0, 18, shape, dtype=np.uint8)
    mask = RNG.integers(0, 2, shape, dtype=np.uint8)
    path = tmp_path / "labels.npz"
    np.savez(path, semantics=semantics, mask_camera=mask, mask_lidar=mask)
    return path, semantics, mask


def test_occ3d_judges_what_a_camera_sees(occ3d_file):
    path, semantics, mask = occ3d_file
    labels = nuscenes.read_voxel_labels(path, front_only=False)
    np.testing.assert_array_equal(labels[mask == 1], semantics[mask == 1])
    assert (labels[mask == 0] == 255).all()
    front = nuscenes.read_voxel_labels(path, front_only=True)
    assert (front[:100] == 255).all()
    np.testing.assert_array_equal(front[100:], labels[100:])


@pytest.mark.parametrize("damage", ["absent", "short", "no mask", "shape", "mask shape"])
def test_damaged_occ3d_files_are_refused(occ3d_file, damage):
    path, semantics, mask = occ3d_file
    if damage == "absent":
        path.unlink()
    elif damage == "short":
        path.write_bytes(path.read_bytes()[:1000])
    else:
        arrays = {
            "no mask": {"semantics": semantics},
            "shape": {"semantics": semantics[1:], "mask_camera": mask[1:]},
            "mask shape": {"semantics": semantics, "mask_camera": mask[1:]},
        }
        np.savez(path, **arrays[damage])
    with pytest.raises(InputError) as error:
        nuscenes.read_voxel_labels(path, front_only=False)
    assert str(path) in str(error.value)


# --- LiDAR depth --------------------------------------------------------------------------------

K = np.array([[10.0, 0, 8], [0, 10, 4], [0, 0, 1]])
SIZE = (8, 16)


@pytest.mark.parametrize(("draw", "expected"), [(depth_last_wins, 6.0), (depth_nearest_wins, 5.0)])
def test_points_that_share_a_pixel(draw, expected):
    points = np.array([[0.0, 0, 5], [0, 0, 7], [0, 0, 6], [0, 0, -5], [100, 0, 1]], np.float32)
    depth = draw(points, np.eye(4), K, SIZE)
    assert depth.shape == SIZE
    assert depth[4, 8] == expected
    assert np.count_nonzero(depth) == 1


@pytest.mark.parametrize("draw", [depth_last_wins, depth_nearest_wins])
def test_depth_equals_a_plain_loop(draw):
    points = RNG.normal(0, 4, (3000, 3)).astype(np.float32)
    motion = np.eye(4)
    motion[:3, 3] = 0.1, -0.2, 2.0
    expected = np.zeros(SIZE)
    height, width = SIZE
    for x, y, z in points.astype(np.float64) + motion[:3, 3]:
        if z <= (0.1 if draw is depth_nearest_wins else 0):
            continue
        u, v = 10 * x / z + 8, 10 * y / z + 4
        column, row = round(u), round(v)
        if draw is depth_nearest_wins:
            if 0 <= column < width and 0 <= row < height:
                old = expected[row, column]
                expected[row, column] = min(z, old) if old else z
        elif 0 < u < width and 0 < v < height:
            expected[min(row, height - 1), min(column, width - 1)] = z
    assert np.count_nonzero(expected) > 50
    np.testing.assert_allclose(draw(points, motion, K, SIZE), expected, rtol=1e-6)


# --- samples ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "selection", "samples", "last"),
    [
        ("sequence", "official_subset", 154, 765),
        ("monocular", "official_subset", 163, 810),
        ("sequence", "full", 805, 4020),
        ("monocular", "full", 814, 4065),
    ],
)
def test_start_frames_of_the_validation_sequence(setting, selection, samples, last):
    starts = kitti_start_frames(4071, setting, selection)
    assert len(starts) == samples
    assert starts[:2] == [0, 5] and starts[-1] == last


def test_frames_of_a_sample():
    assert kitti_frames(35, "sequence") == [35, 45, 55, 65, 75]
    assert kitti_frames(35, "monocular") == [35]
    assert nuscenes_frames(10, "sequence") == [[0, 2, 4, 6, 8], [1, 3, 5, 7, 9]]
    assert nuscenes_frames(8, "sequence") == []
    assert nuscenes_frames(3, "monocular") == [[0], [1], [2]]


def test_short_sequences_have_no_samples():
    assert kitti_start_frames(49, "sequence", "full") == []
    with pytest.raises(InputError, match="0 scans"):
        kitti_start_frames(0, "sequence")


@pytest.mark.parametrize("arguments", [("surround", "full"), ("sequence", "half")])
def test_unknown_samplings_are_refused(arguments):
    with pytest.raises(InputError, match="choose one of"):
        kitti_start_frames(100, *arguments)


def test_workers_share_all_samples():
    samples = list(range(11))
    shares = [shard(samples, worker, 3) for worker in range(3)]
    assert shares[1] == [1, 4, 7, 10]
    assert sorted(index for share in shares for index in share) == samples
    with pytest.raises(InputError, match="worker 3 of 3"):
        shard(samples, 3, 3)
