# SPDX-License-Identifier: Apache-2.0
"""The core's VoxelGrid <-> VoxelGrid.msg and VoxelGridCompact.msg, through the core's codec.

Also 2D slices of it -> nav_msgs/OccupancyGrid.

The grid lies in the frame of the header with its own axes parallel to it: x forward, y left, z up
[m].
"""

import array
from dataclasses import replace

import numpy as np
from geometry_msgs.msg import Point, Pose, Quaternion
from nav_msgs.msg import OccupancyGrid
from std_msgs.msg import Header

from occany_core import VoxelGrid as CoreGrid
from occany_core.grid_codec import CompactGrid as CompactFields
from occany_core.grid_codec import (
    DenseGrid,
    GridCells,
    GridPose,
    decode_compact,
    decode_dense,
    encode_compact,
    encode_dense,
)
from occany_ros.image_messages import bytes_field
from occany_ros.msg import VoxelGrid, VoxelGridCompact
from occany_ros.pose_messages import quat_xyzw_from_matrix

SHARED_FIELDS = ("resolution", "size_x", "size_y", "size_z")
DENSE_FIELDS = ("data", "labels", "completed")
COMPACT_FIELDS = (
    "known",
    "occupied",
    "probability_layout",
    "probability",
    "label",
    "completed",
    "scale_source",
    "frame_source",
)


def cells_of(grid: CoreGrid) -> GridCells:
    """Return the core's grid as the codec takes it; a completion plane of zeros is left out."""
    x, y, z = (float(value) for value in grid.spec.origin)
    return GridCells(
        pose=GridPose(position=(x, y, z)),
        resolution=float(grid.spec.resolution),
        probability=np.asarray(grid.probability, np.int8),
        labels=None if grid.labels is None else np.asarray(grid.labels, np.uint8),
        completed=np.asarray(grid.completed, bool) if np.any(grid.completed) else None,
    )


def grid_message(
    grid: CoreGrid, header: Header, frame_from_base: np.ndarray | None = None
) -> VoxelGrid:
    """Make the dense message.

    Args:
        grid: In the base frame.
        header: Stamp and frame.
        frame_from_base: (4, 4), where the frame of the header is another one than the base.

    Raises:
        InputError: The grid cannot be encoded (see `grid_codec.encode_dense`).
    """
    cells = cells_of(grid)
    if frame_from_base is not None:
        corner = frame_from_base[:3, :3] @ cells.pose.position + frame_from_base[:3, 3]
        quat_xyzw = quat_xyzw_from_matrix(frame_from_base[:3, :3])
        cells = replace(cells, pose=GridPose(tuple(corner.tolist()), tuple(quat_xyzw.tolist())))
    fields = encode_dense(cells)
    message = VoxelGrid(header=header, origin=_pose_message(fields.pose))
    for name in SHARED_FIELDS:
        setattr(message, name, getattr(fields, name))
    message.data = array.array("b", fields.data.tobytes())
    message.labels = bytes_field(fields.labels)
    message.completed = bytes_field(fields.completed)
    return message


def compact_message(
    grid: CoreGrid, header: Header, scale_source: str, frame_source: str
) -> VoxelGridCompact:
    """Make the message of bit-planes.

    Raises:
        InputError: The grid cannot be encoded (see `grid_codec.encode_compact`).
    """
    fields = encode_compact(cells_of(grid), scale_source=scale_source, frame_source=frame_source)
    message = VoxelGridCompact(header=header, origin=_pose_message(fields.pose))
    for name in SHARED_FIELDS + COMPACT_FIELDS:
        value = getattr(fields, name)
        setattr(message, name, bytes_field(value) if isinstance(value, np.ndarray) else value)
    return message


def occupancy_message(
    columns: np.ndarray, corner: tuple[float, float], resolution: float, header: Header
) -> OccupancyGrid:
    """Make a 2D grid that lies on the ground of the frame of the header.

    Args:
        columns: int8 (Y, X): -1 unknown, 0 to 100 percent.
        corner: x, y of the minimum corner of the first cell [m].
        resolution: Edge of a cell [m].
        header: Stamp and frame.
    """
    message = OccupancyGrid(header=header)
    message.info.map_load_time = header.stamp
    message.info.resolution = resolution
    message.info.height, message.info.width = columns.shape
    message.info.origin.position.x, message.info.origin.position.y = corner
    message.data = array.array("b", np.ascontiguousarray(columns, np.int8).tobytes())
    return message


def cells_from_message(message: VoxelGrid) -> GridCells:
    """Read a dense message.

    Raises:
        InputError: The message contradicts its specification.
    """
    fields = {name: getattr(message, name) for name in SHARED_FIELDS + DENSE_FIELDS}
    return decode_dense(DenseGrid(pose=_grid_pose(message.origin), **fields))


def cells_from_compact(message: VoxelGridCompact) -> GridCells:
    """Read a message of bit-planes.

    Raises:
        InputError: The message contradicts its specification.
    """
    fields = {name: getattr(message, name) for name in SHARED_FIELDS + COMPACT_FIELDS}
    return decode_compact(CompactFields(pose=_grid_pose(message.origin), **fields))


def _pose_message(pose: GridPose) -> Pose:
    x, y, z = pose.position
    qx, qy, qz, qw = pose.quat_xyzw
    return Pose(position=Point(x=x, y=y, z=z), orientation=Quaternion(x=qx, y=qy, z=qz, w=qw))


def _grid_pose(pose: Pose) -> GridPose:
    position, rotation = pose.position, pose.orientation
    return GridPose(
        position=(position.x, position.y, position.z),
        quat_xyzw=(rotation.x, rotation.y, rotation.z, rotation.w),
    )
