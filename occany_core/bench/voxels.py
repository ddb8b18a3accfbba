# SPDX-License-Identifier: Apache-2.0
"""How fast points become cells, on one processor thread, in a grid of SemanticKITTI's size."""

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from occany_core.errors import InputError
from occany_core.voxels import (
    ClassTable,
    ConfidenceGrid,
    VoxelGridSpec,
    count_points,
    label_trilinear,
    mark_trilinear,
    pool_geometry,
    pool_labels,
    pool_unified,
)

GRID = VoxelGridSpec((0.0, -25.6, -2.0), 0.2, (256, 256, 32))
CLASSES = ClassTable(num_classes=20, other=20, empty=0)
THRESHOLD = 2.0
"""Confidence above which points count."""


@dataclass(frozen=True)
class VoxelTiming:
    """What `measure` found."""

    points: int
    repeats: int
    shape: tuple[int, int, int]
    """Cells of the grid."""
    seconds_per_million_points: dict[str, float]
    """Median by operation: `count`, `mark`, `confidence` (all thresholds), `label`."""
    seconds_per_grid: dict[str, float]
    """Median by operation on a grid of labels: `pool_geometry`, `pool_labels`, `pool_unified`."""


def measure(points: int = 1_000_000, repeats: int = 5) -> VoxelTiming:
    """Time voxelisation of points spread evenly over the grid and one cell beyond.

    Args:
        points: How many.
        repeats: Runs of each operation after one that does not count.

    Raises:
        InputError: No points or no repetitions.
    """
    if points < 1 or repeats < 1:
        raise InputError(
            f"{points} points and {repeats} repeats cannot be timed; give at least 1 of each"
        )
    draw = torch.Generator().manual_seed(0)
    lattice = torch.rand(points, 3, generator=draw) * (torch.tensor(GRID.shape) + 2) - 1
    where = lattice * GRID.resolution + torch.tensor(GRID.origin)
    confidence = 1 + torch.rand(points, generator=draw) * 3
    labels = torch.randint(1, CLASSES.num_classes, (points,), generator=draw)

    def all_thresholds() -> None:
        grid = ConfidenceGrid(GRID)
        grid.add(where, confidence)
        grid.occupied(THRESHOLD)

    with _one_thread():
        labelled = label_trilinear(where, confidence, labels, GRID, CLASSES)
        of_points = {
            "count": lambda: count_points(where, GRID),
            "mark": lambda: mark_trilinear(where, GRID),
            "confidence": all_thresholds,
            "label": lambda: label_trilinear(where, confidence, labels, GRID, CLASSES),
        }
        of_grids = {
            "pool_geometry": lambda: pool_geometry(labelled, CLASSES),
            "pool_labels": lambda: pool_labels(labelled, CLASSES),
            "pool_unified": lambda: pool_unified(labelled, CLASSES),
        }
        millions = points / 1e6
        return VoxelTiming(
            points,
            repeats,
            GRID.shape,
            {name: _median(run, repeats) / millions for name, run in of_points.items()},
            {name: _median(run, repeats) for name, run in of_grids.items()},
        )


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let PyTorch use one thread in the body of a with statement."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _median(run: Callable[[], object], repeats: int) -> float:
    """Return the median seconds of a function."""
    run()
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds)
