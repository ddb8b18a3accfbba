# SPDX-License-Identifier: Apache-2.0
"""`~/render_view` over real DDS: depth where no camera was, and what it says when it cannot."""

import threading

import numpy as np
import pytest

pytest.importorskip("rclpy")

from geometry_msgs.msg import Point, Pose, Quaternion, TransformStamped
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header
from street_rig import RIG, camera_info, rig_transforms
from test_node import SUCCESS
from test_services import LATCHED, Caller
from tf2_msgs.msg import TFMessage

from occany_core.errors import InputError
from occany_ros import render_service
from occany_ros.msg import VoxelGrid
from occany_ros.srv import RenderView, SetLabels

PATIENCE_S = 60.0
AHEAD = Quaternion(x=-0.5, y=0.5, z=-0.5, w=0.5)
"""Of an optical frame that looks ahead."""


def pose_at(x, y, z=1.6, rotation=AHEAD):
    return Pose(position=Point(x=x, y=y, z=z), orientation=rotation)


def plane_of(message):
    kind = {"32FC1": np.float32, "mono8": np.uint8}[message.encoding]
    return np.frombuffer(message.data, kind).reshape(message.height, message.width)


class Viewer(Caller):
    """A caller that starts a node it has made before."""

    def listen_and_start(self, node):
        node.start()
        self.listen(VoxelGrid, "/occany/output/voxel_grid")


@pytest.fixture
def caller(ros):
    return Viewer(ros)


def test_a_rig_is_seen_from_where_no_camera_is(caller):
    node = caller.running(RIG, transport="compressed")
    observed = caller.listen(Image, "/occany/output/front/depth")
    caller.publisher(TFMessage, "/tf_static", LATCHED).publish(rig_transforms())
    for camera in RIG:
        topic = f"/occany/input/{camera}/camera_info"
        caller.publisher(CameraInfo, topic).publish(camera_info(camera, Header()))
    caller.ros.spin_for(0.3)
    caller.send_until_grid(RIG, 10**12)
    caller.ros.spin_until(lambda: observed and node.finished, PATIENCE_S, "a whole cycle")
    poses = [pose_at(0.8, 0.0), pose_at(2.0, 1.0), pose_at(0.0, 0.0, 3.0)]
    answer = caller.call(RenderView, "render_view", poses=poses)
    assert answer.success, answer.message
    assert answer.message.startswith("3 views after ")
    assert answer.header.frame_id == "base_link"
    stamp = answer.header.stamp
    caller.ros.spin_until(
        lambda: stamp in [grid.header.stamp for grid in caller.grids], PATIENCE_S, "its grid"
    )
    assert (answer.camera_info.width, answer.camera_info.height) == (64, 32)
    assert answer.camera_info.k[0] == pytest.approx(64 / 1.4, rel=1e-3)
    assert len(answer.depth) == len(answer.confidence) == len(answer.mask) == 3
    for depth, trust in zip(answer.depth, answer.confidence, strict=True):
        assert plane_of(depth).shape == plane_of(trust).shape == (32, 64)
        assert np.isfinite(plane_of(depth)).all()
        assert (plane_of(trust) > 1).all()
    depths = [plane_of(one) for one in answer.depth]
    assert not np.allclose(depths[0], depths[1]) and not np.allclose(depths[0], depths[2])
    # From where the front camera is, what is rendered agrees with what that camera saw.
    ratio = np.median(depths[0] / plane_of(observed[-1]))
    assert 0.5 < ratio < 2

    chosen = caller.call(SetLabels, "set_labels", names=["driveable_surface"])
    assert chosen.success
    caller.send_until_grid(RIG, 2 * 10**12, count=2)
    k = [100.0, 0.0, 49.5, 0.0, 100.0, 24.5, 0.0, 0.0, 1.0]
    answer = caller.call(RenderView, "render_view", poses=poses[:1], k=k, width=100, height=50)
    assert answer.success, answer.message
    assert plane_of(answer.depth[0]).shape == plane_of(answer.mask[0]).shape == (50, 100)
    assert list(answer.camera_info.k) == k
    assert set(np.unique(plane_of(answer.mask[0]))) <= {11, 255}


def test_poses_in_another_frame_go_through_tf(caller):
    node = caller.running(transport="compressed")
    static = TransformStamped(child_frame_id="base_link")
    static.header.frame_id = "map"
    static.transform.translation.x = 100.0
    static.transform.rotation.w = 1.0
    caller.publisher(TFMessage, "/tf_static", LATCHED).publish(TFMessage(transforms=[static]))
    caller.send_until_grid(["camera"], 10**12)
    caller.ros.spin_until(lambda: node.finished, PATIENCE_S, "the end of the cycle")
    here = caller.call(RenderView, "render_view", poses=[pose_at(1.0, 0.0)])
    assert here.success, here.message
    there = caller.call(RenderView, "render_view", frame_id="map", poses=[pose_at(101.0, 0.0)])
    assert there.success, there.message
    np.testing.assert_allclose(plane_of(there.depth[0]), plane_of(here.depth[0]), atol=1e-3)
    lost = caller.call(RenderView, "render_view", frame_id="moon", poses=[pose_at(1.0, 0.0)])
    assert "no transform from 'moon' to 'base_link'" in lost.message


def test_what_cannot_be_rendered_is_refused_in_words(caller):
    node = caller.make(transport="compressed")

    def refusal(**request):
        answer = caller.call(RenderView, "render_view", **request)
        assert not answer.success
        assert answer.depth == answer.confidence == answer.mask == []
        return answer.message

    assert "there is no grid yet" in refusal(poses=[pose_at(1.0, 0.0)])
    caller.listen_and_start(node)
    caller.send_until_grid(["camera"], 10**12)
    caller.ros.spin_until(lambda: node.finished, PATIENCE_S, "the end of the cycle")
    nan = float("nan")
    for request, words in (
        ({"poses": []}, "0 poses are given; give 1 to 16"),
        ({"poses": [pose_at(1.0, 0.0)] * 17}, "17 poses are given"),
        ({"poses": [pose_at(nan, 0.0)]}, "is not finite; give metres"),
        ({"poses": [pose_at(0.0, 0.0, 0.0, Quaternion(w=0.0))]}, "describes no rotation"),
        ({"poses": [pose_at(0.0, 0.0), pose_at(5000.0, 0.0)]}, "view 1 at (5000.0, 0.0, 1.6) m"),
        ({"poses": [pose_at(0.0, 0.0)], "width": 64}, "k, width and height belong together"),
        (
            {"poses": [pose_at(0.0, 0.0)] * 3, "k": [9e3] * 9, "width": 4000, "height": 2000},
            "3 pictures of 4000 x 2000 px are wanted; all together may have 20 megapixels",
        ),
        (
            {"poses": [pose_at(0.0, 0.0)], "k": [nan] * 9, "width": 64, "height": 32},
            "it must be finite",
        ),
    ):
        assert words in refusal(**request)
    assert node.trigger_deactivate() == SUCCESS
    assert "ros2 lifecycle set /occany activate" in refusal(poses=[pose_at(0.0, 0.0)])
    assert node.trigger_activate() == SUCCESS
    assert "there is no grid yet" in refusal(poses=[pose_at(0.0, 0.0)])


def test_a_slow_rendering_is_answered_in_time_and_grids_go_on_after_it(caller, monkeypatch):
    node = caller.running(transport="compressed")
    caller.send_until_grid(["camera"], 10**12)
    caller.ros.spin_until(lambda: node.finished, PATIENCE_S, "the end of the cycle")
    release = threading.Event()

    def slow(*arguments):
        release.wait(PATIENCE_S)
        raise InputError("it was slow")

    monkeypatch.setattr(render_service, "render_views", slow)
    monkeypatch.setattr(render_service, "TIME_LIMIT_S", 0.5)
    first = caller.begin(RenderView, "render_view", poses=[pose_at(0.0, 0.0)])
    caller.ros.spin_until(first.done, PATIENCE_S, "an answer in time")
    assert "not finished after 0.5 s; ask for fewer views" in first.result().message
    second = caller.call(RenderView, "render_view", poses=[pose_at(0.0, 0.0)])
    assert "an earlier request still runs" in second.message
    release.set()
    caller.send_until_grid(["camera"], 2 * 10**12)


def test_memory_that_runs_out_costs_the_answer_and_nothing_else(caller, monkeypatch):
    node = caller.running(transport="compressed")
    caller.send_until_grid(["camera"], 10**12)
    caller.ros.spin_until(lambda: node.finished, PATIENCE_S, "the end of the cycle")

    def hungry(*arguments):
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(render_service, "render_views", hungry)
        answer = caller.call(RenderView, "render_view", poses=[pose_at(0.0, 0.0)])
    assert answer.message == "out of memory on cpu for 1 views; ask for fewer"
    caller.send_until_grid(["camera"], 2 * 10**12)
    assert caller.call(RenderView, "render_view", poses=[pose_at(0.0, 0.0)]).success
