#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Send random messages, parameters, transitions and service calls to the running node.

    dev/run exec python dev/fuzz.py                        1000 actions
    dev/run exec python dev/fuzz.py --actions 200 --seed 7

The node is a process of its own, reached over real DDS. It must stay alive, answer every service
within a bound, and give a grid of good pictures at the end; exit code 1 otherwise, with what was
sent last and what the node said. The same seed sends the same. Values that are allowed and only
make the node slow, such as a million rendered views, are left out: `MOST`.
"""

import argparse
import io
import math
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import PIL.Image
import rclpy
from geometry_msgs.msg import Point, Quaternion, TransformStamped, Vector3
from lifecycle_msgs.srv import ChangeState
from rcl_interfaces.srv import GetParameters, SetParametersAtomically
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from std_srvs.srv import Trigger
from tf2_msgs.msg import TFMessage

from occany_ros.declaration import Declaration
from occany_ros.declarations import NODE_DECLARATIONS, camera_declarations, core_declarations
from occany_ros.image_messages import ENCODINGS, bytes_field, rgb_to_image
from occany_ros.msg import VoxelGrid
from occany_ros.srv import GetVoxelGrid, Load, Save, SetCameraEnabled

RAW, PACKED = "left", "right"
CAMERAS = (RAW, PACKED)
GOOD = {
    "cameras": list(CAMERAS),
    f"camera.{PACKED}.transport": "compressed",
    "images.width": 32,
    "voxels.shape": [40, 40, 8],
    "voxels.resolution": 1.0,
    "voxels.origin": [-20.0, -20.0, -1.0],
    "novel_views.steps": 0,
    "runtime.device": "cpu",
    "runtime.threads": 1,
}
MOST = {
    "novel_views.steps": 3,
    "novel_views.seeds": 3,
    "window.view_sets": 4,
    "images.width": 64,
    "voxels.shape": 60,
    "runtime.threads": 2,
}
"""Larger values are allowed and would only cost time."""
PATIENCE_S = 60.0
EXAMINED_EVERY, RECOVERED_EVERY = 20, 100
CONFIGURE, CLEANUP, ACTIVATE, DEACTIVATE = 1, 2, 3, 4
INTEGERS = (-(2**63), -1, 0, 1, 2, 3, 5, 16, 48, 64, 200, 2**31, 2**63 - 1)
NUMBERS = (-1e300, -1.0, 0.0, 1e-9, 0.05, 0.5, 1.0, 2.5, 45.0, 1e9, math.nan, math.inf, -math.inf)
WORDS = (
    "",
    "x",
    "left",
    "right",
    "/abs",
    "a b",
    "ü€",
    "../..",
    "~/a",
    "cpu",
    "a" * 5000,
    "{camera}",
)
SIZES = (0, 1, 2, 3, 16, 33, 64, 128, 2**16, 2**31, 2**32 - 1)


class FaultError(Exception):
    """The node did something that it must not."""


class Fuzz:
    """The node in its process, and everything that is sent to it."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.rng = random.Random(seed)
        self.log = folder / "node.log"
        self.counts = Counter()
        self.refused = 0
        self.history = []
        command = [sys.executable, "-m", "occany_ros.node", "--ros-args"]
        for name, value in (GOOD | {"files.directory": str(folder / "saved")}).items():
            command += ["-p", f"{name}:={value}".replace("'", "")]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        rclpy.init()
        self.node = rclpy.create_node("fuzz")
        self.executor = SingleThreadedExecutor()
        self.executor.add_node(self.node)
        self.grids = 0
        self.node.create_subscription(VoxelGrid, "/occany/output/voxel_grid", self.count, 10)
        self.publishers = {
            "raw": self.publisher(Image, f"/occany/input/{RAW}/image"),
            "packed": self.publisher(CompressedImage, f"/occany/input/{PACKED}/compressed"),
            "info": self.publisher(CameraInfo, f"/occany/input/{RAW}/camera_info"),
        }
        latched = QoSProfile(depth=5, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.publishers["tf"] = self.node.create_publisher(TFMessage, "/tf_static", latched)
        self.clients = {}
        self.declarations = [
            *NODE_DECLARATIONS,
            *core_declarations(),
            *(one for camera in CAMERAS for one in camera_declarations(camera)),
        ]

    def publisher(self, kind: type, topic: str) -> object:
        """Make a publisher."""
        return self.node.create_publisher(kind, topic, 10)

    def count(self, _: VoxelGrid) -> None:
        """Note a grid."""
        self.grids += 1

    # --- talking -------------------------------------------------------------------------------
    def spin_until(self, holds: object, what: str) -> None:
        """Spin until something holds, while the node lives.

        Raises:
            FaultError: It does not hold in time, or the node has ended.
        """
        deadline = time.monotonic() + PATIENCE_S
        while not holds():
            if self.process.poll() is not None:
                raise FaultError(f"the node ended with code {self.process.returncode}")
            if time.monotonic() > deadline:
                raise FaultError(f"{what} did not come within {PATIENCE_S:.0f} s")
            self.executor.spin_once(timeout_sec=0.02)

    def call(self, kind: type, service: str, request: object) -> object:
        """Call a service of the node and wait for the answer."""
        if service not in self.clients:
            self.clients[service] = self.node.create_client(kind, f"/occany/{service}")
        client = self.clients[service]
        self.spin_until(client.service_is_ready, f"the service {service}")
        future = client.call_async(request)
        self.spin_until(future.done, f"an answer of {service}")
        return future.result()

    def transition(self, number: int) -> bool:
        """Ask for a transition; whether it was done."""
        request = ChangeState.Request()
        request.transition.id = number
        return self.call(ChangeState, "change_state", request).success

    def set(self, values: dict[str, object]) -> bool:
        """Set parameters together; whether they were taken."""
        parameters = [
            Parameter(name, value=value).to_parameter_msg() for name, value in values.items()
        ]
        request = SetParametersAtomically.Request(parameters=parameters)
        return self.call(
            SetParametersAtomically, "set_parameters_atomically", request
        ).result.successful

    # --- random values -------------------------------------------------------------------------
    def header(self) -> Header:
        """A stamp and a frame, mostly plausible."""
        header = Header(frame_id=self.rng.choice(("left_optical_frame", *WORDS)))
        if self.rng.random() < 0.7:
            header.stamp.sec = 1000 + len(self.history)
        else:
            header.stamp.sec = self.rng.choice((-(2**31), -1, 0, 1, 2**31 - 1))
            header.stamp.nanosec = self.rng.choice((0, 999_999_999, 10**9, 2**32 - 1))
        return header

    def picture(self) -> np.ndarray:
        """A random picture."""
        height, width = self.rng.choice(
            ((72, 128), (64, 64), (33, 17), (1, 1), (200, 3), (3, 300))
        )
        seed = self.rng.randrange(2**32)
        return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)

    def number(self, name: str) -> int:
        """A whole number that costs no more than time allows."""
        return min(self.rng.choice(INTEGERS), MOST.get(name, 2**63))

    def value(self, one: Declaration) -> object:
        """A value for a parameter, of its type four times out of five."""
        name, default = one.name, one.default
        if self.rng.random() < 0.2:
            default = self.rng.choice((True, 1, 1.0, "text", (1.0,), ("a",)))
        if isinstance(default, bool):
            return self.rng.random() < 0.5
        if isinstance(default, int):
            return self.number(name)
        if isinstance(default, float):
            return self.rng.choice(NUMBERS)
        if isinstance(default, str):
            return self.rng.choice((*WORDS, *3 * one.choices))
        length = self.rng.choice((0, 1, 2, 3, 3, 3, 7, 20))
        kind = type(default[0]) if default else self.rng.choice((int, float, str))
        make = {int: lambda: self.number(name), float: lambda: self.rng.choice(NUMBERS)}
        return [make.get(kind, lambda: self.rng.choice(WORDS))() for _ in range(length)]

    # --- actions -------------------------------------------------------------------------------
    def good_images(self) -> str:
        """A view set that can be used, unless parameters forbid."""
        header = Header(frame_id="left_optical_frame")
        header.stamp.sec = 1000 + len(self.history)
        rgb = np.full((72, 128, 3), 90, np.uint8)
        rgb[:36] = 150, 180, 220
        self.publishers["raw"].publish(rgb_to_image(rgb, header))
        self.publishers["packed"].publish(self.compressed(rgb, header, "JPEG"))
        return "good"

    def compressed(self, rgb: np.ndarray, header: Header, kind: str) -> CompressedImage:
        """A picture in a file format."""
        buffer = io.BytesIO()
        mode = (
            self.rng.choice(("RGB", "L"))
            if kind == "JPEG"
            else self.rng.choice(("RGBA", "P", "1"))
        )
        PIL.Image.fromarray(rgb).convert(mode).save(buffer, kind)
        data = bytes_field(np.frombuffer(buffer.getvalue(), np.uint8))
        return CompressedImage(header=header, format=kind.lower(), data=data)

    def raw_image(self) -> str:
        """A raw image with one to three fields that do not fit."""
        message = rgb_to_image(self.picture(), self.header())
        for field in self.rng.sample(
            ("width", "height", "step", "encoding", "big", "data"), k=self.rng.randint(0, 3)
        ):
            if field == "encoding":
                message.encoding = self.rng.choice((*ENCODINGS, *WORDS, "32FC1"))
            elif field == "big":
                message.is_bigendian = self.rng.choice((0, 1, 255))
            elif field == "data":
                message.data = message.data[: self.rng.randrange(len(message.data) + 1)]
            else:
                setattr(message, field, self.rng.choice(SIZES))
        self.publishers["raw"].publish(message)
        return (
            f"raw {message.width} x {message.height} {message.encoding!r:.20} step {message.step}"
        )

    def packed_image(self) -> str:
        """A compressed image, whole or damaged."""
        message = self.compressed(
            self.picture(), self.header(), self.rng.choice(("JPEG", "PNG", "GIF"))
        )
        how = self.rng.choice(("whole", "cut", "flipped", "noise", "format"))
        data = bytearray(message.data)
        if how == "cut":
            data = data[: self.rng.randrange(len(data) + 1)]
        elif how == "flipped":
            for _ in range(self.rng.randint(1, 20)):
                data[self.rng.randrange(len(data))] = self.rng.randrange(256)
        elif how == "noise":
            data = bytearray(self.rng.randbytes(self.rng.randrange(2000)))
        elif how == "format":
            message.format = self.rng.choice((*WORDS, "16UC1; compressedDepth png"))
        message.data = bytes_field(np.frombuffer(bytes(data), np.uint8))
        self.publishers["packed"].publish(message)
        return f"packed {how}, {len(data)} bytes"

    def camera_info(self) -> str:
        """A calibration."""
        info = CameraInfo(
            header=self.header(), distortion_model=self.rng.choice((*WORDS, "fisheye"))
        )
        info.width, info.height = self.rng.choice(SIZES), self.rng.choice(SIZES)
        info.k = [float(self.rng.choice(NUMBERS)) for _ in range(9)]
        info.d = [
            float(self.rng.choice(NUMBERS)) for _ in range(self.rng.choice((0, 5, 14, 5000)))
        ]
        info.roi.width, info.roi.height = self.rng.choice(SIZES), self.rng.choice(SIZES)
        info.roi.x_offset = self.rng.choice(SIZES)
        self.publishers["info"].publish(info)
        return f"camera_info {info.width} x {info.height} k {info.k[0]}"

    def static_transforms(self) -> str:
        """Transforms: loops, frames without names, no rotations."""
        frames = ("base_link", "left_optical_frame", "right_optical_frame", *WORDS)
        message = TFMessage()
        for _ in range(self.rng.randint(0, 4)):
            one = TransformStamped(child_frame_id=self.rng.choice(frames))
            one.header.frame_id = self.rng.choice(frames)
            one.transform.translation = Vector3(x=self.rng.choice(NUMBERS), y=0.0, z=1.0)
            one.transform.rotation = Quaternion(
                x=self.rng.choice(NUMBERS), w=self.rng.choice(NUMBERS)
            )
            message.transforms.append(one)
        self.publishers["tf"].publish(message)
        return f"tf_static of {[one.child_frame_id[:20] for one in message.transforms]}"

    def parameters(self) -> str:
        """One to three parameters at once."""
        values = {
            one.name: self.value(one)
            for one in self.rng.sample(self.declarations, k=self.rng.randint(1, 3))
        }
        taken = self.set(values)
        self.refused += not taken
        return f"parameters {values!s:.200} {'taken' if taken else 'refused'}"

    def lifecycle(self) -> str:
        """A transition, whether it is possible or not; usually followed by the way back."""
        number = self.rng.choice((CONFIGURE, CLEANUP, ACTIVATE, DEACTIVATE))
        done = self.transition(number)
        return f"transition {number} {'done' if done else 'refused'}"

    def service(self) -> str:
        """A service of the node."""
        word = self.rng.choice((*WORDS, "street", "street_2"))
        corner = [self.rng.choice(NUMBERS) for _ in range(6)]
        box = {"lower": Point(x=corner[0], y=corner[1]), "upper": Point(x=corner[3], y=corner[4])}
        kinds = {
            "reset": (Trigger, {}),
            "save": (Save, {"name": word}),
            "load": (Load, {"name": word}),
            "set_camera_enabled": (
                SetCameraEnabled,
                {"name": word, "enabled": self.rng.random() < 0.8},
            ),
            "get_voxel_grid": (GetVoxelGrid, {"frame_id": word, **box}),
        }
        name = self.rng.choice(sorted(kinds))
        kind, fields = kinds[name]
        request = kind.Request()
        for field, content in fields.items():
            if hasattr(request, field):
                setattr(request, field, content)
        answer = self.call(kind, name, request)
        return f"service {name} {word!r:.20} {'done' if answer.success else 'refused'}"

    # --- the run -------------------------------------------------------------------------------
    def run(self, actions: int) -> None:
        """Do so many actions, and examine the node now and then.

        Raises:
            FaultError: The node ended, or did not answer.
        """
        self.spin_until(self.publishers["raw"].get_subscription_count, "the node")
        kinds = {
            self.raw_image: 6,
            self.packed_image: 6,
            self.good_images: 6,
            self.camera_info: 2,
            self.static_transforms: 1,
            self.parameters: 6,
            self.service: 3,
            self.lifecycle: 1,
        }
        for number in range(actions):
            action = self.rng.choices(list(kinds), list(kinds.values()))[0]
            self.history.append(action())
            self.counts[action.__name__] += 1
            self.executor.spin_once(timeout_sec=0.03)
            if number % EXAMINED_EVERY == 0:
                self.examine()
            if number % RECOVERED_EVERY == 0:
                self.recover()

    def examine(self) -> None:
        """Ask the node something; bring it back to active, with what parameters it has."""
        request = GetParameters.Request(names=["voxels.resolution"])
        self.call(GetParameters, "get_parameters", request)
        for number in (CONFIGURE, ACTIVATE):
            self.transition(number)

    def recover(self) -> None:
        """Set everything back and wait for a grid.

        Raises:
            FaultError: No grid comes.
        """
        for number in (DEACTIVATE, CLEANUP):
            self.transition(number)
        defaults = {
            one.name: list(one.default) if isinstance(one.default, tuple) else one.default
            for one in self.declarations
            if not one.is_fixed
        }
        if not self.set(defaults | GOOD):
            raise FaultError("the good parameters are refused")
        if not (self.transition(CONFIGURE) and self.transition(ACTIVATE)):
            raise FaultError("the node cannot be configured with good parameters")
        wanted, deadline = self.grids + 1, time.monotonic() + PATIENCE_S
        while self.grids < wanted:
            self.history.append(self.good_images())
            self.executor.spin_once(timeout_sec=0.1)
            if time.monotonic() > deadline:
                raise FaultError("no grid of good pictures")

    def close(self) -> None:
        """End everything.

        Raises:
            FaultError: The node does not end cleanly.
        """
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            code = self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise FaultError("the node does not end") from None
        finally:
            self.executor.shutdown()
            rclpy.try_shutdown()
        if code != 0:
            raise FaultError(f"the node ended with code {code}")


def main() -> int:
    """Run; 1 where the node did something wrong."""
    parser = argparse.ArgumentParser(description="Send random things to the running node.")
    parser.add_argument("--actions", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        fuzz = Fuzz(asked.seed, Path(folder))
        fault = None
        try:
            fuzz.run(asked.actions)
            fuzz.recover()
        except FaultError as error:
            fault = error
        try:
            fuzz.close()
        except FaultError as error:
            fault = fault or error
        said = fuzz.log.read_text()
    counts = ", ".join(f"{count} {name}" for name, count in sorted(fuzz.counts.items()))
    print(
        f"seed {asked.seed}: {len(fuzz.history)} actions in {time.monotonic() - began:.0f} s "
        f"({counts}; {fuzz.refused} parameter sets refused), {fuzz.grids} grids"
    )
    if fault or "Traceback" in said:
        print("\n".join(f"  sent: {action}" for action in fuzz.history[-25:]))
        print("\n".join(f"  node: {line}" for line in said.splitlines()[-40:]))
        print(f"fault: {fault or 'a traceback'}")
        return 1
    print("no crash, no hang, and a grid afterwards")
    return 0


if __name__ == "__main__":
    sys.exit(main())
