# SPDX-License-Identifier: Apache-2.0
"""Between processes: large raw images by both reliabilities, and a recording that loops."""

import os
import subprocess
import sys
from itertools import pairwise

import pytest

pytest.importorskip("rclpy")

from street_rig import write_recording
from test_node import Bench

pytestmark = pytest.mark.ros
PATIENCE_S = 120.0
LOOPS = 10
PROFILE_NAMES = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")

CAMERA = """
import sys
import numpy as np
import rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import Image
from std_msgs.msg import Header
from occany_ros.image_messages import rgb_to_image

rclpy.init()
node = rclpy.create_node("camera")
qos = QoSProfile(depth=1, reliability=ReliabilityPolicy[sys.argv[1]])
publisher = node.create_publisher(Image, "/occany/input/camera/image", qos)
rgb = np.random.default_rng(0).integers(0, 255, (900, 1600, 3), np.uint8)

def send():
    header = Header(frame_id="camera_optical_frame", stamp=node.get_clock().now().to_msg())
    publisher.publish(rgb_to_image(rgb, header))

node.create_timer(0.5, send)
rclpy.spin(node)
"""


@pytest.fixture
def bench(ros):
    return Bench(ros)


def started(command, environment):
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def stop(*processes):
    """End by a signal, so that no shared memory is left behind."""
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait(60)


def without_profile():
    """The environment of somebody who has not read our page on shared memory."""
    return {name: value for name, value in os.environ.items() if name not in PROFILE_NAMES}


@pytest.mark.parametrize("reliability", ["RELIABLE", "BEST_EFFORT"])
def test_raw_images_of_1600_x_900_arrive_from_another_process(bench, reliability):
    if not any(name in os.environ for name in PROFILE_NAMES):
        pytest.skip("dev/run and the launch files set config/fastdds.xml; here it is not set")
    bench.running()
    camera = started([sys.executable, "-c", CAMERA, reliability], os.environ)
    try:
        bench.ros.spin_until(lambda: len(bench.grids) >= 3, PATIENCE_S, "grids of raw images")
        finding = bench.finding("camera camera", "Hz, 1600 x 900 rgb8", PATIENCE_S)
    finally:
        stop(camera)
    offered = {value.key: value.value for value in finding.values}["reliability"]
    assert offered == reliability.lower()


@pytest.mark.parametrize("reliability", ["RELIABLE", "BEST_EFFORT"])
def test_without_the_profile_they_arrive_or_it_is_said_why_not(bench, reliability):
    """Default shared memory loses large best-effort images; how many depends on the machine."""
    bench.running()
    bench.ros.nodes[-1].close()  # its part is taken by a process without the profile
    bench.ros.executor.remove_node(bench.ros.nodes[-1])
    bench.ros.nodes.pop().destroy_node()
    bench.received["/diagnostics"].clear()
    settings = {"images.width": 64, "novel_views.steps": 0, "runtime.threads": 1}
    command = [sys.executable, "-m", "occany_ros.node", "--ros-args"]
    for name, value in settings.items():
        command += ["-p", f"{name}:={value}"]
    node = started(command, without_profile())
    camera = started([sys.executable, "-c", CAMERA, reliability], without_profile())
    said = []

    def silence_is_explained():
        for message in bench.received["/diagnostics"]:
            for status in message.status:
                if status.name == "/occany: camera camera" and "1 publisher;" in status.message:
                    said.append(status.message)
        return any("large best-effort images get lost" in message for message in said)

    try:
        bench.ros.spin_until(
            lambda: len(bench.grids) >= 3 or silence_is_explained(),
            PATIENCE_S,
            "grids, or the reason why there are none",
        )
    finally:
        stop(node, camera)
    if reliability == "RELIABLE":
        assert len(bench.grids) >= 3
    elif len(bench.grids) < 3:
        assert (
            "publish reliable, compressed or smaller ones, or use config/fastdds.xml" in said[-1]
        )


def test_a_short_recording_loops_ten_times_in_its_own_time(bench, tmp_path):
    pair = ("front", "back")
    bag = write_recording(tmp_path / "rig", pair, steps=6, period_ns=250_000_000)
    node = bench.running(
        pair,
        transport="compressed",
        topics__compressed="/camera/{camera}/image/compressed",
        topics__camera_info="/camera/{camera}/camera_info",
        window__view_sets=3,
        use_sim_time=True,
    )
    assert node.get_parameter("use_sim_time").value is True
    parameters = {"input": bag, "loop": True, "loop_stamps": "back", "clock": True, "rate": 1.0}
    command = [sys.executable, "-m", "occany_ros.replay", "--ros-args"]
    for name, value in parameters.items():
        command += ["-p", f"{name}:={str(value).lower() if value is True else value}"]
    player = started(command, os.environ)
    try:
        bench.ros.spin_until(
            lambda: node._sync and node._sync.counters.clock_jumps >= LOOPS,
            PATIENCE_S,
            f"{LOOPS} loops",
        )
        grids = len(bench.grids)
        bench.ros.spin_until(lambda: len(bench.grids) > grids, PATIENCE_S, "a grid after them")
        bench.finding("clock", "simulated time")
    finally:
        stop(player)
    stamps = [grid.header.stamp.sec * 10**9 + grid.header.stamp.nanosec for grid in bench.grids]
    assert all(1000 * 10**9 <= stamp <= 1002 * 10**9 for stamp in stamps)
    # One jump a loop, noticed once for both cameras, and grids in nearly every loop.
    back = sum(later < earlier for earlier, later in pairwise(stamps))
    assert LOOPS // 2 <= back <= node._sync.counters.clock_jumps <= LOOPS + 2
    statuses = bench.received["/occany/status"]
    assert {status.last_error for status in statuses} == {""}
    assert max(status.views_in_window for status in statuses) <= 6
    assert node._sync.queued() <= 8


def test_simulated_time_without_a_clock_is_told(bench):
    bench.running(transport="compressed", use_sim_time=True)
    finding = bench.finding("clock", "use_sim_time is true and nothing publishes /clock")
    assert finding.level == b"\x01"
    bench.send_until_grid(["camera"], 10**12)  # grids come all the same
