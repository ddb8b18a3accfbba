# SPDX-License-Identifier: Apache-2.0
"""Masks of the own vehicle over real DDS: what they hide gives nothing; wrong ones are named."""

import numpy as np
import pytest

pytest.importorskip("rclpy")

from rclpy.qos import QoSProfile
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import Header
from test_node import Bench
from test_services import LATCHED

from occany_core.errors import InputError
from occany_ros.ego_masks import ignored_pixels
from occany_ros.image_messages import plane_to_image, rgb_to_image

PATIENCE_S = 60.0


def lower_half(height=72, width=128):
    mask = np.zeros((height, width), np.uint8)
    mask[height // 2 :] = 200
    return plane_to_image(mask, Header())


@pytest.fixture
def bench(ros):
    return Bench(ros)


@pytest.mark.parametrize("qos", [LATCHED, QoSProfile(depth=1)], ids=["latched", "volatile"])
def test_what_a_mask_hides_gives_no_points(bench, qos):
    publisher = bench.tester.create_publisher(Image, "/occany/input/camera/mask", qos)
    if qos is LATCHED:
        publisher.publish(lower_half())  # nobody listens yet
    bench.running(transport="compressed", voxels__min_confidence=1.0)
    depths = bench.listen(Image, "/occany/output/camera/depth")
    labels = bench.listen(Image, "/occany/output/camera/mask")
    clouds = bench.listen(PointCloud2, "/occany/output/points")
    if qos is not LATCHED:
        bench.ros.spin_until(
            lambda: publisher.get_subscription_count() >= 1, PATIENCE_S, "a subscriber"
        )
        bench.send_until_grid(["camera"], 10**12)
        bench.ros.spin_until(lambda: clouds, PATIENCE_S, "points without a mask")
        assert clouds[-1].width == 32 * 64
        publisher.publish(lower_half())
    step = iter(range(1000))

    def is_masked():
        bench.send_until_grid(["camera"], (2000 + 100 * next(step)) * 10**9)
        return clouds and clouds[-1].width == 16 * 64

    bench.ros.spin_until(is_masked, PATIENCE_S, "points of the upper half only")
    stamp = clouds[-1].header.stamp
    bench.ros.spin_until(
        lambda: all(any(one.header.stamp == stamp for one in found) for found in (depths, labels)),
        PATIENCE_S,
        "pictures of the same cycle",
    )
    depth, classes = (
        next(one for one in found if one.header.stamp == stamp) for found in (depths, labels)
    )
    depth = np.frombuffer(depth.data, np.float32).reshape(32, 64)
    assert np.isfinite(depth[:16]).all()
    assert np.isnan(depth[16:]).all()
    classes = np.frombuffer(classes.data, np.uint8).reshape(32, 64)
    assert (classes[:16] != 255).all()
    assert (classes[16:] == 255).all()


def test_a_mask_that_does_not_fit_is_named_and_all_pixels_count(bench):
    bench.running(transport="compressed", voxels__min_confidence=1.0)
    clouds = bench.listen(PointCloud2, "/occany/output/points")
    publisher = bench.publisher(Image, "/occany/input/camera/mask", LATCHED)
    square = plane_to_image(np.full((50, 50), 255, np.uint8), Header())
    colour = rgb_to_image(np.zeros((72, 128, 3), np.uint8), Header())
    for stamp, message, words in (
        (1000 * 10**9, square, "the mask is 50 x 50 and the pictures, decoded, are 64 x 36"),
        (
            200_000 * 10**9,
            colour,
            "the mask is 'rgb8'; publish it as mono8; until then all pixels",
        ),
    ):
        publisher.publish(message)
        step = iter(range(1000))

        def is_named(stamp=stamp, step=step, words=words):
            bench.send_until_grid(["camera"], stamp + 100 * next(step) * 10**9)
            said = [
                one.message for found in bench.received["/diagnostics"] for one in found.status
            ]
            return any(words in text for text in said)

        bench.ros.spin_until(is_named, PATIENCE_S, words)
        finding = bench.finding("camera camera", words)
        assert "/occany/input/camera/mask" in finding.message
        assert finding.level == b"\x01"
    bench.ros.spin_until(lambda: clouds, PATIENCE_S, "points")
    assert clouds[-1].width == 32 * 64


def test_masks_of_other_sizes_are_scaled_and_hide_what_they_touch():
    message = lower_half(144, 256)
    np.testing.assert_array_equal(
        ignored_pixels(message, "mask", 72, 128), np.arange(72)[:, None].repeat(128, 1) >= 36
    )
    larger = ignored_pixels(lower_half(36, 64), "mask", 72, 128)
    assert larger[36:].all() and not larger[:36].any()
    dot = np.zeros((144, 256), np.uint8)
    dot[100, 100] = 1
    found = ignored_pixels(plane_to_image(dot, Header()), "mask", 72, 128)
    assert np.argwhere(found).tolist() == [[50, 50]]
    everything = plane_to_image(np.ones((72, 128), np.uint8), Header())
    with pytest.raises(InputError, match="mask: the mask ignores every pixel"):
        ignored_pixels(everything, "mask", 72, 128)
