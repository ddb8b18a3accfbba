# SPDX-License-Identifier: Apache-2.0
"""Novel views stand where they are told."""

import dataclasses

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import motion, seeds

from occany_core import rigid
from occany_core.config import NovelViewsConfig
from occany_core.novel_views import propose_views


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


@given(seeds, st.integers(1, 3), st.integers(1, 2), st.integers(2, 5), st.booleans())
def test_seeds_repeat_everything_around_turned_views(seed, views, steps, number, turns):
    poses = motion(np.random.default_rng(seed), views).float()
    around = NovelViewsConfig(steps=steps, yaw_deg=40.0 if turns else 0.0, lateral=0.5)
    config = dataclasses.replace(around, seeds=number, seed_step_deg=20.0, seed_lateral=1.5)
    proposed = propose_views(poses, config)
    expected, owners = [], []
    for index in range(number):
        angle = 20.0 * (index - (number - 1) / 2)
        shifted = rigid.shift(x=float(np.sign(angle)) * 1.5)
        turned = poses @ (shifted @ rigid.yaw(torch.tensor(angle).deg2rad()))
        one = propose_views(turned, around)
        expected.append(one.world_from_cam)
        owners += one.owner.tolist()
    torch.testing.assert_close(proposed.world_from_cam, torch.cat(expected))
    assert proposed.owner.tolist() == owners


@given(st.integers(1, 4), st.integers(0, 3), st.booleans(), st.integers(0, 9))
def test_unturned_views_look_where_their_owner_looks(views, steps, turns, limit):
    poses = motion(np.random.default_rng(0), views).float()
    config = NovelViewsConfig(steps=steps, yaw_deg=30.0 if turns else 0.0, max_views=limit)
    proposed = propose_views(poses, config)
    rotations = proposed.world_from_cam[:, :3, :3]
    turned = rotations - poses[proposed.owner][:, :3, :3]
    assert torch.equal(proposed.unturned, turned.flatten(1).abs().amax(1) < 1e-4)
