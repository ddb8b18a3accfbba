# SPDX-License-Identifier: Apache-2.0
"""A rig of six cameras for tests: pictures, calibration, transforms, and a recording of them."""

import array
import io

import numpy as np
import PIL.Image
from geometry_msgs.msg import Quaternion, TransformStamped
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

RIG = ("front", "front_right", "front_left", "back", "back_left", "back_right")


def jpeg(rgb, kind="JPEG"):
    buffer = io.BytesIO()
    PIL.Image.fromarray(rgb).save(buffer, kind)
    return buffer.getvalue()


def street(camera, step, height=72, width=128):
    """A picture with something in it: sky, road and a box that moves."""
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[: height // 2] = 150, 180, 220
    rgb[height // 2 :] = 90, 90, 95
    left = (17 * (RIG.index(camera) if camera in RIG else 0) + 5 * step) % (width - 30)
    rgb[height // 3 : height * 2 // 3, left : left + 30] = 200, 60, 40
    return rgb


def camera_info(camera, stamp_header, height=72, width=128):
    info = CameraInfo(header=stamp_header, height=height, width=width)
    focal = width / 1.4
    info.k = [focal, 0.0, width / 2 - 0.5, 0.0, focal, height / 2 - 0.5, 0.0, 0.0, 1.0]
    return info


def rig_transforms():
    """Six cameras around base_link, 1.6 m above the ground, as optical frames."""
    yaws = dict(zip(RIG, np.radians([0, -60, 60, 180, 120, -120]), strict=True))
    message = TFMessage()
    for camera, yaw in yaws.items():
        stamped = TransformStamped(child_frame_id=f"{camera}_optical_frame")
        stamped.header.frame_id = "base_link"
        stamped.transform.translation.x = 0.8 * float(np.cos(yaw))
        stamped.transform.translation.y = 0.8 * float(np.sin(yaw))
        stamped.transform.translation.z = 1.6
        # Body to optical axes, then the turn about the vertical.
        half = yaw / 2
        c, s = float(np.cos(half)), float(np.sin(half))
        x, y, z, w = -0.5, 0.5, -0.5, 0.5
        stamped.transform.rotation = Quaternion(
            x=c * x - s * y, y=c * y + s * x, z=c * z + s * w, w=c * w - s * z
        )
        message.transforms.append(stamped)
    return message


def image_message(camera, stamp_ns, step=0, **size):
    header = Header(frame_id=f"{camera}_optical_frame")
    header.stamp.sec, header.stamp.nanosec = divmod(stamp_ns, 1_000_000_000)
    data = array.array("B", jpeg(street(camera, step, **size)))
    return CompressedImage(header=header, format="jpeg", data=data)


def write_recording(path, cameras=RIG, steps=8, period_ns=250_000_000, start_ns=1_000_000_000_000):
    """Write an mcap bag with JPEG images, calibrations and /tf_static."""
    from rosbags.rosbag2 import StoragePlugin, Writer
    from rosbags.typesys import Stores, get_typestore

    store = get_typestore(Stores.ROS2_JAZZY)
    with Writer(path, version=9, storage_plugin=StoragePlugin.MCAP) as writer:

        def topic(name, type_name):
            return writer.add_connection(name, type_name, typestore=store)

        static = topic("/tf_static", "tf2_msgs/msg/TFMessage")
        images = {
            c: topic(f"/camera/{c}/image/compressed", "sensor_msgs/msg/CompressedImage")
            for c in cameras
        }
        infos = {
            c: topic(f"/camera/{c}/camera_info", "sensor_msgs/msg/CameraInfo") for c in cameras
        }
        writer.write(static, start_ns, serialize_message(rig_transforms()))
        for step in range(steps):
            stamp_ns = start_ns + step * period_ns
            for camera in cameras:
                message = image_message(camera, stamp_ns, step)
                info = camera_info(camera, message.header)
                writer.write(infos[camera], stamp_ns, serialize_message(info))
                writer.write(images[camera], stamp_ns, serialize_message(message))
    return path
