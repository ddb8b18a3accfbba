# SPDX-License-Identifier: Apache-2.0
"""The vehicle's own odometry, where there is one: the pose of the base frame at capture times.

It is never required. The core takes metres from it (`occany_core.scale`), not motion.
"""

import threading
from collections import deque

import numpy as np
from nav_msgs.msg import Odometry
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy

from occany_core.errors import InputError
from occany_ros.pose_messages import (
    matrix_from_pose,
    matrix_from_quat_xyzw,
    quat_xyzw_from_matrix,
)

TOPIC = "~/input/odometry"
POSES_KEPT = 2000
REACH_NS = 200_000_000
"""The last two poses may be followed this far beyond the last one."""
LONGEST_GAP_NS = 1_000_000_000
"""Poses farther apart say nothing about the time between them."""


class PoseTrack:
    """Poses over time (4, 4) [m], newest last; thread-safe."""

    def __init__(self) -> None:
        self._poses: deque[tuple[int, np.ndarray]] = deque(maxlen=POSES_KEPT)
        self._lock = threading.Lock()

    def add(self, stamp_ns: int, odom_from_base: np.ndarray) -> None:
        """Append a pose; one that is older than the last begins the track anew."""
        with self._lock:
            if self._poses and stamp_ns <= self._poses[-1][0]:
                if stamp_ns == self._poses[-1][0]:
                    return
                self._poses.clear()
            self._poses.append((stamp_ns, odom_from_base))

    def at(self, stamp_ns: int) -> np.ndarray | None:
        """Return `odom_from_base` at a time, between two poses or shortly after the last."""
        with self._lock:
            poses = list(self._poses)
        if len(poses) < 2 or not poses[0][0] <= stamp_ns <= poses[-1][0] + REACH_NS:
            return None
        later = next((i for i, (ns, _) in enumerate(poses) if ns >= stamp_ns), len(poses) - 1)
        (t0, before), (t1, after) = poses[max(later, 1) - 1], poses[max(later, 1)]
        if t1 - t0 > LONGEST_GAP_NS:
            return None
        return _between(before, after, (stamp_ns - t0) / (t1 - t0))


def _between(before: np.ndarray, after: np.ndarray, share: float) -> np.ndarray:
    """Go a share of the way from one pose to the next; beyond 1 is ahead."""
    one, other = (quat_xyzw_from_matrix(pose[:3, :3]) for pose in (before, after))
    if one @ other < 0:
        other = -other
    found = np.eye(4)
    found[:3, :3] = matrix_from_quat_xyzw(one + share * (other - one))
    found[:3, 3] = before[:3, 3] + share * (after[:3, 3] - before[:3, 3])
    return found


class OdometryInput:
    """Subscribes to the vehicle's odometry."""

    def __init__(self, node: Node, base_frame: str) -> None:
        self._node = node
        self._base_frame = base_frame
        self._track = PoseTrack()
        self.received = 0
        self.warning = ""
        """Why the last message could not be used; empty when it could."""
        qos = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._subscription = node.create_subscription(Odometry, TOPIC, self._receive, qos)

    @property
    def topic(self) -> str:
        """After remapping."""
        return self._subscription.topic_name

    def _receive(self, message: Odometry) -> None:
        self.received += 1
        child = message.child_frame_id.lstrip("/")
        if child and child != self._base_frame:
            self.warning = (
                f"{self.topic} is about the frame {child!r} and not about frames.base_frame "
                f"{self._base_frame!r}; it is not used: set frames.base_frame, or give the "
                "odometry of that frame"
            )
            return
        stamp_ns = message.header.stamp.sec * 1_000_000_000 + message.header.stamp.nanosec
        try:
            pose = matrix_from_pose(message.pose.pose)
            if not np.isfinite(pose).all():
                raise InputError("its position is not finite")
        except InputError as error:
            self.warning = f"{self.topic}: {error}; the message is not used"
            return
        self.warning = ""
        self._track.add(stamp_ns, pose)

    def at(self, stamp_ns: int) -> np.ndarray | None:
        """Return `odom_from_base` (4, 4) [m] at a capture time, or None where it is not known."""
        return self._track.at(stamp_ns)

    def close(self) -> None:
        """End the subscription."""
        self._node.destroy_subscription(self._subscription)
