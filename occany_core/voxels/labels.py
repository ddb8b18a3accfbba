# SPDX-License-Identifier: Apache-2.0
"""Labelled points become a grid of classes, as published (spec 8), and its two stages are fused.

Per corner offset the best `weight * (confidence - 1)` of each class counts, the eight offsets
add up, and the strongest class wins. Only cells and classes that occur are stored.

Points are in the grid frame, metres. `P` points, `X Y Z` cells, `K` pairs of cell and class.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from math import prod

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from occany_core.errors import InputError
from occany_core.voxels.grid import VoxelGridSpec
from occany_core.voxels.published import (
    CORNERS,
    ClassTable,
    ConfidenceGrid,
    LatticePlaces,
    framed,
)

CHUNK = 1 << 18
"""Points whose eight scores are held at once."""


@dataclass(frozen=True)
class ClassScores:
    """Positive scores of classes in cells, ordered by cell and class."""

    index: Int[Tensor, "K 4"]
    """Cell (i, j, k) and class."""
    scores: Float[Tensor, " K"]


class ScoreSums:
    """Scores of all classes in all cells, of points that come chunk after chunk.

    Args:
        spec: The grid.
        num_classes: Labels are below it.
        device: Where the points are.
    """

    # The corners of a point follow from the place of its low corner, which has an index on a grid
    # with one more layer all around. So maxima are kept per class and place, in this order, with
    # one row per corner.

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
        keys = labels[useful].long() * prod(framed(self.spec.shape)) + places.places(self.spec)
        known = len(self._keys)
        self._keys, slot = torch.cat((self._keys, keys)).unique(return_inverse=True)
        best = self._best.new_zeros(len(CORNERS), len(self._keys))
        best[:, slot[:known]] = self._best
        for row, weight in zip(best, places.weights(), strict=True):
            score = torch.where(weight > 0, weight * value, 0.0)
            row.scatter_reduce_(0, slot[known:], score, "amax")
        self._best = best

    def per_class(self) -> Iterator[tuple[int, Float[Tensor, "X Y Z"]]]:
        """Yield the classes that occur, in order, with the sum of the eight maxima per cell."""
        shape = framed(self.spec.shape)
        num_places = prod(shape)
        starts = torch.arange(self.num_classes + 1, device=self._keys.device) * num_places
        starts = torch.searchsorted(self._keys, starts).tolist()
        for label, (start, end) in enumerate(pairwise(starts)):
            if start == end:
                continue
            total = self._best.new_zeros(num_places)
            places = self._keys[start:end] - label * num_places
            for (a, b, c), best in zip(CORNERS, self._best[:, start:end], strict=True):
                total[places + ((a * shape[1] + b) * shape[2] + c)] += best  # places are unique
            yield label, total.view(shape)[1:-1, 1:-1, 1:-1]

    def total(self) -> ClassScores:
        """Return all positive sums."""
        indices = [self._keys.new_zeros(0, 4)]
        scores = [self._best.new_zeros(0)]
        for label, total in self.per_class():
            ijk = total.nonzero()
            indices.append(torch.nn.functional.pad(ijk, (0, 1), value=label))
            scores.append(total[tuple(ijk.T)])
        index = torch.cat(indices)
        i, j, k, label = index.T
        _, ny, nz = self.spec.shape
        order = ((((i * ny) + j) * nz + k) * self.num_classes + label).argsort()
        return ClassScores(index[order], torch.cat(scores)[order])


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
        marked = self._marks.occupied(-torch.inf)
        labels = torch.full_like(marked, self.classes.empty, dtype=torch.uint8)
        labels.masked_fill_(marked, self.classes.other)
        highest = torch.zeros(self.spec.shape, device=labels.device)
        for label, total in self._scores.per_class():
            labels.masked_fill_(total > highest, label)
            torch.maximum(highest, total, out=highest)
        return labels


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
        return self[self.confidence > threshold]

    def __getitem__(self, chosen: Tensor | slice) -> "LabelledPoints":
        """Return some of the points."""
        labels = None if self.labels is None else self.labels[chosen]
        return LabelledPoints(self.points[chosen], self.confidence[chosen], labels)


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
