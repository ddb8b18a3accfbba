# SPDX-License-Identifier: Apache-2.0
"""The node's services over real DDS: what they do, and what they say when they do not."""

import errno
import re
import threading
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")

from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Point, TransformStamped
from nav_msgs.msg import Path as PathMessage
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import PointCloud2
from std_srvs.srv import Trigger
from test_node import MS, SUCCESS, Bench
from tf2_msgs.msg import TFMessage

from occany_core import results
from occany_core.results import load_scene
from occany_ros import scene_files
from occany_ros.grid_messages import cells_from_message
from occany_ros.msg import VoxelGrid
from occany_ros.srv import GetVoxelGrid, Load, Save, SetCameraEnabled

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
PATIENCE_S = 60.0


class Caller(Bench):
    """A bench that also calls services."""

    def begin(self, kind, service, /, **request):
        client = self.tester.create_client(kind, f"/occany/{service}")
        self.ros.spin_until(client.service_is_ready, PATIENCE_S, f"the service {service}")
        return client.call_async(kind.Request(**request))

    def call(self, kind, service, /, **request):
        future = self.begin(kind, service, **request)
        self.ros.spin_until(future.done, PATIENCE_S, f"an answer of {service}")
        return future.result()


@pytest.fixture
def caller(ros):
    return Caller(ros)


@pytest.fixture
def saving(caller, tmp_path):
    """A node with a grid, that saves below a folder."""
    caller.running(
        transport="compressed",
        files__directory=str(tmp_path / "saved"),
        files__least_free_megabytes=0,
    )
    caller.send_until_grid(["camera"], 10**12)
    return caller


def test_every_service_answers_before_the_node_is_configured_and_before_a_grid(caller):
    node = caller.make()
    requests = {
        "reset": (Trigger, {}),
        "load": (Load, {"name": "street"}),
        "set_camera_enabled": (SetCameraEnabled, {"name": "camera"}),
    }
    for name, (kind, request) in requests.items():
        answer = caller.call(kind, name, **request)
        assert not answer.success
        assert "ros2 lifecycle set /occany configure" in answer.message
    assert node.trigger_configure() == SUCCESS
    for kind, name in ((Save, "save"), (GetVoxelGrid, "get_voxel_grid")):
        answer = caller.call(kind, name)
        assert not answer.success
        assert "there is no grid yet" in answer.message


def test_topics_and_services_are_those_of_the_documents(caller):
    text = (Path(__file__).resolve().parents[2] / "docs/ros_interface.md").read_text()
    node = caller.make()
    assert node.trigger_configure() == SUCCESS
    sections = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", text, re.M | re.S))
    documented = set(re.findall(r"^\| `~/(\w+)` \|", sections["Services"], re.M))
    offered = {service.srv_name.rsplit("/", 1)[-1] for service in node.services}
    of_rclpy = r"\w*(parameters|parameters_atomically|parameter_types|_state|_states|_transitions"
    of_rclpy += r"|_graph|_description)"
    assert {name for name in offered if not re.fullmatch(of_rclpy, name)} == documented
    published = {p.topic_name.removeprefix("/occany/") for p in node.publishers}
    published -= {"/rosout", "/parameter_events", "/diagnostics", "transition_event"}
    documented = set(re.findall(r"`~/([\w/]+)`", sections["Publications"]))
    documented = {name.replace("occupancy/NAME", "occupancy/obstacles") for name in documented}
    documented = {name.replace("NAME", "camera") for name in documented}
    documented = {name for name in documented if name.startswith(("output/", "status"))}
    assert published == {name for name in documented if not name.startswith("output/loaded")}


def test_reset_begins_window_and_path_anew(caller):
    caller.running(transport="compressed", window__view_sets=3)
    paths = caller.listen(PathMessage, "/occany/output/path")
    caller.send_until_grid(["camera"], 10**12, count=3)
    caller.ros.spin_until(lambda: paths and len(paths[-1].poses) >= 3, what="a path")
    assert caller.call(Trigger, "reset").success
    assert not caller.call(GetVoxelGrid, "get_voxel_grid").success
    caller.ros.spin_for(0.5)
    paths.clear()
    caller.send_until_grid(["camera"], 10**12)  # older stamps than before are no jump of the clock
    caller.ros.spin_until(lambda: paths, what="the new path")
    assert len(paths[0].poses) == 1


def test_save_and_load_give_the_same_grid_on_topics_of_its_own(saving, tmp_path):
    saving.ros.spin_for(1.0)
    live = saving.grids[-1]
    answer = saving.call(Save, "save", name="street")
    assert answer.success, answer.message
    assert answer.path == str(tmp_path / "saved/street")
    scene = load_scene(answer.path)
    np.testing.assert_array_equal(scene.grid.probability, cells_from_message(live).probability)

    grids = []
    points = []
    prefix = "/occany/output/loaded"
    saving.tester.create_subscription(VoxelGrid, f"{prefix}/voxel_grid", grids.append, LATCHED)
    saving.tester.create_subscription(
        PointCloud2, f"{prefix}/voxel_points", points.append, LATCHED
    )
    count = len(saving.grids)
    answer = saving.call(Load, "load", name="street")
    assert answer.success, answer.message
    saving.ros.spin_until(lambda: grids and points, what="the loaded grid")
    assert grids[-1].data == live.data
    assert grids[-1].header.frame_id == "base_link"
    assert len(saving.grids) == count


def test_a_save_without_name_is_called_by_its_capture_time(saving, tmp_path):
    saving.ros.spin_for(1.0)
    answer = saving.call(Save, "save")
    assert answer.success
    stamp = saving.grids[-1].header.stamp
    name = scene_files.name_of_stamp(stamp.sec * 10**9 + stamp.nanosec)
    assert answer.path == str(tmp_path / "saved" / name)


def test_bad_names_and_existing_scenes_are_refused_and_nothing_is_written(saving, tmp_path):
    assert saving.call(Save, "save", name="street").success
    before = sorted(path.name for path in tmp_path.rglob("*"))
    for name, words in (
        ("../street", "is refused"),
        ("/street", "is refused"),
        ("street", "exists and is kept as it is"),
    ):
        answer = saving.call(Save, "save", name=name)
        assert not answer.success
        assert answer.path == ""
        assert words in answer.message
    answer = saving.call(Load, "load", name="../saved/street")
    assert "is refused" in answer.message
    assert "the last ones are street" in saving.call(Load, "load", name="road").message
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_a_full_disk_is_one_sentence_and_loses_nothing(saving, tmp_path, monkeypatch):
    assert saving.call(Save, "save", name="earlier").success

    def no_space(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(results, "_write_poses", no_space)
        answer = saving.call(Save, "save", name="later")
    assert not answer.success
    assert "No space left on device; free space" in answer.message
    assert "\n" not in answer.message
    assert [path.name for path in (tmp_path / "saved").iterdir()] == ["earlier"]
    assert load_scene(tmp_path / "saved/earlier").grid.spec.shape == (40, 40, 8)
    assert saving.call(Save, "save", name="later").success
    saving.send_until_grid(["camera"], 2 * 10**12)


def test_a_save_that_would_fill_the_disk_is_refused(saving, tmp_path):
    node = saving.ros.nodes[-1]
    assert saving.set(node, files__least_free_megabytes=10**9).successful
    answer = saving.call(Save, "save", name="street")
    assert "files.least_free_megabytes is 1000000000" in answer.message
    assert not (tmp_path / "saved").exists()


def test_grids_go_on_while_a_disk_hangs(saving, monkeypatch):
    node = saving.ros.nodes[-1]
    assert saving.set(node, files__time_limit=0.5).successful
    release = threading.Event()
    monkeypatch.setattr(scene_files, "save_scene", lambda *a, **k: release.wait(PATIENCE_S))
    first = saving.begin(Save, "save", name="one")
    saving.send_until_grid(["camera"], 2 * 10**12, count=2)
    saving.ros.spin_until(first.done, PATIENCE_S, "an answer in time")
    assert "not finished after 0.5 s" in first.result().message
    assert "still runs" in saving.call(Save, "save", name="two").message
    release.set()
    saving.ros.spin_until(
        lambda: saving.call(Save, "save", name="three").success, PATIENCE_S, "the disk's return"
    )


def test_a_box_of_the_last_grid_in_another_frame(caller):
    caller.running(transport="compressed")
    static = TransformStamped(child_frame_id="base_link")
    static.header.frame_id = "map"
    static.transform.translation.x = 100.0
    static.transform.rotation.z = static.transform.rotation.w = 0.5**0.5
    publisher = caller.publisher(TFMessage, "/tf_static", LATCHED)
    publisher.publish(TFMessage(transforms=[static]))
    caller.send_until_grid(["camera"], 10**12)
    caller.ros.spin_for(1.0)
    whole = caller.call(GetVoxelGrid, "get_voxel_grid").grid
    assert whole == caller.grids[-1]
    corners = {"lower": Point(x=98.0, y=1.0, z=0.0), "upper": Point(x=100.0, y=5.0, z=2.0)}
    answer = caller.call(GetVoxelGrid, "get_voxel_grid", frame_id="map", **corners)
    assert answer.success, answer.message
    part = answer.grid
    # the vehicle looks along y of the map
    assert part.header.frame_id == "map"
    assert (part.size_x, part.size_y, part.size_z) == (4, 2, 2)
    origin, turn = part.origin.position, part.origin.orientation
    assert (origin.x, origin.y, origin.z) == pytest.approx((100.0, 1.0, 0.0), abs=1e-6)
    assert (turn.z, turn.w) == pytest.approx((0.5**0.5, 0.5**0.5))
    np.testing.assert_array_equal(
        cells_from_message(part).probability,
        cells_from_message(whole).probability[21:25, 20:22, 1:3],
    )
    answer = caller.call(GetVoxelGrid, "get_voxel_grid", frame_id="moon")
    assert "no transform from 'base_link' to 'moon'" in answer.message
    answer = caller.call(GetVoxelGrid, "get_voxel_grid", lower=Point(x=99.0), upper=Point(x=99.5))
    assert "lies outside of the grid" in answer.message


def test_a_disabled_camera_leaves_the_sets_and_comes_back(caller):
    pair = ("left", "right")
    caller.running(pair, transport="compressed", sync__max_wait=0.2)
    caller.listen(DiagnosticArray, "/diagnostics")
    caller.send_until_grid(pair, 10**12)
    answer = caller.call(SetCameraEnabled, "set_camera_enabled", name="right", enabled=False)
    assert answer.success, answer.message
    statuses = caller.received["/occany/status"]

    def send_until_views(views, stamp_ns):
        for step in range(200):
            caller.send(pair, stamp_ns + step * 100 * MS, step)
            caller.ros.spin_for(0.1)
            if statuses and statuses[-1].views_in_window == views:
                return
        raise AssertionError(f"never {views} views in the window")

    send_until_views(1, 2 * 10**12)
    caller.finding("camera right", "disabled by camera.right.enabled")
    answer = caller.call(SetCameraEnabled, "set_camera_enabled", name="left", enabled=False)
    assert "only 0 of 2 cameras are enabled" in answer.message
    assert caller.call(SetCameraEnabled, "set_camera_enabled", name="right", enabled=True).success
    send_until_views(2, 3 * 10**12)
    answer = caller.call(SetCameraEnabled, "set_camera_enabled", name="roof", enabled=True)
    assert "there is no camera 'roof'; the cameras are ['left', 'right']" in answer.message
