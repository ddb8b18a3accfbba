# SPDX-License-Identifier: Apache-2.0
"""Rigid motions obey the laws of their group; `align` finds a motion again and never mirrors."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import motion, seeds

from occany_core import rigid
from occany_core.errors import DegenerateGeometryError

shapes = st.sampled_from([(), (3,), (2, 3)])
IDENTITY = torch.eye(4, dtype=torch.float64)


@given(seeds, shapes)
def test_motions_are_a_group_that_acts_on_points(seed, shape):
    rng = np.random.default_rng(seed)
    a_from_b, b_from_c = motion(rng, *shape), motion(rng, *shape)
    points = torch.from_numpy(rng.normal(0, 10, (*shape, 5, 3)))
    in_two_steps = rigid.apply(a_from_b, rigid.apply(b_from_c, points))
    torch.testing.assert_close(rigid.apply(a_from_b @ b_from_c, points), in_two_steps)
    torch.testing.assert_close(rigid.apply(IDENTITY.expand(*shape, 4, 4), points), points)


@given(seeds, shapes)
def test_inverse(seed, shape):
    rng = np.random.default_rng(seed)
    a_from_b = motion(rng, *shape)
    b_from_a = rigid.invert(a_from_b)
    torch.testing.assert_close(a_from_b @ b_from_a, IDENTITY.expand(*shape, 4, 4))
    torch.testing.assert_close(b_from_a, torch.linalg.inv(a_from_b))
    torch.testing.assert_close(rigid.invert(b_from_a), a_from_b)


@given(seeds)
def test_distances_stay(seed):
    rng = np.random.default_rng(seed)
    points = torch.from_numpy(rng.normal(0, 10, (6, 3)))
    moved = rigid.apply(motion(rng), points)
    torch.testing.assert_close(torch.cdist(moved, moved), torch.cdist(points, points))


def test_yaw_turns_the_view_to_the_right():
    quarter = rigid.yaw(torch.tensor(torch.pi / 2))
    ahead, below = torch.tensor([[0.0, 0.0, 1.0]]), torch.tensor([[0.0, 1.0, 0.0]])
    torch.testing.assert_close(rigid.apply(quarter, ahead), torch.tensor([[1.0, 0.0, 0.0]]))
    torch.testing.assert_close(rigid.apply(quarter, below), below)


@pytest.mark.parametrize("angle", [1e-4, 0.3, 2.5])
def test_turn_is_right_handed_about_its_vector(angle):
    vector = torch.tensor([0.0, 0.0, angle])
    x = rigid.apply(rigid.turn(vector), torch.tensor([[1.0, 0.0, 0.0]]))[0]
    torch.testing.assert_close(x, torch.tensor([math.cos(angle), math.sin(angle), 0.0]))
    leaning = torch.tensor([[0.2, -0.4, 0.1], [0.0, 0.0, 0.0]]) * angle
    turns = rigid.turn(leaning)
    torch.testing.assert_close(
        rigid.angle_deg(turns).deg2rad(), leaning.norm(dim=-1), atol=1e-3, rtol=0
    )
    torch.testing.assert_close(rigid.apply(turns, leaning[:, None])[:, 0], leaning)


def test_shift_moves_the_origin():
    origin = rigid.apply(rigid.shift(x=1, y=2, z=3), torch.zeros(1, 3))
    assert origin.tolist() == [[1, 2, 3]]


@given(seeds, shapes, st.sampled_from(["solid", "near planar", "planar"]))
def test_align_recovers_a_motion(seed, shape, kind):
    rng = np.random.default_rng(seed)
    points_b = rng.normal(0, 5, (*shape, 40, 3))
    points_b[..., 2] *= {"solid": 1, "near planar": 1e-3, "planar": 0}[kind]
    points_b = torch.from_numpy(points_b + 20)
    a_from_b = motion(rng, *shape)
    weights = torch.from_numpy(rng.uniform(0.1, 3, (*shape, 40)))
    found = rigid.align(rigid.apply(a_from_b, points_b), points_b, weights)
    torch.testing.assert_close(found, a_from_b, rtol=0, atol=1e-6)


@given(seeds)
def test_align_ignores_points_without_weight(seed):
    rng = np.random.default_rng(seed)
    points_b, a_from_b = torch.from_numpy(rng.normal(0, 5, (30, 3))), motion(rng)
    points_a = rigid.apply(a_from_b, points_b)
    points_a[::3] += 50
    weights = torch.ones(30, dtype=torch.float64)
    weights[::3] = 0
    found = rigid.align(points_a, points_b, weights)
    torch.testing.assert_close(found, a_from_b, rtol=0, atol=1e-6)


@given(seeds, st.floats(0, 1))
def test_align_never_mirrors(seed, thickness):
    rng = np.random.default_rng(seed)
    points_b = torch.from_numpy(rng.normal(0, 5, (30, 3)) * [1, 1, thickness])
    mirrored = points_b * points_b.new_tensor([1, 1, -1])
    noisy = mirrored + torch.from_numpy(rng.normal(0, 0.1, (30, 3)))
    rotation = rigid.align(noisy, points_b, torch.ones(30))[:3, :3]
    torch.testing.assert_close(torch.det(rotation), torch.ones((), dtype=rotation.dtype))
    torch.testing.assert_close(rotation @ rotation.T, torch.eye(3, dtype=rotation.dtype))


def test_align_keeps_single_precision():
    points = torch.randn(10, 3, generator=torch.Generator().manual_seed(0))
    assert rigid.align(points, points, torch.ones(10)).dtype == torch.float32


@pytest.mark.parametrize("broken", ["no weight", "nan", "inf"])
def test_align_refuses_what_determines_nothing(broken):
    points, weights = (
        torch.randn(10, 3, generator=torch.Generator().manual_seed(0)),
        torch.ones(10),
    )
    if broken == "no weight":
        weights = weights * 0
    else:
        points[3, 1] = float(broken)
    with pytest.raises(DegenerateGeometryError, match="align"):
        rigid.align(points, points, weights)


@given(st.floats(0.5, 179.5), seeds)
def test_angle_of_a_turn_about_any_axis(degrees, seed):
    frame = motion(np.random.default_rng(seed))
    turn = rigid.yaw(torch.tensor(degrees, dtype=torch.float64).deg2rad())
    assert rigid.angle_deg(frame @ turn @ rigid.invert(frame)).item() == pytest.approx(degrees)
