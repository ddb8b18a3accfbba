# SPDX-License-Identifier: Apache-2.0
"""The path of a rig: continuous, never certain, and broken where sets cannot be linked."""

import itertools
import logging
import math
import re

import pytest
import torch
from street_views import picture, sequence, small_street_model, street_config

from occany_core import Stream, View, predict, rigid
from occany_core.odometry import Drift, Odometry

DRIFT = Drift(per_metre=0.05, per_second=0.2)


def test_doubt_grows_with_every_link_and_is_never_zero():
    odometry = Odometry()
    deviations = [odometry.position_deviation(DRIFT)]
    for motion in [rigid.shift(x=1.0)] * 5 + [torch.eye(4)] * 5:
        odometry = odometry.linked(motion, seconds=0.5)
        deviations.append(odometry.position_deviation(DRIFT))
    assert deviations[0] > 0
    assert all(later > earlier for earlier, later in itertools.pairwise(deviations))
    assert (odometry.links, odometry.metres, odometry.seconds) == (10, 5.0, 5.0)
    assert deviations[-1] == pytest.approx(
        math.hypot(0.05, 0.01 * math.sqrt(10), 0.05 * 5, 0.2 * 5)
    )
    assert 0 < odometry.rotation_deviation(DRIFT) < 0.1


def test_a_break_keeps_the_pose_and_adds_what_may_have_happened():
    before = Odometry().linked(rigid.shift(x=2.0), 0.5)
    after = before.broken("the picture size changed", unseen_metres=30.0)
    assert torch.equal(after.odom_from_rig, before.odom_from_rig)
    assert (after.segment, after.break_reason) == (2, "the picture size changed")
    assert after.position_deviation(DRIFT) == pytest.approx(30.0, abs=0.1)
    assert after.rotation_deviation(DRIFT) == math.pi
    again = after.linked(rigid.shift(x=1.0), 0.5).broken("the picture size changed", 40.0)
    assert again.segment == 3
    assert again.position_deviation(DRIFT) == pytest.approx(50.0, abs=0.1)


@pytest.fixture
def model():
    return small_street_model()


def test_a_stream_links_its_sets(model):
    stream = Stream(model, street_config(window__view_sets=2))
    for links, views in enumerate(sequence(3)):
        stream.add(views)
        assert stream.odometry.links == links
        assert stream.odometry.segment == 1
    assert stream.odometry.metres > 0


def test_a_set_that_gives_way_is_no_link(model):
    still = {"window__view_sets": 3, "window__keyframe_distance": 1e6}
    stream = Stream(model, street_config(**still))
    for views in sequence(4):
        stream.add(views)
    assert stream.odometry.links == 1


BREAKS = {
    "another size": ({}, (48, 32), 2.0, "the picture size changed"),
    "a long silence": (
        {"window__seconds": 1.0}, (32, 48), 9.5,
        "no view set came for 9.0 s and window.seconds is 1",
    ),
    "an impossible motion": (
        {"window__max_speed": 1e-7}, (32, 48), 1.0,
        r"the pictures show a motion of \d+\.\d m in 0\.50 s and window\.max_speed is 1e-07 m/s",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BREAKS)
def test_sets_that_cannot_be_linked_begin_a_segment_and_a_window(model, caplog, name):
    settings, size, stamp, reason = BREAKS[name]
    patient = street_config(window__view_sets=3, **settings | {"window__max_speed": 70.0})
    stream = Stream(model, patient)
    for views in sequence(2):
        stream.add(views)
    before = stream.odometry
    stream.config = street_config(window__view_sets=3, **settings)
    views = [View(rgb=picture(9, *size), stamp=stamp)]
    with caplog.at_level(logging.WARNING):
        scene = stream.add(views)
    odometry = stream.odometry
    assert torch.equal(odometry.odom_from_rig, before.odom_from_rig)
    assert (odometry.segment, odometry.links) == (2, before.links)
    assert "odometry: segment 2 begins: " in caplog.text
    assert re.fullmatch(reason, odometry.break_reason)
    gap = stamp - 0.5
    assert odometry.unseen_metres == pytest.approx(stream.config.window.max_speed * gap)
    assert stream.num_sets == 1
    alone = predict(model, [views], stream.config)
    torch.testing.assert_close(scene.observed.points_world, alone.observed.points_world)


def test_a_window_of_one_set_has_no_path_and_breaks_nothing(model):
    stream = Stream(model, street_config(window__view_sets=1))
    for views in sequence(3):
        stream.add(views)
    assert stream.odometry is None
    stream.config = street_config(window__view_sets=2)
    stream.add(sequence(4)[3])
    assert (stream.odometry.segment, stream.odometry.links) == (1, 1)


def test_a_reset_begins_at_the_first_segment(model):
    stream = Stream(model, street_config(window__view_sets=2, window__seconds=0.1))
    for views in sequence(2):
        stream.add(views)
    assert stream.odometry.segment == 2
    stream.reset()
    assert stream.odometry.segment == 1


def test_a_path_that_was_given_up_for_a_while_is_broken(model):
    stream = Stream(model, street_config(window__view_sets=2))
    sets = sequence(6)
    for views in sets[:2]:
        stream.add(views)
    stream.config = street_config(window__view_sets=1)
    for views in sets[2:4]:
        stream.add(views)
    assert stream.odometry is None
    stream.config = street_config(window__view_sets=2)
    stream.add(sets[4])
    assert stream.odometry.break_reason == "window.view_sets is 1"
    assert stream.odometry.segment == 2
    assert stream.odometry.unseen_metres == pytest.approx(math.hypot(35.0, 35.0))
