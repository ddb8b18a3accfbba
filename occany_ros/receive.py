# SPDX-License-Identifier: Apache-2.0
"""A separate process that listens to the node: progress, a recording of the result, figures.

`ros2 run occany_ros receive --grids 10 --mcap result.mcap --json figures.json`
"""

import argparse
import contextlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import rclpy
from nav_msgs.msg import Odometry
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import QoSProfile
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CompressedImage, PointCloud2

from occany_core.errors import InputError
from occany_ros.bags import ResultWriter
from occany_ros.grid_messages import cells_from_message
from occany_ros.msg import OccAnyStatus, VoxelGrid

IMAGE_TYPE = "sensor_msgs/msg/CompressedImage"
GIVE_UP_TEXT = "configure failed"


@dataclass(slots=True)
class Figures:
    """What arrived."""

    arrivals_s: list[float] = field(default_factory=list)
    stamps_ns: list[int] = field(default_factory=list)
    occupied: list[int] = field(default_factory=list)
    latencies_ms: dict[int, float] = field(default_factory=dict)
    """By number of the grid, from the status."""
    status: OccAnyStatus | None = None
    error: str = ""

    def summary(self) -> dict:
        """Return plain values for JSON."""
        latencies = list(self.latencies_ms.values())
        span_s = self.arrivals_s[-1] - self.arrivals_s[0] if len(self.arrivals_s) > 1 else 0.0
        status = self.status
        return {
            "grids": len(self.arrivals_s),
            "rate_hz": round((len(self.arrivals_s) - 1) / span_s, 3) if span_s else 0.0,
            "latency_ms_p50": _percentile(latencies, 50),
            "latency_ms_p95": _percentile(latencies, 95),
            "occupied_cells": round(float(np.median(self.occupied))) if self.occupied else 0,
            "dropped_sets": status.dropped_sets if status else 0,
            "skipped_sets": status.skipped if status else 0,
            "device": status.device if status else "",
            "model": status.model_name if status else "",
            "model_licence": status.model_licence if status else "",
            "frame_source": status.frame_source if status else "",
            "scale_source": status.scale_source if status else "",
            "stages_ms": _stages(status),
            "error": self.error or (status.last_error if status else ""),
        }


def _stages(status: OccAnyStatus | None) -> dict[str, float]:
    if status is None:
        return {}
    return {
        name: round(ms, 1) for name, ms in zip(status.stage_names, status.stage_ms, strict=True)
    }


def _percentile(values: list[float], percent: float) -> float:
    return round(float(np.percentile(values, percent)), 1) if values else 0.0


class Receiver(Node):
    """Subscribes to the outputs and, as they appear, to compressed camera images."""

    def __init__(self, node: str, writer: ResultWriter | None, with_images: bool) -> None:
        super().__init__("receive")
        self.figures = Figures()
        self._source = node.rstrip("/")
        self._writer = writer
        self._image_topics: set[str] = set()
        self._listen(VoxelGrid, "output/voxel_grid", self._on_grid)
        self._listen(OccAnyStatus, "status", self._on_status)
        self._listen(PointCloud2, "output/voxel_points", self._nothing)
        self._listen(Odometry, "output/odometry", self._nothing)
        if with_images:
            self._discovery = self.create_timer(0.3, self._find_images)

    def _listen(self, kind: type, topic: str, react: Callable[[bytes], None]) -> None:
        self._subscribe(kind, f"{self._source}/{topic}", react)

    def _subscribe(self, kind: type, topic: str, react: Callable[[bytes], None]) -> None:
        type_name = f"{kind.__module__.split('.')[0]}/msg/{kind.__name__}"

        def receive(data: bytes) -> None:
            if self._writer is not None:
                self._writer.write(topic, type_name, time.time_ns(), data)
            react(data)

        self.create_subscription(kind, topic, receive, QoSProfile(depth=10), raw=True)

    def _find_images(self) -> None:
        for topic, types in self.get_topic_names_and_types():
            if IMAGE_TYPE in types and topic not in self._image_topics:
                self._image_topics.add(topic)
                self._subscribe(CompressedImage, topic, self._nothing)

    @staticmethod
    def _nothing(data: bytes) -> None:
        """Recorded only."""

    def _on_grid(self, data: bytes) -> None:
        message = deserialize_message(data, VoxelGrid)
        try:
            cells = cells_from_message(message)
        except InputError as error:
            self.figures.error = f"a received grid is invalid: {error}"
            return
        stamp = message.header.stamp
        self.figures.arrivals_s.append(time.monotonic())
        self.figures.stamps_ns.append(stamp.sec * 1_000_000_000 + stamp.nanosec)
        self.figures.occupied.append(int(np.count_nonzero(cells.occupied)))

    def _on_status(self, data: bytes) -> None:
        status = deserialize_message(data, OccAnyStatus)
        self.figures.status = status
        if status.published:
            self.figures.latencies_ms[status.published] = status.latency_ms_last


def progress_line(figures: Figures, wanted: int, elapsed_s: float) -> str:
    """Say in one line how far it is."""
    state = figures.status.state if figures.status else "waiting for the node"
    error = (
        f"  ! {figures.status.last_error}" if figures.status and figures.status.last_error else ""
    )
    if not figures.arrivals_s:
        return f"{elapsed_s:5.0f} s  {state}{error}"
    summary = figures.summary()
    return (
        f"{elapsed_s:5.0f} s  grid {summary['grids']}/{wanted}  {summary['rate_hz']:.2f} Hz  "
        f"latency {summary['latency_ms_p50']:.0f} ms  {figures.occupied[-1]} occupied cells  "
        f"{state}{error}"
    )


def receive(node: Receiver, wanted: int, timeout_s: float) -> None:
    """Listen until enough grids came, time is over, or the node says that it cannot start."""
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    began = time.monotonic()
    told_s, told_grids = 0.0, 0
    while (elapsed_s := time.monotonic() - began) < timeout_s:
        executor.spin_once(timeout_sec=0.2)
        figures = node.figures
        grids = len(figures.arrivals_s)
        if grids != told_grids or elapsed_s - told_s > 2:
            told_s, told_grids = elapsed_s, grids
            sys.stdout.write(progress_line(figures, wanted, elapsed_s) + "\n")
            sys.stdout.flush()
        if grids >= wanted and max(figures.latencies_ms, default=0) >= wanted:
            return
        if figures.status is not None and figures.status.last_error.startswith(GIVE_UP_TEXT):
            figures.error = figures.status.last_error
            return
    node.figures.error = node.figures.error or f"only {told_grids} grids within {timeout_s:.0f} s"


def main(args: list[str] | None = None) -> int:
    """Receive; 0 when all the wanted grids came."""
    parser = argparse.ArgumentParser(prog="receive", description=__doc__.split("\n\n")[0])
    parser.add_argument("--node", default="/occany", help="full name of the node")
    parser.add_argument("--grids", type=int, default=10, help="end after this many")
    parser.add_argument("--timeout", type=float, default=120.0, help="end after this long [s]")
    parser.add_argument("--mcap", type=Path, help="file to record the outputs into")
    parser.add_argument("--images", action="store_true", help="record compressed images too")
    parser.add_argument("--json", type=Path, help="file to write the figures into")
    options, ros_arguments = parser.parse_known_args(args)
    rclpy.init(args=ros_arguments)
    writer = ResultWriter(options.mcap) if options.mcap else None
    node = Receiver(options.node, writer, options.images)
    with contextlib.suppress(KeyboardInterrupt, ExternalShutdownException):
        receive(node, options.grids, options.timeout)
    if writer is not None:
        writer.close()
    summary = node.figures.summary()
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(summary, indent=2) + "\n")
    else:
        sys.stdout.write(json.dumps(summary) + "\n")
    with contextlib.suppress(KeyboardInterrupt):
        node.destroy_node()
        rclpy.try_shutdown()
    return 0 if summary["grids"] >= options.grids else 1


if __name__ == "__main__":
    raise SystemExit(main())
