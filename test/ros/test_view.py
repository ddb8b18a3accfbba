# SPDX-License-Identifier: Apache-2.0
"""The live view of a running node, over real DDS, written by the real Rerun and read back."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

pytest.importorskip("rclpy")
pytest.importorskip("rerun", reason="rerun-sdk is not installed (extra [view])")

from nav_msgs.msg import OccupancyGrid, Odometry
from recordings_of_rerun import contents
from sensor_msgs.msg import CameraInfo
from std_msgs.msg import Header
from street_rig import camera_info
from test_node import Bench

from occany_core.live_view import LiveView
from occany_ros.grid_messages import cells_from_message
from occany_ros.view import Viewer

START_NS = 10**12


@pytest.fixture
def bench(ros):
    return Bench(ros)


def test_everything_of_a_running_node_is_shown(bench, tmp_path):
    bench.running(transport="compressed", window__view_sets=2)
    file = tmp_path / "drive.rrd"
    view = LiveView(file)
    viewer = bench.ros.add(Viewer(view, "/occany", context=bench.ros.context))
    bands = bench.listen(OccupancyGrid, "/occany/output/occupancy/obstacles")
    odometry = bench.listen(Odometry, "/occany/output/odometry")
    infos = bench.publisher(CameraInfo, "/occany/input/camera/camera_info")
    topics = "/occany/input/camera/compressed", "/occany/output/occupancy/obstacles"

    def is_listening():
        viewer.search()
        return all(
            any(e.node_name == "view" for e in bench.tester.get_subscriptions_info_by_topic(topic))
            for topic in topics
        )

    bench.ros.spin_until(is_listening, what="the viewer's subscriptions")
    infos.publish(camera_info("camera", Header()))
    bench.send_until_grid(["camera"], START_NS, count=2)
    bench.ros.spin_until(lambda: viewer.grids >= 2 and bands and len(odometry) >= 2)
    bench.received["/occany/status"].clear()
    bench.ros.spin_until(lambda: bench.received["/occany/status"], what="names of the cameras")
    shown = viewer.grids
    bench.send_until_grid(["camera"], START_NS + 10**10, count=1)
    bench.ros.spin_until(lambda: viewer.grids > shown, what="the last grid in the viewer")
    bench.ros.spin_for(1.0)  # for what is still on its way, to both listeners
    view.close()

    found = contents(file)
    centres = np.array(found["/world/rig/voxels:Boxes3D:centers"])
    cells = cells_from_message(bench.grids[-1])
    assert len(centres) == np.count_nonzero(cells.occupied)
    ijk = np.argwhere(cells.occupied)
    expected = np.array(cells.pose.position) + (ijk + 0.5) * cells.resolution
    np.testing.assert_allclose(centres, expected, atol=1e-4)
    picture = "/world/rig/cameras/camera/picture"
    assert bytes(found[f"{picture}:EncodedImage:blob"][0]).startswith(b"\xff\xd8")
    K = np.reshape(found[f"{picture}:Pinhole:image_from_camera"][0], (3, 3)).T
    np.testing.assert_allclose(K, np.reshape(camera_info("camera", Header()).k, (3, 3)))
    assert "/world/rig/cameras/camera:Transform3D:translation" in found
    assert "/world/rig:Transform3D:translation" in found
    assert len(found["/world/path:LineStrips3D:strips"][0]) >= 2
    assert len(found["/map/obstacles:Image:buffer"][0]) == 40 * 40
    assert START_NS + 10**10 in found["capture time"]


def test_the_program_writes_its_file_and_ends_at_a_signal(tmp_path):
    file = tmp_path / "nothing.rrd"
    process = subprocess.Popen(
        [sys.executable, "-m", "occany_ros.view", "--save", str(file), "--node", "/robot/occany"],
        stderr=subprocess.PIPE, text=True, env=os.environ, start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 60
    said = []
    while not any("no node /robot/occany is running" in line for line in said):
        assert time.monotonic() < deadline, said
        said.append(process.stderr.readline())
    assert any("start it, or give its name with --node" in line for line in said)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 0
    assert "view: showed 0 grids" in process.stderr.read()
    assert file.stat().st_size > 0


def test_the_program_says_why_it_cannot_write(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "occany_ros.view", "--save", str(tmp_path / "drive.mp4")],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith(f"view: {tmp_path / 'drive.mp4'} must end in .rrd")
    assert "Traceback" not in done.stderr
