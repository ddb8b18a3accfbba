# SPDX-License-Identifier: Apache-2.0
"""Labelled pixels -> class of every occupied cell.

`V` views, `H W` pixels, `X Y Z` cells, `N` cells without a class.
"""

from dataclasses import replace
from itertools import product

import torch
import torch.nn.functional as F
from jaxtyping import Bool, UInt8
from torch import Tensor

from occany_core.semantics.class_prompts import UNLABELLED
from occany_core.voxels import ClassTable, LabelGrid, ViewPoints, VoxelGrid, VoxelGridSpec

SPREAD = 2
"""So many cells deep, what has no class of its own takes that of its neighbours."""


class CellLabels:
    """Votes of labelled points, by the published rule (`LabelGrid`).

    Points of sky and of `other` do not vote: a cell with no other points is `other`. Then a cell
    that has no class, such as those that only rendered views or filled gaps occupy, takes the most
    frequent one among the 26 around it, as the published label pooling does, `SPREAD` times over.
    What is left without stays `UNLABELLED`, as does all that is not occupied.

    Args:
        spec: The grid.
        classes: Label convention.
        device: Where the points are.
    """

    def __init__(
        self, spec: VoxelGridSpec, classes: ClassTable, device: torch.device | str = "cpu"
    ) -> None:
        self.classes = classes
        self._votes = LabelGrid(spec, classes, device)

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
            kept = view.kept(min_confidence) & (labels != UNLABELLED)
            self._votes.add(view.points[kept], view.confidence[kept], labels[kept])

    def labelled(self, grid: VoxelGrid) -> VoxelGrid:
        """Return a grid, made of the same points, with labels."""
        labels = self._votes.grid()
        occupied = torch.from_numpy(grid.occupied).to(labels.device)
        labels[~occupied | (labels == self.classes.empty)] = UNLABELLED
        for _ in range(SPREAD):
            lacks = occupied & ((labels == UNLABELLED) | (labels == self.classes.other))
            labels = _spread(labels, lacks, self.classes)
        return replace(grid, labels=labels.cpu().numpy())


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
    # One number orders by votes, then by lowest id.
    ids = torch.arange(nobody + 1, dtype=torch.int16, device=votes.device)
    strongest = (votes * 256 + (255 - ids)).amax(dim=1)
    best = (255 - strongest % 256).to(torch.uint8)
    changed = labels.clone()
    changed[i, j, k] = torch.where(strongest >= 256, best, labels[i, j, k])
    return changed
