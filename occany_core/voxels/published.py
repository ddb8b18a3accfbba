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
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from occany_core.voxels.grid import VoxelGridSpec, cell_or_none, lattice_coordinates

CHUNK = 1 << 16
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


@dataclass(frozen=True)
class LatticePlaces:
    """Points between lattice nodes."""

    low: Float[Tensor, "P 3"]
    """Floor of the lattice coordinates."""
    rest: Float[Tensor, "P 3"]
    """Lattice coordinates less their floor, 0 to 1."""

    @classmethod
    def of(cls, points: Float[Tensor, "P 3"], spec: VoxelGridSpec) -> "LatticePlaces":
        """Place points in the grid frame on the lattice of a grid."""
        q = lattice_coordinates(points, spec)
        low = q.floor()
        return cls(low, q - low)

    def touches(self, spec: VoxelGridSpec) -> Bool[Tensor, " P"]:
        """Return which points have a corner in the grid; none that is not finite does."""
        return _within(self.low, -1, spec.shape)

    def __getitem__(self, chosen: Tensor) -> "LatticePlaces":
        """Return some of the points."""
        return LatticePlaces(self.low[chosen], self.rest[chosen])

    def weights(self) -> Iterator[tuple[tuple[int, int, int], Float[Tensor, " P"]]]:
        """Yield the offset of each corner and its weights."""
        sides = [(1 - r, r) for r in self.rest.unbind(-1)]
        for a, b, c in CORNERS:
            yield (a, b, c), sides[0][a] * sides[1][b] * sides[2][c]


def _within(
    values: Float[Tensor, "P 3"], least: float, below: tuple[int, int, int]
) -> Bool[Tensor, " P"]:
    """Return where least <= value < below in all three columns."""
    inside = (values >= least) & (values < values.new_tensor(below))
    x, y, z = inside.unbind(-1)
    return x & y & z


class ConfidenceGrid:
    """The highest confidence among the points that mark each cell.

    Any threshold can be applied afterwards: it gives the cells that the points above it mark,
    without keeping points or pointmaps.

    Args:
        spec: The grid.
        device: Where the points are.
    """

    # A generic point marks all eight corners of its place. Its confidence is kept once, at the
    # place of its low corner, on a grid with one more layer on the low sides; the corners are the
    # maximum over neighbours there. Points on lattice planes mark fewer corners, one by one.

    def __init__(self, spec: VoxelGridSpec, device: torch.device | str = "cpu") -> None:
        self.spec = spec
        self._places = torch.full(
            [n + 1 for n in spec.shape], -torch.inf, dtype=torch.float32, device=device
        )
        self._cells = torch.full(
            (spec.num_cells + 1,), -torch.inf, dtype=torch.float32, device=device
        )

    def add(self, points: Float[Tensor, "P 3"], confidence: Float[Tensor, " P"]) -> None:
        """Take in points; those without a number for a place or a confidence mark nothing."""
        for some, trust in zip(points.split(CHUNK), confidence.split(CHUNK), strict=True):
            self._add_chunk(some, trust)

    def _add_chunk(self, points: Float[Tensor, "P 3"], confidence: Float[Tensor, " P"]) -> None:
        places = LatticePlaces.of(points, self.spec)
        touches = places.touches(self.spec) & (confidence == confidence)
        generic = touches & _within(places.rest, LEAST_GENERIC_REMAINDER, (1, 1, 1))
        _, ny, nz = self._places.shape
        x, y, z = torch.where(generic[:, None], places.low + 1, 0).to(torch.int32).unbind(-1)
        self._places.view(-1).scatter_reduce_(
            0,
            ((x * ny + y) * nz + z).long(),
            torch.where(generic, confidence, -torch.inf),
            "amax",
        )
        special = (touches & ~generic).nonzero()[:, 0]
        if len(special):
            self._add_special(places[special], confidence[special])

    def _add_special(self, places: LatticePlaces, confidence: Float[Tensor, " P"]) -> None:
        for offset, weight in places.weights():
            cells = cell_or_none(places.low + places.low.new_tensor(offset), self.spec)
            trust = torch.where(weight > 0, confidence, -torch.inf)
            self._cells.scatter_reduce_(0, cells, trust, "amax")

    def highest(self) -> Float[Tensor, "X Y Z"]:
        """Return the highest confidence per cell, -inf where no point marks it."""
        best = self._places
        best = torch.maximum(best[1:], best[:-1])
        best = torch.maximum(best[:, 1:], best[:, :-1])
        best = torch.maximum(best[:, :, 1:], best[:, :, :-1])
        return torch.maximum(best, self._cells[:-1].view(self.spec.shape))

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
    grid = ConfidenceGrid(spec, points.device)
    grid.add(points, points.new_zeros(len(points)))
    return grid.occupied(-torch.inf)


def occupancy_weights(points: Float[Tensor, "P 3"], spec: VoxelGridSpec) -> Float[Tensor, "X Y Z"]:
    """Return the sum of the trilinear weights in each cell, at most 1.

    The published code decides with `> 0`, which is what `mark_trilinear` returns.
    """
    total = points.new_zeros(spec.num_cells + 1)
    for some in points.split(CHUNK):
        places = LatticePlaces.of(some, spec)
        places = places[places.touches(spec).nonzero()[:, 0]]
        for offset, weight in places.weights():
            cells = cell_or_none(places.low + places.low.new_tensor(offset), spec)
            total.index_add_(0, cells, weight)
    return total[:-1].clamp_max(1).view(spec.shape)
