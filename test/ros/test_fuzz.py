# SPDX-License-Identifier: Apache-2.0
"""Random messages, parameters and transitions; and each fault that they found, by itself."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState
from test_node import FAILURE, SUCCESS, Bench

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 60.0


@pytest.fixture
def bench(ros):
    return Bench(ros)


@pytest.mark.slow
@pytest.mark.ros
def test_the_node_survives_random_input_and_gives_a_grid_afterwards():
    command = [sys.executable, str(ROOT / "dev/fuzz.py"), "--actions", "300", "--seed", "0"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no crash, no hang, and a grid afterwards" in done.stdout


def test_an_impossible_transition_is_refused_in_words_and_the_node_lives(bench, capfd):
    node = bench.running(transport="compressed")
    client = bench.tester.create_client(ChangeState, "/occany/change_state")
    bench.ros.spin_until(client.service_is_ready, PATIENCE_S, "the service")

    def ask(number, label=""):
        request = ChangeState.Request(transition=Transition(id=number, label=label))
        future = client.call_async(request)
        bench.ros.spin_until(future.done, PATIENCE_S, "an answer")
        return future.result().success

    assert not ask(Transition.TRANSITION_CONFIGURE)
    assert not ask(99)
    assert not ask(0, "climb")
    said = capfd.readouterr().err
    assert "transition 1 is not possible while the node is active" in said
    assert "possible are deactivate, shutdown" in said
    assert "transition climb is not possible" in said
    bench.send_until_grid(["camera"], 10**12)
    assert ask(Transition.TRANSITION_DEACTIVATE)
    assert ask(0, "cleanup")
    assert node._state_machine.current_state[0] == State.PRIMARY_STATE_UNCONFIGURED


def test_a_range_shorter_than_a_cell_gives_an_empty_grid(bench):
    node = bench.running(transport="compressed")
    assert bench.set(node, voxels__max_range=1e-9).successful
    bench.send_until_grid(["camera"], 10**12)
    assert node.fatal == ""


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"topics__image": "a b"}, "camera camera: 'a b' is no name of a topic"),
        ({"topics__camera_info": "x//y"}, "camera camera: 'x//y' is no name of a topic"),
        ({"runtime__threads": 2**40}, "runtime.threads is 1099511627776; it must be between 0"),
        ({"voxels__resolution": 1e-6}, "voxels.resolution is 1e-06; it must be at least 0.001 m"),
    ],
)
def test_parameters_that_fit_nothing_fail_at_configure_in_words(bench, changes, sentence):
    node = bench.make(**changes)
    assert node.trigger_configure() == FAILURE
    assert sentence in node._status.last_error
    assert not [one for one in node.subscriptions if "camera" in one.topic_name]


def test_a_bug_while_configuring_is_told(bench, monkeypatch, capfd):
    node = bench.make()
    monkeypatch.setattr("occany_ros.node.make_transforms", lambda node: 1 / 0)
    assert node.trigger_configure() == FAILURE
    assert (
        node._status.last_error == "configure failed: a bug: ZeroDivisionError: division by zero"
    )
    assert "Traceback" in capfd.readouterr().err
    monkeypatch.undo()
    assert node.trigger_configure() == SUCCESS
