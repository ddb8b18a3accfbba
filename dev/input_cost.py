#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Measure which part of the CPU the images of a rig take before any network looks at them.

    dev/run exec python dev/input_cost.py                 6 cameras of 1600 x 900 at 10 Hz
    dev/run exec python dev/input_cost.py --seconds 20 --cameras 4 --hertz 30

A process of its own publishes; this one receives with the node's subscriptions and decodes as the
node does. The figure is the CPU time of this whole process, the middleware's threads included, in
percent of one core. Latency is from just before publishing to the callback.
"""

import argparse
import io
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import PIL.Image
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from occany_ros.image_messages import bytes_field, compressed_to_rgb, image_to_rgb, rgb_to_image
from occany_ros.node_settings import CameraSettings
from occany_ros.subscriptions import CameraInput, ImageMessage

SIZE = (1600, 900)
PICTURE = Path(__file__).resolve().parents[1] / "recordings/sequence/0001.jpg"
NETWORK_WIDTH = 512
SETTLING_S, PATIENCE_S = 2.0, 60.0
CASES = (
    ("compressed", "not decoded"),
    ("compressed", "at network size"),
    ("compressed", "at full size"),
    ("raw", "not decoded"),
    ("raw", "at network size"),
)


def topic(transport: str, camera: int) -> str:
    """Name the topic of a camera."""
    return f"/input_cost/camera_{camera}/{transport}"


def publish(transport: str, cameras: int, hertz: float) -> None:
    """Publish the same picture of all cameras until a signal comes."""
    rgb = np.asarray(PIL.Image.open(PICTURE).convert("RGB").resize(SIZE), np.float32)
    rgb = rgb + np.random.default_rng(0).normal(0, 8, rgb.shape)  # a sensor's noise
    rgb = np.clip(rgb, 0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    PIL.Image.fromarray(rgb).save(buffer, "JPEG", quality=85)
    message = rgb_to_image(rgb, Header())
    if transport == "compressed":
        data = bytes_field(np.frombuffer(buffer.getvalue(), np.uint8))
        message = CompressedImage(format="jpeg", data=data)
    rclpy.init()
    node = rclpy.create_node("cameras")
    publishers = [
        node.create_publisher(type(message), topic(transport, camera), QoSProfile(depth=1))
        for camera in range(cameras)
    ]

    def send() -> None:
        for publisher in publishers:
            message.header.stamp = node.get_clock().now().to_msg()
            publisher.publish(message)

    node.create_timer(1 / hertz, send)
    rclpy.spin(node)


@dataclass(slots=True)
class Received:
    """What arrived while time was taken."""

    count: int = 0
    bytes: int = 0
    latencies_ms: list[float] = field(default_factory=list)


def measure(case: tuple[str, str], asked: argparse.Namespace) -> str:
    """Return a row of the table."""
    transport, decoding = case
    command = [sys.executable, __file__, "--publish", transport]
    command += ["--cameras", str(asked.cameras), "--hertz", str(asked.hertz)]
    cameras = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    node = rclpy.create_node("receiver")
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    received = Received()

    def take(camera: str, message: ImageMessage) -> None:
        stamp = message.header.stamp
        sent_ns = stamp.sec * 1_000_000_000 + stamp.nanosec
        received.latencies_ms.append((time.time_ns() - sent_ns) * 1e-6)
        received.count += 1
        received.bytes = len(message.data)
        least_width = NETWORK_WIDTH if decoding == "at network size" else 0
        if decoding != "not decoded":
            decode = image_to_rgb if isinstance(message, Image) else compressed_to_rgb
            decode(message, camera, least_width)

    inputs = [
        CameraInput(node, settings(transport, camera), take) for camera in range(asked.cameras)
    ]
    try:
        deadline = time.monotonic() + PATIENCE_S
        while received.count < asked.cameras:
            executor.spin_once(timeout_sec=0.1)
            if time.monotonic() > deadline:
                raise SystemExit(f"no images within {PATIENCE_S:.0f} s")
        spin(executor, SETTLING_S)
        received.count, received.latencies_ms = 0, []
        cpu_s, began = time.process_time(), time.monotonic()
        spin(executor, asked.seconds)
        cpu_s, wall_s = time.process_time() - cpu_s, time.monotonic() - began
    finally:
        cameras.terminate()
        cameras.wait(PATIENCE_S)
        for one in inputs:
            one.close()
        executor.shutdown()
        node.destroy_node()
    share = received.count / (asked.cameras * asked.hertz * wall_s)
    latency_ms = np.percentile(received.latencies_ms, [50, 95])
    return (
        f"{transport:<11} {received.bytes / 1000:7.0f} kB  {decoding:<16} {share:7.1%} "
        f"{latency_ms[0]:8.1f} {latency_ms[1]:8.1f} {cpu_s / wall_s:10.1%} "
        f"{1e3 * cpu_s / max(received.count, 1):10.2f}"
    )


def settings(transport: str, camera: int) -> CameraSettings:
    """Describe a camera as the node's parameters do."""
    return CameraSettings(
        name=f"camera_{camera}",
        transport=transport,
        image_topic=topic(transport, camera),
        info_topic=f"/input_cost/camera_{camera}/camera_info",
        reliability="auto",
        frame_id="",
        rig_from_cam=(),
    )


def spin(executor: SingleThreadedExecutor, seconds: float) -> None:
    """Spin for so long."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        executor.spin_once(timeout_sec=left)


def main() -> int:
    """Measure every case and print the table."""
    parser = argparse.ArgumentParser(description="CPU share of receiving and decoding images.")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each measurement")
    parser.add_argument("--cameras", type=int, default=6)
    parser.add_argument("--hertz", type=float, default=10.0)
    parser.add_argument("--publish", choices=("raw", "compressed"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.publish:
        publish(asked.publish, asked.cameras, asked.hertz)
        return 0
    rclpy.init()
    width, height = SIZE
    print(f"{asked.cameras} cameras, {width} x {height}, {asked.hertz:g} Hz; percent of one core")
    print(
        "transport    an image  decoded          arrived  p50 [ms] p95 [ms]        CPU  ms/image"
    )
    for case in CASES:
        print(measure(case, asked), flush=True)
    rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
