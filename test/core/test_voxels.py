# SPDX-License-Identifier: Apache-2.0
"""Points become cells as a plain loop would have it; fusing keeps its promises."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds

from occany_core.config import VoxelsConfig, from_flat
from occany_core.errors import InputError
from occany_core.grid_frame import find_ground, in_grid, keep_most_confident
from occany_core.pointmaps import Pointmaps
from occany_core.poses import Cameras
from occany_core.voxels import (
    FREE,
    LEVEL,
    OCCUPIED,
    UNKNOWN,
    ClassTable,
    Fusion,
    Ground,
    ViewPoints,
    VoxelGrid,
    VoxelGridSpec,
    count_points,
    count_rays,
    double_columns,
    estimate_ground,
    fill_flat_gaps,
    fuse,
    label_trilinear,
    lattice_coordinates,
    mark_trilinear,
)

SPEC = VoxelGridSpec((-1.0, -2.0, -0.5), 0.5, (4, 6, 3))
KITTI = VoxelGridSpec((0.0, -25.6, -2.0), 0.2, (256, 256, 32))
CLASSES = ClassTable(num_classes=6, other=0, empty=5)


def around(rng: np.random.Generator, number: int, spec: VoxelGridSpec = SPEC) -> torch.Tensor:
    """Points in and a little around the grid, some of them on the borders of cells."""
    size = np.array(spec.shape)
    lattice = rng.uniform(-1, size + 1, (number, 3))
    lattice[::4] = lattice[::4].round()
    return torch.from_numpy(np.array(spec.origin) + lattice * spec.resolution).float()


def cells(points: torch.Tensor, spec: VoxelGridSpec):
    """(index of the point, cell) of the points inside, one by one."""
    for index, lattice in enumerate(lattice_coordinates(points, spec).tolist()):
        if all(math.isfinite(q) for q in lattice):
            cell = tuple(math.floor(q) for q in lattice)
            if all(0 <= c < n for c, n in zip(cell, spec.shape)):
                yield index, cell


# --- twins in plain Python ----------------------------------------------------------------------


@given(seeds, st.integers(0, 60))
def test_counting_points_equals_a_loop(seed, number):
    points = around(np.random.default_rng(seed), number)
    expected = np.zeros(SPEC.shape, int)
    for _, cell in cells(points, SPEC):
        expected[cell] += 1
    np.testing.assert_array_equal(count_points(points, SPEC), expected)


def corners(point: torch.Tensor, spec: VoxelGridSpec):
    """(cell, weight) of the eight lattice neighbours inside the grid, in float32."""
    lattice = lattice_coordinates(point[None], spec)[0].numpy()
    low = np.floor(lattice)
    rest = lattice - low
    for offset in itertools.product((0, 1), repeat=3):
        cell = tuple((low + offset).astype(int))
        sides = np.where(offset, rest, np.float32(1) - rest)
        if all(0 <= c < n for c, n in zip(cell, spec.shape)):
            yield offset, cell, sides[0] * sides[1] * sides[2]


@given(seeds, st.integers(0, 20))
def test_trilinear_marks_equal_a_loop(seed, number):
    points = around(np.random.default_rng(seed), number)
    expected = np.zeros(SPEC.shape, bool)
    for point in points:
        for _, cell, weight in corners(point, SPEC):
            expected[cell] |= weight > 0
    np.testing.assert_array_equal(mark_trilinear(points, SPEC), expected)


def label_in_a_loop(points, confidence, labels) -> np.ndarray:
    grid = np.full(SPEC.shape, CLASSES.empty)
    scores = np.zeros((8, *SPEC.shape, CLASSES.num_classes), np.float32)
    for point, trust, label in zip(points, confidence.numpy(), labels.tolist()):
        for offset, cell, weight in corners(point, SPEC):
            if weight > 0 and grid[cell] == CLASSES.empty:
                grid[cell] = CLASSES.other
            if label not in (CLASSES.other, CLASSES.empty):
                slot = offset[0] * 4 + offset[1] * 2 + offset[2]
                score = max(weight * (trust - 1), 0)
                scores[slot][cell][label] = max(scores[slot][cell][label], score)
    total = np.zeros(scores.shape[1:], np.float32)
    for one in scores:
        total += one
    return np.where(total.max(-1) > 0, total.argmax(-1), grid)


@given(seeds, st.integers(0, 40))
def test_labels_equal_a_loop(seed, number):
    rng = np.random.default_rng(seed)
    points = around(rng, number)
    confidence = torch.from_numpy(1 + rng.exponential(size=number)).float()
    labels = torch.from_numpy(rng.integers(0, CLASSES.num_classes, number))
    found = label_trilinear(points, confidence, labels, SPEC, CLASSES)
    assert found.dtype == torch.uint8
    np.testing.assert_array_equal(found, label_in_a_loop(points, confidence, labels))


def rays_in_a_loop(centres, points, spec, max_range) -> np.ndarray:
    count = np.zeros(spec.shape, int)
    for centre, point in zip(centres, points):
        length = (point - centre).norm()
        direction = (point - centre) / length.clamp_min(1e-6) / spec.resolution
        start = lattice_coordinates(centre[None], spec)[0]
        step = 0
        while True:
            distance = np.float32((0.5 + step) * spec.resolution)
            if distance >= max_range or distance >= length - spec.resolution:
                break
            cell = tuple((start + direction * float(distance)).floor().long().tolist())
            if all(0 <= c < n for c, n in zip(cell, spec.shape)):
                count[cell] += 1
            step += 1
    return count


@given(seeds, st.integers(0, 30), st.floats(0.6, 6))
def test_rays_equal_a_loop(seed, number, max_range):
    rng = np.random.default_rng(seed)
    points = around(rng, number)
    centres = around(rng, number) * 1.5
    found = count_rays(centres, points, SPEC, max_range)
    np.testing.assert_array_equal(found, rays_in_a_loop(centres, points, SPEC, max_range))


def test_a_million_points_in_the_kitti_grid():
    """A sample alone gives what a loop gives; the rest adds up."""
    points = around(np.random.default_rng(0), 1_000_000, KITTI)
    every = count_points(points, KITTI)
    inside = lattice_coordinates(points, KITTI).floor()
    inside = ((inside >= 0) & (inside < torch.tensor(KITTI.shape))).all(dim=1)
    assert every.sum() == inside.sum()
    sample = points[::500]
    expected = np.zeros(KITTI.shape, int)
    for _, cell in cells(sample, KITTI):
        expected[cell] += 1
    np.testing.assert_array_equal(count_points(sample, KITTI), expected)
    assert (every.numpy() >= expected).all()
    marked = mark_trilinear(sample, KITTI).numpy()
    assert marked[expected > 0].mean() > 0.7  # the lower corner, unless the point is on it


# --- laws ---------------------------------------------------------------------------------------


@given(seeds, st.tuples(*[st.integers(-40, 40)] * 3))
def test_shifting_grid_and_points_together_changes_nothing(seed, steps):
    rng = np.random.default_rng(seed)
    shift = np.array(steps) * 0.25  # exact in float32
    points = (around(rng, 40) * 64).round() / 64
    origin = tuple((np.array(SPEC.origin) + shift).tolist())
    moved, spec = points + torch.tensor(shift).float(), VoxelGridSpec(origin, 0.5, SPEC.shape)
    assert torch.equal(count_points(points, SPEC), count_points(moved, spec))
    assert torch.equal(mark_trilinear(points, SPEC), mark_trilinear(moved, spec))


@given(seeds)
def test_the_order_of_points_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    points = around(rng, 30)
    order = torch.from_numpy(rng.permutation(30))
    assert torch.equal(count_points(points, SPEC), count_points(points[order], SPEC))
    centres = torch.zeros_like(points)
    rays = count_rays(centres, points, SPEC, 9.0)
    assert torch.equal(rays, count_rays(centres, points[order], SPEC, 9.0))


def test_a_point_in_the_middle_of_each_cell():
    ijk = np.indices(SPEC.shape).reshape(3, -1).T
    centres = torch.from_numpy(np.array(SPEC.origin) + (ijk + 0.5) * SPEC.resolution).float()
    assert (count_points(centres, SPEC) == 1).all()


BAD = torch.tensor(
    [
        [math.nan, 0, 0],
        [0, math.inf, 0],
        [0, 0, -math.inf],
        [1e30, 0, 0],
        [0, -1e30, 0],
        [3e38, 3e38, 3e38],
        [1e9, 1e9, 1e9],
        [5, 0, 0],
        [0, 0, 1.01],
        [-1.01, 0, 0],
    ]
)


def test_points_outside_or_not_finite_count_nowhere():
    assert count_points(BAD, SPEC).sum() == 0
    assert count_points(BAD[:0], SPEC).sum() == 0
    assert not mark_trilinear(BAD[:8], SPEC).any()
    labels = label_trilinear(BAD[:8], torch.full((8,), 2.0), torch.ones(8).long(), SPEC, CLASSES)
    assert (labels == CLASSES.empty).all()


def test_rays_to_points_that_are_not_finite_disturb_no_others():
    good = torch.tensor([[0.9, 0.1, 0.1], [0.4, 0.9, 0.4]])
    mixed = torch.cat((BAD[:3], good))
    rays = count_rays(torch.zeros_like(mixed), mixed, SPEC, 9.0)
    assert torch.equal(rays, count_rays(torch.zeros_like(good), good, SPEC, 9.0))


def test_rays_end_before_their_point():
    spec = VoxelGridSpec((0.0, 0.0, 0.0), 1.0, (10, 1, 1))
    start, end = torch.tensor([[0.0, 0.5, 0.5]]), torch.tensor([[6.7, 0.5, 0.5]])
    rays = count_rays(start, end, spec, 20.0)
    assert rays.flatten().tolist() == [1, 1, 1, 1, 1, 1, 0, 0, 0, 0]
    short = count_rays(start, end, spec, 3.0)
    assert short.flatten().tolist() == [1, 1, 1, 0, 0, 0, 0, 0, 0, 0]
    assert not count_rays(start, end, spec, 1e-9).any()


def test_grid_properties():
    probability = np.full(SPEC.shape, UNKNOWN, np.int8)
    probability[1, 2, 0], probability[3, 5, 2], probability[0, 0, 0] = 50, 49, FREE
    grid = VoxelGrid(SPEC, probability, np.zeros(SPEC.shape, bool))
    assert np.argwhere(grid.occupied).tolist() == [[1, 2, 0]]
    assert np.argwhere(grid.free).tolist() == [[0, 0, 0], [3, 5, 2]]
    np.testing.assert_allclose(grid.occupied_centres(), [[-0.25, -0.75, -0.25]])
    assert SPEC.num_cells == grid.probability.size


# --- fusion -------------------------------------------------------------------------------------

CONFIG = VoxelsConfig(
    resolution=0.5,
    origin=(-4.0, -4.0, -1.0),
    shape=(16, 16, 6),
    max_range=9.0,
    min_confidence=2.0,
    min_confidence_novel=2.0,
)
FIELD = VoxelGridSpec.of(CONFIG)


def view_of(points: torch.Tensor, kept: torch.Tensor, centre: torch.Tensor) -> ViewPoints:
    return ViewPoints(points, torch.where(kept, 3.0, 1.0), centre)


def views(rng: np.random.Generator, number: int = 2) -> list[ViewPoints]:
    """Views of random points, of which most are kept."""
    found = []
    for _ in range(number):
        points = torch.from_numpy(rng.uniform([-4, -4, -1], [4, 4, 2], (8, 10, 3))).float()
        kept = torch.from_numpy(rng.random((8, 10)) < 0.8)
        centre = torch.from_numpy(rng.uniform([-1, -1, 0.5], [1, 1, 1.5])).float()
        found.append(view_of(points, kept, centre))
    return found


def single_pixels(points: torch.Tensor, centre: torch.Tensor) -> list[ViewPoints]:
    """A view without kept neighbours: nothing is added between them."""
    kept = torch.arange(2 * len(points))[None] % 2 == 0
    return [view_of(points.repeat_interleave(2, dim=0)[None], kept, centre)]


def rendered(rng: np.random.Generator, number: int = 200) -> list[ViewPoints]:
    points = torch.from_numpy(rng.uniform([-5, -5, -2], [5, 5, 3], (number, 3))).float()
    return single_pixels(torch.cat((points, points)), torch.zeros(3))


def points_of(views: list[ViewPoints]) -> torch.Tensor:
    return torch.cat([view.points[view.kept(CONFIG.min_confidence)] for view in views])


def settings(**changes) -> VoxelsConfig:
    values = {name: getattr(CONFIG, name) for name in CONFIG.__dataclass_fields__}
    return VoxelsConfig(**values | changes)


def hit_cells(observed: list[ViewPoints]) -> np.ndarray:
    return (
        sum(
            count_points(view.points[view.kept(CONFIG.min_confidence)], FIELD) for view in observed
        ).numpy()
        > 0
    )


@given(seeds, st.sampled_from(["cell", "trilinear"]), st.booleans())
def test_rendered_points_only_fill_unknown_cells(seed, method, carve):
    rng = np.random.default_rng(seed)
    observed, extra = views(rng), rendered(rng)
    config = settings(method=method, carve_free=carve)
    plain, fused = fuse(observed, extra[:0], config), fuse(observed, extra, config)
    assert not plain.completed.any()
    if method == "cell":
        counts = count_points(points_of(extra), FIELD).numpy()
        expected = (plain.probability == UNKNOWN) & (counts >= config.min_rendered_points)
    else:
        expected = mark_trilinear(points_of(extra), FIELD).numpy() & ~plain.occupied
    assert expected.any()
    np.testing.assert_array_equal(fused.completed, expected)
    assert (fused.probability[expected] == OCCUPIED).all()
    np.testing.assert_array_equal(fused.probability[~expected], plain.probability[~expected])


@given(seeds)
def test_without_pass_weight_no_ray_frees_a_cell_with_points(seed):
    rng = np.random.default_rng(seed)
    observed = views(rng)
    grid = fuse(observed, rendered(rng), settings(pass_weight=0.0))
    assert (grid.probability[hit_cells(observed)] == OCCUPIED).all()
    assert grid.free.any()


@given(seeds, st.floats(0.1, 5))
def test_evidence_is_points_against_rays(seed, pass_weight):
    rng = np.random.default_rng(seed)
    points = torch.from_numpy(rng.uniform([-4, -4, -1], [4, 4, 2], (40, 3))).float()
    centre = torch.tensor([0.0, 0.0, 1.0])
    grid = fuse(single_pixels(points, centre), [], settings(pass_weight=pass_weight))
    hits = count_points(points, FIELD).numpy()
    rays = rays_in_a_loop(centre.expand_as(points), points, FIELD, CONFIG.max_range) * 4
    with np.errstate(invalid="ignore"):
        expected = 100 * hits / (hits + pass_weight * rays)
    unknown = (hits == 0) & (rays == 0)
    assert (grid.probability[unknown] == UNKNOWN).all()
    np.testing.assert_allclose(grid.probability[~unknown], expected[~unknown], atol=0.51)


@given(seeds, st.sampled_from(["cell", "trilinear"]))
def test_without_carving_nothing_is_free(seed, method):
    rng = np.random.default_rng(seed)
    observed = views(rng)
    grid = fuse(observed, rendered(rng), settings(method=method, carve_free=False))
    assert set(np.unique(grid.probability)) <= {UNKNOWN, OCCUPIED}
    assert method == "trilinear" or grid.occupied[hit_cells(observed)].all()


@given(seeds, st.sampled_from(["cell", "trilinear"]))
def test_views_that_keep_no_point_say_nothing(seed, method):
    rng = np.random.default_rng(seed)
    observed, config = views(rng, 1), settings(method=method)
    blind = view_of(
        torch.full((8, 10, 3), math.nan), torch.zeros(8, 10, dtype=torch.bool), torch.zeros(3)
    )
    grid, same = fuse(observed, [], config), fuse([*observed, blind], [], config)
    np.testing.assert_array_equal(grid.probability, same.probability)
    assert (fuse([blind], [], config).probability == UNKNOWN).all()


@given(seeds, st.sampled_from(["cell", "trilinear"]))
def test_the_order_of_views_does_not_matter(seed, method):
    rng = np.random.default_rng(seed)
    observed, extra = views(rng, 3), rendered(rng)
    grid = fuse(observed, extra, settings(method=method))
    turned = fuse(observed[::-1], extra, settings(method=method))
    np.testing.assert_array_equal(grid.probability, turned.probability)


@given(seeds, st.sampled_from(["cell", "trilinear"]))
def test_views_that_come_bit_by_bit_give_the_same_grid(seed, method):
    rng = np.random.default_rng(seed)
    observed, extra, config = views(rng, 3), views(rng, 3), settings(method=method)
    fusion = Fusion(config)
    fusion.render(extra[:1])
    fusion.see(observed[:2])
    fusion.grid()
    fusion.see([])
    fusion.render([])
    fusion.render(extra[1:])
    fusion.see(observed[2:])
    ours, expected = fusion.grid(), fuse(observed, extra, config)
    np.testing.assert_array_equal(ours.probability, expected.probability)
    np.testing.assert_array_equal(ours.completed, expected.completed)


def test_fusing_needs_an_observed_view():
    with pytest.raises(InputError, match="at least one"):
        fuse([], views(np.random.default_rng(0)), CONFIG)


# --- ground -------------------------------------------------------------------------------------


def ground_seen_by_a_camera(rows: int = 20) -> torch.Tensor:
    """Level ground (rows, 3, 3) below a camera 1.6 m high, far rows first."""
    slope = torch.linspace(0.05, 0.8, rows)
    distance = 1.6 / slope
    points = torch.zeros(rows, 3, 3)
    points[..., 0] = distance[:, None]
    points[..., 1] = torch.linspace(-0.1, 0.1, 3) * distance[:, None]
    return points


def test_flat_gaps_are_filled_at_half_a_cell():
    resolution = 0.4
    points = ground_seen_by_a_camera()
    kept = torch.ones(points.shape[:2], dtype=torch.bool)
    added = fill_flat_gaps(points, kept, resolution).points
    assert (added[:, 2] == 0).all()
    column = torch.cat((points[:, 1], added[added[:, 1].abs() < 1e-6]))
    places = column[:, 0].sort().values
    # The widest jump is more than the 1.7-fold and stays open.
    near = places < points[2, 1, 0]
    assert places[near].diff().max() <= resolution / 2 + 1e-5
    assert added[:, 0].min() > points[-1, 1, 0]


def test_gaps_are_left_where_a_surface_is_not_flat_near_or_kept():
    low = torch.tensor([[[4.0, 0, 0]]])
    cases = {
        "flat": ([5.0, 0, 0.1], True),
        "a step up": ([5.0, 0, 0.6], False),
        "much farther": ([7.0, 0, 0], False),
        "close enough already": ([4.15, 0, 0], False),
    }
    for name, (other, filled) in cases.items():
        points = torch.cat((torch.tensor([[other]]), low))
        kept = torch.ones(2, 1, dtype=torch.bool)
        assert (len(fill_flat_gaps(points, kept, 0.4).points) > 0) == filled, name
        none = fill_flat_gaps(points, kept & torch.tensor([[True], [False]]), 0.4)
        assert len(none.points) == len(none.pixel) == 0


@given(seeds)
def test_columns_are_doubled_on_surfaces_only(seed):
    rng = np.random.default_rng(seed)
    points = torch.from_numpy(rng.uniform(3, 5, (4, 6, 3))).float()
    points[:, ::3] *= 3
    kept = torch.from_numpy(rng.random((4, 6)) < 0.8)
    doubled, doubled_kept = double_columns(points, kept)
    assert doubled.shape == (4, 11, 3)
    assert torch.equal(doubled[:, ::2], points)
    assert torch.equal(doubled_kept[:, ::2], kept)
    for row, column in np.ndindex(4, 5):
        left, right = points[row, column], points[row, column + 1]
        torch.testing.assert_close(doubled[row, 2 * column + 1], (left + right) / 2)
        near = (left - right).norm() < 0.15 * min(left.norm(), right.norm())
        both = kept[row, column] and kept[row, column + 1]
        assert doubled_kept[row, 2 * column + 1] == (both and near)


@given(seeds)
def test_ground_is_moved_along_its_ray_and_nothing_else_moves(seed):
    rng = np.random.default_rng(seed)
    centre, tolerance = torch.tensor([1.0, 2.0, 1.6]), 0.3
    points = torch.from_numpy(rng.uniform([-20, -20, -3], [20, 20, 3], (50, 3))).float()
    moved, on_ground = LEVEL.attract(points, centre, tolerance)
    low = points[:, 2] < tolerance
    assert torch.equal(on_ground, low)
    torch.testing.assert_close(moved[low][:, 2], torch.zeros(int(low.sum())), rtol=0, atol=1e-5)
    torch.testing.assert_close(moved[~low], points[~low])
    cross = torch.linalg.cross(points - centre, moved - centre)
    assert cross.abs().max() < 1e-2
    assert ((points - centre) * (moved - centre)).sum(dim=1).min() > 0


@pytest.mark.parametrize("height", [0.0, -0.5])
def test_a_camera_at_or_below_the_ground_moves_no_point(height):
    points = torch.tensor([[5.0, 0, -1], [5, 1, 0.1], [5, 2, 2]])
    moved, on_ground = LEVEL.attract(points, torch.tensor([0.0, 0, height]), 0.3)
    torch.testing.assert_close(moved, points)
    assert not on_ground.any()


def test_points_at_the_height_of_the_camera_stay():
    points = torch.tensor([[10.0, 0, 1.5]])
    moved, on_ground = LEVEL.attract(points, torch.tensor([0.0, 0, 1.6]), 2.0)
    assert torch.equal(moved, points) and not on_ground.any()


def test_the_tolerance_grows_with_range():
    centre = torch.tensor([0.0, 0.0, 1.6])
    near, far = torch.tensor([4.0, 0.0, 0.5]), torch.tensor([16.0, 0.0, 0.5])
    moved, on_ground = LEVEL.attract(torch.stack((near, far)), centre, 0.2, 0.05)
    assert on_ground.tolist() == [False, True]
    assert torch.equal(moved[0], near)  # a kerb, a box
    assert moved[1, 2].abs() < 1e-5 and moved[1, 0] > 16
    torch.testing.assert_close(LEVEL.attract(far[None], centre, 0.2)[0], far[None])


def test_points_between_road_and_kerb_stay_and_others_come_no_farther():
    centre = torch.tensor([0.0, 0.0, 1.6])
    heights = torch.tensor([-0.5, 0.0, 0.06, 0.1, 0.25, 0.4])
    points = torch.stack((torch.full_like(heights, 8.0), 0 * heights, heights), dim=-1)
    moved, on_ground = LEVEL.attract(points, centre, 0.2, kerb=0.1)
    assert on_ground.tolist() == [True] * 5 + [False]
    torch.testing.assert_close(moved[:, 2], torch.tensor([0.0, 0.0, 0.06, 0.1, 0.1, 0.4]))
    torch.testing.assert_close(moved[[1, 2, 3, 5]], points[[1, 2, 3, 5]])


def test_ground_needs_less_confidence_than_what_stands_on_it():
    voxels = from_flat({"voxels.min_confidence": 3.0, "voxels.min_confidence_ground": 1.2}).voxels
    points = torch.tensor([[[8.0, 0, 0.05], [8, 1, 1.2], [8, 2, 0.1], [70, 0, 0]]])
    confidence = torch.tensor([[[1.5, 1.5, 1.1, 1.5]]])
    maps = Pointmaps(points[None], points[None], confidence)
    world_from_cam = torch.eye(4)
    world_from_cam[2, 3] = 1.6
    cameras = Cameras(torch.eye(3)[None], world_from_cam[None])
    (view,) = in_grid(maps, cameras, (torch.eye(4), LEVEL), voxels)
    assert view.kept(voxels.min_confidence).tolist() == [[True, False, False, False]]


def test_the_most_confident_points_that_stand_on_the_ground_are_kept():
    confidence = torch.tensor([[0.0, 1.1, 1.3, 1.4], [1.5, 1.6, 1002.0, 1.7]])
    views = [ViewPoints(torch.zeros(1, 4, 3), one[None], torch.zeros(3)) for one in confidence]
    kept = keep_most_confident(views, 0.4)  # of five; ground, sky and what is far do not count
    assert [view.kept(5.0).int().tolist() for view in kept] == [[[0] * 4], [[0, 1, 1, 1]]]
    assert keep_most_confident(views, 0.0) is views
    everything = keep_most_confident(views, 1.0)
    assert sum(int(view.kept(5.0).sum()) for view in everything) == 6


@pytest.mark.parametrize("factor", [0.9, 1.0, 1.1])
@pytest.mark.parametrize("rise", [(0.0, 0.0), (0.02, -0.01), (-0.015, 0.015)])
def test_the_tilt_of_the_ground_is_found_among_walls_and_at_any_scale(rise, factor):
    rng = np.random.default_rng(3)
    truth = Ground(*rise)
    x, y = rng.uniform(-30, 30, (2, 4000))
    centre = torch.tensor([0.0, 0.0, 1.6])
    floor = torch.tensor(np.stack([x, y, rise[0] * x + rise[1] * y], -1)).float()
    walls = torch.tensor(rng.uniform([8, -20, 0.3], [9, 20, 5], (1500, 3))).float()
    points = torch.cat([floor, walls])
    points = centre + (points - centre) * factor  # depth off by a factor
    found = estimate_ground(of_views(points), of_views(torch.full((len(points),), 2.0)))
    assert (found.rise_x, found.rise_y) == pytest.approx(rise, abs=0.004)
    exact, _ = truth.attract(floor + torch.tensor([0, 0, 0.1]), centre, 0.3)
    assert truth.height_of(exact).abs().max() < 1e-4


def of_views(points: torch.Tensor) -> torch.Tensor:
    """Share points out to five views."""
    return points.unflatten(0, (5, -1))


def leaning_floor(rise: tuple[float, float]) -> torch.Tensor:
    x, y = np.random.default_rng(3).uniform(-30, 30, (2, 4000))
    return torch.tensor(np.stack([x, y, rise[0] * x + rise[1] * y], -1)).float()


@pytest.mark.parametrize("rise", [(0.02, -0.01), (-0.015, 0.015)])
def test_where_the_height_is_known_ground_is_not_lifted(rise):
    """A strip ahead that rises could be ground farther up; a known height says that it leans."""
    floor = leaning_floor(rise)
    confidence = torch.full((len(floor),), 2.0)
    found = estimate_ground(of_views(floor), of_views(confidence), knows_height=True)
    assert (found.rise_x, found.rise_y) == pytest.approx(rise, abs=0.002)
    ahead = (floor[:, 0] > 8) & (floor[:, 1].abs() < 4)
    strip, trust = floor[None, ahead], confidence[None, ahead]
    known = estimate_ground(strip, trust, knows_height=True).rise_x
    assert abs(known - rise[0]) < abs(estimate_ground(strip, trust).rise_x - rise[0])


def test_confident_points_say_more_about_the_ground():
    right, wrong = leaning_floor((0.02, 0.0)), leaning_floor((-0.01, 0.0))
    points = torch.cat([right, wrong])
    confidence = torch.cat([torch.full((len(right),), 20.0), torch.full((len(wrong),), 2.0)])
    assert estimate_ground(of_views(points), of_views(confidence)).rise_x > 0.015


def test_many_views_say_more_about_the_ground_than_one():
    floor = leaning_floor((0.02, 0.0))
    floor = floor[floor[:, :2].norm(dim=-1) < 10][:300]
    trust = torch.full((300,), 2.0)
    one = estimate_ground(floor[None], trust[None], knows_height=True).rise_x
    many = estimate_ground(of_views(floor), of_views(trust), knows_height=True).rise_x
    assert 0 < one < 0.9 * many < 0.9 * 0.0201


def test_the_ground_of_all_views_is_found_unless_it_is_to_be_level():
    floor = of_views(leaning_floor((0.01, -0.01)))[:, None]
    seen = Pointmaps(floor, floor, torch.full(floor.shape[:-1], 2.0))
    found = find_ground(seen, torch.eye(4), VoxelsConfig(), told=True)
    assert (found.rise_x, found.rise_y) == pytest.approx((0.01, -0.01), abs=0.001)
    for settings in (VoxelsConfig(ground="level"), VoxelsConfig(ground_tolerance=0.0)):
        assert find_ground(seen, torch.eye(4), settings, told=True) == LEVEL


def test_ground_that_nobody_sees_is_level():
    few = torch.tensor([5.0, 0.0, 0.3]).expand(1, 20, 3)
    assert estimate_ground(few, torch.full((1, 20), 2.0)) == LEVEL
    doubted = torch.tensor([5.0, 0.0, 0.3]).expand(1, 200, 3)
    assert estimate_ground(doubted, torch.full((1, 200), 1.2)) == LEVEL
