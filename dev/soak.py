#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Drive the node through many cycles and watch its memory.

    dev/run exec python dev/soak.py                                300 cycles at a small size
    dev/run exec python dev/soak.py --cycles 10000 --width 32 --rendered 0 --chart soak.png
    dev/run exec python dev/soak.py --cycles 5000 --full

Node and camera run in this process over real DDS. The clock jumps back and a parameter changes
every now and then, because leaks hide there. Prints resident memory over the cycles, its growth
and the view sets that were dropped; exit code 1 if either is more than it may be.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from occany_core.picture.charts import Line, LineChart, save_charts
from occany_ros.image_messages import rgb_to_image
from occany_ros.memory_use import resident_mb
from occany_ros.msg import OccAnyStatus, VoxelGrid
from occany_ros.node import OccAnyNode

CAMERAS = ("front", "back")
SMALL = {"voxels.shape": [100, 100, 16], "voxels.resolution": 0.8, "runtime.threads": 1}
SETTLED_SHARE = 0.1
"""Part of the cycles after which memory has found its level."""
JUMP_EVERY, CHANGE_EVERY = 50, 40
ALLOWED_GROWTH = 0.05
ALLOWED_DROPS = 0.001
"""Part of the sets: on a busy machine two pictures of a set may arrive too far apart."""
PATIENCE_S = 120.0
LINES = 20


class Soak:
    """The node, a camera and a listener."""

    def __init__(self, sizes: dict[str, object]) -> None:
        rclpy.init()
        values = {"cameras": list(CAMERAS), "window.view_sets": 3, "autostart": False} | sizes
        overrides = [Parameter(name, value=value) for name, value in values.items()]
        self.node = OccAnyNode(parameter_overrides=overrides)
        self.tester = rclpy.create_node("soak")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.executor.add_node(self.tester)
        self.node.start()
        self.grids = 0
        self.status = OccAnyStatus()
        self.tester.create_subscription(OccAnyStatus, "/occany/status", self.note, 10)
        self.tester.create_subscription(VoxelGrid, "/occany/output/voxel_grid", self.count, 10)
        self.publishers = [
            self.tester.create_publisher(Image, f"/occany/input/{name}/image", 10)
            for name in CAMERAS
        ]
        self.noise = np.random.default_rng(0)
        while any(p.get_subscription_count() == 0 for p in self.publishers):
            self.executor.spin_once(timeout_sec=0.05)

    def note(self, status: OccAnyStatus) -> None:
        """Keep the newest status."""
        self.status = status

    def count(self, _: VoxelGrid) -> None:
        """Note a grid."""
        self.grids += 1

    def cycle(self, number: int) -> None:
        """Send one view set and wait for its grid."""
        wanted = self.grids + 1
        header = Header()
        header.stamp.sec = 1000 + number % JUMP_EVERY * 2
        if number % CHANGE_EVERY == 0:
            value = 1.0 + 0.05 * (number // CHANGE_EVERY % 3)
            self.node.set_parameters([Parameter("voxels.min_confidence", value=value)])
        for publisher in self.publishers:
            rgb = self.noise.integers(0, 255, (144, 256, 3), np.uint8)
            publisher.publish(rgb_to_image(rgb, header))
        deadline = time.monotonic() + PATIENCE_S
        while self.grids < wanted:
            self.executor.spin_once(timeout_sec=0.05)
            if time.monotonic() > deadline:
                raise SystemExit(f"cycle {number}: no grid within {PATIENCE_S:.0f} s")

    def close(self) -> None:
        """Stop everything."""
        self.node.close()
        self.executor.shutdown()
        rclpy.try_shutdown()


def growth(memory_mb: list[float]) -> float:
    """Return by what part memory grew from when it had settled until the end, along a line."""
    settled = memory_mb[int(SETTLED_SHARE * len(memory_mb)) :]
    slope, start = np.polyfit(np.arange(len(settled)), settled, 1) if len(settled) > 1 else (0, 1)
    return float(slope * len(settled) / start)


def draw(path: Path, memory_mb: list[float], title: str) -> None:
    """Draw the curve, at most a few hundred points of it."""
    step = max(1, len(memory_mb) // 400)
    cycles = tuple(float(number + 1) for number in range(0, len(memory_mb), step))
    line = Line("resident memory [MB]", cycles, tuple(memory_mb[::step]))
    save_charts(path, [LineChart("Memory of node, camera and listener", "cycle", (line,))], title)


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Watch the node's memory over many cycles.")
    parser.add_argument("--cycles", type=int, default=300)
    parser.add_argument("--width", type=int, default=64, help="of the network's pictures [px]")
    parser.add_argument("--rendered", type=int, default=1, help="novel_views.steps; 0 for none")
    parser.add_argument("--minutes", type=float, default=0.0, help="stop early; 0: all cycles")
    parser.add_argument("--chart", type=Path, help="PNG file for the curve")
    parser.add_argument("--full", action="store_true", help="the default sizes; slower")
    return parser.parse_args()


def main() -> int:
    """Run; 1 when memory grew or view sets were dropped."""
    asked = options()
    small = SMALL | {"images.width": asked.width, "novel_views.steps": asked.rendered}
    soak = Soak({} if asked.full else small)
    memory, began = [], time.monotonic()
    step = max(1, asked.cycles // LINES)
    for number in range(asked.cycles):
        soak.cycle(number)
        memory.append(resident_mb())
        if number % step == 0 or number == asked.cycles - 1:
            print(f"cycle {number + 1:5d}   {memory[-1]:8.1f} MB resident", flush=True)
        if asked.minutes and time.monotonic() - began > 60 * asked.minutes:
            break
    rate = len(memory) / (time.monotonic() - began)
    status = soak.status
    soak.close()
    grown = growth(memory)
    text = (
        f"{len(memory)} cycles at {rate:.1f} per second; {min(memory):.1f} to {max(memory):.1f} "
        f"MB, growth {grown:+.2%} after the first {SETTLED_SHARE:.0%}; dropped sets "
        f"{status.dropped_sets}, skipped {status.skipped}"
    )
    print(text)
    if asked.chart:
        draw(asked.chart, memory, f"Growth {grown:+.2%} over {len(memory)} cycles")
    return (
        0 if grown < ALLOWED_GROWTH and status.dropped_sets <= ALLOWED_DROPS * len(memory) else 1
    )


if __name__ == "__main__":
    sys.exit(main())
