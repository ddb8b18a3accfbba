# SPDX-License-Identifier: Apache-2.0
"""Cameras that are slow, skewed or absurd, and transforms that come late: the running node."""

import array
import itertools
import struct
import zlib

import numpy as np
import pytest

pytest.importorskip("rclpy")

from geometry_msgs.msg import TransformStamped
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header
from street_rig import camera_info, image_message, rig_transforms, street
from test_node import MS, Bench
from tf2_msgs.msg import TFMessage

from occany_core.errors import InputError
from occany_ros import subscriptions, transforms
from occany_ros.image_messages import rgb_to_image

PATIENCE_S = 60.0
PAIR = ("left", "right")
START_NS = 1000 * 10**9
WARN, ERROR = b"\x01", b"\x02"


class Rig(Bench):
    """A bench whose cameras send by themselves while the node spins."""

    def keep_sending(self, camera, period_s, skew_ns=0):
        self.publisher(CompressedImage, f"/occany/input/{camera}/compressed")
        count = itertools.count()

        def send():
            step = next(count)
            self.send([camera], START_NS + skew_ns + round(step * period_s * 1e9), step)

        self.tester.create_timer(period_s, send)


@pytest.fixture
def rig(ros):
    return Rig(ros)


def test_a_camera_ten_times_slower_is_named_and_grids_go_on(rig):
    rig.running(PAIR, transport="compressed", sync__max_wait=0.2)
    rig.keep_sending("left", 0.2)
    rig.keep_sending("right", 2.0)
    finding = rig.finding("camera right", "and the fastest camera has", PATIENCE_S)
    assert finding.level == WARN
    assert "set sync.policy to latest" in finding.message
    grids = len(rig.grids)
    rig.ros.spin_until(lambda: len(rig.grids) > grids + 5, PATIENCE_S, "grids of the fast one")
    names = {tuple(status.camera_names) for status in rig.received["/occany/status"]}
    assert ("left",) in names


def test_skewed_stamps_are_explained_with_their_difference(rig):
    node = rig.running(PAIR, transport="compressed", sync__min_cameras=2)
    rig.keep_sending("left", 1.0)
    rig.keep_sending("right", 1.0, skew_ns=300 * MS)
    finding = rig.finding("synchroniser", "s apart and 0.050 s are allowed", PATIENCE_S)
    assert finding.level == ERROR
    assert "no complete view set: the stamps of" in finding.message
    assert "raise sync.max_skew or set sync.policy to latest" in finding.message
    assert rig.grids == []
    # The remedy works.
    assert rig.set(node, sync__max_skew=0.4).successful
    rig.ros.spin_until(lambda: rig.grids, PATIENCE_S, "a grid with the remedy")


def test_skewed_stamps_that_leave_one_camera_are_explained_too(rig):
    rig.running(PAIR, transport="compressed", sync__max_wait=0.2)
    rig.keep_sending("left", 1.0)
    rig.keep_sending("right", 1.0, skew_ns=300 * MS)
    finding = rig.finding("synchroniser", "with cameras missing: the stamps of", PATIENCE_S)
    assert finding.level == WARN
    assert "raise sync.max_skew" in finding.message
    rig.ros.spin_until(lambda: rig.grids, PATIENCE_S, "a grid of one camera")


# --- sizes ---------------------------------------------------------------------------------------


def header(second):
    message = Header(frame_id="camera_optical_frame")
    message.stamp.sec = second
    return message


def raw(second, **changes):
    message = rgb_to_image(street("camera", second), header(second))
    for name, value in changes.items():
        setattr(message, name, value)
    return message


def png_that_claims(width, height):
    """A PNG of a few bytes whose header promises a large picture."""

    def chunk(kind, data):
        check = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", check)

    content = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    content += chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")
    return array.array("B", b"\x89PNG\r\n\x1a\n" + content)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"width": 0, "height": 0, "step": 0}, "a picture of 0 x 0 pixels; expected between 1"),
        ({"width": 10_000, "height": 10_000, "step": 30_000}, "a picture of 10000 x 10000 pixels"),
        ({"width": 8000, "height": 8000, "step": 24_000}, "bytes do not hold 8000 x 8000 pixels"),
        ({"step": 2**32 - 1}, "with rows of 4294967295 bytes do not hold 128 x 72 pixels"),
        ({"width": 1, "height": 2**32 - 1, "step": 3}, "a picture of 1 x 4294967295 pixels"),
        ({"data": array.array("B")}, "0 bytes with rows of 384 bytes do not hold"),
    ],
)
def test_raw_images_of_absurd_size_are_refused_in_words(rig, changes, sentence):
    rig.running()
    publisher = rig.publisher(Image, "/occany/input/camera/image")
    publisher.publish(raw(1000, **changes))
    finding = rig.finding("camera camera", sentence)
    assert finding.level == ERROR
    assert "/occany/input/camera/image" in finding.message
    assert "check the driver" in finding.message
    publisher.publish(raw(1001))
    rig.ros.spin_until(lambda: rig.grids, PATIENCE_S, "a grid of the good image")


@pytest.mark.parametrize("size", [(10_000, 10_000), (60_000, 60_000), (2**31 - 1, 2**31 - 1)])
def test_compressed_images_that_claim_to_be_huge_are_refused_in_words(rig, size):
    rig.running(transport="compressed")
    publisher = rig.publisher(CompressedImage, "/occany/input/camera/compressed")
    data = png_that_claims(*size)
    publisher.publish(CompressedImage(header=header(1000), format="png", data=data))
    finding = rig.finding("camera camera", "/occany/input/camera/compressed: ")
    assert finding.level == ERROR
    assert "million pixels" in finding.message or "cannot decode" in finding.message
    rig.send_until_grid(["camera"], 1001 * 10**9)


def test_more_image_bytes_than_allowed_are_refused_on_arrival(rig, monkeypatch):
    monkeypatch.setattr(subscriptions, "MAX_BYTES", 1_000_000)
    node = rig.running(transport="compressed")
    publisher = rig.publisher(CompressedImage, "/occany/input/camera/compressed")
    data = array.array("B", bytes(2_500_000))
    publisher.publish(CompressedImage(header=header(1000), format="jpeg", data=data))
    finding = rig.finding("camera camera", "an image of 2 MB; at most 1 MB are taken")
    assert finding.level == ERROR
    assert node._sync.counters.received == 0
    rig.send_until_grid(["camera"], 1001 * 10**9)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"d": [0.01] * 100_000}, "its D holds 100000 numbers, more than the 14 of any model"),
        ({"k": [float("inf")] * 9}, "its focal length of inf px does not go with pictures 128"),
        ({"k": [1e-6, 0, 0, 0, 1e-6, 0, 0, 0, 1]}, "its focal length of 1e-06 px does not go"),
        ({"k": [float("nan")] * 9}, "its focal length of nan px does not go with pictures 128"),
        ({"k": [80, 0, 130, 0, 80, 30, 0, 0, 1]}, "(130, 30) lies outside the 128x"),
        ({"k": [80, 0, 0, 0, 80, 0, 64, 30, 1]}, "it must be [[fx, 0, cx], [0, fy, cy], [0, 0"),
        ({"d": [-0.4, 0.1, 0.0, 0.0, 0.0]}, "distortion is too strong for a pinhole camera"),
    ],
)
def test_absurd_calibrations_are_named_and_not_used(rig, changes, sentence):
    rig.running(transport="compressed")
    info = camera_info("camera", header(1000))
    info.distortion_model = "plumb_bob"
    for name, value in changes.items():
        setattr(info, name, [float(item) for item in value])
    publisher = rig.publisher(CameraInfo, "/occany/input/camera/camera_info")
    publisher.publish(info)
    rig.ros.spin_for(0.3)
    rig.send_until_grid(["camera"], START_NS)
    finding = rig.finding("camera camera", sentence)
    assert finding.level == WARN
    assert finding.message.startswith("camera camera: its calibration is not used: ")


# --- transforms ----------------------------------------------------------------------------------


LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def test_a_transform_that_comes_late_is_missed_and_then_used(rig):
    rig.running(("front",), transport="compressed")
    infos = rig.publisher(CameraInfo, "/occany/input/front/camera_info")
    infos.publish(camera_info("front", header(1000)))
    rig.ros.spin_for(0.3)
    rig.send_until_grid(["front"], START_NS)
    finding = rig.finding("geometry", "no transform from 'front_optical_frame' to 'base_link'")
    assert finding.level == WARN
    assert "publish it on /tf_static, set camera.NAME.rig_from_cam" in finding.message
    assert rig.last_status().frame_source == "assumed level"
    rig.publisher(TFMessage, "/tf_static", LATCHED).publish(rig_transforms())
    rig.ros.spin_for(0.3)
    rig.send_until_grid(["front"], 1100 * 10**9, count=2)
    rig.finding("geometry", "frame from extrinsics")
    rig.ros.spin_until(
        lambda: rig.last_status().frame_source == "extrinsics", PATIENCE_S, "the status"
    )


def test_absurd_transforms_are_told_and_do_no_harm(rig, capfd):
    rig.running(("front",), transport="compressed")
    publisher = rig.publisher(TFMessage, "/tf_static", LATCHED)
    message = rig_transforms()
    message.transforms[0].transform.translation.x = float("nan")
    message.transforms[1].transform.rotation.x = float("inf")
    loop = TransformStamped(child_frame_id="base_link")
    loop.header.frame_id = "base_link"
    loop.transform.rotation.w = 1.0
    message.transforms.append(loop)
    publisher.publish(message)
    rig.ros.spin_for(0.3)
    rig.send_until_grid(["front"], START_NS)
    finding = rig.finding("geometry", "front_optical_frame")
    assert finding.level == WARN
    if not transforms.HAS_TF_BUFFER:
        said = capfd.readouterr().err
        assert "position [nan, 0.0, 1.6] is not finite" in said


def test_the_static_tree_takes_so_many_frames_and_no_more(monkeypatch):
    monkeypatch.setattr(transforms, "MAX_FRAMES", 3)
    tree = transforms.StaticTree()
    for child in "abca":
        tree.insert("base_link", child, np.eye(4))
    with pytest.raises(InputError, match="more than 3 frames; check who publishes on /tf_static"):
        tree.insert("base_link", "d", np.eye(4))
    assert tree.lookup("base_link", "d") is None


def test_pictures_may_change_size_while_the_node_runs(rig):
    rig.running(transport="compressed", window__view_sets=2)
    publisher = rig.publisher(CompressedImage, "/occany/input/camera/compressed")
    sizes = [(72, 128), (144, 256), (100, 80), (90, 160)]
    for step, (height, width) in enumerate(sizes):
        stamp_ns = START_NS + step * 10**9
        publisher.publish(image_message("camera", stamp_ns, step, height=height, width=width))
        rig.ros.spin_until(
            lambda: rig.grids and rig.grids[-1].header.stamp.sec == 1000 + step,  # noqa: B023
            PATIENCE_S,
            f"a grid of {width} x {height}",
        )
    assert rig.last_status().last_error == ""
