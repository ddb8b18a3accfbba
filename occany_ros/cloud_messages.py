# SPDX-License-Identifier: Apache-2.0
"""Structured NumPy arrays -> sensor_msgs/PointCloud2; the two clouds the node publishes [m]."""

import numpy as np
from sensor_msgs.msg import PointCloud2, PointField
from std_msgs.msg import Header

from occany_core import VoxelGrid
from occany_core.datasets.class_tables import SemanticClass
from occany_core.picture.colours import class_palette
from occany_ros.image_messages import bytes_field

FIELD_TYPES = {
    "i1": PointField.INT8,
    "u1": PointField.UINT8,
    "i2": PointField.INT16,
    "u2": PointField.UINT16,
    "i4": PointField.INT32,
    "u4": PointField.UINT32,
    "f4": PointField.FLOAT32,
    "f8": PointField.FLOAT64,
}
VOXEL_POINT = np.dtype(
    [
        ("x", "<f4"),
        ("y", "<f4"),
        ("z", "<f4"),
        ("rgb", "<u4"),
        ("probability", "<f4"),
        ("label", "u1"),
        ("completed", "u1"),
        ("padding", "<u2"),
    ]
)
COLOUR_POINT = np.dtype(
    [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<u4"), ("confidence", "<f4")]
)
NO_LABEL = 255
# Blue, cyan, green, yellow, red from the lowest to the highest voxel.
HEIGHT_COLOURS = np.array(
    [(49, 54, 149), (69, 165, 196), (102, 189, 99), (254, 224, 80), (215, 48, 39)], np.float64
)


def pack_rgb(rgb: np.ndarray) -> np.ndarray:
    """Pack uint8 (..., 3) colours as RViz and PCL expect them in an `rgb` field: 0x00RRGGBB."""
    red, green, blue = (rgb[..., k].astype(np.uint32) for k in range(3))
    return (red << 16) | (green << 8) | blue


def colours_of_heights(height: np.ndarray, lowest: float, highest: float) -> np.ndarray:
    """Colour heights [m] on a ramp from blue (lowest) to red (highest); uint8 (..., 3)."""
    place = np.clip((height - lowest) / max(highest - lowest, 1e-6), 0, 1) * (
        len(HEIGHT_COLOURS) - 1
    )
    knots = np.arange(len(HEIGHT_COLOURS))
    channels = [np.interp(place, knots, HEIGHT_COLOURS[:, k]) for k in range(3)]
    return np.stack(channels, axis=-1).astype(np.uint8)


def points_to_cloud(points: np.ndarray, header: Header) -> PointCloud2:
    """Wrap a structured array (P,) with fields x, y, z and more as an unordered cloud.

    Fields named `padding` are left out of the description.
    """
    fields = [
        PointField(
            # RViz and PCL read packed colours from a float field that holds the same bits.
            name=name,
            offset=offset,
            count=1,
            datatype=PointField.FLOAT32 if name == "rgb" else FIELD_TYPES[kind.str[1:]],
        )
        for name, (kind, offset, *_) in points.dtype.fields.items()
        if name != "padding"
    ]
    return PointCloud2(
        header=header,
        height=1,
        width=len(points),
        fields=fields,
        is_bigendian=False,
        point_step=points.dtype.itemsize,
        row_step=points.nbytes,
        is_dense=True,
        data=bytes_field(points),
    )


def _thinned(count: int, most: int) -> slice:
    """Take every n-th of `count` items so that at most `most` remain; 0 takes all."""
    return slice(None, None, max(1, -(-count // most)) if most else 1)


def colours_of_classes(labels: np.ndarray, classes: tuple[SemanticClass, ...]) -> np.ndarray:
    """Colour class ids; those that no class stands for are grey; uint8 (..., 3)."""
    return class_palette(classes)[labels]


def voxel_points(
    grid: VoxelGrid, most: int = 0, classes: tuple[SemanticClass, ...] = ()
) -> np.ndarray:
    """List the centres of the occupied voxels in the grid frame [m].

    Args:
        grid: The grid.
        most: Keep at most this many points, evenly thinned; 0 keeps all.
        classes: What the labels mean, where colours shall show that; otherwise the height.

    Returns:
        (P,) of `VOXEL_POINT`.
    """
    ijk = np.argwhere(grid.probability >= 50)
    ijk = ijk[_thinned(len(ijk), most)]
    index = tuple(ijk.T)
    xyz = np.asarray(grid.spec.origin, np.float64) + (ijk + 0.5) * grid.spec.resolution
    lowest = float(grid.spec.origin[2])
    highest = lowest + grid.spec.shape[2] * grid.spec.resolution
    points = np.zeros(len(ijk), VOXEL_POINT)
    points["x"], points["y"], points["z"] = xyz.T
    points["probability"] = grid.probability[index] / 100
    points["label"] = NO_LABEL if grid.labels is None else grid.labels[index]
    points["completed"] = grid.completed[index]
    if classes and grid.labels is not None:
        points["rgb"] = pack_rgb(colours_of_classes(points["label"], classes))
    else:
        points["rgb"] = pack_rgb(colours_of_heights(xyz[:, 2], lowest, highest))
    return points


def colour_points(
    points: np.ndarray, rgb: np.ndarray, confidence: np.ndarray, min_confidence: float
) -> np.ndarray:
    """Make the dense cloud from finite points (..., 3) [m] that are trusted enough.

    Args:
        points: (..., 3) in the frame of the cloud.
        rgb: uint8 (..., 3).
        confidence: (...) in (1, inf).
        min_confidence: Points are kept above it.

    Returns:
        (P,) of `COLOUR_POINT`.
    """
    kept = (confidence > min_confidence) & np.isfinite(points).all(axis=-1)
    cloud = np.zeros(int(kept.sum()), COLOUR_POINT)
    cloud["x"], cloud["y"], cloud["z"] = points[kept].T
    cloud["rgb"] = pack_rgb(rgb[kept])
    cloud["confidence"] = confidence[kept]
    return cloud
