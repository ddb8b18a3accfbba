# SPDX-License-Identifier: Apache-2.0
"""Golden files of the evaluation sets' own formats (`kitti_io`, `nuscenes_io`)."""

from collections.abc import Callable
from pathlib import Path

from occany_core.bench.golden.checklist import Checklist, Stage
from occany_core.datasets import nuscenes, semantic_kitti
from occany_core.datasets.lidar_depth import depth_last_wins, depth_nearest_wins

KITTI_MATRICES = 1e-6
NUSCENES_MATRICES = 1e-9
DEPTH = 1e-4
"""Tolerances of golden_inference/description."""


def check_kitti_io(path: Path) -> list[Stage]:
    """Compare labels, calibration, poses and LiDAR depth with `kitti_io`."""
    checklist = Checklist.of(path)
    raw = checklist.given("label_uint16").numpy().astype("uint16")
    invalid = checklist.given("invalid_packed").numpy()
    shape = tuple(checklist.arrays["voxel_label"].shape)
    checklist.exact("voxel_label", semantic_kitti.voxel_labels(raw, invalid, shape))
    ids = len(checklist.arrays["remap_lut"])
    checklist.exact("remap_lut", semantic_kitti.raw_label_lookup()[:ids])
    calibration = semantic_kitti.parse_calibration(str(checklist.given("calib_txt")))
    world_from_velodyne = semantic_kitti.velodyne_poses(
        semantic_kitti.parse_poses(str(checklist.given("poses_txt"))), calibration
    )
    for name, ours in (
        ("P2", calibration.pixels_from_cam0["P2"]),
        ("T_velo_to_cam", calibration.cam0_from_velodyne),
        ("T_cam_to_voxel", calibration.velodyne_from_cam0),
        ("velo_to_world", world_from_velodyne),
        (
            "cam_c2w_in_cam0",
            semantic_kitti.poses_in_first_camera(world_from_velodyne, calibration),
        ),
    ):
        checklist.within(name, ours, KITTI_MATRICES)
    depth = depth_last_wins(
        checklist.given("lidar").numpy(),
        calibration.cam0_from_velodyne,
        checklist.given("lidar_K").numpy(),
        tuple(checklist.given("lidar_hw").tolist()),
    )
    checklist.within("lidar_depth", depth, DEPTH)
    return checklist.report()


def check_nuscenes_io(path: Path) -> list[Stage]:
    """Compare poses, labels and LiDAR depth with `nuscenes_io`."""
    checklist = Checklist.of(path)
    ego_from_cam, world_from_ego = (
        nuscenes.rigid_motion(
            checklist.given(f"{record}_t").numpy(), checklist.given(f"{record}_q").numpy()
        )
        for record in ("extr", "ego")
    )
    world_from_cam = nuscenes.camera_poses(world_from_ego, ego_from_cam)
    for name, ours in (
        ("cam_to_ego", ego_from_cam),
        ("ego_to_world", world_from_ego),
        ("cam_to_world", world_from_cam),
        ("cam_c2w_in_cam0", nuscenes.poses_in_first_camera(world_from_cam)),
        ("T_cam_to_voxel", ego_from_cam[0]),
    ):
        checklist.within(name, ours, NUSCENES_MATRICES)
    semantics = checklist.given("semantics").numpy()
    mask_camera = checklist.given("mask_camera").numpy()
    checklist.given("mask_lidar")  # plays no part in the evaluation
    for setting, front_only in (("surround", False), ("front_sequence", True)):
        labels = nuscenes.voxel_labels(semantics, mask_camera, front_only=front_only)
        checklist.exact(f"voxel_label_{setting}", labels)
    depth = depth_nearest_wins(
        *(checklist.given(name).numpy() for name in ("lidar", "lidar_to_cam", "K")),
        tuple(checklist.arrays["depth"].shape),
    )
    checklist.within("depth", depth, DEPTH)
    return checklist.report()


CHECKS: dict[str, Callable[[Path], list[Stage]]] = {
    "kitti_io.npz": check_kitti_io,
    "nuscenes_io.npz": check_nuscenes_io,
}
