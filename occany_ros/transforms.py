# SPDX-License-Identifier: Apache-2.0
"""Transforms between frames, as `a_from_b` (4, 4) [m]: from tf2_ros, or from /tf_static alone.

This is the one module that knows whether tf2_ros is there. With it, transforms may change over
time. Without it (machines with ROS 2 wheels only) the static tree is read, which serves rigid
rigs.
"""

import importlib
import importlib.util
from typing import Protocol

import numpy as np
from geometry_msgs.msg import TransformStamped
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.time import Time

from occany_core.errors import InputError
from occany_ros.pose_messages import matrix_from_transform

HAS_TF_MESSAGES = importlib.util.find_spec("tf2_msgs") is not None
HAS_TF_BUFFER = HAS_TF_MESSAGES and importlib.util.find_spec("tf2_ros") is not None


MAX_FRAMES = 10_000
"""A static tree that grows beyond this is no robot."""


class Transforms(Protocol):
    """Where transforms come from."""

    def lookup(self, target: str, source: str, stamp_ns: int) -> np.ndarray:
        """Return `target_from_source` (4, 4) at a capture time.

        Raises:
            InputError: Not known; names both frames and the remedy.
        """

    def send(self, transform: TransformStamped) -> None:
        """Broadcast a transform on /tf."""

    def close(self) -> None:
        """End the subscriptions."""


def make_transforms(node: Node) -> Transforms:
    """Return what this machine offers: the full buffer, the static tree, or nothing."""
    if HAS_TF_BUFFER:
        return BufferTransforms(node)
    if HAS_TF_MESSAGES:
        return StaticTransforms(node)
    return NoTransforms()


def _missing(target: str, source: str, why: str) -> InputError:
    return InputError(
        f"no transform from {source!r} to {target!r} ({why}); publish it on /tf_static, set "
        "camera.NAME.rig_from_cam, or set calibration.use to off"
    )


class StaticTree:
    """A tree of transforms that never change. Plain Python."""

    def __init__(self) -> None:
        self._parents: dict[str, tuple[str, np.ndarray]] = {}

    def insert(self, parent: str, child: str, parent_from_child: np.ndarray) -> None:
        """Add an edge or replace the one above `child`.

        Raises:
            InputError: The frame is its own parent, or there are too many frames already.
        """
        if parent == child:
            raise InputError("a frame cannot be its own parent; remove this transform")
        if len(self._parents) >= MAX_FRAMES and child not in self._parents:
            raise InputError(
                f"more than {MAX_FRAMES} frames; check who publishes on /tf_static, and start anew"
            )
        self._parents[child] = (parent, parent_from_child)

    def _path_to_root(self, frame: str) -> dict[str, np.ndarray]:
        """Map every ancestor (the frame included) to `ancestor_from_frame`."""
        path = {frame: np.eye(4)}
        ancestor_from_frame = np.eye(4)
        while frame in self._parents:
            parent, parent_from_child = self._parents[frame]
            if parent in path:
                raise InputError(
                    f"/tf_static holds a loop through frame {parent!r}; remove one edge"
                )
            ancestor_from_frame = parent_from_child @ ancestor_from_frame
            path[parent] = ancestor_from_frame
            frame = parent
        return path

    def lookup(self, target: str, source: str) -> np.ndarray | None:
        """Return `target_from_source` (4, 4), or None where no path joins them.

        Raises:
            InputError: The transforms form a loop.
        """
        above_source, above_target = self._path_to_root(source), self._path_to_root(target)
        for ancestor, ancestor_from_source in above_source.items():
            if ancestor in above_target:
                return np.linalg.inv(above_target[ancestor]) @ ancestor_from_source
        return None


def transforms_message(transforms: list[TransformStamped]) -> object:
    """Return a tf2_msgs/TFMessage.

    Raises:
        InputError: The package tf2_msgs is not installed.
    """
    if not HAS_TF_MESSAGES:
        raise InputError("mountings of cameras are sent as TF: install the package tf2_msgs")
    return importlib.import_module("tf2_msgs.msg").TFMessage(transforms=transforms)


class _Broadcast:
    """Publishes /tf."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._messages = importlib.import_module("tf2_msgs.msg")
        self._publisher = None

    def send(self, transform: TransformStamped) -> None:
        """Broadcast a transform; the publisher is made with the first one."""
        if self._publisher is None:
            self._publisher = self._node.create_publisher(self._messages.TFMessage, "/tf", 100)
        self._publisher.publish(self._messages.TFMessage(transforms=[transform]))

    def close(self) -> None:
        """Remove the publisher."""
        if self._publisher is not None:
            self._node.destroy_publisher(self._publisher)
            self._publisher = None


class StaticTransforms:
    """The static tree, from /tf_static."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._tree = StaticTree()
        self._broadcast = _Broadcast(node)
        latched = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        messages = importlib.import_module("tf2_msgs.msg")
        self._subscription = node.create_subscription(
            messages.TFMessage, "/tf_static", self._on_transforms, latched
        )

    def _on_transforms(self, message: object) -> None:
        for stamped in message.transforms:
            parent, child = stamped.header.frame_id.lstrip("/"), stamped.child_frame_id.lstrip("/")
            try:
                self._tree.insert(parent, child, matrix_from_transform(stamped.transform))
            except InputError as error:
                self._node.get_logger().warning(
                    f"/tf_static: {parent:.80} -> {child:.80}: {error}", throttle_duration_sec=10.0
                )

    def lookup(self, target: str, source: str, stamp_ns: int) -> np.ndarray:
        """See `Transforms.lookup`; the time does not matter."""
        found = self._tree.lookup(target, source)
        if found is None:
            raise _missing(target, source, "only /tf_static is read: tf2_ros is not installed")
        return found

    def send(self, transform: TransformStamped) -> None:
        """See `Transforms.send`."""
        self._broadcast.send(transform)

    def close(self) -> None:
        """See `Transforms.close`."""
        self._node.destroy_subscription(self._subscription)
        self._broadcast.close()


class BufferTransforms:
    """tf2_ros with transforms over time."""

    def __init__(self, node: Node) -> None:
        self._tf2_ros = importlib.import_module("tf2_ros")
        self._buffer = self._tf2_ros.Buffer()
        self._listener = self._tf2_ros.TransformListener(self._buffer, node, spin_thread=False)
        self._broadcast = _Broadcast(node)

    def lookup(self, target: str, source: str, stamp_ns: int) -> np.ndarray:
        """See `Transforms.lookup`; takes the newest transform when the time is not covered."""
        try:
            try:
                stamped = self._buffer.lookup_transform(target, source, Time(nanoseconds=stamp_ns))
            except self._tf2_ros.ExtrapolationException:
                stamped = self._buffer.lookup_transform(target, source, Time())
        except self._tf2_ros.TransformException as error:
            raise _missing(target, source, str(error)) from error
        return matrix_from_transform(stamped.transform)

    def send(self, transform: TransformStamped) -> None:
        """See `Transforms.send`."""
        self._broadcast.send(transform)

    def close(self) -> None:
        """See `Transforms.close`."""
        self._listener.unregister()
        self._broadcast.close()


class NoTransforms:
    """Neither tf2_ros nor tf2_msgs is installed."""

    def lookup(self, target: str, source: str, stamp_ns: int) -> np.ndarray:
        """See `Transforms.lookup`; always raises."""
        raise _missing(target, source, "the package tf2_msgs is not installed")

    def send(self, transform: TransformStamped) -> None:
        """See `Transforms.send`.

        Raises:
            InputError: Always: the message type is missing.
        """
        raise InputError(
            "cannot broadcast TF: install the package tf2_msgs, or set publish.tf to false"
        )

    def close(self) -> None:
        """See `Transforms.close`."""
