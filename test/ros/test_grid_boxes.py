# SPDX-License-Identifier: Apache-2.0
"""Boxes cut out of a grid hold exactly the cells they touch, at their place."""

import numpy as np
import pytest

from occany_core import VoxelGrid, VoxelGridSpec
from occany_core.errors import InputError
from occany_ros.grid_boxes import cut_box

SPEC = VoxelGridSpec((-2.0, -1.0, 0.5), 0.5, (8, 6, 4))
PROBABILITY = np.random.default_rng(1).integers(-1, 101, SPEC.shape).astype(np.int8)
GRID = VoxelGrid(SPEC, PROBABILITY, PROBABILITY > 80, PROBABILITY.view(np.uint8) % 17)


def centres(grid):
    ijk = np.moveaxis(np.indices(grid.spec.shape), 0, -1)
    return np.asarray(grid.spec.origin) + (ijk + 0.5) * grid.spec.resolution


def test_zeros_ask_for_the_whole_grid():
    assert cut_box(GRID, np.eye(4), np.zeros(3), np.zeros(3)) is GRID


@pytest.mark.parametrize("swap", [False, True])
def test_a_box_gives_the_cells_it_touches(swap):
    corners = np.array([-1.2, -0.9, 1.1]), np.array([0.9, 9.0, 1.9])
    part = cut_box(GRID, np.eye(4), *(corners[::-1] if swap else corners))
    assert part.spec.origin == (-1.5, -1.0, 1.0)
    assert part.spec.shape == (5, 6, 2)
    where = {tuple(xyz): value for xyz, value in zip(
        centres(GRID).reshape(-1, 3).tolist(), PROBABILITY.ravel(), strict=True)}  # fmt: skip
    for xyz, value in zip(
        centres(part).reshape(-1, 3).tolist(), part.probability.ravel(), strict=True
    ):
        assert where[tuple(xyz)] == value
    np.testing.assert_array_equal(part.completed, part.probability > 80)
    np.testing.assert_array_equal(part.labels, part.probability.view(np.uint8) % 17)


def test_a_box_in_another_frame():
    grid_from_box = np.eye(4)
    grid_from_box[:2, :2] = [[0, -1], [1, 0]]  # turned by 90 degrees
    grid_from_box[:3, 3] = 1.0, 0.0, 1.0
    part = cut_box(GRID, grid_from_box, np.array([0.0, 0.0, 0.0]), np.array([1.0, 2.0, 0.5]))
    # x_grid = 1 - y_box, y_grid = x_box
    assert part.spec.origin == (-1.0, 0.0, 1.0)
    assert part.spec.shape == (4, 2, 1)


def test_a_box_outside_or_not_finite_is_refused_in_words():
    with pytest.raises(InputError, match=r"-2\.0 to 2\.0 x -1\.0 to 2\.0 x 0\.5 to 2\.5 m"):
        cut_box(GRID, np.eye(4), np.array([5.0, 0, 0]), np.array([6.0, 1, 1]))
    with pytest.raises(InputError, match="not finite"):
        cut_box(GRID, np.eye(4), np.array([np.nan, 0, 0]), np.ones(3))
