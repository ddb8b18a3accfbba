# SPDX-License-Identifier: Apache-2.0
"""Columns of a voxel grid as 2D maps: the rules one by one, a plain oracle, and the message."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from occany_core import VoxelGrid, VoxelGridSpec
from occany_core.errors import ConfigError
from occany_ros.height_bands import Band, BandRules, layers_of, project

ALL = Band(name="all", z_min=0.0, z_max=4.0)


def column(*cells, completed=(), labels=None):
    """A grid of one column of four cells 1 m high, from the ground upward."""
    probability = np.array(cells, np.int8).reshape(1, 1, -1)
    flags = np.isin(np.arange(len(cells)), completed).reshape(probability.shape)
    spec = VoxelGridSpec((0.0, 0.0, 0.0), 1.0, probability.shape)
    labels = None if labels is None else np.array(labels, np.uint8).reshape(probability.shape)
    return VoxelGrid(spec, probability, flags, labels)


def seen(grid, band=ALL, **rules):
    (value,) = project(grid, band, BandRules(**rules)).ravel()
    return value


@pytest.mark.parametrize(
    ("cells", "rules", "expected"),
    [
        ((-1, -1, -1, -1), {}, -1),
        ((-1, 0, -1, -1), {}, 0),
        ((-1, 0, 50, -1), {}, 100),
        ((0, 0, 49, 0), {}, 0),
        ((0, 0, -1, -1), {"min_known_share": 0.5}, 0),
        ((0, -1, -1, -1), {"min_known_share": 0.5}, -1),
        # few or doubtful obstacles make a column neither occupied nor free
        ((0, 0, 60, 0), {"min_probability": 80}, -1),
        ((0, 80, 60, 0), {"min_probability": 80}, 100),
        ((0, 0, 90, 0), {"min_cells": 2}, -1),
        ((0, 90, 90, 0), {"min_cells": 2}, 100),
        ((-1, -1, -1, -1), {"unknown_is": "occupied"}, 100),
        ((-1, -1, -1, -1), {"unknown_is": "free"}, 0),
        ((0, 70, 85, 0), {"scaled": True}, 85),
        ((0, 20, 30, -1), {"scaled": True}, 30),
        ((-1, -1, -1, -1), {"scaled": True}, -1),
    ],
)
def test_rules(cells, rules, expected):
    assert seen(column(*cells), **rules) == expected


def test_cells_of_rendered_views_count_or_are_unknown():
    grid = column(-1, 0, 90, -1, completed=[2])
    assert seen(grid) == 100
    assert seen(grid, completed_counts=False) == 0
    only = column(-1, -1, 90, -1, completed=[2])
    assert seen(only, completed_counts=False) == -1


def test_classes_that_are_no_obstacles():
    grid = column(90, -1, -1, -1, labels=[7, 255, 255, 255])
    assert seen(grid) == 100
    assert seen(grid, free_labels=(3,)) == 100
    assert seen(grid, free_labels=(3, 7)) == 0
    assert seen(column(90, 90, -1, -1, labels=[7, 4, 255, 255]), free_labels=(7,)) == 100


@pytest.mark.parametrize(
    ("z_min", "z_max", "expected"),
    [(0.0, 4.0, 100), (1.0, 4.0, 0), (0.5, 0.6, 100), (0.6, 2.0, 0), (3.0, 9.0, -1)],
)
def test_a_band_is_the_cells_whose_centre_it_holds(z_min, z_max, expected):
    assert seen(column(90, 0, 0, -1), Band(name="one", z_min=z_min, z_max=z_max)) == expected


def test_a_band_between_two_layers_is_refused_in_words():
    with pytest.raises(ConfigError, match=r"'low' from 0.6 to 1.4 m .* from 0.50 to 3.50 m"):
        layers_of(Band(name="low", z_min=0.6, z_max=1.4), 0.0, 1.0, 4)


def test_the_vehicle_itself_is_free_and_nothing_else():
    spec = VoxelGridSpec((-2.0, -1.0, 0.0), 0.5, (10, 6, 1))
    grid = VoxelGrid(spec, np.full(spec.shape, 100, np.int8), np.zeros(spec.shape, bool))
    footprint = (-0.9, -0.6, 1.4, -0.6, 1.4, 0.6, -0.9, 0.6)
    columns = project(grid, ALL, BandRules(footprint=footprint))
    y, x = np.mgrid[0:6, 0:10] * 0.5 + np.array([-0.75, -1.75])[:, None, None]
    inside = (np.abs(y) < 0.6) & (x > -0.9) & (x < 1.4)
    assert inside.sum() == 5 * 2
    np.testing.assert_array_equal(columns == 0, inside)
    slanted = project(grid, ALL, BandRules(footprint=(0.0, 0.0, 2.0, 0.0, 0.0, 2.0)))
    np.testing.assert_array_equal(slanted == 0, (x > 0) & (y > 0) & (x + y < 2.0))


@given(
    seed=st.integers(0, 2**32 - 1),
    least=st.sampled_from([50, 70]),
    cells=st.integers(1, 3),
    share=st.sampled_from([0.0, 0.3, 1.0]),
    completed=st.booleans(),
)
def test_agrees_with_a_loop_over_columns(seed, least, cells, share, completed):
    rng = np.random.default_rng(seed)
    shape = (4, 3, 3)
    probability = rng.integers(-1, 101, shape).astype(np.int8)
    flags = (probability >= 50) & (rng.random(shape) < 0.5)
    grid = VoxelGrid(VoxelGridSpec((0.0, 0.0, 0.0), 1.0, shape), probability, flags)
    rules = BandRules(
        min_probability=least, min_cells=cells, min_known_share=share, completed_counts=completed
    )
    columns = project(grid, ALL, rules)
    assert columns.shape == (3, 4)
    for x in range(4):
        for y in range(3):
            occupied = obstacles = free = 0
            for z in range(3):
                value = probability[x, y, z]
                if value >= 50 and (completed or not flags[x, y, z]):
                    occupied += 1
                    obstacles += value >= least
                free += 0 <= value < 50
            expected = -1
            if obstacles >= cells:
                expected = 100
            elif not occupied and free and free >= share * 3 - 1e-9:
                expected = 0
            assert columns[y, x] == expected


def test_the_message_is_what_planners_read():
    pytest.importorskip("rclpy")
    from nav_msgs.msg import OccupancyGrid
    from rclpy.serialization import deserialize_message, serialize_message
    from std_msgs.msg import Header

    from occany_ros.grid_messages import occupancy_message

    spec = VoxelGridSpec((-2.0, -1.0, 0.0), 0.5, (10, 6, 1))
    probability = np.zeros(spec.shape, np.int8)
    probability[9, 1] = 100  # ahead and to the right
    grid = VoxelGrid(spec, probability, np.zeros(spec.shape, bool))
    columns = project(grid, ALL, BandRules())
    header = Header(frame_id="base_link")
    message = occupancy_message(columns, (-2.0, -1.0), 0.5, header)
    message = deserialize_message(serialize_message(message), OccupancyGrid)
    assert (message.info.width, message.info.height) == (10, 6)
    assert message.header.frame_id == "base_link"
    (index,) = np.flatnonzero(np.asarray(message.data) == 100)
    # nav_msgs/MapMetaData: row-major, x first; the origin is the corner of cell (0, 0)
    cell = np.array([index % message.info.width, index // message.info.width])
    origin = message.info.origin.position
    x, y = (cell + 0.5) * message.info.resolution + (origin.x, origin.y)
    assert (x, y) == (2.75, -0.25)
    assert message.info.origin.orientation.w == 1.0
