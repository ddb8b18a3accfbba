# SPDX-License-Identifier: Apache-2.0
"""Pictures of grids: occlusion against rays, colours against cells, pages of any input."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as limits
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from occany_core.datasets.class_tables import load_classes
from occany_core.errors import InputError
from occany_core.picture import compose_scene_picture, render_grid, render_top, save_scene_picture
from occany_core.picture.cell_faces import visible_faces
from occany_core.picture.colours import (
    COMPLETED_RAMP,
    FREE,
    OBSERVED_RAMP,
    PLANE,
    UNLABELLED,
    colours_of_cells,
)
from occany_core.picture.page import classes_in, tiling
from occany_core.picture.top_view import column_colours
from occany_core.picture.view_3d import Eye, ring_radii
from occany_core.voxels import VoxelGrid, VoxelGridSpec


def grid_of(occupied, origin=(-4.0, -4.0, -1.0), resolution=0.5, completed=None):
    probability = np.where(occupied, 100, -1).astype(np.int8)
    completed = np.zeros_like(occupied) if completed is None else completed
    return VoxelGrid(VoxelGridSpec(origin, resolution, occupied.shape), probability, completed)


def first_hit(occupied, start, ray):
    """March in tiny steps: the slow way to find what a ray meets first."""
    for distance in np.arange(0, 60, 0.01):
        cell = np.floor(start + distance * ray).astype(int)
        if (cell >= 0).all() and (cell < occupied.shape).all() and occupied[tuple(cell)]:
            return tuple(cell)
    return None


@limits(max_examples=12, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 60))
def test_painted_faces_show_the_cell_that_a_ray_meets_first(seed, count):
    random = np.random.default_rng(seed)
    occupied = np.zeros((6, 5, 4), bool)
    occupied[tuple(random.integers(0, occupied.shape, (count, 3)).T)] = True
    grid = grid_of(occupied, origin=(0.0, 0.0, 0.0), resolution=1.0)
    position = random.uniform((-12, -8, 5), (18, 13, 14))
    forward = np.array([3.0, 2.5, 2.0]) - position
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, (0, 0, 1.0))
    right /= np.linalg.norm(right)
    eye = Eye(position, np.stack((right, np.cross(forward, right), forward)), 300.0, (80.0, 80.0))
    faces = visible_faces(grid, position)
    canvas = Image.new("I", (160, 160), -1)
    draw = ImageDraw.Draw(canvas)
    for ijk, corners in zip(faces.ijk, eye.project(faces.corners)):
        number = int(np.ravel_multi_index(ijk, occupied.shape))
        draw.polygon([tuple(corner[:2]) for corner in corners], fill=number)
    painted = np.asarray(canvas)
    checked = 0
    for u, v in random.integers(2, 158, (40, 2)):
        if len(np.unique(painted[v - 2 : v + 3, u - 2 : u + 3])) > 1:
            continue  # a pixel on the border of two faces may show either
        ray = eye.axes.T @ np.array([(u - 80) / 300, (v - 80) / 300, 1.0])
        hit = first_hit(occupied, position, ray / np.linalg.norm(ray))
        expected = -1 if hit is None else np.ravel_multi_index(hit, occupied.shape)
        assert painted[v, u] == expected
        checked += 1
    assert checked


def test_faces_between_cells_are_left_out():
    occupied = np.ones((3, 3, 3), bool)
    faces = visible_faces(grid_of(occupied), np.array([-20.0, -20.0, 20.0]))
    assert len(faces.ijk) == 27  # three sides of the block face the eye, nine squares each
    np.testing.assert_allclose(faces.corners.min((0, 1)), (-4, -4, -1))
    np.testing.assert_allclose(faces.corners.max((0, 1)), (-2.5, -2.5, 0.5))
    assert ((faces.light > 0) & (faces.light <= 1)).all()


def test_what_stands_in_the_sun_throws_a_shadow():
    ground = np.zeros((12, 12, 8), bool)
    ground[:, :, 0] = True
    eye = np.array([-20.0, 0.0, 20.0])
    lit = visible_faces(grid_of(ground), eye)
    ground[6, 6, 1:] = True
    shaded = visible_faces(grid_of(ground), eye)
    darkest = {tuple(ijk): light for ijk, light in zip(shaded.ijk, shaded.light)}
    before = {tuple(ijk): light for ijk, light in zip(lit.ijk, lit.light)}
    darker = [ijk for ijk in before if ijk in darkest and darkest[ijk] < before[ijk] * 0.75]
    assert darker
    assert all(i >= 6 and j <= 6 for i, j, _ in darker)  # away from the sun at (-x, +y)


def colour_count(picture, ramp):
    """Pixels whose hue is closer to this ramp than to the other."""
    unit = (
        picture.reshape(-1, 3)
        / np.maximum(np.linalg.norm(picture.reshape(-1, 3), axis=1), 1)[:, None]
    )
    fits = [
        (unit @ (one / np.linalg.norm(one, axis=1)[:, None]).T).max(axis=1)
        for one in (OBSERVED_RAMP, COMPLETED_RAMP)
    ]
    bright = picture.reshape(-1, 3).max(axis=1) > 80
    best = np.argmax(fits, axis=0)
    return int((bright & (best == ramp) & (np.max(fits, axis=0) > 0.99)).sum())


def test_completed_cells_look_different():
    occupied = np.zeros((16, 16, 8), bool)
    occupied[4:12, 4:12, :4] = True
    observed = render_grid(grid_of(occupied), 160, 120)
    completed = render_grid(grid_of(occupied, completed=occupied), 160, 120)
    assert observed.shape == (120, 160, 3)
    assert observed.dtype == np.uint8
    assert colour_count(observed, 0) > 5 * max(colour_count(observed, 1), 1)
    assert colour_count(completed, 1) > 5 * max(colour_count(completed, 0), 1)


def test_grids_of_every_content_and_shape_can_be_drawn():
    random = np.random.default_rng(1)
    for shape, origin in (
        ((1, 1, 1), (0, 0, 0)),
        ((40, 12, 3), (2, -3, 0)),
        ((8, 8, 8), (-4, -4, -8)),
    ):
        for occupied in (np.zeros(shape, bool), np.ones(shape, bool), random.random(shape) > 0.5):
            grid = grid_of(occupied, origin=origin)
            assert render_grid(grid, 96, 64).shape == (64, 96, 3)
            assert render_top(grid, 64).shape == (64, 64, 3)


def test_map_shows_free_unknown_and_the_highest_cell():
    occupied = np.zeros((4, 4, 4), bool)
    occupied[1, 2, (0, 3)] = True
    grid = grid_of(occupied, resolution=1.0)
    grid.probability[0, 0, 2] = 0
    colours = column_colours(grid)
    np.testing.assert_array_equal(colours[0, 0], FREE)
    np.testing.assert_array_equal(colours[3, 3], PLANE)
    low = column_colours(grid_of(occupied & (np.arange(4) == 0), resolution=1.0))
    assert not np.allclose(colours[1, 2], low[1, 2])


def test_map_has_forward_up_and_left_left():
    occupied = np.zeros((20, 20, 2), bool)
    occupied[19, 19] = True  # far ahead, far left
    picture = render_top(grid_of(occupied, origin=(-5.0, -5.0, 0.0)), 200)
    without = render_top(grid_of(np.zeros_like(occupied), origin=(-5.0, -5.0, 0.0)), 200)
    changed = np.argwhere((picture != without).any(axis=2))
    assert len(changed)
    assert changed.max() < 20


def test_rings_are_few_and_round():
    assert ring_radii(VoxelGridSpec((-40, -40, -1), 0.4, (200, 200, 16))) == [10, 20, 30, 40]
    assert ring_radii(VoxelGridSpec((0, -25.6, -2), 0.2, (256, 256, 32))) == [10, 20, 30, 40, 50]
    for side in (0.2, 1, 7, 90, 900):
        assert len(ring_radii(VoxelGridSpec((0, 0, 0), side / 10, (10, 10, 10)))) <= 12


@pytest.mark.parametrize("count", [0, 1, 6, 40])
def test_pages_take_any_number_of_pictures(count, tmp_path):
    pictures = [np.full((32 + index, 64, 3), 200, np.uint8) for index in range(count)]
    grid = grid_of(np.ones((4, 4, 4), bool))
    captions = [f"a caption that is far too long for its picture, {i}" for i in range(count)]
    page = compose_scene_picture(pictures, grid, "title", captions)
    assert page.dtype == np.uint8
    save_scene_picture(tmp_path / "page.png", pictures, grid, "title")
    with Image.open(tmp_path / "page.png") as saved:
        assert saved.size == (page.shape[1], page.shape[0])


def test_tiles_are_as_large_as_fits():
    assert tiling([16 / 9] * 6).columns == 2
    assert tiling([3.3] * 3).columns == 1
    assert tiling([0.5]).columns == 1


def test_wrong_requests_are_refused(tmp_path):
    grid = grid_of(np.ones((2, 2, 2), bool))
    with pytest.raises(InputError, match="1 captions for 0 pictures"):
        compose_scene_picture([], grid, "title", ["one"])
    with pytest.raises(InputError, match=r"\.png"):
        save_scene_picture(tmp_path / "page.txt", [], grid, "title")


# --- colours of classes -------------------------------------------------------------------------

CLASSES = load_classes("occ3d_nuscenes").classes


def labelled_grid():
    occupied = np.zeros((4, 4, 3), bool)
    occupied[0, 0, :2] = occupied[2, 3, 0] = occupied[3, 1, 2] = True
    labels = np.full(occupied.shape, 255, np.uint8)
    labels[0, 0, 0], labels[0, 0, 1], labels[2, 3, 0] = 11, 4, 16
    return dataclasses.replace(grid_of(occupied), labels=labels)


def test_cells_have_the_colour_of_their_class():
    grid = labelled_grid()
    cells = np.array([(0, 0, 0), (0, 0, 1), (2, 3, 0), (3, 1, 2)])
    expected = [CLASSES[11].colour, CLASSES[4].colour, CLASSES[16].colour, UNLABELLED]
    np.testing.assert_array_equal(colours_of_cells(grid, cells, CLASSES), expected)
    heights = colours_of_cells(grid, cells, ())
    np.testing.assert_array_equal(heights, colours_of_cells(grid_of(grid.occupied), cells, ()))
    # Of a column the highest cell is seen from above; its light may vary.
    column, car = column_colours(grid, CLASSES)[0, 0], np.array(CLASSES[4].colour, float)
    shares = [colour / np.linalg.norm(colour) for colour in (column, car)]
    np.testing.assert_allclose(*shares, atol=0.01)


def test_a_page_by_class_differs_and_its_legend_names_what_is_there():
    grid = labelled_grid()
    assert [one.name for one in classes_in(grid, CLASSES)] == [
        "car", "driveable_surface", "vegetation",
    ]  # fmt: skip
    plain = compose_scene_picture([], grid, "street")
    page = compose_scene_picture([], grid, "street", None, CLASSES)
    assert page.shape == plain.shape
    assert (page != plain).any()
    found = {tuple(colour) for colour in page[-60:].reshape(-1, 3).tolist()}
    assert {CLASSES[label].colour for label in (4, 11, 16)} <= found
    assert CLASSES[7].colour not in found
    unlabelled = grid_of(grid.occupied)
    np.testing.assert_array_equal(
        compose_scene_picture([], unlabelled, "street", None, CLASSES), plain
    )
