# SPDX-License-Identifier: Apache-2.0
"""Depth, confidence and calibration of each camera over real DDS, made only when wanted."""

import numpy as np
import pytest

pytest.importorskip("rclpy")

from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header
from street_rig import RIG, camera_info, rig_transforms
from test_node import Bench
from test_services import LATCHED
from tf2_msgs.msg import TFMessage

from occany_ros import camera_outputs

PATIENCE_S = 60.0


@pytest.fixture
def bench(ros):
    return Bench(ros)


def plane_of(message):
    assert message.encoding == "32FC1"
    assert message.step == 4 * message.width
    plane = np.frombuffer(message.data, np.float32)
    return plane.reshape(message.height, message.width)


def listen_to_cameras(bench, cameras, kind, name):
    return {c: bench.listen(kind, f"/occany/output/{c}/{name}") for c in cameras}


def test_each_camera_of_a_rig_has_depth_confidence_and_its_own_intrinsics(bench):
    bench.running(RIG, transport="compressed", window__view_sets=2)
    depths = listen_to_cameras(bench, RIG, Image, "depth")
    trusts = listen_to_cameras(bench, RIG, Image, "confidence")
    infos = listen_to_cameras(bench, RIG, CameraInfo, "camera_info")
    bench.publisher(TFMessage, "/tf_static", LATCHED).publish(rig_transforms())
    for camera in RIG:
        topic = f"/occany/input/{camera}/camera_info"
        bench.publisher(CameraInfo, topic).publish(camera_info(camera, Header()))
    bench.ros.spin_for(0.3)
    bench.send_until_grid(RIG, 10**12, count=2)
    everything = [*depths.values(), *trusts.values(), *infos.values()]
    bench.ros.spin_until(lambda: all(everything), PATIENCE_S, "pictures of all cameras")
    for camera in RIG:
        depth, trust = plane_of(depths[camera][-1]), plane_of(trusts[camera][-1])
        info = infos[camera][-1]
        assert depth.shape == trust.shape == (info.height, info.width) == (32, 64)
        assert np.isfinite(depth).all() and (depth >= 0).all() and depth.max() > 1
        assert (trust > 1).all()
        for message in (depths[camera][-1], trusts[camera][-1], info):
            assert message.header.frame_id == f"{camera}_optical_frame"
            stamp_ns = message.header.stamp.sec * 10**9 + message.header.stamp.nanosec
            assert (stamp_ns - 10**12) % 100_000_000 == 0
        # 128 x 72 px with a focal length of 128 / 1.4, halved to 64 x 36 and cropped to 64 x 32.
        assert info.k[0] == pytest.approx(64 / 1.4, rel=1e-3)
        assert info.k[4] == pytest.approx(64 / 1.4, rel=1e-3)
        assert info.k[2] == pytest.approx(31.5, abs=0.1)
        assert info.p[0] == info.k[0] and info.p[3] == 0 and info.r[0] == 1


def test_intrinsics_of_an_uncalibrated_camera_are_estimated_and_fit_its_points(bench):
    bench.running(transport="compressed", voxels__min_confidence=1.0)
    infos = bench.listen(CameraInfo, "/occany/output/camera/camera_info")
    depths = bench.listen(Image, "/occany/output/camera/depth")
    clouds = bench.listen(PointCloud2, "/occany/output/points")
    bench.send_until_grid(["camera"], 10**12)
    bench.ros.spin_until(lambda: infos and depths and clouds, PATIENCE_S, "the outputs")
    (focal_x, _, x0), (_, focal_y, y0) = np.array(infos[-1].k).reshape(3, 3)[:2]
    assert focal_x == focal_y
    assert 64 / 8 < focal_x < 64 * 8
    assert (x0, y0) == (32, 16)
    assert clouds[-1].width == plane_of(depths[-1]).size


def test_pictures_are_made_only_for_those_who_listen(bench, monkeypatch):
    made = []

    def counted(plane, header):
        made.append(header.frame_id)
        return to_image(plane, header)

    to_image = camera_outputs.plane_to_image
    monkeypatch.setattr(camera_outputs, "plane_to_image", counted)
    bench.running(("left", "right"), transport="compressed")
    bench.send_until_grid(("left", "right"), 10**12, count=2)
    assert made == []
    depths = bench.listen(Image, "/occany/output/left/depth")
    bench.ros.spin_for(0.5)
    bench.send_until_grid(("left", "right"), 2 * 10**12, count=2)
    bench.ros.spin_until(lambda: depths, PATIENCE_S, "a depth picture")
    assert set(made) == {"left_optical_frame"}


def test_a_frame_set_by_hand_is_that_of_the_pictures(bench):
    bench.running(transport="compressed", camera__camera__frame_id="mast")
    depths = bench.listen(Image, "/occany/output/camera/depth")
    bench.send_until_grid(["camera"], 10**12)
    bench.ros.spin_until(lambda: depths, PATIENCE_S, "a depth picture")
    assert depths[-1].header.frame_id == "mast"
