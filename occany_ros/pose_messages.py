# SPDX-License-Identifier: Apache-2.0
"""Rigid transforms (4, 4) <-> geometry_msgs and nav_msgs. The only place with quaternions.

`quat_xyzw` is in the order of ROS. Positions in metres.
"""

import numpy as np
from geometry_msgs.msg import Point, Pose, Quaternion, Transform, TransformStamped, Vector3
from nav_msgs.msg import Odometry
from std_msgs.msg import Header

from occany_core.errors import InputError


def matrix_from_quat_xyzw(quat_xyzw: np.ndarray) -> np.ndarray:
    """Return the rotation (3, 3) of a quaternion (4,) of any length but zero.

    Raises:
        InputError: The quaternion is zero or not finite.
    """
    quat = np.asarray(quat_xyzw, np.float64)
    length = np.linalg.norm(quat)
    if not (np.isfinite(length) and length > 1e-6):
        raise InputError(
            f"quaternion {quat.tolist()} describes no rotation; no rotation is [0, 0, 0, 1]"
        )
    x, y, z, w = quat / length
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def quat_xyzw_from_matrix(rotation: np.ndarray) -> np.ndarray:
    """Return the unit quaternion (4,) with w >= 0 of a rotation (3, 3).

    Source: Bar-Itzhack, New Method for Extracting the Quaternion from a Rotation Matrix, 2000.
    """
    r = np.asarray(rotation, np.float64)
    k = np.array(
        [
            [r[0, 0] - r[1, 1] - r[2, 2], 0, 0, 0],
            [r[0, 1] + r[1, 0], r[1, 1] - r[0, 0] - r[2, 2], 0, 0],
            [r[0, 2] + r[2, 0], r[1, 2] + r[2, 1], r[2, 2] - r[0, 0] - r[1, 1], 0],
            [r[2, 1] - r[1, 2], r[0, 2] - r[2, 0], r[1, 0] - r[0, 1], np.trace(r)],
        ]
    )
    quat = np.linalg.eigh(k, UPLO="L")[1][:, -1]
    return -quat if quat[3] < 0 else quat


def matrix_from_parts(position: Point | Vector3, rotation: Quaternion) -> np.ndarray:
    """Return the rigid transform (4, 4) of a message's position and rotation.

    Raises:
        InputError: The quaternion describes no rotation, or the position is not finite.
    """
    matrix = np.eye(4)
    if not np.isfinite([position.x, position.y, position.z]).all():
        raise InputError(
            f"position {[position.x, position.y, position.z]} is not finite; give metres"
        )
    matrix[:3, :3] = matrix_from_quat_xyzw([rotation.x, rotation.y, rotation.z, rotation.w])
    matrix[:3, 3] = position.x, position.y, position.z
    return matrix


def matrix_from_pose(pose: Pose) -> np.ndarray:
    """Return `a_from_b` (4, 4) of the pose of b in a."""
    return matrix_from_parts(pose.position, pose.orientation)


def matrix_from_transform(transform: Transform) -> np.ndarray:
    """Return `a_from_b` (4, 4) of a transform whose parent is a and whose child is b."""
    return matrix_from_parts(transform.translation, transform.rotation)


def matrix_from_values(values: list[float]) -> np.ndarray:
    """Return the transform (4, 4) of x, y, z [m] and a quaternion x, y, z, w, as in parameters.

    Raises:
        InputError: Not seven finite numbers, or no rotation.
    """
    if len(values) != 7 or not np.isfinite(values).all():
        raise InputError(
            f"{list(values)} must be seven numbers: x, y, z [m], quaternion x, y, z, w"
        )
    matrix = np.eye(4)
    matrix[:3, 3] = values[:3]
    matrix[:3, :3] = matrix_from_quat_xyzw(values[3:])
    return matrix


def pose_from_matrix(a_from_b: np.ndarray) -> Pose:
    """Return the pose of b in a."""
    x, y, z = (float(value) for value in a_from_b[:3, 3])
    return Pose(position=Point(x=x, y=y, z=z), orientation=_quaternion(a_from_b))


def transform_from_matrix(a_from_b: np.ndarray, header: Header, child: str) -> TransformStamped:
    """Return the transform message with parent `header.frame_id` (a) and child b."""
    x, y, z = (float(value) for value in a_from_b[:3, 3])
    transform = Transform(translation=Vector3(x=x, y=y, z=z), rotation=_quaternion(a_from_b))
    return TransformStamped(header=header, child_frame_id=child, transform=transform)


def _quaternion(a_from_b: np.ndarray) -> Quaternion:
    x, y, z, w = (float(value) for value in quat_xyzw_from_matrix(a_from_b[:3, :3]))
    return Quaternion(x=x, y=y, z=z, w=w)


def odometry_message(
    odom_from_base: np.ndarray, header: Header, child: str, standard_deviation: tuple[float, float]
) -> Odometry:
    """Make an odometry message without velocity.

    Args:
        odom_from_base: (4, 4).
        header: Stamp, and the odometry frame.
        child: Name of the base frame.
        standard_deviation: Of position [m] and of rotation [rad], the same along all axes.
    """
    message = Odometry(header=header, child_frame_id=child)
    message.pose.pose = pose_from_matrix(odom_from_base)
    metres, radians = standard_deviation
    message.pose.covariance = np.diag([metres**2] * 3 + [radians**2] * 3).reshape(-1)
    # The convention for "not estimated" (sensor_msgs/Imu): the first element is -1.
    message.twist.covariance[0] = -1.0
    return message
