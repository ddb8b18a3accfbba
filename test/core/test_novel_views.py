# SPDX-License-Identifier: Apache-2.0
"""Novel views stand where they are told; points drawn into a view behave like solid points."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import motion, seeds

from occany_core import camera, rigid
from occany_core.config import NovelViewsConfig
from occany_core.novel_views import propose_views
from occany_core.projection import nearest_points, project_points, source_features

HEIGHT, WIDTH = 6, 8
K = camera.pinhole(torch.tensor(7.0), HEIGHT, WIDTH)


# --- where they stand ---------------------------------------------------------------------------


@given(seeds, st.integers(1, 4), st.integers(0, 3), st.booleans())
def test_number_order_and_owner(seed, views, steps, turns):
    poses = motion(np.random.default_rng(seed), views).float()
    config = NovelViewsConfig(
        steps=steps, forward_step=2.5, yaw_deg=30.0 if turns else 0.0, lateral=1.5
    )
    proposed = propose_views(poses, config)
    expected, owners = [], []
    for side, angle in [(0, 0), (1.5, 30), (-1.5, -30)][: 3 if turns else 1]:
        for owner in range(views):
            for step in range(1, steps + 1):
                turned = rigid.shift(x=side) @ rigid.yaw(torch.tensor(float(angle)).deg2rad())
                expected.append(poses[owner] @ rigid.shift(z=2.5 * step) @ turned)
                owners.append(owner)
    assert proposed.owner.tolist() == owners
    assert proposed.world_from_cam.shape == (len(owners), 4, 4)
    if owners:
        torch.testing.assert_close(proposed.world_from_cam, torch.stack(expected))


@given(st.integers(1, 6), st.integers(1, 4), st.integers(1, 20))
def test_thinned_to_the_limit_evenly(views, steps, limit):
    poses = motion(np.random.default_rng(0), views).float()
    every = propose_views(poses, NovelViewsConfig(steps=steps))
    some = propose_views(poses, NovelViewsConfig(steps=steps, max_views=limit))
    number = len(every.owner)
    assert len(some.owner) == min(limit, number)
    kept = [
        next(i for i in range(number) if torch.equal(every.world_from_cam[i], pose))
        for pose in some.world_from_cam
    ]
    assert every.owner[kept].tolist() == some.owner.tolist()
    gaps = np.diff(kept)
    assert (gaps > 0).all(), "a view twice, or out of order"
    assert not len(gaps) or gaps.max() - gaps.min() <= 1, "not even"


# --- drawing ------------------------------------------------------------------------------------


def seen(rng: np.random.Generator, views: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """World points (1, V, H, W, 3), features (1, V, 4, H, W) and poses of views."""
    poses = motion(rng, views).float()
    depth = torch.from_numpy(rng.uniform(2, 30, (views, HEIGHT, WIDTH))).float()
    points = camera.backproject(K.expand(views, 3, 3), depth)
    world = rigid.apply(poses, points.flatten(1, 2)).view_as(points)
    features = torch.from_numpy(rng.normal(size=(views, 4, HEIGHT, WIDTH))).float()
    return world[None], features[None], poses


@given(seeds)
def test_a_pointmap_drawn_into_its_own_camera_is_itself(seed):
    world, features, poses = seen(np.random.default_rng(seed), 1)
    picture = project_points(world, features, K[None, None], poses[None])
    in_camera = rigid.apply(rigid.invert(poses), world[0].flatten(1, 2))
    expected = in_camera.view(HEIGHT, WIDTH, 3).permute(2, 0, 1)
    torch.testing.assert_close(picture[0, 0, :3], expected, rtol=1e-4, atol=1e-4)
    assert torch.equal(picture[0, 0, 3:6], world[0, 0].permute(2, 0, 1))
    assert torch.equal(picture[0, 0, 6:], features[0, 0])


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


def test_features_that_travel_along():
    rng = np.random.default_rng(0)
    images = torch.from_numpy(rng.uniform(-1, 1, (1, 2, 3, HEIGHT, WIDTH))).float()
    confidence = torch.from_numpy(1 + rng.exponential(size=(1, 2, HEIGHT, WIDTH))).float()
    coarse, fine = torch.full((1, 2, 4, 3, 3), 0.25), torch.ones(1, 2, 2, 6, 6)
    features = source_features(images, confidence, (coarse, fine))
    assert features.shape == (1, 2, 3 + 1 + 4 + 2, HEIGHT, WIDTH)
    assert torch.equal(features[:, :, :3], images)
    torch.testing.assert_close(features[:, :, 3], confidence - 1)
    assert (features[:, :, 4:8] == 0.25).all()
    assert (features[:, :, 8:] == 1).all()
