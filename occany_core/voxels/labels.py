# SPDX-License-Identifier: Apache-2.0
"""Labelled points become a grid of classes, as published (spec 8), and its two stages are fused.

Per corner offset the best `weight * (confidence - 1)` of each class counts, the eight offsets
add up, and the strongest class wins. Only cells and classes that occur are stored.

Points are in the grid frame, metres. `P` points, `X Y Z` cells, `K` pairs of cell and class.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from occany_core.errors import InputError
from occany_core.voxels.grid import VoxelGridSpec
from occany_core.voxels.published import CORNERS, ClassTable, ConfidenceGrid, LatticePlaces

CHUNK = 1 << 18
"""Points whose eight scores are held at once."""


@dataclass(frozen=True)
class ClassScores:
    """Positive scores of classes in cells, ordered by cell and class."""

    cells: Int[Tensor, " K"]
    """Flat index, z fastest."""
    labels: Int[Tensor, " K"]
    scores: Float[Tensor, " K"]


class ScoreSums:
    """Scores of all classes in all cells, of points that come chunk after chunk.

    Args:
        spec: The grid.
        num_classes: Labels are below it.
        device: Where the points are.
    """

    # The corners of a point follow from the place of its low corner. So maxima are kept per
    # (place, class), sorted, with one row per offset; places have one more layer on the low sides.

    def __init__(
        self, spec: VoxelGridSpec, num_classes: int, device: torch.device | str = "cpu"
    ) -> None:
        self.spec = spec
        self.num_classes = num_classes
        self._keys = torch.zeros(0, dtype=torch.long, device=device)
        self._best = torch.zeros(len(CORNERS), 0, device=device)

    def add(
        self,
        points: Float[Tensor, "P 3"],
        confidence: Float[Tensor, " P"],
        labels: Int[Tensor, " P"],
    ) -> None:
        """Take in points.

        Raises:
            InputError: A label is not below the number of classes.
        """
        chunks = (points.split(CHUNK), confidence.split(CHUNK), labels.split(CHUNK))
        for some, trust, label in zip(*chunks, strict=True):
            if len(label) and not 0 <= int(label.min()) <= int(label.max()) < self.num_classes:
                raise InputError(
                    f"labels of points reach from {int(label.min())} to {int(label.max())}, but "
                    f"there are {self.num_classes} classes; map them to 0 .. "
                    f"{self.num_classes - 1}, `other` or `empty` first"
                )
            self._add_chunk(some, trust, label)

    def _add_chunk(
        self,
        points: Float[Tensor, "P 3"],
        confidence: Float[Tensor, " P"],
        labels: Int[Tensor, " P"],
    ) -> None:
        places = LatticePlaces.of(points, self.spec)
        useful = (places.touches(self.spec) & (confidence > 1)).nonzero()[:, 0]
        places, value = places[useful], confidence[useful] - 1
        _, ny, nz = (n + 1 for n in self.spec.shape)
        x, y, z = (places.low + 1).long().unbind(-1)
        keys = ((x * ny + y) * nz + z) * self.num_classes + labels[useful].long()
        known = len(self._keys)
        self._keys, slot = torch.cat((self._keys, keys)).unique(return_inverse=True)
        best = self._best.new_zeros(len(CORNERS), len(self._keys))
        best[:, slot[:known]] = self._best
        for row, (_, weight) in zip(best, places.weights(), strict=True):
            score = torch.where(weight > 0, weight * value, 0.0)
            row.scatter_reduce_(0, slot[known:], score, "amax")
        self._best = best

    def total(self) -> ClassScores:
        """Add up the maxima of the eight offsets."""
        _, ny, nz = (n + 1 for n in self.spec.shape)
        place, label = self._keys // self.num_classes, self._keys % self.num_classes
        place = torch.stack((place // (ny * nz), place // nz % ny, place % nz), dim=-1)
        targets, scores = [], []
        for offset, best in zip(CORNERS, self._best, strict=True):
            x, y, z = ijk = (place + place.new_tensor(offset) - 1).unbind(-1)
            inside = best > 0
            for index, limit in zip(ijk, self.spec.shape, strict=True):
                inside &= (index >= 0) & (index < limit)
            cells = (x * self.spec.shape[1] + y) * self.spec.shape[2] + z
            targets.append((cells * self.num_classes + label)[inside])
            scores.append(best[inside])
        keys, slot = torch.cat(targets).unique(return_inverse=True)
        total = self._best.new_zeros(len(keys))
        for one, where in zip(scores, slot.split([len(one) for one in scores]), strict=True):
            total[where] += one  # no cell occurs twice within an offset
        return ClassScores(keys // self.num_classes, keys % self.num_classes, total)


class LabelGrid:
    """The class of every cell, of labelled points that come chunk after chunk.

    Args:
        spec: The grid.
        classes: Label convention.
        device: Where the points are.
    """

    def __init__(
        self, spec: VoxelGridSpec, classes: ClassTable, device: torch.device | str = "cpu"
    ) -> None:
        self.spec = spec
        self.classes = classes
        self._marks = ConfidenceGrid(spec, device)
        self._scores = ScoreSums(spec, classes.num_classes, device)

    def add(
        self,
        points: Float[Tensor, "P 3"],
        confidence: Float[Tensor, " P"],
        labels: Int[Tensor, " P"],
    ) -> None:
        """Take in points; those labelled `empty` or `other` only make cells occupied.

        Raises:
            InputError: A label is outside the convention.
        """
        self._marks.add(points, confidence)
        usable = (labels != self.classes.empty) & (labels != self.classes.other)
        self._scores.add(points[usable], confidence[usable], labels[usable])

    def grid(self) -> UInt8[Tensor, "X Y Z"]:
        """Return the strongest class (lowest id on ties), `other` without any, or `empty`."""
        marked = self._marks.occupied(-torch.inf).flatten()
        labels = torch.full_like(marked, self.classes.empty, dtype=torch.long)
        labels[marked] = self.classes.other
        found = self._scores.total()
        highest = torch.zeros_like(labels, dtype=torch.float32)
        highest.scatter_reduce_(0, found.cells, found.scores, "amax")
        wins = found.scores == highest[found.cells]
        labels.scatter_reduce_(
            0, found.cells[wins], found.labels[wins], "amin", include_self=False
        )
        return labels.to(torch.uint8).view(self.spec.shape)


def label_trilinear(
    points: Float[Tensor, "P 3"],
    confidence: Float[Tensor, " P"],
    labels: Int[Tensor, " P"],
    spec: VoxelGridSpec,
    classes: ClassTable,
) -> UInt8[Tensor, "X Y Z"]:
    """Voxelise labelled points as published, in one go; see `LabelGrid`.

    Raises:
        InputError: A label is outside the convention.
    """
    grid = LabelGrid(spec, classes, points.device)
    grid.add(points, confidence, labels)
    return grid.grid()


def class_scores(
    points: Float[Tensor, "P 3"],
    confidence: Float[Tensor, " P"],
    labels: Int[Tensor, " P"],
    spec: VoxelGridSpec,
    num_classes: int,
) -> ClassScores:
    """Return the scores of all classes, before any decision.

    Raises:
        InputError: A label is not below the number of classes.
    """
    sums = ScoreSums(spec, num_classes, points.device)
    sums.add(points, confidence, labels)
    return sums.total()


@dataclass(frozen=True)
class LabelledPoints:
    """Points of one stage: of the observed views, or of the rendered ones."""

    points: Float[Tensor, "P 3"]
    confidence: Float[Tensor, " P"]
    labels: Int[Tensor, " P"] | None = None
    """Class of each point, or None where the stage has no label maps."""

    def above(self, threshold: float) -> "LabelledPoints":
        """Return the points with more confidence than the threshold."""
        kept = self.confidence > threshold
        labels = None if self.labels is None else self.labels[kept]
        return LabelledPoints(self.points[kept], self.confidence[kept], labels)


def fuse_joint(
    observed: LabelledPoints, rendered: LabelledPoints, spec: VoxelGridSpec, classes: ClassTable
) -> UInt8[Tensor, "X Y Z"]:
    """Voxelise the points of both stages together, as the published evaluation does (spec 9).

    Labels count only if both stages have them.

    Raises:
        InputError: A label is outside the convention.
    """
    stages = _comparable(observed, rendered)
    return _voxelised(stages, spec, classes)


def fuse_layered(
    observed: LabelledPoints, rendered: LabelledPoints, spec: VoxelGridSpec, classes: ClassTable
) -> UInt8[Tensor, "X Y Z"]:
    """Lay the grid of observed points over that of rendered ones, as the published demo does.

    Labels count only if both stages have them.

    Raises:
        InputError: A label is outside the convention.
    """
    above, below = (_voxelised([one], spec, classes) for one in _comparable(observed, rendered))
    return torch.where(above != classes.empty, above, below)


def _comparable(*stages: LabelledPoints) -> list[LabelledPoints]:
    """Take the labels away unless all stages have them."""
    if all(one.labels is not None for one in stages):
        return list(stages)
    return [LabelledPoints(one.points, one.confidence) for one in stages]


def _voxelised(
    stages: list[LabelledPoints], spec: VoxelGridSpec, classes: ClassTable
) -> UInt8[Tensor, "X Y Z"]:
    """Voxelise stages that all have labels, or all have none."""
    device = stages[0].points.device
    if stages[0].labels is None:
        marks = ConfidenceGrid(spec, device)
        for one in stages:
            marks.add(one.points, one.confidence)
        return marks.published(-torch.inf, classes)
    labelled = LabelGrid(spec, classes, device)
    for one in stages:
        labelled.add(one.points, one.confidence, one.labels)
    return labelled.grid()
