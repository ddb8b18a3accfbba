# SPDX-License-Identifier: Apache-2.0
"""A stream gives what `predict` gives on its window, encodes pictures once, survives failures."""

import itertools
import logging

import numpy as np
import pytest
import torch
from street_views import FRONT, K, picture, sequence, small_street_model, street_config, surround

from occany_core import Scene, Stream, View, predict, rigid
from occany_core.errors import ConfigError, DegenerateGeometryError, InputError


@pytest.fixture
def model():
    return small_street_model()


def assert_same(one: Scene, other: Scene) -> None:
    assert one.stamps == other.stamps
    assert one.camera_names == other.camera_names
    assert one.set_index == other.set_index
    np.testing.assert_array_equal(one.rgb, other.rgb)
    for name in ("points_world", "points_cam", "confidence"):
        torch.testing.assert_close(getattr(one.observed, name), getattr(other.observed, name))
        torch.testing.assert_close(getattr(one.novel, name), getattr(other.novel, name))
    torch.testing.assert_close(one.cameras.world_from_cam, other.cameras.world_from_cam)
    torch.testing.assert_close(one.grid_from_world, other.grid_from_world)
    np.testing.assert_array_equal(one.grid.probability, other.grid.probability)
    assert list(one.timings) == list(other.timings)


@pytest.mark.parametrize("size", [1, 3])
def test_a_stream_gives_what_predict_gives_on_the_window(model, size):
    config = street_config(window__view_sets=size)
    sets, stream = sequence(5, K=K), Stream(model, config)
    for newest in range(len(sets)):
        scene = stream.add(sets[newest])
        window = sets[max(newest + 1 - size, 0) : newest + 1]
        assert stream.num_sets == len(window)
        assert_same(scene, predict(model, window, config))


def test_a_rig_in_motion(model):
    config = street_config(window__view_sets=2)
    sets = [surround(index, stamp=0.5 * index) for index in range(3)]
    stream = Stream(model, config)
    scenes = [stream.add(views) for views in sets]
    assert_same(scenes[2], predict(model, sets[1:], config))
    assert scenes[2].stamps == (0.5, 0.5, 0.5, 1.0, 1.0, 1.0)


def test_every_picture_is_encoded_once(model, monkeypatch):
    encode, encoded = model.network.encode, []

    def counted(images, cameras):
        encoded.append(images.shape[1])
        return encode(images, cameras)

    monkeypatch.setattr(model.network, "encode", counted)
    stream = Stream(model, street_config(window__view_sets=4))
    for index in range(5):
        stream.add(surround(index, stamp=index))
    assert encoded == [3] * 5


def test_sets_that_are_too_old_leave_the_window(model):
    stream = Stream(model, street_config(window__view_sets=10, window__seconds=1.0))
    sizes = []
    for stamp in (0.0, 0.4, 0.8, 1.2, 5.0):
        scene = stream.add([View(rgb=picture(0), stamp=stamp)])
        sizes.append(stream.num_sets)
        assert max(scene.stamps) - min(scene.stamps) <= 1.0
    assert sizes == [1, 2, 3, 3, 1]


def test_reset_forgets_the_window_and_the_path(model):
    config = street_config(window__view_sets=3)
    stream = Stream(model, config)
    for views in sequence(3):
        stream.add(views)
    assert not torch.allclose(stream.odom_from_rig, torch.eye(4), atol=1e-9)
    stream.reset()
    assert stream.num_sets == 0
    assert torch.equal(stream.odom_from_rig, torch.eye(4))
    fresh = sequence(1)[0]
    assert_same(stream.add(fresh), predict(model, [fresh], config))


# --- odometry -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "known", [{}, {"K": K, "rig_from_cam": FRONT}], ids=["bare", "calibrated"]
)
def test_the_path_adds_up_the_motion_between_neighbouring_sets(model, known):
    stream = Stream(model, street_config(window__view_sets=2))
    path = torch.eye(4)
    for views in sequence(4, **known):
        poses = stream.add(views).world_from_rig
        if len(poses) > 1:
            path = path @ rigid.invert(poses[-2]) @ poses[-1]
        torch.testing.assert_close(stream.odom_from_rig, path, rtol=0, atol=1e-5)
    assert not torch.allclose(path, torch.eye(4), atol=1e-9)


def test_one_set_at_a_time_knows_no_motion(model):
    stream = Stream(model, street_config(window__view_sets=1))
    stream.add(sequence(1)[0])
    assert stream.odom_from_rig is None


# --- keyframes ----------------------------------------------------------------------------------


def kept_stamps(model, **settings: float) -> list[tuple[float, ...]]:
    """Stamps in the window after each of four sets."""
    stream = Stream(model, street_config(window__view_sets=3, **settings))
    return [stream.add(views).stamps for views in sequence(4)]


def steps_between(model) -> list[float]:
    stream = Stream(model, street_config(window__view_sets=3))
    path = [stream.odom_from_rig]
    for views in sequence(4):
        stream.add(views)
        path.append(stream.odom_from_rig)
    return [(b[:3, 3] - a[:3, 3]).norm().item() for a, b in itertools.pairwise(path[1:])]


def test_a_set_that_hardly_moved_gives_way_to_the_next(model):
    first, *_, last = (views[0].stamp for views in sequence(4))
    far = max(steps_between(model)) * 10
    still = kept_stamps(model, window__keyframe_distance=far)
    assert [len(stamps) for stamps in still] == [1, 2, 2, 2]
    assert still[-1] == (first, last)


def test_motion_above_either_limit_makes_a_keyframe(model):
    every = [len(stamps) for stamps in kept_stamps(model)]
    assert every == [1, 2, 3, 3]
    near = min(steps_between(model)) / 10
    assert [len(s) for s in kept_stamps(model, window__keyframe_distance=near)] == every
    both = {"window__keyframe_distance": 1e6, "window__keyframe_angle_deg": 1e-6}
    turned = kept_stamps(model, **both)
    assert [len(stamps) for stamps in turned] == every


def test_the_path_is_continuous_where_sets_give_way(model):
    """The newest pose hangs on the last keyframe, not on the set that gave way."""
    stream = Stream(model, street_config(window__view_sets=3, window__keyframe_distance=1e6))
    for views in sequence(4):
        scene = stream.add(views)
    expected = rigid.invert(scene.world_from_rig[0]) @ scene.world_from_rig[1]
    torch.testing.assert_close(stream.odom_from_rig, expected, rtol=0, atol=1e-5)


# --- failures -----------------------------------------------------------------------------------


def spoil_picture(stream: Stream, views: list[View]) -> None:
    del stream
    views[0] = View(rgb=views[0].rgb[..., :1], camera="front")


def spoil_weights(stream: Stream, views: list[View]) -> None:
    del views
    stream.model.network.heads.points.out.bias.fill_(float("nan"))


@pytest.mark.parametrize(
    ("spoil", "error"),
    [(spoil_picture, InputError), (spoil_weights, DegenerateGeometryError)],
    ids=["before the network", "after the network"],
)
def test_a_failure_leaves_the_window_and_the_path(model, spoil, error):
    config = street_config(window__view_sets=3)
    sets, stream = sequence(4), Stream(model, config)
    for views in sets[:3]:
        stream.add(views)
    path = stream.odom_from_rig.clone()
    bias = model.network.heads.points.out.bias.clone()
    bad = list(sets[3])
    spoil(stream, bad)
    with pytest.raises(error):
        stream.add(bad)
    assert stream.num_sets == 3
    assert torch.equal(stream.odom_from_rig, path)
    model.network.heads.points.out.bias.copy_(bias)
    assert_same(stream.add(sets[3]), predict(model, sets[1:], config))


def test_an_empty_set_is_refused(model):
    stream = Stream(model, street_config())
    with pytest.raises(InputError, match="at least one"):
        stream.add([])
    assert stream.num_sets == 0


def test_what_is_no_view_set_model_or_settings_is_refused_with_an_example(model):
    stream = Stream(model, street_config(calibration__use="required"))
    for wrong in (sequence(1)[0][0], sequence(1), None):
        with pytest.raises(InputError, match=r"stream\.add\(\[View\(rgb\)\]\)"):
            stream.add(wrong)
    with pytest.raises(InputError, match="the model is str"):
        Stream("default", street_config())
    with pytest.raises(ConfigError, match="the config is dict"):
        Stream(model, {})


def test_another_picture_size_starts_the_window_anew(model, caplog):
    config = street_config(window__view_sets=3)
    stream = Stream(model, config)
    for views in sequence(2):
        stream.add(views)
    portrait = [View(rgb=picture(9, 48, 32), stamp=9.0)]
    with caplog.at_level(logging.WARNING):
        scene = stream.add(portrait)
    assert "picture size" in caplog.text
    assert stream.num_sets == 1
    assert_same(scene, predict(model, [portrait], config))
