# SPDX-License-Identifier: Apache-2.0
"""The node over real DDS: its life, inputs, parameters, and what it says when things fail."""

import array
import contextlib
import time

import numpy as np
import pytest

pytest.importorskip("rclpy")

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import PoseArray
from nav_msgs.msg import OccupancyGrid, Odometry, Path
from rclpy.executors import ExternalShutdownException
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image, PointCloud2
from std_msgs.msg import Header
from street_rig import RIG, camera_info, image_message, rig_transforms, street
from tf2_msgs.msg import TFMessage

from occany_ros.grid_messages import cells_from_compact, cells_from_message
from occany_ros.image_messages import rgb_to_image
from occany_ros.msg import OccAnyStatus, VoxelGrid, VoxelGridCompact
from occany_ros.node import OccAnyNode

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE
MS = 1_000_000
SMALL = {
    "images.width": 64,
    "voxels.shape": [40, 40, 8],
    "voxels.resolution": 1.0,
    "voxels.origin": [-20.0, -20.0, -1.0],
    "novel_views.steps": 0,
    "runtime.device": "cpu",
    "runtime.threads": 1,
}


class Bench:
    """A node and everything that talks to it."""

    def __init__(self, ros):
        self.ros = ros
        self.tester = ros.node()
        self.received = {}
        self.publishers = {}

    def make(self, cameras=("camera",), namespace=None, **changes):
        changes = {name.replace("__", "."): value for name, value in changes.items()}
        values = SMALL | {"cameras": list(cameras), "autostart": False} | changes
        overrides = [Parameter(name, value=value) for name, value in values.items()]
        node = OccAnyNode(
            context=self.ros.context, namespace=namespace, parameter_overrides=overrides
        )
        return self.ros.add(node)

    def running(self, cameras=("camera",), **changes):
        node = self.make(cameras, **changes)
        node.start()
        self.listen(VoxelGrid, "/occany/output/voxel_grid")
        self.listen(OccAnyStatus, "/occany/status")
        self.listen(DiagnosticArray, "/diagnostics")
        return node

    def listen(self, kind, topic):
        found = self.received[topic] = []
        self.tester.create_subscription(kind, topic, found.append, 10)
        return found

    @property
    def grids(self):
        return self.received["/occany/output/voxel_grid"]

    def last_status(self):
        """The newest; the first may come after the grid that it tells of."""
        statuses = self.received["/occany/status"]
        self.ros.spin_until(lambda: statuses, what="a status")
        return statuses[-1]

    def publisher(self, kind, topic, qos=10):
        if topic not in self.publishers:
            self.publishers[topic] = self.tester.create_publisher(kind, topic, qos)
            self.ros.spin_until(
                self.publishers[topic].get_subscription_count, what=f"a subscriber of {topic}"
            )
        return self.publishers[topic]

    def send(self, cameras, stamp_ns, step=0):
        """Publish one compressed image per camera."""
        for camera in cameras:
            topic = f"/occany/input/{camera}/compressed"
            self.publisher(CompressedImage, topic).publish(image_message(camera, stamp_ns, step))

    def send_until_grid(self, cameras, stamp_ns, count=1):
        """Publish sets 100 ms of stamps apart until more grids came."""
        wanted = len(self.grids) + count
        step = 0
        deadline = time.monotonic() + 30
        while len(self.grids) < wanted:
            assert time.monotonic() < deadline, "no grid came"
            self.send(cameras, stamp_ns + step * 100 * MS, step)
            step += 1
            self.ros.spin_for(0.1)
        return self.grids[-1]

    def finding(self, name, says, timeout=15.0):
        """Wait for a diagnostic of that name with that text."""

        def found():
            for message in self.received["/diagnostics"]:
                for status in message.status:
                    if status.name == f"/occany: {name}" and says in status.message:
                        return status
            return None

        return self.ros.spin_until(found, timeout, what=f"the finding {name}: {says}")

    def set(self, node, **changes):
        parameters = [Parameter(n.replace("__", "."), value=v) for n, v in changes.items()]
        return node.set_parameters_atomically(parameters)


@pytest.fixture
def bench(ros):
    return Bench(ros)


# --- life ---------------------------------------------------------------------------------------


def test_life_from_configure_to_cleanup_and_again(bench):
    node = bench.make(transport="compressed")
    bench.listen(VoxelGrid, "/occany/output/voxel_grid")
    for _ in range(2):
        assert node.trigger_configure() == SUCCESS
        assert node.trigger_activate() == SUCCESS
        assert bench.send_until_grid(["camera"], 10**12).size_x == 40
        assert node.trigger_deactivate() == SUCCESS
        bench.ros.spin_for(0.5)  # for grids that are on their way
        count = len(bench.grids)
        bench.send(["camera"], 2 * 10**12)
        bench.ros.spin_for(0.5)
        assert len(bench.grids) == count
        assert node.trigger_cleanup() == SUCCESS
        bench.publishers.clear()
    assert node._inference is None


def test_wrong_weights_fail_in_words_and_configure_can_be_repeated(bench, tmp_path):
    (tmp_path / "weights.safetensors").write_bytes(b"no weights")
    node = bench.make(model__checkpoint=str(tmp_path / "weights.safetensors"))
    status = bench.listen(OccAnyStatus, "/occany/status")
    bench.listen(DiagnosticArray, "/diagnostics")
    assert node.trigger_configure() == FAILURE
    assert bench.finding("pipeline", "configure failed: ").level == b"\x02"
    bench.ros.spin_until(
        lambda: status and "weights.safetensors" in status[-1].last_error, what="the status"
    )
    assert bench.set(node, model__checkpoint="default").successful
    assert node.trigger_configure() == SUCCESS


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"voxel__resolution": 0.2}, "unknown parameter 'voxel.resolution' was given"),
        ({"voxel__resolution": 0.2}, "did you mean voxels.resolution?"),
        ({"camera__side__transport": "raw"}, "the parameter cameras lists ['camera']"),
        ({"sync__policy": "best"}, "sync.policy is 'best'"),
        ({"sync__max_skew": 99.0}, "sync.max_skew is 99.0; it must be at most 10"),
        ({"calibration__use": "on"}, "calibration.use"),
    ],
)
def test_wrong_parameters_fail_at_configure_in_words(bench, changes, sentence):
    node = bench.make(**changes)
    assert node.trigger_configure() == FAILURE
    assert sentence in node._status.last_error


def test_two_nodes_with_namespaces_share_nothing(bench):
    first = bench.make(namespace="one", transport="compressed")
    second = bench.make(namespace="two", transport="compressed")
    for node in (first, second):
        node.start()
    one = bench.listen(VoxelGrid, "/one/occany/output/voxel_grid")
    two = bench.listen(VoxelGrid, "/two/occany/output/voxel_grid")
    publisher = bench.publisher(CompressedImage, "/one/occany/input/camera/compressed")
    publisher.publish(image_message("camera", 10**12))
    bench.ros.spin_until(lambda: one, what="a grid of the first node")
    bench.ros.spin_for(0.3)
    assert two == []


# --- inputs and outputs -------------------------------------------------------------------------


def test_a_calibrated_rig_gives_every_output(bench):
    bench.running(
        RIG,
        transport="compressed",
        window__view_sets=2,
        publish__tf=True,
        voxels__min_confidence=1.0,
    )
    topics = {
        "voxel_grid_compact": VoxelGridCompact,
        "voxel_points": PointCloud2,
        "points": PointCloud2,
        "odometry": Odometry,
        "path": Path,
        "camera_poses": PoseArray,
    }
    outputs = {name: bench.listen(kind, f"/occany/output/{name}") for name, kind in topics.items()}
    tf = bench.listen(TFMessage, "/tf")
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    bench.publisher(TFMessage, "/tf_static", latched).publish(rig_transforms())
    for camera in RIG:
        topic = f"/occany/input/{camera}/camera_info"
        bench.publisher(CameraInfo, topic).publish(camera_info(camera, Header()))
    bench.ros.spin_for(0.3)
    grid = bench.send_until_grid(RIG, 10**12, count=2)
    bench.ros.spin_until(lambda: all(outputs.values()) and tf, what="all outputs")

    stamp_ns = grid.header.stamp.sec * 10**9 + grid.header.stamp.nanosec
    assert (stamp_ns - 10**12) % (100 * MS) == 0
    assert grid.header.frame_id == "base_link"
    cells = cells_from_message(grid)
    compact = outputs["voxel_grid_compact"][-1]
    assert compact.frame_source == VoxelGridCompact.FRAME_EXTRINSICS
    if compact.header.stamp == grid.header.stamp:
        np.testing.assert_array_equal(cells_from_compact(compact).occupied, cells.occupied)
    poses = outputs["camera_poses"]
    bench.ros.spin_until(lambda: len(poses[-1].poses) == 12, what="poses of two sets")
    assert outputs["odometry"][-1].child_frame_id == "base_link"
    assert outputs["odometry"][-1].pose.covariance[0] > 0
    assert tf[-1].transforms[0].header.frame_id == "odom"
    assert outputs["path"][-1].header.frame_id == "odom"
    statuses = bench.received["/occany/status"]
    bench.ros.spin_until(lambda: statuses[-1].views_in_window == 12, what="two sets in the window")
    status = statuses[-1]
    assert status.frame_source == "extrinsics"
    assert list(status.camera_names)[:6] == list(RIG)
    assert status.model_sha256
    assert status.latency_ms_last > 0
    bench.finding("geometry", "frame from extrinsics")


def test_camera_poses_of_a_rig_are_where_tf_says(bench):
    bench.running(RIG, transport="compressed")
    poses = bench.listen(PoseArray, "/occany/output/camera_poses")
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    bench.publisher(TFMessage, "/tf_static", latched).publish(rig_transforms())
    for camera in RIG:
        topic = f"/occany/input/{camera}/camera_info"
        bench.publisher(CameraInfo, topic).publish(camera_info(camera, Header()))
    bench.ros.spin_for(0.3)
    bench.send_until_grid(RIG, 10**12)
    bench.ros.spin_until(lambda: poses, what="poses")
    expected = [t.transform.translation for t in rig_transforms().transforms]
    for pose, place in zip(poses[-1].poses, expected, strict=True):
        assert pose.position.x == pytest.approx(place.x, abs=1e-3)
        assert pose.position.y == pytest.approx(place.y, abs=1e-3)
        assert pose.position.z == pytest.approx(place.z, abs=1e-3)


def test_raw_and_compressed_images_give_nearly_the_same_grid(bench):
    bench.running(transport="compressed")
    jpeg = cells_from_message(bench.send_until_grid(["camera"], 10**12))
    bench.ros.nodes[-1].close()
    bench.ros.nodes[-1].destroy_node()
    bench.ros.executor.remove_node(bench.ros.nodes.pop())
    bench.running(transport="raw")
    publisher = bench.publisher(Image, "/occany/input/camera/image")
    header = Header(frame_id="camera_optical_frame")
    header.stamp.sec = 1000
    publisher.publish(rgb_to_image(street("camera", 0), header))
    bench.ros.spin_until(lambda: bench.grids, what="a grid")
    raw = cells_from_message(bench.grids[-1])
    assert np.mean(raw.known == jpeg.known) > 0.97
    bench.finding("camera camera", "128 x 72 rgb8")


def test_uncalibrated_cameras_are_said_to_be_assumed_level(bench):
    bench.running(transport="compressed")
    bench.send_until_grid(["camera"], 10**12)
    assert "no transform from 'camera_optical_frame' to 'base_link'" in (
        bench.finding("geometry", "no transform").message
    )
    assert bench.last_status().frame_source == "assumed level"


def test_required_calibration_that_is_missing_is_an_error(bench):
    bench.running(transport="compressed", calibration__use="required")
    bench.send(["camera"], 10**12)
    bench.finding("pipeline", "set calibration.use to")
    assert bench.grids == []


def test_an_unknown_encoding_is_named_and_the_other_camera_goes_on(bench):
    bench.running(("left", "right"), camera__left__transport="compressed")
    publisher = bench.publisher(Image, "/occany/input/right/image")
    message = rgb_to_image(street("right", 0), Header())
    message.encoding = "polar16"
    for step in range(3):
        message.header.stamp.sec = 1000 + step
        publisher.publish(message)
        bench.send(["left"], (1000 + step) * 10**9, step)
        bench.ros.spin_for(0.1)
    bench.ros.spin_until(lambda: bench.grids, what="a grid from the good camera")
    finding = bench.finding("camera right", "unknown encoding 'polar16'")
    assert finding.level == b"\x02"
    assert "/occany/input/right/image" in finding.message


def test_a_truncated_picture_is_an_error_and_the_next_one_works(bench):
    bench.running(transport="compressed")
    publisher = bench.publisher(CompressedImage, "/occany/input/camera/compressed")
    message = image_message("camera", 10**12)
    message.data = array.array("B", bytes(message.data)[:300])
    publisher.publish(message)
    bench.finding("pipeline", "cannot decode 300 bytes")
    bench.send_until_grid(["camera"], 2 * 10**12)
    bench.finding("pipeline", "grids per second")


def test_a_silent_camera_is_left_out_named_and_rejoins(bench):
    pair = ("left", "right")
    bench.running(pair, transport="compressed", sync__camera_timeout=0.5, sync__max_wait=0.2)
    bench.send_until_grid(pair, 1000 * 10**9)
    bench.publisher(CompressedImage, "/occany/input/right/compressed")
    bench.send_until_grid(["left"], 1001 * 10**9, count=3)
    finding = bench.finding("camera right", "no image for")
    assert "has 1 publisher" in finding.message
    bench.send_until_grid(pair, 1100 * 10**9, count=2)
    bench.ros.spin_until(lambda: bench.last_status().views_in_window == 2, what="both cameras")


def test_a_camera_without_publisher_is_named(bench):
    bench.running(("left", "right"), transport="compressed")
    bench.send(["left"], 10**12)
    finding = bench.finding("camera right", "no image yet")
    topic = "/occany/input/right/compressed"
    assert f"{topic} has 0 publishers; check the remapping" in finding.message


def test_a_jump_of_the_clock_starts_anew_once(bench):
    pair = ("left", "right")
    node = bench.running(pair, transport="compressed", window__view_sets=3)
    bench.send_until_grid(pair, 5000 * 10**9, count=2)
    grid = bench.send_until_grid(pair, 1000 * 10**9)
    assert node._sync.counters.clock_jumps == 1
    bench.ros.spin_until(lambda: bench.grids[-1].header.stamp.sec < 2000, what="the new time")
    assert grid is not None


def test_best_effort_publishers_are_met(bench):
    bench.running()
    qos = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)
    publisher = bench.tester.create_publisher(Image, "/occany/input/camera/image", qos)
    header = Header()
    deadline = time.monotonic() + 15
    while not bench.grids:
        assert time.monotonic() < deadline, "no grid from a best-effort publisher"
        header.stamp.sec += 1
        publisher.publish(rgb_to_image(street("camera", 0), header))
        bench.ros.spin_for(0.2)
    bench.finding("camera camera", "rgb8")


def test_height_bands_are_latched_maps_of_the_grid_and_change_live(bench):
    node = bench.running(
        transport="compressed",
        projection__bands=["low", "high"],
        projection__z_min=[-1.0, 1.0],
        projection__z_max=[1.0, 3.0],
        projection__min_known_share=0.0,
    )
    bench.send_until_grid(["camera"], 10**12)
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    maps = {"low": [], "high": []}
    for name, found in maps.items():
        bench.tester.create_subscription(
            OccupancyGrid, f"/occany/output/occupancy/{name}", found.append, latched
        )
    bench.ros.spin_until(lambda: all(maps.values()), 30, what="the maps, late as we are")
    for name, layers in (("low", slice(0, 2)), ("high", slice(2, 4))):
        message = maps[name][0]
        (grid,) = (grid for grid in bench.grids if grid.header == message.header)
        cells = cells_from_message(grid)
        assert (message.info.origin.position.x, message.info.origin.position.y) == (-20.0, -20.0)
        values = np.asarray(message.data).reshape(message.info.height, message.info.width)
        occupied = cells.occupied[:, :, layers].any(axis=2).T
        np.testing.assert_array_equal(values == 100, occupied)
        known = cells.known[:, :, layers].any(axis=2).T
        np.testing.assert_array_equal(values == 0, known & ~occupied)
    refused = bench.set(node, projection__z_min=[-1.0, 2.6])
    assert "'high' from 2.6 to 3.0 m" in refused.reason
    assert bench.set(node, projection__unknown_is="occupied").successful
    bench.send_until_grid(["camera"], 2 * 10**12, count=2)
    bench.ros.spin_until(lambda: maps["low"][-1].header.stamp.sec >= 2000, 30, what="the next map")
    assert -1 not in maps["low"][-1].data


# --- parameters while running -------------------------------------------------------------------


def test_live_changes_apply_together_or_not_at_all(bench):
    node = bench.running(transport="compressed")
    bench.send_until_grid(["camera"], 10**12)
    result = bench.set(node, voxels__resolution=0.5, voxels__shape=[0, 1, 1])
    assert not result.successful
    assert "voxels.shape" in result.reason
    assert node.get_parameter("voxels.resolution").value == 1.0
    assert bench.set(node, voxels__resolution=0.5, voxels__shape=[10, 20, 4]).successful
    bench.send_until_grid(["camera"], 2 * 10**12, count=2)
    grid = bench.grids[-1]
    assert (grid.size_x, grid.size_y, grid.size_z) == (10, 20, 4)
    assert grid.resolution == pytest.approx(0.5)


def test_empty_lists_and_words_of_yaml_files(tmp_path):
    path = tmp_path / "occany.yaml"
    path.write_text(
        "/**:\n  ros__parameters:\n    sync: {required_cameras: [], max_skew: 1}\n"
        "    calibration: {use: off}\n    voxels: {origin: [0, -8, -1]}\n"
    )
    context = rclpy.Context()
    rclpy.init(context=context, args=["--ros-args", "--params-file", str(path)])
    node = OccAnyNode(context=context)
    settings = node._node_parameters.read()
    node.destroy_node()
    rclpy.try_shutdown(context=context)
    assert settings.sync.max_skew_ns == 10**9
    assert settings.sync.required_cameras == frozenset()
    assert settings.core.calibration.use == "off"
    assert settings.core.voxels.origin == (0.0, -8.0, -1.0)


def test_other_parameters_wait_for_cleanup(bench):
    node = bench.make()
    assert node.trigger_configure() == SUCCESS
    result = bench.set(node, model__checkpoint="other.safetensors")
    assert not result.successful
    assert "ros2 lifecycle set /occany cleanup" in result.reason
    assert node.trigger_cleanup() == SUCCESS
    assert bench.set(node, cameras=["a", "b"]).successful
    assert node.trigger_configure() == SUCCESS
    assert node.has_parameter("camera.b.transport")


def test_parameters_describe_themselves(bench):
    node = bench.make()
    text = node.describe_parameter("sync.max_skew")
    assert "[s]" in text.description
    assert text.floating_point_range[0].to_value == 10.0
    assert "live" in text.additional_constraints
    constraints = node.describe_parameter("transport").additional_constraints
    assert "one of 'raw', 'compressed'" in constraints
    assert node.describe_parameter("autostart").read_only


# --- bugs ---------------------------------------------------------------------------------------


def test_a_bug_in_a_cycle_is_reported_and_ends_the_process(bench, monkeypatch):
    node = bench.running(transport="compressed")
    monkeypatch.setattr(node._inference, "run", lambda job, views: 1 / 0)
    bench.send(["camera"], 10**12)
    with contextlib.suppress(ExternalShutdownException):
        bench.ros.spin_until(lambda: not bench.ros.context.ok(), what="the shutdown")
    assert "ZeroDivisionError" in node.fatal
