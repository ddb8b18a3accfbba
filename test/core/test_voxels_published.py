# SPDX-License-Identifier: Apache-2.0
"""The published voxelisation equals plain loops, with any chunks, thresholds before or after."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds

from occany_core.bench import voxels as timing
from occany_core.errors import InputError
from occany_core.voxels import (
    ClassTable,
    ConfidenceGrid,
    LabelGrid,
    LabelledPoints,
    VoxelGridSpec,
    class_scores,
    fuse_joint,
    fuse_layered,
    label_trilinear,
    lattice_coordinates,
    mark_trilinear,
    occupancy_weights,
    published,
)

SPEC = VoxelGridSpec((0.0, -2.0, -1.0), 1.0, (4, 5, 3))
KITTI = VoxelGridSpec((0.0, -25.6, -2.0), 0.2, (256, 256, 32))
CLASSES = ClassTable(num_classes=6, other=0, empty=5)
NASTY = [
    *(0.0, -0.0, 1.0, 2.0, 3.0, 4.0, 5.0, -1.0, -2.0, -3.0, 0.5, 2.25, 3.999),
    *(1e-9, -1e-9, 1e-13, 1e-20, 1e-39, -1e-39, 1e-45, 1 - 1e-7, 3 - 3e-7, -1.0000001),
    *(math.nan, math.inf, -math.inf, 1e30, -1e30, 3e9, -3e9),
]
"""On lattice planes, next to them, beyond the grid, and no places at all."""


def drawn(rng: np.random.Generator, number: int) -> torch.Tensor:
    """Points in and around the grid, a third of the coordinates nasty."""
    points = rng.uniform([-2, -4, -3], [6, 5, 4], (number, 3))
    nasty = rng.choice(NASTY, (number, 3))
    return torch.from_numpy(np.where(rng.random((number, 3)) < 0.35, nasty, points)).float()


def corners(point: torch.Tensor, spec: VoxelGridSpec):
    """(offset, cell, weight) of the lattice neighbours inside the grid, in float32."""
    lattice = lattice_coordinates(point[None], spec)[0].numpy()
    if not np.isfinite(lattice).all():
        return
    low = np.floor(lattice)
    rest = lattice - low
    for offset in itertools.product((0, 1), repeat=3):
        cell = tuple(int(c) for c in low + offset)
        x, y, z = np.where(offset, rest, np.float32(1) - rest)
        if all(0 <= c < n for c, n in zip(cell, spec.shape)):
            yield offset, cell, x * y * z


def highest_in_a_loop(points, confidence, spec) -> np.ndarray:
    highest = np.full(spec.shape, -np.inf, np.float32)
    for point, trust in zip(points, confidence.tolist()):
        for _, cell, weight in corners(point, spec):
            if weight > 0:
                highest[cell] = max(highest[cell], trust)
    return highest


@given(seeds, st.integers(0, 30))
def test_highest_confidence_equals_a_loop(seed, number):
    rng = np.random.default_rng(seed)
    points, confidence = drawn(rng, number), torch.from_numpy(rng.exponential(2, number)).float()
    grid = ConfidenceGrid(SPEC)
    grid.add(points, confidence)
    expected = highest_in_a_loop(points, confidence, SPEC)
    np.testing.assert_array_equal(grid.highest(), expected)
    np.testing.assert_array_equal(mark_trilinear(points, SPEC), np.isfinite(expected))


@given(seeds, st.sampled_from([-math.inf, 0.0, 0.5, 1.0, 1.7, 2.0, 4.0, math.inf]))
def test_a_threshold_afterwards_is_a_threshold_before(seed, threshold):
    rng = np.random.default_rng(seed)
    points = drawn(rng, 40)
    confidence = torch.from_numpy(rng.choice([0.5, 1, 1.7, 2, 2.5, 4, math.nan], 40)).float()
    grid = ConfidenceGrid(SPEC)
    for part in torch.arange(40).split(int(rng.integers(1, 40))):
        grid.add(points[part], confidence[part])
    kept = confidence > threshold
    before = mark_trilinear(points[kept], SPEC)
    assert torch.equal(grid.occupied(threshold), before)
    only_kept = ConfidenceGrid(SPEC)
    only_kept.add(points[kept], confidence[kept])
    expected = only_kept.published(-math.inf, CLASSES)
    assert torch.equal(grid.published(threshold, CLASSES), expected)
    assert torch.equal(expected != CLASSES.empty, before)
    trusted = mark_trilinear(points[kept & (confidence > 1)], SPEC)
    assert torch.equal(expected == 1, trusted)


def test_points_in_chunks_equal_points_at_once(monkeypatch):
    rng = np.random.default_rng(5)
    points, confidence = drawn(rng, 300), torch.from_numpy(1 + rng.exponential(1, 300)).float()
    labels = torch.from_numpy(rng.integers(0, 6, 300))
    finite = torch.isfinite(points).all(dim=1)

    def results():
        return (
            mark_trilinear(points, SPEC),
            label_trilinear(points, confidence, labels, SPEC, CLASSES),
            occupancy_weights(points[finite], SPEC),
        )

    at_once = results()
    monkeypatch.setattr(published, "CHUNK", 7)
    monkeypatch.setattr("occany_core.voxels.labels.CHUNK", 11)
    for ours, expected in zip(results(), at_once):
        torch.testing.assert_close(ours, expected)
    grid = LabelGrid(SPEC, CLASSES)
    for part in torch.from_numpy(rng.permutation(300)).split(13):
        grid.add(points[part], confidence[part], labels[part])
    assert torch.equal(grid.grid(), at_once[1])


@given(seeds, st.integers(0, 30))
def test_sums_before_a_decision_equal_a_loop(seed, number):
    rng = np.random.default_rng(seed)
    points, confidence = drawn(rng, number), torch.from_numpy(rng.uniform(0, 5, number)).float()
    labels = torch.from_numpy(rng.integers(0, 6, number))
    weights = np.zeros(SPEC.shape)
    best = np.zeros((2, 2, 2, *SPEC.shape, 6), np.float32)
    for point, trust, label in zip(points, confidence.numpy(), labels.tolist()):
        for offset, cell, weight in corners(point, SPEC):
            weights[cell] += weight
            slot = (*offset, *cell, label)
            best[slot] = max(best[slot], weight * (trust - np.float32(1)))
    ours = occupancy_weights(points, SPEC)
    np.testing.assert_allclose(ours, weights.clip(max=1), atol=1e-5, rtol=0)
    total = np.zeros((*SPEC.shape, 6), np.float32)
    for one in best.reshape(8, *total.shape):
        total += one
    found = class_scores(points, confidence, labels, SPEC, 6)
    np.testing.assert_array_equal(found.index, np.argwhere(total > 0))
    np.testing.assert_array_equal(found.scores, total[total > 0])


def test_endless_confidence_wins_and_is_no_trouble_on_lattice_planes():
    points = torch.tensor([[1.0, 0, 0], [1.5, 0.5, 0.5], [1.25, 0.5, 0.5]])
    confidence = torch.tensor([math.inf, 2.0, math.nan])
    grid = label_trilinear(points, confidence, torch.tensor([3, 4, 2]), SPEC, CLASSES)
    expected = torch.full(SPEC.shape, CLASSES.empty, dtype=torch.uint8)
    expected[1:3, 2:4, 1:3], expected[1, 2, 1] = 4, 3
    assert torch.equal(grid, expected)


def test_labels_outside_the_convention_are_refused():
    points, confidence = torch.ones(3, 3), torch.full((3,), 2.0)
    for label in (6, 255, -1):
        with pytest.raises(InputError, match=f"{label}.*6 classes"):
            label_trilinear(points, confidence, torch.tensor([1, label, 2]), SPEC, CLASSES)
    outside = ClassTable(num_classes=6, other=6, empty=0)
    labels = torch.tensor([6, 0, 6], dtype=torch.uint8)
    grid = label_trilinear(points, confidence, labels, SPEC, outside)
    assert set(grid.unique().tolist()) == {0, 6}


# --- stages -------------------------------------------------------------------------------------


def stage(rng: np.random.Generator, number: int = 30) -> LabelledPoints:
    return LabelledPoints(
        drawn(rng, number),
        torch.from_numpy(1 + rng.exponential(1, number)).float(),
        torch.from_numpy(rng.integers(0, 6, number)),
    )


@given(seeds)
def test_joint_fusion_voxelises_all_points_together(seed):
    rng = np.random.default_rng(seed)
    one, two = stage(rng).above(1.5), stage(rng).above(2.0)
    assert one.confidence.min() > 1.5
    together = [torch.cat((getattr(one, n), getattr(two, n))) for n in ("points", "confidence")]
    labels = torch.cat((one.labels, two.labels))
    expected = label_trilinear(*together, labels, SPEC, CLASSES)
    assert torch.equal(fuse_joint(one, two, SPEC, CLASSES), expected)
    plain = LabelledPoints(two.points, two.confidence)
    geometry = fuse_joint(one, plain, SPEC, CLASSES)
    assert torch.equal(geometry != CLASSES.empty, mark_trilinear(together[0], SPEC))
    assert set(geometry.unique().tolist()) <= {1, CLASSES.empty}


@given(seeds)
def test_layered_fusion_lets_rendered_points_fill_what_is_empty(seed):
    rng = np.random.default_rng(seed)
    one, two = stage(rng), stage(rng, 60)
    above = label_trilinear(one.points, one.confidence, one.labels, SPEC, CLASSES)
    below = label_trilinear(two.points, two.confidence, two.labels, SPEC, CLASSES)
    fused = fuse_layered(one, two, SPEC, CLASSES)
    covered = above != CLASSES.empty
    assert torch.equal(fused[covered], above[covered])
    assert torch.equal(fused[~covered], below[~covered])
    plain = LabelledPoints(one.points, one.confidence)
    geometry = fuse_layered(plain, two, SPEC, CLASSES)
    assert set(geometry.unique().tolist()) <= {1, CLASSES.empty}


# --- a million points ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def million() -> torch.Tensor:
    rng = np.random.default_rng(0)
    lattice = rng.uniform(-1.5, np.array(KITTI.shape) + 1.5, (1_000_000, 3))
    lattice[::50] = lattice[::50].round()
    return torch.from_numpy(np.array(KITTI.origin) + lattice * KITTI.resolution).float()


def corner_by_corner(points: np.ndarray, spec: VoxelGridSpec) -> np.ndarray:
    """What the rule says, one corner offset after the other."""
    lattice = (points - np.float32(spec.origin)) / np.float32(spec.resolution)
    low = np.floor(lattice)
    rest = lattice - low
    marked = np.zeros(spec.shape, bool)
    for offset in itertools.product((0, 1), repeat=3):
        sides = np.where(offset, rest, 1 - rest)
        cells = (low + offset).astype(int)
        inside = ((cells >= 0) & (cells < spec.shape)).all(axis=1)
        counts = inside & (sides[:, 0] * sides[:, 1] * sides[:, 2] > 0)
        marked[tuple(cells[counts].T)] = True
    return marked


def test_a_million_points_equal_a_loop(million):
    ours = mark_trilinear(million, KITTI).numpy()
    np.testing.assert_array_equal(ours, corner_by_corner(million.numpy(), KITTI))
    some = million[::200]
    expected = highest_in_a_loop(some, torch.ones(len(some)), KITTI) > 0
    np.testing.assert_array_equal(mark_trilinear(some, KITTI), expected)


def test_timing_reports_every_operation():
    found = timing.measure(points=1000, repeats=1)
    assert found.shape == KITTI.shape
    assert set(found.seconds_per_million_points) == {"count", "mark", "confidence", "label"}
    assert all(s > 0 for s in found.seconds_per_million_points.values())
    assert all(s > 0 for s in found.seconds_per_grid.values())
    with pytest.raises(InputError, match="0 points"):
        timing.measure(points=0)
