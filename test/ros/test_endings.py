# SPDX-License-Identifier: Apache-2.0
"""The process ends cleanly in every state; cleanup gives memory back; readers do no harm."""

import contextlib
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

pytest.importorskip("rclpy")

from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState, GetState
from sensor_msgs.msg import CompressedImage
from street_rig import image_message
from test_node import SMALL, SUCCESS, Bench

from occany_ros.msg import VoxelGrid

pytestmark = pytest.mark.ros
PATIENCE_S = 90.0
CONFIGURE, ACTIVATE = Transition.TRANSITION_CONFIGURE, Transition.TRANSITION_ACTIVATE
DEACTIVATE, CLEANUP = Transition.TRANSITION_DEACTIVATE, Transition.TRANSITION_CLEANUP
SHUTDOWN = Transition.TRANSITION_UNCONFIGURED_SHUTDOWN

AFTER = {
    CONFIGURE: "inactive",
    ACTIVATE: "active",
    DEACTIVATE: "inactive",
    CLEANUP: "unconfigured",
    SHUTDOWN: "finalized",
}
WAYS = {
    "unconfigured": (CONFIGURE, CLEANUP),
    "inactive": (CONFIGURE, ACTIVATE, DEACTIVATE),
    "active": (CONFIGURE, ACTIVATE),
    "finalized": (SHUTDOWN,),
}


@pytest.fixture
def bench(ros):
    return Bench(ros)


def node_process(**changes):
    """The node's program, in a process of its own."""
    values = SMALL | {"autostart": False, "transport": "compressed"} | changes
    command = [sys.executable, "-m", "occany_ros.node", "--ros-args"]
    for name, value in values.items():
        command += ["-p", f"{name}:={str(value).lower() if value in (True, False) else value}"]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def ended(process):
    """Wait for the end of a process; its exit code and what it said."""
    try:
        said, _ = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said, _ = process.communicate()
        pytest.fail(f"the process does not end:\n{said}")
    return process.returncode, said


def change(bench, transition):
    client = bench.tester.create_client(ChangeState, "/occany/change_state")
    bench.ros.spin_until(client.service_is_ready, PATIENCE_S, "the lifecycle service")
    request = ChangeState.Request(transition=Transition(id=transition))
    # A node that has not discovered the client yet does as asked, and its answer is lost.
    futures = []
    deadline = time.monotonic() + PATIENCE_S
    while not any(future.done() for future in futures):
        assert time.monotonic() < deadline, f"transition {transition} is not answered"
        futures.append(client.call_async(request))
        with contextlib.suppress(AssertionError):
            bench.ros.spin_until(futures[-1].done, PATIENCE_S / 6, f"transition {transition}")
    if len(futures) == 1:
        assert futures[0].result().success
    else:  # the first request may have been obeyed, which refuses the second
        assert state_of(bench) == AFTER[transition]
    bench.tester.destroy_client(client)


def state_of(bench):
    client = bench.tester.create_client(GetState, "/occany/get_state")
    bench.ros.spin_until(client.service_is_ready, PATIENCE_S, "the state service")
    future = client.call_async(GetState.Request())
    bench.ros.spin_until(future.done, PATIENCE_S, "the state")
    bench.tester.destroy_client(client)
    return future.result().current_state.label


@pytest.mark.slow
@pytest.mark.parametrize("state", WAYS)
def test_a_signal_ends_the_process_with_0_in_every_state(bench, state):
    for how in (signal.SIGINT, signal.SIGTERM):
        process = node_process()
        try:
            for transition in WAYS[state]:
                change(bench, transition)
            process.send_signal(how)
            code, said = ended(process)
        finally:
            process.kill()
        assert "Traceback" not in said
        assert code == 0, said


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment_s", [0.0, 2.0])
def test_a_signal_while_the_node_configures_ends_it_with_0(how, moment_s):
    """The moments are about the load of the weights and the first cycle; none is a wrong one."""
    process = node_process(autostart=True)
    began = threading.Event()

    def watch():
        for line in process.stdout:
            said.append(line)
            began.set()

    said = []
    threading.Thread(target=watch, daemon=True).start()
    # Python ends by a signal without our doing until rclpy's handlers are there.
    deadline = time.monotonic() + PATIENCE_S
    while not handles_signals(process.pid):
        assert time.monotonic() < deadline, "the node installs no handlers"
        assert process.poll() is None, said
        time.sleep(0.02)
    began.wait(moment_s)
    process.send_signal(how)
    assert process.wait(PATIENCE_S) == 0, "".join(said)
    assert "Traceback" not in "".join(said)


def handles_signals(pid):
    """Whether a process has rclpy's handlers: Python alone has none for SIGTERM."""
    rows = Path(f"/proc/{pid}/status").read_text().splitlines()
    caught = int(next(row for row in rows if row.startswith("SigCgt")).split()[1], 16)
    return bool(caught & (1 << (signal.SIGTERM - 1)))


def test_a_signal_during_a_cycle_lets_it_end(bench):
    process = node_process(autostart=True, **{"images.width": 256, "novel_views.steps": 2})
    try:
        publisher = bench.publisher(CompressedImage, "/occany/input/camera/compressed")
        grids = bench.listen(VoxelGrid, "/occany/output/voxel_grid")
        deadline = time.monotonic() + PATIENCE_S
        step = 0
        while not grids:
            assert time.monotonic() < deadline, "no grid"
            publisher.publish(image_message("camera", (1000 + step) * 10**9, step))
            bench.ros.spin_for(0.1)
            step += 1
        for more in range(5):  # the worker is busy now
            publisher.publish(image_message("camera", (2000 + more) * 10**9, more))
        bench.ros.spin_for(0.1)
        process.send_signal(signal.SIGINT)
        code, said = ended(process)
    finally:
        process.kill()
    assert "Traceback" not in said
    assert code == 0, said


# --- memory --------------------------------------------------------------------------------------


def tensor_bytes():
    """Bytes of all tensors that anybody holds; those that share memory count once."""
    gc.collect()
    storages = {
        thing.untyped_storage().data_ptr(): thing.untyped_storage().nbytes()
        for thing in gc.get_objects()
        if type(thing) in (torch.Tensor, torch.nn.Parameter) and thing.layout == torch.strided
    }
    return sum(storages.values())


def test_cleanup_gives_all_tensors_back(bench):
    before = tensor_bytes()
    node = bench.make(
        transport="compressed", window__view_sets=3, novel_views__steps=1, images__width=128
    )
    bench.listen(VoxelGrid, "/occany/output/voxel_grid")
    for _ in range(2):
        assert node.trigger_configure() == SUCCESS
        assert node.trigger_activate() == SUCCESS
        bench.send_until_grid(["camera"], 10**12, count=3)
        used = tensor_bytes() - before
        assert used > 10_000_000  # the weights alone
        assert node.trigger_deactivate() == SUCCESS
        assert node.trigger_cleanup() == SUCCESS
        left = tensor_bytes() - before
        assert left < 0.01 * used, f"{left} of {used} bytes are still held"
        bench.publishers.clear()


# --- readers -------------------------------------------------------------------------------------

SLEEPER = """
import sys, time
import rclpy
from rclpy.qos import QoSProfile
from occany_ros.msg import VoxelGrid

rclpy.init()
node = rclpy.create_node("sleeper")
seen = []

def sleep(grid):
    seen.append(grid)
    print("asleep", flush=True)
    time.sleep(3.0)

node.create_subscription(VoxelGrid, "/occany/output/voxel_grid", sleep, QoSProfile(depth=1))
print("listening", flush=True)
rclpy.spin(node)
"""


def test_a_slow_subscriber_does_not_slow_the_node(bench):
    """Eight grids would take the sleeper 24 s."""
    node = bench.running(transport="compressed", voxels__shape=[200, 200, 16])
    slow = subprocess.Popen(
        [sys.executable, "-c", SLEEPER],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    try:
        assert slow.stdout.readline() == "listening\n"
        grid_publisher = node._outputs._grid
        bench.ros.spin_until(
            lambda: grid_publisher.get_subscription_count() == 2, PATIENCE_S, "both listeners"
        )
        bench.send_until_grid(["camera"], 10**12)
        assert slow.stdout.readline() == "asleep\n"
        began, published = time.monotonic(), node._status.history.published
        bench.send_until_grid(["camera"], 2 * 10**12, count=8)
        took_s = time.monotonic() - began
    finally:
        slow.terminate()
        slow.wait(60)
    assert node._status.history.published >= published + 8
    assert took_s < 16, "grids wait for the slow reader"
    publish_ms = node._status.history.stages_ms["publish"]
    assert publish_ms < 1000
