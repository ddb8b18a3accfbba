# SPDX-License-Identifier: Apache-2.0
"""What one camera saw -> `~/output/NAME/depth`, `confidence`, `mask` and `camera_info`.

All have the size of the network's picture, and stamp and frame of the camera's image. Each is made
only while somebody listens to it.
"""

import numpy as np
from rclpy.node import Node
from rclpy.publisher import Publisher
from rclpy.qos import QoSProfile
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from occany_core import Scene
from occany_ros.image_messages import plane_to_image

KINDS = {"depth": Image, "confidence": Image, "mask": Image, "camera_info": CameraInfo}


class CameraOutputs:
    """The topics of all cameras."""

    def __init__(self, node: Node, cameras: tuple[str, ...]) -> None:
        self._node = node
        self._publishers = {
            (camera, name): node.create_publisher(
                kind, f"~/output/{camera}/{name}", QoSProfile(depth=1)
            )
            for camera in cameras
            for name, kind in KINDS.items()
        }

    def publish(self, scene: Scene, headers: dict[str, Header]) -> None:
        """Publish what the newest view set shows.

        Args:
            scene: Of the window that ends with this set.
            headers: Stamp and optical frame by camera, for those that are in the set.
        """
        newest = max(scene.set_index)
        for view, camera in enumerate(scene.camera_names):
            if scene.set_index[view] == newest:
                self._publish_view(scene, view, headers[camera])

    def _publish_view(self, scene: Scene, view: int, header: Header) -> None:
        camera = scene.camera_names[view]
        if publisher := self._listened(camera, "depth"):
            publisher.publish(plane_to_image(depth_of(scene, view), header))
        if publisher := self._listened(camera, "confidence"):
            confidence = np.asarray(scene.observed.confidence[view], np.float32)
            publisher.publish(plane_to_image(confidence, header))
        if scene.labels is not None and (publisher := self._listened(camera, "mask")):
            publisher.publish(plane_to_image(scene.labels[view], header))
        if publisher := self._listened(camera, "camera_info"):
            K = np.asarray(scene.cameras.K[view], np.float64)
            publisher.publish(pinhole_message(K, scene.rgb.shape[1:3], header))

    def _listened(self, camera: str, name: str) -> Publisher | None:
        publisher = self._publishers[camera, name]
        return publisher if publisher.get_subscription_count() else None

    def close(self) -> None:
        """Remove the publishers."""
        for publisher in self._publishers.values():
            self._node.destroy_publisher(publisher)


def depth_of(scene: Scene, view: int) -> np.ndarray:
    """Return the depth (H, W) [m] of an observed view; not a number where it is ignored."""
    depth = np.asarray(scene.observed.points_cam[view, ..., 2], np.float32)
    return np.where(np.asarray(scene.observed.confidence[view]) > 1, depth, np.float32("nan"))


def pinhole_message(K: np.ndarray, size: tuple[int, int], header: Header) -> CameraInfo:
    """Make the calibration of a camera without distortion.

    Args:
        K: (3, 3) [px].
        size: Height and width [px].
        header: Stamp and optical frame.
    """
    info = CameraInfo(header=header, height=int(size[0]), width=int(size[1]))
    info.distortion_model, info.d = "plumb_bob", [0.0] * 5
    info.k = K.reshape(-1).tolist()
    info.r = np.eye(3).reshape(-1).tolist()
    info.p = np.hstack((K, np.zeros((3, 1)))).reshape(-1).tolist()
    return info
