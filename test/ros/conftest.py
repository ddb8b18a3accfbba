# SPDX-License-Identifier: Apache-2.0
"""Real DDS for the tests: a context of their own, deadlines, a small recording."""

import gc
import os
import time

import pytest

pytest.importorskip("rclpy")

import rclpy
from rclpy.executors import SingleThreadedExecutor
from street_rig import write_recording


class Ros:
    """A context with one executor; everything made through it is destroyed with it."""

    def __init__(self):
        self.context = rclpy.Context()
        rclpy.init(context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.nodes = []

    def add(self, node):
        self.nodes.append(node)
        self.executor.add_node(node)
        return node

    def node(self, name="tester", **options):
        return self.add(rclpy.create_node(name, context=self.context, **options))

    def spin_until(self, holds, timeout=20.0, what="the condition"):
        deadline = time.monotonic() + timeout
        while not (result := holds()):
            assert time.monotonic() < deadline, f"{what} did not hold within {timeout} s"
            self.executor.spin_once(timeout_sec=0.02)
        return result

    def spin_for(self, seconds):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self.executor.spin_once(timeout_sec=0.02)

    def close(self):
        for node in self.nodes:
            if hasattr(node, "close"):
                node.close()
        self.executor.shutdown()
        for node in self.nodes:
            node.destroy_node()
        rclpy.try_shutdown(context=self.context)


@pytest.fixture(scope="session", autouse=True)
def _own_domain():
    """Keep other ROS systems on this machine out."""
    os.environ.setdefault("ROS_DOMAIN_ID", str(os.getpid() % 100 + 1))
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")


@pytest.fixture
def ros():
    gc.collect()  # nodes of earlier tests leave the graph only then, and answer calls until then
    ros = Ros()
    yield ros
    ros.close()


@pytest.fixture(scope="session")
def recording(tmp_path_factory):
    return write_recording(tmp_path_factory.mktemp("recording") / "rig")
