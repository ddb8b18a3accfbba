# SPDX-License-Identifier: Apache-2.0
"""Pinhole cameras: project and backproject undo each other; K follows resizing and cropping."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import intrinsics, motion, seeds

from occany_core import camera, rigid


@given(seeds, st.integers(1, 9), st.integers(1, 9))
def test_backprojected_pixels_project_onto_themselves(seed, height, width):
    rng = np.random.default_rng(seed)
    K = torch.stack([intrinsics(rng, width, height) for _ in range(2)])
    depth = torch.from_numpy(rng.uniform(0.1, 100, (2, height, width)))
    points = camera.backproject(K, depth)
    torch.testing.assert_close(points[..., 2], depth)
    pixels = camera.project(K, points.flatten(1, 2)).unflatten(1, (height, width))
    expected = camera.pixel_grid(height, width).double().expand_as(pixels)
    torch.testing.assert_close(pixels, expected, rtol=0, atol=1e-4)


@given(seeds, st.floats(0.1, 4), st.floats(0.1, 4), st.integers(-20, 20), st.integers(-20, 20))
def test_resized_and_cropped_cameras_see_the_moved_pixels(seed, scale_x, scale_y, left, top):
    rng = np.random.default_rng(seed)
    K = intrinsics(rng, 64, 48)
    points = torch.from_numpy(rng.uniform([-5, -5, 2], [5, 5, 30], (10, 3)))
    changed = camera.crop(camera.resize(K, scale_x, scale_y), left, top)
    # Edges of pixels scale; centres are half a pixel inside.
    scale, offset = torch.tensor([scale_x, scale_y]), torch.tensor([left, top])
    expected = (camera.project(K, points) + 0.5) * scale - 0.5 - offset
    torch.testing.assert_close(camera.project(changed, points), expected, rtol=0, atol=1e-4)


def test_resize_and_crop_leave_their_argument_alone():
    K = camera.pinhole(torch.tensor(50.0), 48, 64)
    before = K.clone()
    camera.crop(camera.resize(K, 2, 2), 3, 3)
    assert torch.equal(K, before)


def test_pixel_grid_counts_columns_first():
    assert camera.pixel_grid(2, 3)[1, 2].tolist() == [2, 1]
    assert camera.pixel_grid(2, 3).shape == (2, 3, 2)


def test_pinhole_has_its_centre_at_half_the_size():
    K = camera.pinhole(torch.tensor([30.0, 40.0]), 32, 48)
    assert K[1].tolist() == [[40, 0, 24], [0, 40, 16], [0, 0, 1]]


@given(seeds, st.integers(1, 9), st.integers(1, 9))
def test_a_ray_map_holds_the_lines_of_sight(seed, height, width):
    """A point on the ray through a pixel's middle satisfies moment = point x direction."""
    rng = np.random.default_rng(seed)
    poses = motion(rng, 2)
    K = torch.diag(torch.tensor([20.0, 15.0, 1.0]).double()).repeat(2, 1, 1)
    K[:, 0, 2], K[:, 1, 2] = width / 2, height / 2
    moment, direction = camera.pluecker_map(K, poses, (height, width)).split(3, dim=1)
    depth = torch.from_numpy(rng.uniform(1, 50, (2, height, width)))
    points = camera.backproject(camera.crop(K, 0.5, 0.5), depth)
    points = rigid.apply(poses, points.flatten(1, 2)).unflatten(1, (height, width))
    points = points.permute(0, 3, 1, 2)
    torch.testing.assert_close(torch.linalg.cross(points, direction, dim=1), moment)
    torch.testing.assert_close(direction.norm(dim=1), torch.ones(2, height, width).double())
    ahead = ((points - poses[:, :3, 3, None, None]) * direction).sum(dim=1)
    assert (ahead > 0).all(), "looks backwards"
