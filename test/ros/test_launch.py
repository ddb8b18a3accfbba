# SPDX-License-Identifier: Apache-2.0
"""Launch files and programs as a user starts them, with whichever launcher the machine has."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml

pytest.importorskip("rclpy")

from rclpy.serialization import deserialize_message

from occany_ros.bags import read_messages
from occany_ros.demo import launch_command
from occany_ros.grid_messages import cells_from_message
from occany_ros.msg import VoxelGrid

ROOT = Path(__file__).resolve().parents[2]
SEQUENCE = ROOT / "recordings/sequence"

pytestmark = pytest.mark.ros


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    """A domain of its own per test, and one thread, so that tests do not disturb each other."""
    _quick.domain = getattr(_quick, "domain", os.getpid()) + 1
    monkeypatch.setenv("ROS_DOMAIN_ID", str(_quick.domain % 100 + 1))


@contextlib.contextmanager
def started(command):
    """Run a program in the background, interrupt it at the end, check that it ends cleanly."""
    process = subprocess.Popen(
        command,
        start_new_session=True,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output = ""
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
        try:
            output, _ = process.communicate(timeout=30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            output, _ = process.communicate()
        print(output)
    assert "Traceback" not in output
    assert process.returncode == 0


def launched(launch_file, *arguments):
    return started([*launch_command(), launch_file, *arguments])


def receive(out, grids=2, node="/occany"):
    """Listen in a separate process; return its figures and the grids it recorded."""
    command = [sys.executable, "-m", "occany_ros.receive", "--node", node, "--timeout", "90"]
    command += ["--grids", str(grids), "--json", str(out / "figures.json")]
    command += ["--mcap", str(out / "result.mcap"), "--images"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads((out / "figures.json").read_text())
    messages = list(read_messages(out / "result.mcap"))
    found = [
        deserialize_message(data, VoxelGrid)
        for topic, data in messages
        if topic == f"{node}/output/voxel_grid"
    ]
    return figures, found, {topic for topic, _ in messages}


def small(config, out):
    """A copy of a parameter file with fewer cells and no rendered views."""
    content = yaml.safe_load((ROOT / f"config/{config}.yaml").read_text())
    content["/**"]["ros__parameters"] |= {
        "voxels": {"resolution": 1.0, "origin": [-20.0, -20.0, -1.0], "shape": [40, 40, 8]},
        "novel_views": {"steps": 0},
        "runtime": {"threads": 1},
    }
    path = out / f"{config}.yaml"
    path.write_text(yaml.safe_dump(content))
    return f"params_file:={path}"


def test_surround_turns_a_recording_into_grids_in_another_process(tmp_path, recording):
    arguments = [small("surround", tmp_path), f"input:={recording}", "loop:=true"]
    arguments += ["loop_stamps:=back", "use_sim_time:=true", "namespace:=robot"]
    with launched("surround.launch.py", *arguments, "cameras:=[front, back, back_left]"):
        figures, grids, topics = receive(tmp_path, node="/robot/occany")
    assert figures["grids"] >= 2
    assert figures["frame_source"] == "extrinsics"
    assert figures["error"] == ""
    assert "/robot/camera/back_left/image/compressed" in topics
    assert "/robot/occany/output/voxel_points" in topics
    for grid in grids:
        assert grid.header.frame_id == "base_link"
        assert 1000 <= grid.header.stamp.sec <= 1002
        assert cells_from_message(grid).probability.shape == (40, 40, 8)


def test_a_profile_makes_the_preset_small(tmp_path, recording):
    arguments = [f"input:={recording}", "loop:=true", "profile:=cpu_test"]
    with launched("surround.launch.py", *arguments):
        figures, grids, _ = receive(tmp_path, grids=1)
    assert figures["error"] == ""
    assert cells_from_message(grids[0]).probability.shape == (40, 40, 8)


def test_a_looping_bag_gives_grids_in_its_own_time(tmp_path, recording):
    arguments = [small("surround", tmp_path), f"bag:={recording}", "loop:=true", "rate:=4.0"]
    with launched("bag.launch.py", *arguments):
        figures, grids, _ = receive(tmp_path, grids=6)
    assert figures["error"] == ""
    # simulated time: all stamps are of the recording, however often it loops
    assert all(1000 <= grid.header.stamp.sec <= 1002 for grid in grids)


def test_sequence_of_pictures_gives_grids_and_a_path(tmp_path):
    arguments = [f"input:={SEQUENCE}", "period:=0.5", "loop:=true"]
    with launched("sequence.launch.py", small("sequence", tmp_path), *arguments):
        figures, grids, topics = receive(tmp_path, grids=3)
    assert figures["frame_source"] == "assumed level"
    assert "/occany/output/odometry" in topics
    stamps = [grid.header.stamp.sec + grid.header.stamp.nanosec * 1e-9 for grid in grids]
    assert np.all(np.diff(stamps) > 0)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_node_ends_with_code_0_on_a_signal(how):
    command = [sys.executable, "-m", "occany_ros.node", "--ros-args", "-p", "runtime.threads:=1"]
    with started(command) as process:
        for line in process.stdout:
            if "ready on" in line:
                break
        time.sleep(0.2)
        process.send_signal(how)
        assert process.wait(20) == 0


# --- the demo -----------------------------------------------------------------------------------


def demo(*arguments, timeout=200):
    command = [sys.executable, "-m", "occany_ros.demo", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout)


def test_demo_writes_its_three_files_and_ends_with_json(tmp_path):
    out = tmp_path / "demo"
    done = demo("--out", str(out), "--grids", "2")
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["grids"] >= 2
    assert summary["grids_with_truth"] >= 2
    assert 0 < summary["iou_vs_truth"] < 1
    assert summary["rate_hz"] > 0
    assert summary["latency_ms_p95"] >= summary["latency_ms_p50"] > 0
    assert summary["occupied_cells"] > 0
    assert {"dropped_sets", "device"} <= set(summary)
    assert json.loads((out / "summary.json").read_text()) == summary
    assert (out / "voxels.png").stat().st_size > 10_000
    assert (out / "result.mcap").stat().st_size > 10_000


def test_demo_of_a_picture(tmp_path):
    out = tmp_path / "demo"
    shutil.copy(SEQUENCE / "0001.jpg", tmp_path)
    done = demo(str(tmp_path / "0001.jpg"), "--out", str(out), "--grids", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["launch_file"] == "monocular.launch.py"
    assert summary["iou_vs_truth"] is None
    assert (out / "voxels.png").exists()


@pytest.mark.parametrize(
    ("place", "sentence"),
    [("nowhere", "nowhere does not exist"), ("empty", "holds no pictures")],
)
def test_demo_refuses_bad_input_and_writes_nothing(tmp_path, place, sentence):
    (tmp_path / "empty").mkdir()
    done = demo(str(tmp_path / place), "--out", str(tmp_path / "out"))
    assert done.returncode == 1
    assert sentence in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()
