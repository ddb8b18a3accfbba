# SPDX-License-Identifier: Apache-2.0
"""The published voxelisation: a point marks the eight lattice corners around it (spec 8).

With `q = (point - origin) / resolution`, the corner at offset (a, b, c) in {0, 1}^3 belongs to
cell `floor(q) + (a, b, c)` and has the weight `product of (r or 1 - r)`, `r = q - floor(q)`, all
in float32. A corner whose weight is exactly zero is not marked.

Points are in the grid frame, metres. `P` points, `X Y Z` cells, `C` classes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import torch
from jaxtyping import Bool, Float, Int, Num, UInt8
from torch import Tensor

from occany_core.voxels.grid import VoxelGridSpec, cell_or_none

CHUNK = 1 << 17
"""Points handled at once: few enough for the caches of a processor."""
LEAST_GENERIC_REMAINDER = 2.0**-40
"""From here on the product of three remainders cannot vanish in float32."""
CORNERS = tuple(product((0, 1), repeat=3))
"""Offsets of the eight corners, in the order in which the published code adds them up."""


@dataclass(frozen=True)
class ClassTable:
    """Ids with a special meaning in a label convention."""

    num_classes: int
    other: int
    """Occupied, class unknown."""
    empty: int
    """Not occupied."""


def framed(shape: tuple[int, int, int]) -> tuple[int, int, int]:
    """Return the shape of a grid with one more layer of cells all around."""
    return shape[0] + 2, shape[1] + 2, shape[2] + 2


@dataclass(frozen=True)
class LatticePlaces:
    """Points between lattice nodes, axis by axis: processors are fast on long rows."""

    low: Float[Tensor, "3 P"]
    """Floor of the lattice coordinates."""
    rest: Float[Tensor, "3 P"]
    """Lattice coordinates less their floor, 0 to 1."""

    @classmethod
    def of(cls, points: Float[Tensor, "P 3"], spec: VoxelGridSpec) -> "LatticePlaces":
        """Place points in the grid frame on the lattice of a grid."""
        q = points.new_empty(3, len(points))
        for row, column, origin in zip(q, points.unbind(-1), spec.origin, strict=True):
            torch.sub(column, origin, out=row)
        q /= points.new_tensor(spec.resolution)
        low = q.floor()
        return cls(low, q.sub_(low))

    def touches(self, spec: VoxelGridSpec) -> Bool[Tensor, " P"]:
        """Return which points have a corner in the grid; none that is not finite does."""
        touches = self.low.amin(dim=0) >= -1
        for low, length in zip(self.low, spec.shape, strict=True):
            touches &= low < length
        return touches

    def places(self, spec: VoxelGridSpec) -> Int[Tensor, " P"]:
        """Return flat indices of the low corners on a grid with one more layer all around.

        They have no meaning for points that do not touch the grid.
        """
        _, ny, nz = framed(spec.shape)
        x, y, z = (self.low + 1).to(torch.int32)
        return x.mul_(ny).add_(y).mul_(nz).add_(z)

    def __getitem__(self, chosen: Tensor) -> "LatticePlaces":
        """Return some of the points."""
        return LatticePlaces(self.low[:, chosen], self.rest[:, chosen])

    def corners(
        self, spec: VoxelGridSpec
    ) -> Iterator[tuple[Int[Tensor, " P"], Float[Tensor, " P"]]]:
        """Yield cells (`spec.num_cells` where there is none) and weights of each corner."""
        for offset, weight in zip(CORNERS, self.weights(), strict=True):
            cells = cell_or_none(self.low.T + self.low.new_tensor(offset), spec)
            yield cells, weight

    def weights(self) -> Iterator[Float[Tensor, " P"]]:
        """Yield the trilinear weights of each corner."""
        x, y, z = ((1 - rest, rest) for rest in self.rest)
        for a, b, c in CORNERS:
            yield x[a] * y[b] * z[c]


class CornerMaxima:
    """The largest value among the points that mark each cell.

    Args:
        spec: The grid.
        nothing: What cells hold that no point marks: below all values; its type is theirs.
    """

    # A generic point marks all eight corners of its place. Its value is kept once, at the place
    # of its low corner, on a grid with one more layer all around; the corners are the maximum
    # over neighbours there. Points on lattice planes mark fewer corners, one by one. (A remainder
    # rounds to 1 only just below the first plane, where the corners without weight are outside.)

    def __init__(self, spec: VoxelGridSpec, nothing: Num[Tensor, ""]) -> None:
        self.spec = spec
        self.nothing = nothing
        self._places = nothing.repeat(framed(spec.shape))
        self._cells: Num[Tensor, " cells"] | None = None

    def add(self, points: Float[Tensor, "P 3"], values: Num[Tensor, " P"]) -> None:
        """Take in points; those that are not finite, and values that are no number, do nothing."""
        for some, value in zip(points.split(CHUNK), values.split(CHUNK), strict=True):
            self._add_chunk(some, value)

    def _add_chunk(self, points: Float[Tensor, "P 3"], values: Num[Tensor, " P"]) -> None:
        places = LatticePlaces.of(points, self.spec)
        touches = places.touches(self.spec)
        if values.is_floating_point():
            touches &= ~values.isnan()
        generic = touches & (places.rest.amin(dim=0) >= LEAST_GENERIC_REMAINDER)
        index = torch.where(generic, places.places(self.spec), 0).long()
        at_places = torch.where(generic, values, self.nothing)
        self._places.view(-1).scatter_reduce_(0, index, at_places, "amax")
        special = (touches & ~generic).nonzero()[:, 0]
        if len(special):
            self._add_special(places[special], values[special])

    def _add_special(self, places: LatticePlaces, values: Num[Tensor, " P"]) -> None:
        if self._cells is None:
            self._cells = self.nothing.repeat(self.spec.num_cells + 1)
        for cells, weight in places.corners(self.spec):
            at_corners = torch.where(weight > 0, values, self.nothing)
            self._cells.scatter_reduce_(0, cells, at_corners, "amax")

    def largest(self) -> Num[Tensor, "X Y Z"]:
        """Return the largest value per cell."""
        best = self._places
        best = torch.maximum(best[1:-1], best[:-2])
        best = torch.maximum(best[:, 1:-1], best[:, :-2])
        best = torch.maximum(best[:, :, 1:-1], best[:, :, :-2])
        if self._cells is None:
            return best
        return torch.maximum(best, self._cells[:-1].view(self.spec.shape))


class ConfidenceGrid:
    """The highest confidence among the points that mark each cell.

    Any threshold can be applied afterwards: it gives the cells that the points above it mark,
    without keeping points or pointmaps.

    Args:
        spec: The grid.
        device: Where the points are.
    """

    def __init__(self, spec: VoxelGridSpec, device: torch.device | str = "cpu") -> None:
        self._maxima = CornerMaxima(spec, torch.tensor(-torch.inf, device=device))

    def add(self, points: Float[Tensor, "P 3"], confidence: Float[Tensor, " P"]) -> None:
        """Take in points; those without a number for a place or a confidence mark nothing."""
        self._maxima.add(points, confidence)

    def highest(self) -> Float[Tensor, "X Y Z"]:
        """Return the highest confidence per cell, -inf where no point marks it."""
        return self._maxima.largest()

    def occupied(self, threshold: float) -> Bool[Tensor, "X Y Z"]:
        """Return the cells that a point with more confidence than the threshold marks."""
        return self.highest() > threshold

    def published(self, threshold: float, classes: ClassTable) -> UInt8[Tensor, "X Y Z"]:
        """Return the grid published for points without labels.

        Parity: class 1 stands for "occupied" where a confidence is above 1, `other` elsewhere.
        """
        highest = self.highest()
        grid = torch.full_like(highest, classes.empty, dtype=torch.uint8)
        grid[highest > threshold] = classes.other
        grid[highest > max(threshold, 1.0)] = 1
        return grid


def mark_trilinear(points: Float[Tensor, "P 3"], spec: VoxelGridSpec) -> Bool[Tensor, "X Y Z"]:
    """Mark every cell that gets a positive trilinear weight from some point.

    Parity: the published grids treat cell i as the lattice node at its lower corner, so a
        point marks up to eight cells and never the one below (spec 8).
    """
    maxima = CornerMaxima(spec, points.new_zeros((), dtype=torch.uint8))
    maxima.add(points, maxima.nothing.new_ones(()).expand(len(points)))
    return maxima.largest().bool()


def occupancy_weights(points: Float[Tensor, "P 3"], spec: VoxelGridSpec) -> Float[Tensor, "X Y Z"]:
    """Return the sum of the trilinear weights in each cell, at most 1.

    The published code decides with `> 0`, which is what `mark_trilinear` returns.
    """
    total = points.new_zeros(spec.num_cells + 1)
    for some in points.split(CHUNK):
        places = LatticePlaces.of(some, spec)
        places = places[places.touches(spec).nonzero()[:, 0]]
        for cells, weight in places.corners(spec):
            total.index_add_(0, cells, weight)
    return total[:-1].clamp_max(1).view(spec.shape)
