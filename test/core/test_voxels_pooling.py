# SPDX-License-Identifier: Apache-2.0
"""Pooling equals plain loops over the 27 cells, in both kinds of label convention."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds

from occany_core.voxels import ClassTable, pool_geometry, pool_labels, pool_unified

CONVENTIONS = [ClassTable(4, other=0, empty=3), ClassTable(4, other=4, empty=0)]


def drawn(seed: int, classes: ClassTable) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    ids = sorted({*range(classes.num_classes), classes.other})
    grid = rng.choice(ids, tuple(rng.integers(1, 6, 3)))
    grid[rng.random(grid.shape) < rng.random()] = classes.empty
    return torch.from_numpy(grid).to(torch.uint8)


def around(grid: np.ndarray, cell: tuple) -> list[int]:
    return grid[tuple(slice(max(c - 1, 0), c + 2) for c in cell)].ravel().tolist()


def fills(grid, cell, classes, by_vote) -> bool:
    occupied = sum(label != classes.empty for label in around(grid, cell))
    needed = 13.5 if by_vote and grid[cell] == classes.empty else 0
    return occupied > needed


def elected(grid, cell, classes, otherwise) -> int:
    votes = Counter(x for x in around(grid, cell) if x not in (classes.other, classes.empty))
    return min(votes, key=lambda label: (-votes[label], label)) if votes else otherwise


@given(seeds, st.sampled_from(CONVENTIONS), st.booleans())
def test_geometry_equals_a_loop(seed, classes, by_vote):
    grid = drawn(seed, classes)
    ours = pool_geometry(grid, classes, by_vote=by_vote).numpy()
    mark = 1 if classes.empty == 0 else 0
    for cell in np.ndindex(*grid.shape):
        full = fills(grid.numpy(), cell, classes, by_vote)
        assert ours[cell] == (mark if full else classes.empty)


@given(seeds, st.sampled_from(CONVENTIONS), st.booleans())
def test_labels_equal_a_loop(seed, classes, only_other):
    grid = drawn(seed, classes).numpy()
    ours = pool_labels(torch.from_numpy(grid), classes, only_other=only_other).numpy()
    for cell in np.ndindex(*grid.shape):
        changes = grid[cell] == classes.other if only_other else grid[cell] != classes.empty
        expected = elected(grid, cell, classes, grid[cell]) if changes else grid[cell]
        assert ours[cell] == expected


@given(seeds, st.sampled_from(CONVENTIONS), st.booleans())
def test_unified_equals_a_loop(seed, classes, by_vote):
    grid = drawn(seed, classes).numpy()
    ours = pool_unified(torch.from_numpy(grid), classes, by_vote=by_vote).numpy()
    for cell in np.ndindex(*grid.shape):
        if not fills(grid, cell, classes, by_vote):
            assert ours[cell] == classes.empty
            continue
        before = grid[cell] if grid[cell] != classes.empty else classes.other
        assert ours[cell] == elected(grid, cell, classes, before)


@pytest.mark.parametrize("classes", CONVENTIONS)
def test_pooling_leaves_its_input_alone(classes):
    grid = drawn(3, classes)
    before = grid.clone()
    for pool in (pool_geometry, pool_labels, pool_unified):
        pool(grid, classes)
    assert torch.equal(grid, before)


def test_ties_go_to_the_lowest_id_and_ids_reach_255():
    classes = ClassTable(256, other=0, empty=1)
    line = torch.tensor([255, 0, 200, 0, 255], dtype=torch.uint8).view(5, 1, 1)
    assert pool_labels(line, classes).flatten().tolist() == [255, 200, 200, 200, 255]
