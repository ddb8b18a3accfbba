# SPDX-License-Identifier: Apache-2.0
"""Known calibration replaces directions and poses of predicted points and keeps their depth."""

import numpy as np
import torch
from hypothesis import given
from strategies import intrinsics, motion, seeds

from occany_core import camera, pointmaps, rigid
from occany_core.network import RawMaps
from occany_core.pointmaps import Pointmaps

VIEWS, HEIGHT, WIDTH = 3, 4, 6


def predicted(rng: np.random.Generator) -> Pointmaps:
    shape = (VIEWS, HEIGHT, WIDTH)
    return Pointmaps(
        torch.from_numpy(rng.normal(0, 9, (*shape, 3))),
        torch.from_numpy(rng.normal([0, 0, 6], 4, (*shape, 3))),
        torch.from_numpy(1 + rng.exponential(size=shape)),
    )


@given(seeds)
def test_calibrated_points_lie_on_the_rays_of_their_pixels(seed):
    rng = np.random.default_rng(seed)
    points = predicted(rng)
    K = torch.stack([intrinsics(rng, WIDTH, HEIGHT) for _ in range(VIEWS)])
    seen = pointmaps.calibrate(points, K, None)
    depth = points.points_cam[..., 2]
    ahead = depth > 0
    torch.testing.assert_close(seen.points_cam[..., 2][ahead], depth[ahead])
    assert (seen.points_cam[~ahead] == 0).all()
    pixels = camera.project(K, seen.points_cam.flatten(1, 2)).unflatten(1, (HEIGHT, WIDTH))
    expected = camera.pixel_grid(HEIGHT, WIDTH).double().expand_as(pixels)
    torch.testing.assert_close(pixels[ahead], expected[ahead], rtol=0, atol=1e-3)
    assert seen.points_world is points.points_world
    assert seen.confidence is points.confidence


@given(seeds)
def test_world_points_follow_known_poses(seed):
    rng = np.random.default_rng(seed)
    points, poses = predicted(rng), motion(rng, VIEWS)
    K = torch.stack([intrinsics(rng, WIDTH, HEIGHT) for _ in range(VIEWS)])
    seen = pointmaps.calibrate(points, K, poses)
    back = rigid.apply(rigid.invert(poses), seen.points_world.flatten(1, 2))
    torch.testing.assert_close(back, seen.points_cam.flatten(1, 2))


def test_calibrating_twice_changes_nothing():
    rng = np.random.default_rng(0)
    K = torch.stack([intrinsics(rng, WIDTH, HEIGHT) for _ in range(VIEWS)])
    once = pointmaps.calibrate(predicted(rng), K, motion(rng, VIEWS))
    twice = pointmaps.calibrate(once, K, None)
    torch.testing.assert_close(twice.points_cam, once.points_cam)


def test_scene_of_a_batch_and_joining():
    points = predicted(np.random.default_rng(0))
    maps = (points.points_world[None], points.points_cam[None], points.confidence[None])
    one = pointmaps.of_scene(RawMaps(*maps, torch.zeros(1, VIEWS, 7), ()))
    both = pointmaps.joined([one, one])
    assert both.points_world.shape == (2 * VIEWS, HEIGHT, WIDTH, 3)
    assert torch.equal(both.points_cam[VIEWS:], points.points_cam)
    assert torch.equal(both.confidence[:VIEWS], points.confidence)
