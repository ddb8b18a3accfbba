# SPDX-License-Identifier: Apache-2.0
"""Whether somebody else already broadcasts a frame: a frame has one parent and one broadcaster."""

import importlib
import time

import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile

from occany_core.errors import InputError
from occany_ros.transforms import HAS_TF_MESSAGES

LISTEN_S = 1.5
"""Broadcasters slower than this are not noticed."""


def check_frame_is_free(node: Node, child: str, parent: str, listen_s: float = LISTEN_S) -> None:
    """Listen to /tf and /tf_static for a while, in a node of its own that then goes.

    Args:
        node: Gives context, namespace and remappings; its executor need not run.
        child: The frame that shall be broadcast.
        parent: Its parent to be, for the text.
        listen_s: For how long.

    Raises:
        InputError: Somebody broadcasts the frame, or the package tf2_msgs is missing.
    """
    if not HAS_TF_MESSAGES:
        raise InputError(
            "cannot broadcast TF: install the package tf2_msgs, or set publish.tf to false"
        )
    found = _listen(node, child, listen_s)
    if found:
        topic, other = found
        raise InputError(
            f"publish.tf is true and somebody already broadcasts {other!r} -> {child!r} on "
            f"{topic}; {parent!r} -> {child!r} would make two parents: set publish.tf to false, "
            "or frames.base_frame to a frame without parent"
        )


def _listen(node: Node, child: str, listen_s: float) -> tuple[str, str] | None:
    """Return topic and parent of the first broadcast of a frame."""
    kind = importlib.import_module("tf2_msgs.msg").TFMessage
    found: list[tuple[str, str]] = []
    listener = rclpy.create_node(
        f"{node.get_name()}_tf_check", context=node.context, namespace=node.get_namespace(),
        use_global_arguments=False, enable_rosout=False, start_parameter_services=False,
    )  # fmt: skip
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(listener)
    latched = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    for name, qos in (("/tf", QoSProfile(depth=100)), ("/tf_static", latched)):
        topic = node.resolve_topic_name(name)

        def receive(message: object, topic: str = topic) -> None:
            found.extend(
                (topic, stamped.header.frame_id.lstrip("/"))
                for stamped in message.transforms
                if stamped.child_frame_id.lstrip("/") == child
            )

        listener.create_subscription(kind, topic, receive, qos)
    deadline = time.monotonic() + listen_s
    while not found and time.monotonic() < deadline and node.context.ok():
        executor.spin_once(timeout_sec=0.05)
    executor.shutdown()
    listener.destroy_node()
    return found[0] if found else None
