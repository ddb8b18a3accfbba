# SPDX-License-Identifier: Apache-2.0
"""Clouds, grids and poses: what goes into a message comes out of it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("rclpy")

from geometry_msgs.msg import Pose, Quaternion
from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import Header

from occany_core import VoxelGrid as CoreGrid
from occany_core import VoxelGridSpec
from occany_core.errors import InputError
from occany_ros.cloud_messages import (
    colour_points,
    colours_of_heights,
    pack_rgb,
    points_to_cloud,
    voxel_points,
)
from occany_ros.grid_messages import (
    cells_from_compact,
    cells_from_message,
    compact_message,
    grid_message,
)
from occany_ros.msg import VoxelGrid, VoxelGridCompact
from occany_ros.pose_messages import (
    matrix_from_pose,
    matrix_from_quat_xyzw,
    matrix_from_transform,
    matrix_from_values,
    odometry_message,
    pose_from_matrix,
    quat_xyzw_from_matrix,
    transform_from_matrix,
)


def core_grid(labels=False):
    rng = np.random.default_rng(3)
    probability = rng.integers(-1, 101, (7, 5, 3)).astype(np.int8)
    completed = (probability >= 50) & (rng.random(probability.shape) < 0.5)
    return CoreGrid(
        spec=VoxelGridSpec((-1.0, -2.0, 0.5), 0.4, probability.shape),
        probability=probability,
        completed=completed,
        labels=rng.integers(0, 17, probability.shape).astype(np.uint8) if labels else None,
    )


@pytest.mark.parametrize("labels", [False, True])
def test_dense_grid_survives_the_wire(labels):
    grid = core_grid(labels)
    message = grid_message(grid, Header(frame_id="base_link"))
    message = deserialize_message(serialize_message(message), VoxelGrid)
    cells = cells_from_message(message)
    np.testing.assert_array_equal(cells.probability, grid.probability)
    np.testing.assert_array_equal(cells.completed, grid.completed)
    assert (cells.labels is None) == (not labels)
    assert message.header.frame_id == "base_link"
    assert cells.pose.position == (-1.0, -2.0, 0.5)
    assert cells.resolution == pytest.approx(0.4)


def test_dense_grid_is_x_fastest_as_its_specification_says():
    grid = core_grid()
    message = grid_message(grid, Header())
    for ix, iy, iz in ((0, 0, 0), (6, 4, 2), (3, 1, 2)):
        index = (iz * message.size_y + iy) * message.size_x + ix
        assert message.data[index] == grid.probability[ix, iy, iz]


def test_compact_grid_keeps_known_occupied_and_sources():
    grid = core_grid(labels=True)
    message = compact_message(grid, Header(), "model", "assumed level")
    message = deserialize_message(serialize_message(message), VoxelGridCompact)
    cells = cells_from_compact(message)
    np.testing.assert_array_equal(cells.occupied, grid.probability >= 50)
    np.testing.assert_array_equal(cells.known, grid.probability >= 0)
    assert message.frame_source == VoxelGridCompact.FRAME_ASSUMED_LEVEL


def test_a_message_that_lies_about_its_size_is_refused():
    message = grid_message(core_grid(), Header())
    message.size_x = 4_000_000_000
    with pytest.raises(InputError, match="cells"):
        cells_from_message(message)


def test_voxel_points_are_the_centres_of_occupied_cells():
    grid = core_grid(labels=True)
    points = voxel_points(grid)
    assert len(points) == np.count_nonzero(grid.probability >= 50)
    ijk = np.round((np.stack([points[k] for k in "xyz"], -1) - (-1, -2, 0.5)) / 0.4 - 0.5)
    ijk = tuple(ijk.astype(int).T)
    np.testing.assert_allclose(points["probability"], grid.probability[ijk] / 100, rtol=1e-6)
    np.testing.assert_array_equal(points["label"], grid.labels[ijk])
    np.testing.assert_array_equal(points["completed"], grid.completed[ijk])


def test_voxel_points_are_thinned_evenly_to_a_limit():
    grid = core_grid()
    assert 0 < len(voxel_points(grid, most=10)) <= 10
    empty = CoreGrid(
        spec=grid.spec,
        probability=np.full(grid.spec.shape, -1, np.int8),
        completed=np.zeros(grid.spec.shape, bool),
    )
    assert len(voxel_points(empty)) == 0


def test_cloud_describes_its_fields():
    cloud = points_to_cloud(voxel_points(core_grid()), Header(frame_id="base_link"))
    offsets = {field.name: field.offset for field in cloud.fields}
    assert offsets == {
        "x": 0,
        "y": 4,
        "z": 8,
        "rgb": 12,
        "probability": 16,
        "label": 20,
        "completed": 21,
    }
    assert cloud.point_step == 24
    assert len(cloud.data) == cloud.row_step == 24 * cloud.width


def test_dense_cloud_drops_what_is_not_trusted_or_not_finite():
    points = np.array([[0, 0, 1], [0, 0, np.nan], [0, 0, 3]], np.float32)
    rgb = np.array([[1, 2, 3], [4, 5, 6], [255, 128, 0]], np.uint8)
    cloud = colour_points(points, rgb, np.array([1.5, 9, 1.1]), min_confidence=1.2)
    assert cloud["z"].tolist() == [1.0]
    assert cloud["rgb"].tolist() == [0x010203]
    assert pack_rgb(rgb[2]) == 0xFF8000


def test_heights_are_coloured_from_blue_to_red():
    low, high = colours_of_heights(np.array([-9.0, 99.0]), 0.0, 5.0)
    assert low[2] > low[0]
    assert high[0] > high[2]


angles = st.floats(-3.2, 3.2)


@settings(max_examples=50, deadline=None)
@given(st.tuples(angles, angles, angles, angles).filter(lambda q: np.linalg.norm(q) > 1e-2))
def test_quaternions_and_rotations_are_inverse(quat):
    rotation = matrix_from_quat_xyzw(quat)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(rotation) == pytest.approx(1)
    back = quat_xyzw_from_matrix(rotation)
    np.testing.assert_allclose(matrix_from_quat_xyzw(back), rotation, atol=1e-9)
    assert back[3] >= 0


def test_quarter_turn_to_the_left_points_forward_to_the_left():
    half = np.sqrt(0.5)
    rotation = matrix_from_quat_xyzw([0, 0, half, half])
    np.testing.assert_allclose(rotation @ [1, 0, 0], [0, 1, 0], atol=1e-12)


def pose_matrix():
    return matrix_from_values([1.0, -2.0, 3.0, 0.1, 0.2, 0.3, 0.9])


def test_poses_and_transforms_round_trip():
    matrix = pose_matrix()
    np.testing.assert_allclose(matrix_from_pose(pose_from_matrix(matrix)), matrix, atol=1e-12)
    stamped = transform_from_matrix(matrix, Header(frame_id="odom"), "base_link")
    np.testing.assert_allclose(matrix_from_transform(stamped.transform), matrix, atol=1e-12)
    assert (stamped.header.frame_id, stamped.child_frame_id) == ("odom", "base_link")


def test_a_zero_quaternion_is_refused():
    with pytest.raises(InputError, match="describes no rotation"):
        matrix_from_pose(Pose(orientation=Quaternion(w=0.0)))


def test_odometry_states_its_uncertainty_and_no_velocity():
    message = odometry_message(pose_matrix(), Header(frame_id="odom"), "base_link", (0.5, 0.1))
    assert message.pose.covariance[0] == pytest.approx(0.25)
    assert message.pose.covariance[35] == pytest.approx(0.01)
    assert message.twist.covariance[0] == -1
