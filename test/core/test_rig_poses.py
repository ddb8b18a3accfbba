# SPDX-License-Identifier: Apache-2.0
"""Mountings, assumed or known, place the rig in the world."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import motion, rotation, seeds

from occany_core import rigid
from occany_core.errors import DegenerateGeometryError
from occany_core.pointmaps import Pointmaps
from occany_core.rig_poses import grid_from_reference, known_cameras


def test_a_level_camera_looks_along_x():
    rig_from_cam = grid_from_reference(1.6, 0.0)
    optical = torch.tensor([[0.0, 0, 10], [1, 0, 0], [0, 1.6, 0]])
    expected = torch.tensor([[10, 0, 1.6], [0, -1, 1.6], [0, 0, 0]])
    torch.testing.assert_close(rigid.apply(rig_from_cam, optical), expected)


@given(st.floats(0.1, 5), st.floats(1, 80))
def test_a_pitched_camera_looks_at_the_ground_ahead(height, pitch_deg):
    rig_from_cam = grid_from_reference(height, pitch_deg)
    distance = float(height / np.sin(np.radians(pitch_deg)))
    hit = rigid.apply(rig_from_cam, torch.tensor([[0.0, 0, distance]]))[0]
    expected = [height / np.tan(np.radians(pitch_deg)), 0, 0]
    np.testing.assert_allclose(hit, expected, rtol=1e-3, atol=1e-3)
    assert torch.det(rig_from_cam[:3, :3]).item() == pytest.approx(1)


def rig(rng: np.random.Generator, cameras: int) -> torch.Tensor:
    offsets = torch.from_numpy(rng.uniform([-2, -1, 0.5], [2, 1, 2.5], (cameras, 3)))
    return rigid.compose(rotation(rng, cameras), offsets)


def moving_rig(rng: np.random.Generator, cameras: int, sets: int) -> tuple:
    """Mountings and set index of every view, true rig poses, and noiseless pointmaps."""
    mountings = rig(rng, cameras)
    world_from_rig = motion(rng, sets)
    world_from_rig = rigid.invert(world_from_rig[0] @ mountings[0]) @ world_from_rig
    set_index = torch.arange(sets).repeat_interleave(cameras)
    rig_from_cam = mountings.repeat(sets, 1, 1)
    points_cam = torch.from_numpy(rng.uniform([-5, -5, 2], [5, 5, 30], (len(set_index), 4, 5, 3)))
    world_from_cam = world_from_rig[set_index] @ rig_from_cam
    points_world = rigid.apply(world_from_cam, points_cam.flatten(1, 2)).view_as(points_cam)
    confidence = torch.from_numpy(1.1 + rng.exponential(size=points_cam.shape[:3]))
    return (
        (rig_from_cam, set_index),
        world_from_rig,
        Pointmaps(points_world, points_cam, confidence),
    )


@given(seeds, st.integers(1, 4), st.integers(1, 3))
def test_the_motion_of_a_known_rig_is_found(seed, cameras, sets):
    known, world_from_rig, points = moving_rig(np.random.default_rng(seed), cameras, sets)
    found_cameras, found_rigs = known_cameras(points, *known)
    torch.testing.assert_close(found_rigs, world_from_rig, rtol=0, atol=1e-6)
    torch.testing.assert_close(found_cameras, world_from_rig[known[1]] @ known[0])
    torch.testing.assert_close(found_cameras[0], torch.eye(4, dtype=torch.float64))


@given(seeds)
def test_the_first_set_is_placed_by_its_mountings_alone(seed):
    rng = np.random.default_rng(seed)
    known, _, points = moving_rig(rng, 3, 2)
    spoilt = points.points_world.clone()
    spoilt[:3] += torch.from_numpy(rng.normal(0, 5, spoilt[:3].shape))
    result = known_cameras(Pointmaps(spoilt, points.points_cam, points.confidence), *known)
    for found, expected in zip(result, known_cameras(points, *known)):
        torch.testing.assert_close(found, expected)


def test_a_later_set_without_confidence_is_refused():
    known, _, points = moving_rig(np.random.default_rng(0), 2, 2)
    confidence = points.confidence.clone()
    confidence[2:] = 1
    with pytest.raises(DegenerateGeometryError):
        known_cameras(Pointmaps(points.points_world, points.points_cam, confidence), *known)
