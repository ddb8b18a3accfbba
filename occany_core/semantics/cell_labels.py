# SPDX-License-Identifier: Apache-2.0
"""Labelled pixels -> class of every occupied cell.

`V` views, `H W` pixels, `X Y Z` cells, `N` cells without a class.
"""

from dataclasses import replace
from itertools import product

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int, UInt8
from torch import Tensor

from occany_core.config import VoxelsConfig
from occany_core.semantics.class_prompts import UNLABELLED
from occany_core.voxels import (
    ClassTable,
    LabelGrid,
    ViewPoints,
    VoxelGrid,
    VoxelGridSpec,
    fill_flat_gaps,
    lattice_coordinates,
)
from occany_core.voxels.grid import cell_or_none

Device = torch.device | str

SPREAD = 4
"""So many cells deep, what has no class of its own takes that of its neighbours."""


class CellLabels:
    """Gathers the votes of labelled points.

    Points of sky and of `other` do not vote: a cell with no other points is `other`. Then a cell
    that has no class, such as those that only rendered views occupy, takes the most frequent one
    among the 26 around it, as the published label pooling does, `SPREAD` times over. What is left
    without stays `UNLABELLED`, as does all that is not occupied.

    Args:
        config: The grid, and by which method points fill it. `cell`: the points in a cell vote,
            and those in the gaps of flat surfaces that `Fusion` fills. `trilinear`: as published
            (`LabelGrid`).
        classes: Label convention.
        device: Where the points are.
    """

    def __init__(
        self, config: VoxelsConfig, classes: ClassTable, device: torch.device | str = "cpu"
    ) -> None:
        kind = _PublishedVotes if config.method == "trilinear" else _CountedVotes
        self.classes = classes
        self._votes = kind(VoxelGridSpec.of(config), classes, device)

    def add(
        self, views: list[ViewPoints], pixels: UInt8[Tensor, "V H W"], min_confidence: float
    ) -> None:
        """Take in the points of views.

        Args:
            views: In the grid frame.
            pixels: Class of each of their points; `UNLABELLED` ones are left out.
            min_confidence: Points count above it.
        """
        for view, labels in zip(views, pixels, strict=True):
            self._votes.add(view, labels, view.kept(min_confidence) & (labels != UNLABELLED))

    def labelled(self, grid: VoxelGrid) -> VoxelGrid:
        """Return a grid, made of the same points, with labels."""
        labels = self._votes.labels(grid)
        occupied = torch.from_numpy(grid.occupied).to(labels.device)
        labels[~occupied | (labels == self.classes.empty)] = UNLABELLED
        for _ in range(SPREAD):
            lacks = occupied & ((labels == UNLABELLED) | (labels == self.classes.other))
            labels = _spread(labels, lacks, self.classes)
        return replace(grid, labels=labels.cpu().numpy())


class _PublishedVotes:
    def __init__(self, spec: VoxelGridSpec, classes: ClassTable, device: Device) -> None:
        self._grid = LabelGrid(spec, classes, device)

    def add(
        self, view: ViewPoints, labels: UInt8[Tensor, "H W"], kept: Bool[Tensor, "H W"]
    ) -> None:
        self._grid.add(view.points[kept], view.confidence[kept], labels[kept])

    def labels(self, grid: VoxelGrid) -> UInt8[Tensor, "X Y Z"]:
        del grid
        return self._grid.grid()


class _CountedVotes:
    """Every point is one vote for the cell that it is in; the lowest id wins ties."""

    def __init__(self, spec: VoxelGridSpec, classes: ClassTable, device: Device) -> None:
        self.spec, self.classes = spec, classes
        self._cells = [torch.zeros(0, dtype=torch.long, device=device)]
        self._labels = [torch.zeros(0, dtype=torch.uint8, device=device)]

    def add(
        self, view: ViewPoints, labels: UInt8[Tensor, "H W"], kept: Bool[Tensor, "H W"]
    ) -> None:
        gaps = fill_flat_gaps(view.points - view.centre, kept, self.spec.resolution)
        points = torch.cat((view.points[kept], gaps.points + view.centre))
        self._cells.append(cell_or_none(lattice_coordinates(points, self.spec), self.spec))
        self._labels += [labels[kept], labels.flatten()[gaps.pixel]]

    def labels(self, grid: VoxelGrid) -> UInt8[Tensor, "X Y Z"]:
        cells, labels = torch.cat(self._cells), torch.cat(self._labels)
        occupied = torch.from_numpy(grid.occupied).to(cells.device).flatten()
        row = occupied.cumsum(0) - 1
        inside = cells < self.spec.num_cells
        cells, labels = cells[inside], labels[inside]
        counts = occupied[cells]
        cells, labels = cells[counts], labels[counts].long()
        votes = torch.zeros(
            int(occupied.sum()), self.classes.num_classes, dtype=torch.int32, device=cells.device
        )
        votes.view(-1).index_add_(
            0,
            row[cells] * self.classes.num_classes + labels,
            votes.new_ones(()).expand(len(cells)),
        )
        has_points = votes.any(dim=1)
        votes[:, [self.classes.other, self.classes.empty]] = 0
        best = _lowest_of_most(votes)
        best[votes.amax(dim=1) == 0] = self.classes.other
        found = torch.full_like(occupied, UNLABELLED, dtype=torch.uint8)
        found[occupied] = best.masked_fill(~has_points, UNLABELLED)
        return found.view(self.spec.shape)


def _spread(
    labels: UInt8[Tensor, "X Y Z"], lacks: Bool[Tensor, "X Y Z"], classes: ClassTable
) -> UInt8[Tensor, "X Y Z"]:
    """Give cells the most frequent class around them, the lowest id on ties; or leave them."""
    framed = F.pad(labels, (1, 1, 1, 1, 1, 1), value=UNLABELLED)
    _, rows, columns = framed.shape
    i, j, k = lacks.nonzero().unbind(1)
    low = (i * rows + j) * columns + k
    around = [(a * rows + b) * columns + c for a, b, c in product(range(3), repeat=3)]
    seen = framed.flatten()[low[:, None] + low.new_tensor(around)].long()  # (N, 27)
    nobody = classes.num_classes
    votes = seen.new_zeros(len(low), nobody + 1, dtype=torch.int16)
    votes.scatter_add_(1, seen.clamp_max(nobody), torch.ones_like(seen, dtype=torch.int16))
    votes[:, [classes.other, classes.empty, nobody]] = 0
    has_votes = votes.amax(dim=1) > 0
    changed = labels.clone()
    changed[i, j, k] = torch.where(has_votes, _lowest_of_most(votes), labels[i, j, k])
    return changed


def _lowest_of_most(votes: Int[Tensor, "N C"]) -> UInt8[Tensor, " N"]:
    """Return the column with most votes, the lowest on ties."""
    # One number orders by votes, then by lowest column.
    columns = torch.arange(votes.shape[1], dtype=votes.dtype, device=votes.device)
    strongest = (votes * 256 + (255 - columns)).amax(dim=1)
    return (255 - strongest % 256).to(torch.uint8)
