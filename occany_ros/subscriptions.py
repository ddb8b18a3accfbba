# SPDX-License-Identifier: Apache-2.0
"""One camera's topics: images (raw or compressed) and, where there are any, CameraInfo and mask.

Depth 1, newest wins. The image subscription asks for reliable delivery as long as every publisher
offers it, because large best-effort images get lost with default middleware settings.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from rclpy.exceptions import InvalidTopicNameException
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from occany_core.errors import ConfigError
from occany_ros.cycle_times import EventRate
from occany_ros.diagnostics import CameraState
from occany_ros.ego_masks import MaskInput
from occany_ros.image_messages import MAX_BYTES
from occany_ros.node_settings import CameraSettings
from occany_ros.sync_rules import SyncRules

RELIABLE, BEST_EFFORT = ReliabilityPolicy.RELIABLE, ReliabilityPolicy.BEST_EFFORT
ImageMessage = Image | CompressedImage


def describe(message: ImageMessage) -> str:
    """Return size and encoding for people."""
    if isinstance(message, CompressedImage):
        return f"{message.format or 'compressed'}, {len(message.data) / 1000:.0f} kB"
    return f"{message.width} x {message.height} {message.encoding}"


@dataclass(slots=True)
class Reception:
    """What arrived from one camera."""

    received: int = 0
    rate: EventRate = field(default_factory=EventRate)
    image: str = ""
    newest_stamp_s: float | None = None
    error: str = ""
    """Why the last image could not be used; set and cleared by whoever decodes it."""
    warning: str = ""
    """What is wrong with calibration or mask."""


class CameraInput:
    """Subscribes to a camera; hands every image to `on_image(camera name, message)`."""

    def __init__(
        self, node: Node, settings: CameraSettings, on_image: Callable[[str, ImageMessage], None]
    ) -> None:
        self.settings = settings
        self.reception = Reception()
        self.camera_info: CameraInfo | None = None
        self._node = node
        self._on_image = on_image
        is_raw = settings.transport == "raw"
        self._type = Image if is_raw else CompressedImage
        self._reliability = BEST_EFFORT if settings.reliability == "best_effort" else RELIABLE
        self._images: Subscription | None = None
        self._infos: Subscription | None = None
        self.mask: MaskInput | None = None
        self._images = self._subscribe()
        self._infos = self._created(
            CameraInfo,
            settings.info_topic,
            self._on_info,
            QoSProfile(depth=1, reliability=BEST_EFFORT),
        )
        self.mask = MaskInput(node, settings.mask_topic, self._created)
        self.match_reliability()

    @property
    def topic(self) -> str:
        """The image topic after remapping."""
        return self._images.topic_name

    def _subscribe(self) -> Subscription:
        qos = QoSProfile(depth=1, reliability=self._reliability)
        return self._created(self._type, self.settings.image_topic, self._receive, qos)

    def _created(
        self, kind: type, topic: str, receive: Callable[[object], None], qos: QoSProfile
    ) -> Subscription:
        try:
            return self._node.create_subscription(kind, topic, receive, qos)
        except (InvalidTopicNameException, ValueError) as error:
            self.close()
            raise ConfigError(
                f"camera {self.settings.name}: {topic!r} is no name of a topic ({error}); check "
                "the parameters topics.image, topics.compressed, topics.camera_info, topics.mask"
            ) from error

    def _receive(self, message: ImageMessage) -> None:
        stamp = message.header.stamp
        self.reception.received += 1
        self.reception.rate.note(time.monotonic())
        self.reception.image = describe(message)
        if len(message.data) > MAX_BYTES:
            self.reception.error = (
                f"{self.topic}: an image of {len(message.data) // 1_000_000} MB; at most "
                f"{MAX_BYTES // 1_000_000} MB are taken, publish smaller ones"
            )
            return
        self.reception.newest_stamp_s = stamp.sec + stamp.nanosec * 1e-9
        self._on_image(self.settings.name, message)

    def _on_info(self, message: CameraInfo) -> None:
        self.camera_info = message

    def match_reliability(self) -> None:
        """Subscribe anew when the publishers offer something else than before."""
        if self.settings.reliability != "auto":
            return
        offers = [offer.qos_profile.reliability for offer in self._publishers()]
        wanted = BEST_EFFORT if BEST_EFFORT in offers else RELIABLE
        if offers and wanted != self._reliability:
            self._node.destroy_subscription(self._images)
            self._reliability = wanted
            self._images = self._subscribe()

    def _publishers(self) -> list:
        return self._node.get_publishers_info_by_topic(self.topic, no_mangle=False)

    def state(self, silence_s: float | None, is_left_out: bool, rules: SyncRules) -> CameraState:
        """Collect what diagnostics need."""
        name = self.settings.name
        publishers = self._publishers()
        offers = [publisher.qos_profile.reliability for publisher in publishers]
        return CameraState(
            name=name,
            topic=self.topic,
            publishers=len(publishers),
            silence_s=silence_s if self.reception.received else None,
            is_left_out=is_left_out,
            is_required=name in rules.required_cameras,
            is_enabled=name not in rules.disabled_cameras,
            rate_hz=self.reception.rate.hertz(time.monotonic()),
            received=self.reception.received,
            reliability=self._reliability.name.lower(),
            offers_only_best_effort=bool(offers) and set(offers) == {BEST_EFFORT},
            image=self.reception.image,
            error=self.reception.error,
            warning=self.reception.warning,
        )

    def close(self) -> None:
        """End the subscriptions."""
        for subscription in (self._images, self._infos):
            if subscription is not None:
                self._node.destroy_subscription(subscription)
        if self.mask is not None:
            self.mask.close()
