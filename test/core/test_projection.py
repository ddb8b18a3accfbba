# SPDX-License-Identifier: Apache-2.0
"""Points drawn into a view behave like solid points and take their features along."""

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from strategies import motion, seeds

from occany_core import camera, rigid
from occany_core.projection import (
    SourceFeatures,
    nearest_points,
    project_points,
    source_features,
)

HEIGHT, WIDTH = 6, 8
K = camera.pinhole(torch.tensor(7.0), HEIGHT, WIDTH)


def seen(
    rng: np.random.Generator, views: int
) -> tuple[torch.Tensor, SourceFeatures, torch.Tensor]:
    """World points (1, V, H, W, 3), what pixels carry, and poses of views."""
    poses = motion(rng, views).float()
    depth = torch.from_numpy(rng.uniform(2, 30, (views, HEIGHT, WIDTH))).float()
    points = camera.backproject(K.expand(views, 3, 3), depth)
    world = rigid.apply(poses, points.flatten(1, 2)).view_as(points)
    dense = torch.from_numpy(rng.normal(size=(1, views, 4, HEIGHT, WIDTH))).float()
    level = torch.from_numpy(rng.normal(size=(1, views, 3, 5, 5))).float()
    return world[None], SourceFeatures(dense, (level,)), poses


@given(seeds)
def test_a_pointmap_drawn_into_its_own_camera_is_itself(seed):
    world, features, poses = seen(np.random.default_rng(seed), 1)
    picture = project_points(world, features, K[None, None], poses[None])
    in_camera = rigid.apply(rigid.invert(poses), world[0].flatten(1, 2))
    expected = in_camera.view(HEIGHT, WIDTH, 3).permute(2, 0, 1)
    torch.testing.assert_close(picture[0, 0, :3], expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(picture[0, 0, 3:6], world[0, 0].permute(2, 0, 1))
    assert torch.equal(picture[0, 0, 6:10], features.dense[0, 0])
    resized = F.interpolate(features.levels[0][0], (HEIGHT, WIDTH), mode="bilinear")
    torch.testing.assert_close(picture[0, :, 10:], resized)


@given(seeds)
def test_views_are_drawn_independently(seed):
    rng = np.random.default_rng(seed)
    world, features, poses = seen(rng, 2)
    targets = poses @ motion(rng, 2).float()
    together = project_points(world, features, K.expand(1, 2, 3, 3), targets[None])
    for view in range(2):
        alone = project_points(world, features, K[None, None], targets[None, view : view + 1])
        assert torch.equal(alone[:, 0], together[:, view])


def draw_in_a_loop(points: torch.Tensor, pose: torch.Tensor) -> torch.Tensor:
    """`nearest_points` point by point."""
    nearest, winner = np.full((HEIGHT, WIDTH), np.inf), np.full((HEIGHT, WIDTH), -1)
    in_camera = (points - pose[:3, 3]) @ pose[:3, :3]
    pixels = camera.project(K, in_camera).round()
    for index, (point, (u, v)) in enumerate(zip(in_camera, pixels.tolist())):
        if not (point[2] > 0 and 0 <= u < WIDTH and 0 <= v < HEIGHT):
            continue
        if point[2] < nearest[int(v), int(u)]:
            nearest[int(v), int(u)], winner[int(v), int(u)] = point[2], index
    return torch.from_numpy(winner)


@given(seeds, st.integers(0, 200))
def test_drawing_equals_a_loop(seed, number):
    rng = np.random.default_rng(seed)
    points = torch.from_numpy(rng.normal(0, 5, (number, 3))).float()
    points[::7] = float("nan")
    pose = motion(rng).float()
    winner, _ = nearest_points(points, K, pose, HEIGHT, WIDTH)
    assert torch.equal(winner, draw_in_a_loop(points, pose))


def test_the_nearer_point_wins_and_points_behind_vanish():
    ray = camera.rays(K, HEIGHT, WIDTH)[2, 3]
    points = torch.stack([9 * ray, 4 * ray, -2 * ray, 5 * ray, 0 * ray])
    winner, _ = nearest_points(points, K, torch.eye(4), HEIGHT, WIDTH)
    assert winner[2, 3] == 1
    assert (winner >= 0).sum() == 1
    behind, _ = nearest_points(points[2:3], K, torch.eye(4), HEIGHT, WIDTH)
    assert (behind == -1).all()


def test_pixels_without_a_point_are_zero():
    world, features, poses = seen(np.random.default_rng(0), 1)
    away = poses @ rigid.yaw(torch.tensor(torch.pi))
    assert (project_points(world, features, K[None, None], away[None]) == 0).all()


@given(st.integers(1, 9), st.integers(1, 9), st.integers(1, 3))
def test_a_level_sampled_at_pixels_is_the_resized_level(rows, columns, views):
    rng = np.random.default_rng(rows * columns)
    level = torch.from_numpy(rng.normal(size=(1, views, 4, rows, columns))).float()
    images = torch.zeros(1, views, 3, HEIGHT, WIDTH)
    features = source_features(images, torch.ones(1, views, HEIGHT, WIDTH), (level,))
    resized = F.interpolate(level[0], (HEIGHT, WIDTH), mode="bilinear")
    every = torch.arange(views * HEIGHT * WIDTH)
    weight = torch.from_numpy(rng.uniform(size=len(every))).float()
    expected = resized.permute(0, 2, 3, 1).reshape(-1, 4) * weight[:, None]
    torch.testing.assert_close(features.level_at(0, 0, every, weight), expected)


def test_an_unseen_point_that_is_not_finite_leaves_empty_pixels_zero():
    world, features, poses = seen(np.random.default_rng(0), 1)
    world[0, 0, 0, 0] = float("inf")
    away = poses @ rigid.yaw(torch.tensor(torch.pi))
    assert (project_points(world, features, K[None, None], away[None]) == 0).all()
