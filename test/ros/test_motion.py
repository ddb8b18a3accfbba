# SPDX-License-Identifier: Apache-2.0
"""Frames, metres and path of the node over real DDS, and what it says about them."""

import itertools
import math
import threading
import time

import numpy as np
import pytest

pytest.importorskip("rclpy")

from geometry_msgs.msg import TransformStamped
from nav_msgs.msg import OccupancyGrid, Odometry, Path
from rclpy.qos import DurabilityPolicy, QoSProfile
from test_node import FAILURE, MS, SUCCESS, Bench
from tf2_msgs.msg import TFMessage

from occany_core.odometry import Drift
from occany_core.odometry import Odometry as PathOfRig
from occany_core.scale import Rung, Scale
from occany_ros.diagnostics import OK, WARN
from occany_ros.geometry_findings import odometry_finding, scale_finding, scale_jump
from occany_ros.msg import VoxelGridCompact
from occany_ros.odometry_input import PoseTrack

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
START_NS = 10**12
DRIFT = Drift(0.05, 6.0)


@pytest.fixture
def bench(ros):
    return Bench(ros)


# --- metres -------------------------------------------------------------------------------------


def test_a_factor_of_the_user_is_in_messages_status_and_diagnostics_and_its_change_is_told(bench):
    node = bench.running(transport="compressed", scale__factor=1.5)
    compact = bench.listen(VoxelGridCompact, "/occany/output/voxel_grid_compact")
    bench.send_until_grid(["camera"], START_NS)
    bench.ros.spin_until(lambda: compact, what="a compact grid")
    assert compact[-1].scale_source == 4  # user
    bench.ros.spin_until(lambda: bench.last_status().scale_source, what="a status of the grid")
    status = bench.last_status()
    assert (status.scale_source, status.scale_factor) == ("user", 1.5)
    assert math.isnan(status.scale_spread)
    assert bench.finding("scale", "metres from scale.factor: factor 1.500").level == OK
    assert bench.set(node, scale__factor=3.0).successful
    bench.send_until_grid(["camera"], START_NS + 10**10, count=2)
    jump = bench.finding("scale", "metres changed by +100 % from one cycle to the next")
    assert jump.level == WARN
    assert "factor 1.500 from user, now 3.000 from user" in jump.message
    assert not bench.set(node, scale__factor=1000.0).successful


def pose_of(step, child="base_link", **changes):
    message = Odometry(child_frame_id=child)
    message.header.frame_id = "odom"
    stamp_ns = START_NS + step * 50 * MS
    message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp_ns, 10**9)
    message.pose.pose.position.x = 0.5 * step
    for name, value in changes.items():
        setattr(message.pose.pose.orientation, name, value)
    return message


def test_the_vehicles_odometry_is_compared_and_a_disagreement_is_told(bench):
    bench.running(transport="compressed", window__view_sets=2, scale__use="odometry")
    odometry = bench.publisher(Odometry, "/occany/input/odometry", 100)
    for step in range(8):
        for message in (pose_of(2 * step), pose_of(2 * step + 1)):
            odometry.publish(message)
        bench.ros.spin_for(0.1)
        bench.send(["camera"], START_NS + step * 100 * MS, step)
        bench.ros.spin_for(0.3)
    doubt = bench.finding("scale", "how far the odometry says that the rig drove")
    assert doubt.level == WARN
    assert "it is not used: check its child frame and stamps" in doubt.message
    assert any(value.key == "odometry" for value in doubt.values)
    assert bench.last_status().scale_source == "model"


def test_odometry_of_another_frame_or_without_rotation_is_refused_in_words(bench):
    bench.running(transport="compressed")
    odometry = bench.publisher(Odometry, "/occany/input/odometry", 100)
    bench.send_until_grid(["camera"], START_NS)
    odometry.publish(pose_of(1, child="imu_link"))
    wrong = bench.finding("scale", "is about the frame 'imu_link'")
    assert wrong.message == (
        "/occany/input/odometry is about the frame 'imu_link' and not about frames.base_frame "
        "'base_link'; it is not used: set frames.base_frame, or give the odometry of that frame"
    )
    odometry.publish(pose_of(2, w=0.0))
    bench.finding("scale", "quaternion [0.0, 0.0, 0.0, 0.0] describes no rotation")
    odometry.publish(pose_of(3))
    bench.received["/diagnostics"].clear()
    assert bench.finding("scale", "metres from the network alone").level == OK


def test_poses_are_found_between_and_shortly_after_messages_and_nowhere_else():
    track, quarter = PoseTrack(), math.pi / 2
    for stamp_ns, x, yaw in ((0, 0.0, 0.0), (100 * MS, 1.0, quarter / 10)):
        pose = np.eye(4)
        pose[:2, :2] = [[math.cos(yaw), -math.sin(yaw)], [math.sin(yaw), math.cos(yaw)]]
        pose[0, 3] = x
        track.add(stamp_ns, pose)
    half = track.at(50 * MS)
    assert half[0, 3] == pytest.approx(0.5)
    assert math.atan2(half[1, 0], half[0, 0]) == pytest.approx(quarter / 20, abs=1e-6)
    assert track.at(150 * MS)[0, 3] == pytest.approx(1.5)
    assert track.at(-1) is None
    assert track.at(301 * MS) is None
    track.add(5000 * MS, np.eye(4))
    assert track.at(2500 * MS) is None  # nothing is known about such a gap
    track.add(10 * MS, np.eye(4))  # the clock jumped back
    assert track.at(50 * MS) is None


def test_findings_of_metres():
    rungs = (Rung("odometry", 1.7, 0.034, 12), Rung("extrinsics", math.nan, math.inf, 15))
    sure = scale_finding(Scale("odometry", 1.7, 0.034, rungs), "", "")
    assert (sure.level, sure.message) == (
        OK, "metres from the vehicle's odometry: factor 1.700, spread 3 %",
    )  # fmt: skip
    assert sure.values["extrinsics"] == "factor nan, spread inf, 15 pairs"
    assert scale_jump(None, Scale(), 0.2) == ""
    assert scale_jump(Scale("odometry", 1.6), Scale("odometry", 1.7), 0.2) == ""
    jump = scale_jump(Scale(), Scale("odometry", 0.5), 0.2)
    assert jump.startswith("metres changed by -50 % from one cycle to the next")
    assert scale_finding(Scale(), jump, "").level == WARN


# --- path ---------------------------------------------------------------------------------------


def test_a_path_that_cannot_be_linked_goes_on_in_a_new_segment_and_says_so(bench):
    bench.running(transport="compressed", window__view_sets=2, window__seconds=1.0)
    odometry = bench.listen(Odometry, "/occany/output/odometry")
    paths = bench.listen(Path, "/occany/output/path")
    bench.send_until_grid(["camera"], START_NS, count=3)
    bench.ros.spin_until(lambda: paths and len(paths[-1].poses) >= 3, what="a path")
    assert bench.finding("odometry", "segment 1, ").level == OK
    variances = [message.pose.covariance[0] for message in odometry]
    assert variances[0] > 0
    assert all(later > earlier for earlier, later in itertools.pairwise(variances))
    last = odometry[-1]
    odometry.clear()
    bench.send(["camera"], START_NS + 30 * 10**9)
    bench.ros.spin_until(lambda: odometry, what="the odometry after the silence")
    broken = bench.finding("odometry", "odometry: segment 2 begins")
    assert broken.level == WARN
    assert "no view set came for" in broken.message
    assert "its poses are not linked to those before" in broken.message
    bench.ros.spin_until(lambda: len(paths[-1].poses) == 1, what="the path of the new segment")
    assert odometry[0].pose.pose.position.x == pytest.approx(last.pose.pose.position.x, abs=1e-6)
    assert math.sqrt(odometry[0].pose.covariance[0]) > 1000
    assert min(odometry[0].pose.covariance[i] for i in (0, 7, 14, 21, 28, 35)) > 0
    bench.ros.spin_until(lambda: bench.last_status().odometry_segment == 2, what="the status")


def test_finding_of_a_new_segment_goes_after_a_while():
    path = PathOfRig().broken("the picture size changed", 35.0)
    assert odometry_finding(path, DRIFT, is_new_segment=True).message == (
        "odometry: segment 2 begins, because the picture size changed; its poses are not linked "
        "to those before and may be off by 35 m"
    )
    assert odometry_finding(path, DRIFT, is_new_segment=False).level == OK
    assert odometry_finding(PathOfRig(), DRIFT, is_new_segment=True).level == OK


# --- frames -------------------------------------------------------------------------------------


def broadcast(parent, child):
    stamped = TransformStamped(child_frame_id=child)
    stamped.header.frame_id = parent
    stamped.transform.rotation.w = 1.0
    return TFMessage(transforms=[stamped])


class Broadcaster:
    """Sends a transform on /tf from a thread, as another node would."""

    def __init__(self, node, message):
        self._publisher = node.create_publisher(TFMessage, "/tf", 100)
        self._message = message
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self):
        while not self._stop.is_set():
            self._publisher.publish(self._message)
            time.sleep(0.05)

    def close(self):
        self._stop.set()
        self._thread.join()


def test_a_frame_that_somebody_broadcasts_is_not_broadcast_again(bench):
    node = bench.make(transport="compressed", publish__tf=True)
    assert node.trigger_configure() == SUCCESS
    other = Broadcaster(bench.tester, broadcast("map", "base_link"))
    try:
        assert node.trigger_activate() == FAILURE
    finally:
        other.close()
    assert node._status.last_error == (
        "activate failed: publish.tf is true and somebody already broadcasts 'map' -> 'base_link' "
        "on /tf; 'odom' -> 'base_link' would make two parents: set publish.tf to false, or "
        "frames.base_frame to a frame without parent"
    )
    assert node.trigger_activate() == SUCCESS
    assert node._status.last_error == ""


def test_a_frame_with_a_static_parent_is_not_broadcast(bench):
    statics = bench.tester.create_publisher(TFMessage, "/tf_static", LATCHED)
    statics.publish(broadcast("base_footprint", "base_link"))
    node = bench.make(publish__tf=True)
    assert node.trigger_configure() == SUCCESS
    assert node.trigger_activate() == FAILURE
    assert "'base_footprint' -> 'base_link' on /tf_static" in node._status.last_error
    assert node.trigger_cleanup() == SUCCESS
    assert bench.set(node, frames__base_frame="base_footprint").successful
    assert node.trigger_configure() == SUCCESS
    assert node.trigger_activate() == SUCCESS


def test_other_frames_and_no_broadcasting_are_no_hindrance(bench):
    other = Broadcaster(bench.tester, broadcast("map", "base_link"))
    try:
        node = bench.make()
        assert node.trigger_configure() == SUCCESS
        assert node.trigger_activate() == SUCCESS
        node.trigger_deactivate()
        node.trigger_cleanup()
        bench.set(node, publish__tf=True, frames__prefix="robot1/")
        assert node.trigger_configure() == SUCCESS
        assert node.trigger_activate() == SUCCESS
    finally:
        other.close()


def test_a_prefix_stands_before_every_frame_of_the_node(bench):
    bench.running(
        transport="compressed", window__view_sets=2, publish__tf=True, frames__prefix="robot1/"
    )
    odometry = bench.listen(Odometry, "/occany/output/odometry")
    bands = bench.listen(OccupancyGrid, "/occany/output/occupancy/obstacles")
    transforms = bench.listen(TFMessage, "/tf")
    grid = bench.send_until_grid(["camera"], START_NS, count=2)
    bench.ros.spin_until(lambda: odometry and bands and transforms, what="all outputs")
    assert grid.header.frame_id == bands[-1].header.frame_id == "robot1/base_link"
    assert odometry[-1].header.frame_id == "robot1/odom"
    assert odometry[-1].child_frame_id == "robot1/base_link"
    sent = transforms[-1].transforms[0]
    assert (sent.header.frame_id, sent.child_frame_id) == ("robot1/odom", "robot1/base_link")


def test_bands_of_a_tilted_grid_are_refused_in_words_and_return(bench):
    bench.running(transport="compressed")
    bands = bench.listen(OccupancyGrid, "/occany/output/occupancy/obstacles")
    odometry = bench.publisher(Odometry, "/occany/input/odometry", 100)
    half = math.radians(23.0) / 2

    def send(start_ns, **rotation):
        for step in (0, 1):
            message = pose_of(0, **rotation)
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(
                start_ns + step * 100 * MS, 10**9
            )
            odometry.publish(message)
        bench.ros.spin_for(0.3)
        bench.send(["camera"], start_ns + 50 * MS)

    send(START_NS, y=math.sin(half), w=math.cos(half))
    bench.ros.spin_until(lambda: bench.grids, what="a grid")
    tilted = bench.finding("height bands", "base_link is tilted 23.0 deg against the vertical")
    assert "no height band is published above 10 deg" in tilted.message
    assert "set frames.base_frame to a frame that stays upright" in tilted.message
    assert not bands
    send(START_NS + 10**9, z=math.sin(half), w=math.cos(half))  # a turn is no tilt
    bench.ros.spin_until(lambda: bands, what="a band")
    bench.received["/diagnostics"].clear()
    assert bench.finding("height bands", "the grid is upright").level == OK


@pytest.mark.parametrize("anchor", ["newest", "oldest", "reference"])
def test_grids_of_tilted_cameras_are_upright_whatever_they_are_placed_at(bench, anchor):
    bench.running(
        transport="compressed",
        window__anchor=anchor,
        window__view_sets=2,
        calibration__camera_pitch_deg=35.0,
    )
    bands = bench.listen(OccupancyGrid, "/occany/output/occupancy/obstacles")
    grid = bench.send_until_grid(["camera"], START_NS, count=2)
    bench.ros.spin_until(lambda: bands, what="a band")
    for pose in (grid.origin, bands[-1].info.origin):
        rotation = pose.orientation
        assert (rotation.x, rotation.y, rotation.z, rotation.w) == (0.0, 0.0, 0.0, 1.0)


def test_a_prefix_with_a_leading_slash_is_refused(bench):
    node = bench.make(frames__prefix="/robot1/")
    assert node.trigger_configure() == FAILURE
    assert "parameter frames.prefix is '/robot1/'; frames do not begin with '/'" in (
        node._status.last_error
    )
