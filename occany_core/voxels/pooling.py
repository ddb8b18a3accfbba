# SPDX-License-Identifier: Apache-2.0
"""Majority pooling of the published metrics: 3 x 3 x 3 neighbourhoods of labels (spec 10).

Cells outside the grid count as empty. `X Y Z` cells.
"""

import torch
from jaxtyping import Bool, UInt8
from torch import Tensor

from occany_core.voxels.published import ClassTable

MOST_NEIGHBOURS_OF_AN_EMPTY_CELL = 13
"""With more occupied cells among the 27, an empty cell fills by vote."""


def pool_geometry(
    grid: UInt8[Tensor, "X Y Z"], classes: ClassTable, *, by_vote: bool = False
) -> UInt8[Tensor, "X Y Z"]:
    """Dilate the occupied cells.

    Args:
        grid: Labels.
        classes: Their convention.
        by_vote: Fill an empty cell only if most of the 27 cells around it are occupied.

    Returns:
        `classes.empty`, or for occupied cells 1 (0 where `empty` is not 0).
    """
    occupied = _filled(grid != classes.empty, by_vote)
    mark = 1 if classes.empty == 0 else 0
    return torch.full_like(grid, classes.empty).masked_fill_(occupied, mark)


def pool_labels(
    grid: UInt8[Tensor, "X Y Z"], classes: ClassTable, *, only_other: bool = False
) -> UInt8[Tensor, "X Y Z"]:
    """Give each occupied cell the most frequent class around it (lowest id on ties).

    `empty` and `other` have no vote; a cell without votes stays as it is. Emptiness never
    changes.

    Args:
        grid: Labels.
        classes: Their convention.
        only_other: Leave cells alone that have a class.
    """
    changes = grid == classes.other if only_other else grid != classes.empty
    return _with_most_frequent(grid, grid, changes, classes)


def pool_unified(
    grid: UInt8[Tensor, "X Y Z"], classes: ClassTable, *, by_vote: bool = False
) -> UInt8[Tensor, "X Y Z"]:
    """Dilate the occupied cells, then give all of them the most frequent class around them.

    Only cells that had a class before have a vote; a new cell without votes becomes `other`.

    Args:
        grid: Labels.
        classes: Their convention.
        by_vote: Fill an empty cell only if most of the 27 cells around it are occupied.
    """
    empty = grid == classes.empty
    occupied = _filled(~empty, by_vote)
    dilated = grid.masked_fill(occupied & empty, classes.other)
    return _with_most_frequent(dilated, grid, occupied, classes)


def _filled(occupied: Bool[Tensor, "X Y Z"], by_vote: bool) -> Bool[Tensor, "X Y Z"]:
    """Return the occupied cells after dilation or a vote."""
    around = _count_around(occupied)
    return occupied | (around > MOST_NEIGHBOURS_OF_AN_EMPTY_CELL) if by_vote else around > 0


def _with_most_frequent(
    grid: UInt8[Tensor, "X Y Z"],
    voters: UInt8[Tensor, "X Y Z"],
    changes: Bool[Tensor, "X Y Z"],
    classes: ClassTable,
) -> UInt8[Tensor, "X Y Z"]:
    """Return the grid with the most frequent class of the voters in the cells that change."""
    # One number per cell orders by votes, then by lowest id: votes * 256 + (255 - id).
    strongest = torch.zeros_like(voters, dtype=torch.int16)
    present = torch.bincount(voters.flatten()).nonzero()[:, 0].to(voters.dtype)
    for label in present:
        if int(label) in (classes.empty, classes.other):
            continue
        votes = _count_around(voters == label).to(torch.int16)
        torch.maximum(strongest, votes.mul_(256).add_(255 - int(label)), out=strongest)
    most_frequent = (255 - strongest % 256).to(torch.uint8)
    return torch.where(changes & (strongest >= 256), most_frequent, grid)


def _count_around(chosen: Bool[Tensor, "X Y Z"]) -> UInt8[Tensor, "X Y Z"]:
    """Count the chosen cells among the 27 around each cell, itself included."""
    count = chosen.to(torch.uint8)
    for axis in range(3):
        total = count.clone()
        length = count.shape[axis] - 1
        total.narrow(axis, 0, length).add_(count.narrow(axis, 1, length))
        total.narrow(axis, 1, length).add_(count.narrow(axis, 0, length))
        count = total
    return count
