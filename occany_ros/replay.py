# SPDX-License-Identifier: Apache-2.0
"""Node `replay`: plays a bag or pictures into topics at a rate, with /clock if asked.

Serialized messages go from the file to the middleware; only stamps are rewritten where they must
be. Recorded topics are published relative to the node's namespace, /tf and /tf_static as they are.
"""

import signal
import struct
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module

import rclpy
from builtin_interfaces.msg import Time
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock

from occany_core.errors import ConfigError, OccAnyError
from occany_ros.recording import Entry, Recording, Topic
from occany_ros.sources import open_recording

CLOCK_PERIOD_S = 0.01
LAST_MESSAGES_S = 0.5
"""Time that the last messages get to leave before the process ends."""

ABSOLUTE_TOPICS = ("/tf", "/tf_static", "/clock")


@dataclass(frozen=True, kw_only=True, slots=True)
class Playback:
    """How a recording is played."""

    rate: float
    loop: bool
    is_shifted_to_now: bool
    """Stamps begin now instead of at the recorded time."""
    loops_jump_back: bool
    """Each loop repeats the stamps of the first one; otherwise time goes on."""


@dataclass(frozen=True, slots=True)
class Due:
    """A message with the time it is played at."""

    played_s: float
    """Since the start of playing, at rate 1."""
    shift_ns: int
    """Difference between the stamps that go out and the recorded ones."""
    entry: Entry
    loop: int


def schedule(recording: Recording, playback: Playback, now_ns: int) -> Iterator[Due]:
    """Give out all messages with their times; endless when looping."""
    first_shift_ns = now_ns - recording.start_ns if playback.is_shifted_to_now else 0
    loop = 0
    while True:
        elapsed_ns = loop * recording.duration_ns
        shift_ns = first_shift_ns + (0 if playback.loops_jump_back else elapsed_ns)
        for entry in recording.entries():
            played_ns = elapsed_ns + entry.stamp_ns - recording.start_ns
            yield Due(played_ns * 1e-9, shift_ns, entry, loop)
        if not playback.loop:
            return
        loop += 1


def message_class(type_name: str) -> type | None:
    """Return the Python class of a message type, or None where its package is not installed."""
    package, _, name = type_name.split("/")
    try:
        return getattr(import_module(f"{package}.msg"), name, None)
    except ImportError:
        return None


def shifted(data: bytes, shift_ns: int) -> bytes:
    """Move the stamp of a serialized message that begins with a std_msgs/Header.

    Source: CDR: four bytes of encapsulation whose second tells the byte order, then int32 seconds
    and uint32 nanoseconds.
    """
    layout = "<iI" if data[1] & 1 else ">iI"
    seconds, nanoseconds = struct.unpack_from(layout, data, 4)
    moved_ns = seconds * 1_000_000_000 + nanoseconds + shift_ns
    changed = bytearray(data)
    struct.pack_into(layout, changed, 4, moved_ns // 1_000_000_000, moved_ns % 1_000_000_000)
    return bytes(changed)


class ReplayNode(Node):
    """Declares the parameters, makes the publishers, plays."""

    def __init__(self, **options: object) -> None:
        super().__init__("replay", **options)
        self._place = self.declare_parameter("input", "demo").value
        self._period_s = float(self.declare_parameter("period", 0.5).value)
        self._rig = self.declare_parameter("rig", "auto").value
        self._calibration = self.declare_parameter("calibration", "").value
        self._wait_s = float(self.declare_parameter("wait", 60.0).value)
        self._with_clock = self.declare_parameter("clock", False).value
        stamps = self.declare_parameter("stamps", "auto").value
        loop_stamps = self.declare_parameter("loop_stamps", "shift").value
        rate = float(self.declare_parameter("rate", 1.0).value)
        _require(rate > 0, "rate", rate, "positive")
        _require(self._period_s > 0, "period", self._period_s, "positive")
        _require(stamps in ("auto", "keep", "now"), "stamps", stamps, "auto, keep or now")
        _require(loop_stamps in ("shift", "back"), "loop_stamps", loop_stamps, "shift or back")
        _require(
            self._rig in ("auto", "surround", "sequence"),
            "rig",
            self._rig,
            "auto, surround or sequence",
        )
        self._playback = Playback(
            rate=rate,
            loop=bool(self.declare_parameter("loop", False).value),
            # Without /clock, listeners compare stamps with the wall clock.
            is_shifted_to_now=stamps == "now" or (stamps == "auto" and not self._with_clock),
            loops_jump_back=loop_stamps == "back",
        )
        self._outgoing: dict[str, object] = {}
        self._has_header: set[str] = set()
        self._clock_publisher = (
            self.create_publisher(Clock, "/clock", 10) if self._with_clock else None
        )

    def play(self, executor: SingleThreadedExecutor) -> None:
        """Play until the end or a signal.

        Raises:
            InputError: The recording cannot be read.
        """
        recording = open_recording(self._place, self._period_s, self._rig, self._calibration)
        for topic in recording.topics:
            self._create_publisher(topic)
        self.get_logger().info(
            f"{recording.name}: {len(self._outgoing)} topics, {recording.duration_ns * 1e-9:.1f} s"
        )
        started_ns = time.time_ns()
        dues = schedule(recording, self._playback, started_ns)
        due = next(dues)
        self._tick(due, due.played_s)
        self._wait_for_listeners(recording, executor)
        began = time.monotonic()
        told = 0
        while due is not None:
            while (ahead := due.played_s - (time.monotonic() - began) * self._playback.rate) > 0:
                self._tick(due, due.played_s - ahead)
                executor.spin_once(timeout_sec=min(CLOCK_PERIOD_S, ahead / self._playback.rate))
                if not self.context.ok():
                    return
            self._publish(due)
            if due.loop > told:
                told = due.loop
                self.get_logger().info(f"loop {told + 1}")
            due = next(dues, None)
        until = time.monotonic() + LAST_MESSAGES_S
        while time.monotonic() < until and self.context.ok():
            executor.spin_once(timeout_sec=CLOCK_PERIOD_S)
        self.get_logger().info("played to the end")

    def _create_publisher(self, topic: Topic) -> None:
        kind = message_class(topic.type_name)
        if kind is None:
            self.get_logger().warning(
                f"{topic.name}: the type {topic.type_name} is not installed, left out"
            )
            return
        qos = QoSProfile(depth=10)
        if topic.is_latched:
            qos.durability = DurabilityPolicy.TRANSIENT_LOCAL
        name = topic.name if topic.name in ABSOLUTE_TOPICS else topic.name.lstrip("/")
        self._outgoing[topic.name] = self.create_publisher(kind, name, qos)
        fields = kind.get_fields_and_field_types()
        if next(iter(fields.values()), "") == "std_msgs/Header":
            self._has_header.add(topic.name)

    def _wait_for_listeners(self, recording: Recording, executor: SingleThreadedExecutor) -> None:
        """Hold the first message until every image topic has a subscriber: models load slowly."""
        images = [
            self._outgoing[topic.name]
            for topic in recording.topics
            if topic.name in self._outgoing and "Image" in topic.type_name
        ]
        deadline = time.monotonic() + self._wait_s
        while any(publisher.get_subscription_count() == 0 for publisher in images):
            if not self.context.ok() or time.monotonic() > deadline:
                self.get_logger().warning(
                    f"not all image topics have subscribers after {self._wait_s:.0f} s; playing"
                )
                return
            executor.spin_once(timeout_sec=0.05)

    def _tick(self, due: Due, played_s: float) -> None:
        """Publish the time of the stamps that go out now."""
        if self._clock_publisher is not None:
            ahead_ns = round((due.played_s - played_s) * 1e9)
            now_ns = max(0, due.entry.stamp_ns + due.shift_ns - ahead_ns)
            stamp = Time(sec=now_ns // 1_000_000_000, nanosec=now_ns % 1_000_000_000)
            self._clock_publisher.publish(Clock(clock=stamp))

    def _publish(self, due: Due) -> None:
        self._tick(due, due.played_s)
        publisher = self._outgoing.get(due.entry.topic)
        if publisher is None:
            return
        data = due.entry.data
        if due.shift_ns and due.entry.topic in self._has_header:
            data = shifted(data, due.shift_ns)
        publisher.publish(data)


def _require(holds: bool, name: str, value: object, rule: str) -> None:
    if not holds:
        raise ConfigError(f"parameter {name} is {value!r}; it must be {rule}")


def main(args: list[str] | None = None) -> int:
    """Play; returns 0 at the end or after a signal, 1 when the input cannot be played."""
    rclpy.init(args=args)
    node, failure = None, ""
    try:
        node = ReplayNode()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        node.play(executor)
    except OccAnyError as error:
        failure = str(error)
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if failure:
        sys.stderr.write(f"replay: {failure}\n")
    if node is not None:
        with suppress(KeyboardInterrupt):
            node.destroy_node()
    rclpy.try_shutdown()
    return 1 if failure else 0


if __name__ == "__main__":
    raise SystemExit(main())
