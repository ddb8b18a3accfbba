# SPDX-License-Identifier: Apache-2.0
"""Which pixels of a camera show its own vehicle: a mask topic -> pixels to be ignored.

A mask counts from its arrival until the next one comes. Latched publishers are met, and others.
"""

from collections.abc import Callable

import numpy as np
import PIL.Image
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from sensor_msgs.msg import Image

from occany_core.errors import InputError
from occany_ros.image_messages import image_to_rgb

ENCODINGS = ("mono8", "8UC1")
ASPECT_TOLERANCE = 0.02
"""Masks may be rounded to whole pixels at another size than the pictures."""


class MaskInput:
    """One camera's mask, where there is one."""

    def __init__(self, node: Node, topic: str, subscribe: Callable[..., Subscription]) -> None:
        """Subscribe.

        Args:
            node: Whose subscriptions they are.
            topic: Before remapping.
            subscribe: Makes one of type, topic, callback and QoS, or refuses the topic in words.
        """
        self.message: Image | None = None
        self._node = node
        # Only a subscription that asks for it gets what a latched publisher sent before, and only
        # one that does not ask hears the others.
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        volatile = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
        self._subscriptions = [
            subscribe(Image, topic, self._receive, qos) for qos in (latched, volatile)
        ]

    def _receive(self, message: Image) -> None:
        self.message = message

    @property
    def topic(self) -> str:
        """The topic after remapping."""
        return self._subscriptions[0].topic_name

    def close(self) -> None:
        """End the subscriptions."""
        for subscription in self._subscriptions:
            self._node.destroy_subscription(subscription)


def ignored_pixels(message: Image, topic: str, height: int, width: int) -> np.ndarray:
    """Return which pixels (height, width) of a picture a mask ignores: where it is not zero.

    Raises:
        InputError: The mask has another encoding or shape, or leaves nothing of the picture.
    """
    if message.encoding not in ENCODINGS:
        raise InputError(f"{topic}: the mask is {message.encoding!r}; publish it as mono8")
    mask = image_to_rgb(message, topic)[..., 0] != 0
    stretch = mask.shape[1] / mask.shape[0] / (width / height)
    if abs(stretch - 1) > ASPECT_TOLERANCE:
        raise InputError(
            f"{topic}: the mask is {mask.shape[1]} x {mask.shape[0]} and the pictures, decoded, "
            f"are {width} x {height}; publish it in the shape of the pictures"
        )
    if mask.all():
        raise InputError(
            f"{topic}: the mask ignores every pixel; set camera.NAME.enabled to false instead"
        )
    if mask.shape == (height, width):
        return mask
    # Any touched pixel is ignored.
    levels = PIL.Image.fromarray(mask.astype(np.float32))
    return np.asarray(levels.resize((width, height), PIL.Image.Resampling.BOX)) > 0
