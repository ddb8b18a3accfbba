# SPDX-License-Identifier: Apache-2.0
"""Points built from known cameras give these cameras back; what determines nothing is refused."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import motion, rotation, seeds

from occany_core import camera, rigid
from occany_core.errors import DegenerateGeometryError
from occany_core.poses import (
    encoding_from_pose,
    estimate_cameras,
    estimate_focal,
    pose_from_encoding,
)

VIEWS, HEIGHT, WIDTH = 3, 16, 24


def street(rng: np.random.Generator, focal_px: float, poses: torch.Tensor) -> tuple:
    """World points, camera points and confidences of views with random depth, float32."""
    depth = torch.from_numpy(rng.uniform(2, 40, (len(poses), HEIGHT, WIDTH)))
    K = camera.pinhole(torch.full((len(poses),), focal_px, dtype=torch.float64), HEIGHT, WIDTH)
    points_cam = camera.backproject(K, depth)
    points_world = rigid.apply(poses, points_cam.flatten(1, 2)).view_as(points_cam)
    confidence = torch.from_numpy(1 + rng.exponential(size=depth.shape))
    return points_world.float(), points_cam.float(), confidence.float()


@given(seeds, st.floats(10, 60))
def test_known_cameras_are_found_again(seed, focal_px):
    rng = np.random.default_rng(seed)
    poses = motion(rng, VIEWS)
    cameras = estimate_cameras(*street(rng, focal_px, poses))
    expected = camera.pinhole(torch.tensor(focal_px), HEIGHT, WIDTH).expand(VIEWS, 3, 3)
    torch.testing.assert_close(cameras.K, expected, rtol=1e-4, atol=0)
    torch.testing.assert_close(cameras.world_from_cam, poses.float(), rtol=0, atol=1e-3)


def test_the_reference_view_sets_the_focal_length():
    rng = np.random.default_rng(1)
    poses = motion(rng, 2)
    first, second = street(rng, 20.0, poses[:1]), street(rng, 50.0, poses[1:])
    cameras = estimate_cameras(*(torch.cat(pair) for pair in zip(first, second)))
    assert cameras.K[:, 0, 0].tolist() == pytest.approx([20, 20], rel=1e-3)


def test_a_few_wild_points_do_not_move_the_focal_length():
    rng = np.random.default_rng(2)
    _, points, _ = street(rng, 30.0, motion(rng, 1))
    points[0, :2, :2, 0] += 100
    points[0, 5, 5, 2] = 0
    assert estimate_focal(points).item() == pytest.approx(30, rel=0.01)


def test_points_without_confidence_do_not_move_the_pose():
    rng = np.random.default_rng(3)
    poses = motion(rng, VIEWS)
    world, cam, confidence = street(rng, 30.0, poses)
    world[:, ::2] += 30
    confidence[:, ::2] = 1
    found = estimate_cameras(world, cam, confidence).world_from_cam
    torch.testing.assert_close(found, poses.float(), rtol=0, atol=1e-3)


def broken(kind: str) -> tuple:
    world, cam, confidence = street(
        np.random.default_rng(4), 30.0, motion(np.random.default_rng(4), 2)
    )
    if kind == "all points in the camera":
        cam = cam * 0
    elif kind == "camera points not finite":
        cam = cam * float("nan")
    elif kind == "world points not finite":
        world[1, 3, 3, 0] = float("inf")
    elif kind == "no confidence in a view":
        confidence[1] = 1
    elif kind == "confidence not finite":
        confidence[0, 0, 0] = float("nan")
    elif kind == "mirrored":
        cam[..., 0] *= -1
        cam[..., 1] *= -1
    return world, cam, confidence


@pytest.mark.parametrize(
    "kind",
    [
        "all points in the camera",
        "camera points not finite",
        "world points not finite",
        "no confidence in a view",
        "confidence not finite",
        "mirrored",
    ],
)
def test_what_determines_no_camera_is_refused(kind):
    with pytest.raises(DegenerateGeometryError, match="check"):
        estimate_cameras(*broken(kind))


@given(seeds, st.floats(0.01, 100))
def test_pose_encoding_of_any_quaternion_length(seed, length):
    rng = np.random.default_rng(seed)
    quaternion = rng.normal(size=4)
    quaternion *= length / np.linalg.norm(quaternion)
    encoding = torch.tensor([1.0, 2, 3, *quaternion], dtype=torch.float64)
    pose = pose_from_encoding(encoding)
    assert pose[:3, 3].tolist() == [1, 2, 3]
    torch.testing.assert_close(
        pose[:3, :3] @ pose[:3, :3].T, torch.eye(3, dtype=torch.float64), rtol=0, atol=1e-9
    )
    same = rotation(np.random.default_rng(seed))
    torch.testing.assert_close(pose[:3, :3], same, rtol=0, atol=1e-9)


@given(seeds)
def test_poses_survive_their_encoding(seed):
    poses = motion(np.random.default_rng(seed), 2, 3)
    encoding = encoding_from_pose(poses)
    torch.testing.assert_close(pose_from_encoding(encoding), poses)
    torch.testing.assert_close(encoding[..., 3:].norm(dim=-1), torch.ones(2, 3).double())
    assert (encoding[..., 3] >= 0).all()


@pytest.mark.parametrize("axis", [[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.6, 0, -0.8], [0, 0.6, 0.8]])
def test_half_turns_survive_their_encoding(axis):
    """The real part is zero there, so that it must not be a divisor."""
    axis = torch.tensor(axis, dtype=torch.float64)
    half_turn = 2 * torch.outer(axis, axis) - torch.eye(3).double()
    pose = rigid.compose(half_turn, torch.tensor([1.0, 2.0, 3.0]).double())
    torch.testing.assert_close(pose_from_encoding(encoding_from_pose(pose)), pose)
