# SPDX-License-Identifier: Apache-2.0
"""A rendered drive as a ROS 2 bag: view sets -> rosbag2 folder (MCAP) with standard messages.

Per camera sensor_msgs/CompressedImage and CameraInfo, and one latched tf2_msgs/TFMessage from
base_link (x forward, y left, z up, on the ground) to the optical frames (x right, y down, z
forward). Needs the package rosbags, imported only when a bag is written.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from occany_core.errors import InputError
from occany_core.synthetic.rigs import RigCamera

if TYPE_CHECKING:
    from rosbags.interfaces import Connection, Qos
    from rosbags.rosbag2 import Writer

BASE_FRAME = "base_link"
START_NANOSECONDS = 1_700_000_000 * 1_000_000_000
JPEG_QUALITY = 80
BAG_VERSION = 8  # metadata version; 9 would lock out ROS 2 releases before Jazzy


@dataclass(frozen=True)
class ViewSet:
    """Pictures of all cameras at one moment, with the truth around the vehicle.

    seconds since the start; rgb (C,H,W,3) uint8; semantics (200,200,16) uint8 Occ3D class and
    mask_camera bool, both in the rig frame at that moment on `OCC3D_GRID`.
    """

    seconds: float
    rgb: np.ndarray
    semantics: np.ndarray
    mask_camera: np.ndarray


@dataclass(frozen=True)
class CameraTopics:
    """Names under which one camera appears in the bag."""

    image: str
    camera_info: str
    frame: str


def ros_topics_of(camera: str) -> CameraTopics:
    """Topics and frame of a camera of the recording."""
    return CameraTopics(
        image=f"/camera/{camera}/image/compressed",
        camera_info=f"/camera/{camera}/camera_info",
        frame=f"{camera}_optical_frame",
    )


def stamp_of(seconds: float) -> int:
    """Nanoseconds since the epoch for a time since the start of the recording."""
    return START_NANOSECONDS + round(seconds * 1e9)


def jpeg(rgb: np.ndarray) -> bytes:
    """JPEG bytes of a picture (H,W,3) uint8."""
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, "JPEG", quality=JPEG_QUALITY, optimize=True)
    return buffer.getvalue()


def write_bag(path: Path, rig: list[RigCamera], view_sets: list[ViewSet]) -> None:
    """Writes a rosbag2 folder (MCAP) with pictures, calibration and static transforms."""
    try:
        from rosbags.rosbag2 import StoragePlugin, Writer
    except ImportError as error:
        raise InputError("writing a bag needs the package rosbags: pip install rosbags") from error
    with Writer(path, version=BAG_VERSION, storage_plugin=StoragePlugin.MCAP) as writer:
        writer.set_custom_data("generator", "occany_core.synthetic.recording")
        _BagContent(writer, rig).write(view_sets)


class _BagContent:
    """Connections and messages of one bag that is open for writing."""

    def __init__(self, writer: "Writer", rig: list[RigCamera]) -> None:
        from rosbags.typesys import Stores, get_typestore

        self.writer = writer
        self.rig = rig
        self.typestore = get_typestore(Stores.ROS2_HUMBLE)
        self.tf_static = self._connect("/tf_static", "tf2_msgs/msg/TFMessage", latched=True)
        self.images, self.infos = {}, {}
        for camera in rig:
            topics = ros_topics_of(camera.name)
            self.infos[camera.name] = self._connect(
                topics.camera_info, "sensor_msgs/msg/CameraInfo"
            )
            self.images[camera.name] = self._connect(
                topics.image, "sensor_msgs/msg/CompressedImage"
            )

    def write(self, view_sets: list[ViewSet]) -> None:
        """All messages in order of time."""
        start = stamp_of(view_sets[0].seconds)
        self._put(self.tf_static, start, self._transforms(start))
        for view_set in view_sets:
            stamp = stamp_of(view_set.seconds)
            height, width = view_set.rgb.shape[1:3]
            for camera, rgb in zip(self.rig, view_set.rgb, strict=True):
                header = self._header(stamp, ros_topics_of(camera.name).frame)
                info = self._camera_info(header, camera, width, height)
                self._put(self.infos[camera.name], stamp, info)
                picture = self._type("sensor_msgs/msg/CompressedImage")(
                    header=header, format="jpeg", data=np.frombuffer(jpeg(rgb), np.uint8)
                )
                self._put(self.images[camera.name], stamp, picture)

    def _connect(self, topic: str, message_type: str, latched: bool = False) -> "Connection":
        return self.writer.add_connection(
            topic,
            message_type,
            typestore=self.typestore,
            offered_qos_profiles=[_quality_of_service(latched)],
        )

    def _put(self, connection: "Connection", stamp: int, message: Any) -> None:
        data = self.typestore.serialize_cdr(message, connection.msgtype)
        self.writer.write(connection, stamp, data)

    def _type(self, name: str) -> type:
        return self.typestore.types[name]

    def _header(self, stamp: int, frame: str) -> Any:
        seconds, nanoseconds = divmod(stamp, 1_000_000_000)
        time = self._type("builtin_interfaces/msg/Time")(sec=seconds, nanosec=nanoseconds)
        return self._type("std_msgs/msg/Header")(stamp=time, frame_id=frame)

    def _camera_info(self, header: Any, camera: RigCamera, width: int, height: int) -> Any:
        projection = np.concatenate([camera.K, np.zeros((3, 1))], 1)
        region = self._type("sensor_msgs/msg/RegionOfInterest")(
            x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
        )
        return self._type("sensor_msgs/msg/CameraInfo")(
            header=header,
            height=height,
            width=width,
            distortion_model="plumb_bob",
            d=np.zeros(5),
            k=camera.K.reshape(-1),
            r=np.eye(3).reshape(-1),
            p=projection.reshape(-1),
            binning_x=0,
            binning_y=0,
            roi=region,
        )

    def _transforms(self, stamp: int) -> Any:
        vector, quaternion = (
            self._type("geometry_msgs/msg/Vector3"),
            self._type("geometry_msgs/msg/Quaternion"),
        )
        stamped = []
        for camera in self.rig:
            x, y, z = map(float, camera.rig_from_cam[:3, 3])
            qx, qy, qz, qw = quaternion_of(camera.rig_from_cam[:3, :3])
            transform = self._type("geometry_msgs/msg/Transform")(
                translation=vector(x=x, y=y, z=z), rotation=quaternion(x=qx, y=qy, z=qz, w=qw)
            )
            stamped.append(
                self._type("geometry_msgs/msg/TransformStamped")(
                    header=self._header(stamp, BASE_FRAME),
                    child_frame_id=ros_topics_of(camera.name).frame,
                    transform=transform,
                )
            )
        return self._type("tf2_msgs/msg/TFMessage")(transforms=stamped)


def _quality_of_service(latched: bool) -> "Qos":
    """Reliable; latched means transient local with depth 1, as /tf_static is published."""
    from rosbags.interfaces import (
        Qos,
        QosDurability,
        QosHistory,
        QosLiveliness,
        QosReliability,
        QosTime,
    )

    endless = QosTime(9223372036, 854775807)
    return Qos(
        history=QosHistory.KEEP_LAST,
        depth=1 if latched else 10,
        reliability=QosReliability.RELIABLE,
        durability=QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
        deadline=endless,
        lifespan=endless,
        liveliness=QosLiveliness.AUTOMATIC,
        liveliness_lease_duration=endless,
        avoid_ros_namespace_conventions=False,
    )


def quaternion_of(rotation: np.ndarray) -> tuple[float, float, float, float]:
    """Unit quaternion x, y, z, w with w >= 0 of a rotation matrix (3,3)."""
    m = rotation
    symmetric = np.array(
        [
            [m[0, 0] - m[1, 1] - m[2, 2], 0, 0, 0],
            [m[0, 1] + m[1, 0], m[1, 1] - m[0, 0] - m[2, 2], 0, 0],
            [m[0, 2] + m[2, 0], m[1, 2] + m[2, 1], m[2, 2] - m[0, 0] - m[1, 1], 0],
            [m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], np.trace(m)],
        ]
    )
    _, vectors = np.linalg.eigh(symmetric, UPLO="L")
    x, y, z, w = (vectors[:, -1] * (1 if vectors[3, -1] >= 0 else -1)).tolist()
    return x, y, z, w
