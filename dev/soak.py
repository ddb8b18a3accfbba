#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Drive the node through many cycles and watch its memory.

    dev/run exec python dev/soak.py               300 cycles at a small size
    dev/run exec python dev/soak.py --cycles 5000 --full

Node and camera run in this process over real DDS. The clock jumps back and a parameter changes
every now and then, because leaks hide there. Prints resident memory; exit code 1 if it grows.
"""

import argparse
import os
import sys
import time
from pathlib import Path

import numpy as np
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from occany_ros.image_messages import rgb_to_image
from occany_ros.msg import VoxelGrid
from occany_ros.node import OccAnyNode

CAMERAS = ("front", "back")
SMALL = {
    "images.width": 64,
    "voxels.shape": [100, 100, 16],
    "voxels.resolution": 0.8,
    "runtime.threads": 1,
}
SETTLED_SHARE = 0.25
JUMP_EVERY, CHANGE_EVERY = 50, 40
ALLOWED_GROWTH_MB = 15.0
PATIENCE_S = 60.0


def resident_mb() -> float:
    """Resident memory of this process [MB]."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


class Soak:
    """The node, a camera and a listener."""

    def __init__(self, full: bool) -> None:
        rclpy.init()
        values = {"cameras": list(CAMERAS), "window.view_sets": 3, "autostart": False}
        values |= {} if full else SMALL
        overrides = [Parameter(name, value=value) for name, value in values.items()]
        self.node = OccAnyNode(parameter_overrides=overrides)
        self.tester = rclpy.create_node("soak")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.executor.add_node(self.tester)
        self.node.start()
        self.grids = 0
        self.tester.create_subscription(VoxelGrid, "/occany/output/voxel_grid", self.count, 10)
        self.publishers = [
            self.tester.create_publisher(Image, f"/occany/input/{name}/image", 10)
            for name in CAMERAS
        ]
        self.noise = np.random.default_rng(0)
        while any(p.get_subscription_count() == 0 for p in self.publishers):
            self.executor.spin_once(timeout_sec=0.05)

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


def main() -> int:
    """Run; 1 when memory grew."""
    parser = argparse.ArgumentParser(description="Watch the node's memory over many cycles.")
    parser.add_argument("--cycles", type=int, default=300)
    parser.add_argument("--full", action="store_true", help="the default sizes; slower")
    options = parser.parse_args()
    soak = Soak(options.full)
    memory, began = [], time.monotonic()
    step = max(1, options.cycles // 12)
    for number in range(options.cycles):
        soak.cycle(number)
        memory.append(resident_mb())
        if number % step == 0 or number == options.cycles - 1:
            print(f"cycle {number + 1:5d}   {memory[-1]:8.1f} MB resident", flush=True)
    rate = options.cycles / (time.monotonic() - began)
    soak.close()
    settled = memory[int(SETTLED_SHARE * len(memory)) :]
    slope = np.polyfit(np.arange(len(settled)), settled, 1)[0] * len(settled)
    print(
        f"{options.cycles} cycles at {rate:.1f} per second; from cycle "
        f"{len(memory) - len(settled) + 1} on: {min(settled):.1f} to {max(settled):.1f} MB, "
        f"trend {slope:+.1f} MB"
    )
    return 0 if slope < ALLOWED_GROWTH_MB else 1


if __name__ == "__main__":
    sys.exit(main())
