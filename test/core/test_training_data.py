# SPDX-License-Identifier: Apache-2.0
"""Samples, views, crops, colours, depth targets, windows and rates of training."""

from collections import Counter

import numpy as np
import pytest
import strategies
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from occany_core import camera, rigid
from occany_core.calibrated_images import crop_calibrated, plan_calibrated
from occany_core.datasets.lidar_depth import depth_last_wins
from occany_core.datasets.windows import cameras_of, surround_windows, temporal_windows
from occany_core.errors import ConfigError, InputError
from occany_core.training.augmentation import (
    RECONSTRUCTION_CROPS,
    ColourJitter,
    ColourRanges,
    CropDraws,
    CropRanges,
    plan_training_crop,
)
from occany_core.training.depth_targets import (
    MOST_DEPTH,
    depth_targets,
    points_in_picture,
    redraw_depth,
)
from occany_core.training.sampling import (
    BatchRule,
    HeldOutRule,
    choose_cameras,
    choose_frames,
    choose_held_out,
    draw_from_set,
    plan_epoch,
    reconstruction_first,
)
from occany_core.training.schedule import RateSchedule, parameter_groups


def rule(**changes):
    values = {"batch": 2, "ranks": 3, "num_resolutions": 4, "views": (5, 10)}
    return BatchRule(**(values | changes), held_out=HeldOutRule(probability=0.4))


# --- sampling -----------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(length=st.integers(6, 60), epoch=st.integers(0, 200), seed=st.integers(0, 10**6))
def test_ranks_share_an_epoch_without_overlap(length, epoch, seed):
    plans = [plan_epoch(length, rule(), epoch, rank, seed) for rank in range(3)]
    seen = [sample for batches in plans for plan in batches for sample in plan.samples]
    assert len(set(seen)) == len(seen) == length // 6 * 6
    assert len({len(batches) for batches in plans}) == 1
    for plan in (plan for batches in plans for plan in batches):
        assert len(plan.samples) == 2 and 0 <= plan.resolution < 4 and 5 <= plan.num_views <= 10
        assert list(plan.held_out) == sorted(set(plan.held_out))
        assert 1 <= len(plan.held_out) <= 5 and 0 not in plan.held_out
        assert max(plan.held_out) < plan.num_views


def test_plans_depend_on_epoch_and_seed_only():
    assert plan_epoch(40, rule(), 3) == plan_epoch(40, rule(), 3)
    assert plan_epoch(40, rule(), 3) != plan_epoch(40, rule(), 4)
    assert plan_epoch(40, rule(), 3, seed=5) == plan_epoch(40, rule(), 4, seed=4)


def test_mean_numbers_of_reconstruction_views_are_the_documented_ones():
    rng = np.random.default_rng(0)
    for views, probability, mean in (((5, 10), 0.4, 4.9), ((5, 9), 0.5, 4.0), ((5, 9), 0.4, 4.6)):
        held_out = HeldOutRule(probability=probability)
        counts = rng.integers(views[0], views[1] + 1, 10_000).tolist()
        left = [count - len(choose_held_out(count, held_out, rng)) for count in counts]
        assert np.mean(left) == pytest.approx(mean, abs=0.06)


def test_at_least_one_view_is_held_out_and_at_most_as_many_as_allowed():
    rng = np.random.default_rng(1)
    never, always = HeldOutRule(probability=0.0), HeldOutRule(probability=1.0, most=3)
    chosen = Counter(choose_held_out(4, never, rng) for _ in range(300))
    assert set(chosen) == {(1,), (2,), (3,)} and min(chosen.values()) > 60
    assert all(len(choose_held_out(9, always, rng)) == 3 for _ in range(20))
    assert choose_held_out(3, always, rng) == (1, 2)
    with pytest.raises(InputError, match="none to hold out"):
        choose_held_out(1, always, rng)


def test_sets_are_repeated_evenly():
    drawn = Counter(draw_from_set(7, 24, epoch=2))
    assert set(drawn) == set(range(7)) and set(drawn.values()) == {3, 4}
    assert draw_from_set(7, 24, 2) != draw_from_set(7, 24, 3)
    assert len(set(draw_from_set(100, 10, 0))) == 10
    with pytest.raises(InputError, match="no samples"):
        draw_from_set(0, 5, 0)


def test_frames_are_neighbours_in_either_direction():
    rng = np.random.default_rng(2)
    drawn = [choose_frames(10, 4, rng) for _ in range(400)]
    steps = Counter(int(np.diff(frames).mean()) for frames in drawn)
    assert all(set(np.abs(np.diff(frames))) == {1} for frames in drawn)
    assert set(steps) == {1, -1} and steps[1] == pytest.approx(200, abs=50)
    assert {min(frames) for frames in drawn} == set(range(7))
    assert choose_frames(5, 5, rng, reverse_probability=0.0) == [0, 1, 2, 3, 4]
    with pytest.raises(InputError, match="6 of 5 frames"):
        choose_frames(5, 6, rng)


def test_cameras_come_in_random_order_and_are_repeated_only_on_request():
    rng = np.random.default_rng(3)
    drawn = [choose_cameras(6, rng) for _ in range(300)]
    assert all(sorted(cameras) == list(range(6)) for cameras in drawn)
    assert {cameras[0] for cameras in drawn} == set(range(6))
    more = choose_cameras(6, rng, wanted=9)
    assert len(more) == 9 and set(more) == set(range(6))
    assert len(set(choose_cameras(6, rng, wanted=4))) == 4
    with pytest.raises(InputError, match="at least one"):
        choose_cameras(0, rng)


def test_reconstruction_views_come_first():
    assert reconstruction_first(6, (1, 4)) == [0, 2, 3, 5, 1, 4]


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: rule(batch=0), "at least 1"),
        (lambda: rule(views=(4, 3)), "fewest first"),
        (lambda: rule(views=(1, 3)), "at least two"),
        (lambda: HeldOutRule(probability=1.5), r"\[0, 1\]"),
        (lambda: CropRanges(least_part=0.0), "least_part"),
        (lambda: ColourRanges(hue=0.7), "hue"),
        (lambda: RateSchedule(highest=1e-7), "lowest first"),
    ],
)
def test_wrong_settings_are_refused(make, says):
    with pytest.raises(ConfigError, match=says):
        make()


def test_ranks_and_lengths_that_do_not_fit_are_refused():
    with pytest.raises(InputError, match="rank 3 of 3"):
        plan_epoch(40, rule(), 0, rank=3)
    with pytest.raises(InputError, match="5 samples do not fill"):
        plan_epoch(5, rule(), 0)


# --- pictures -----------------------------------------------------------------------------------


def draws(seed):
    rng = np.random.default_rng(seed)
    return CropDraws(rng, rng)


@settings(max_examples=30, deadline=None)
@given(
    seed=strategies.seeds,
    width=st.integers(150, 400),
    ratio=st.floats(0.3, 0.85),
    jitter=st.booleans(),
)
def test_crops_have_the_target_size_and_see_the_same_rays(seed, width, ratio, jitter):
    rng = np.random.default_rng(seed)
    height = int(width * ratio)
    K = strategies.intrinsics(rng, width, height).numpy()
    ranges = CropRanges(least_part=0.9, size_jitter=40) if jitter else CropRanges()
    crop = plan_training_crop(K, (height, width), (48, 96), ranges, draws(seed))
    v, u = np.mgrid[:height, :width]
    # A picture whose colours are its pixel coordinates.
    rgb = np.stack((u * 255 / width, v * 255 / height, 0 * u), axis=-1).round().astype(np.uint8)
    cropped = crop_calibrated(rgb, crop)
    assert cropped.shape == (48, 96, 3)
    middle = np.array([48, 24])
    rays = (middle - crop.K[:2, 2]) / np.diag(crop.K)[:2]
    expected = rays * np.diag(K)[:2] + K[:2, 2]
    seen = cropped[24, 48, :2] / 255 * (width, height)
    assert seen == pytest.approx(expected, abs=max(width, height) / 96 + 1)


def test_without_randomness_it_is_the_evaluation_crop():
    rng = np.random.default_rng(0)
    for source in ((90, 160), (70, 200), (300, 520)):
        K = strategies.intrinsics(rng, source[1], source[0]).numpy()
        ours = plan_training_crop(K, source, (48, 96), CropRanges(), draws(0))
        evaluation = plan_calibrated(K, source, (48, 96))
        assert (ours.box, ours.plan) == (evaluation.box, evaluation.plan)
        assert pytest.approx(evaluation.K, rel=1e-5) == ours.K


def test_zoom_and_size_vary_within_their_ranges():
    K = np.array([[100.0, 0, 100], [0, 100, 60], [0, 0, 1]])
    focal = []
    for seed in range(200):
        crop = plan_training_crop(K, (120, 200), (48, 96), RECONSTRUCTION_CROPS, draws(seed))
        left, top, right, bottom = crop.box
        assert 179 <= right - left <= 200 and 107 <= bottom - top <= 120
        assert crop.plan.width < 96 + 128 + 200  # cover of both sides
        focal.append(crop.K[0, 0] / 100)
    assert max(focal) / min(focal) > 1.5


def test_tall_and_square_pictures_take_the_upright_target():
    tall = np.array([[100.0, 0, 60], [0, 100, 100], [0, 0, 1]])
    crop = plan_training_crop(tall, (200, 120), (48, 96), CropRanges(), draws(0))
    assert (crop.height, crop.width) == (96, 48)
    square = np.array([[100.0, 0, 60], [0, 100, 60], [0, 0, 1]])
    sizes = Counter(
        plan_training_crop(square, (120, 120), (48, 96), CropRanges(), draws(seed)).height
        for seed in range(100)
    )
    assert set(sizes) == {48, 96} and sizes[96] == pytest.approx(50, abs=20)
    plain = plan_training_crop(square, (120, 120), (64, 64), CropRanges(), draws(1))
    assert (plain.height, plain.width) == (64, 64)


def test_one_colour_jitter_changes_all_pictures_alike():
    rng = np.random.default_rng(4)
    rgb = rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)
    first = ColourJitter.draw(ColourRanges(), torch.Generator().manual_seed(1))
    assert first == ColourJitter.draw(ColourRanges(), torch.Generator().manual_seed(1))
    assert first != ColourJitter.draw(ColourRanges(), torch.Generator().manual_seed(2))
    assert sorted(first.order) == [0, 1, 2, 3]
    np.testing.assert_array_equal(first.apply(rgb), first.apply(rgb))
    nothing = ColourRanges(brightness=0, contrast=0, saturation=0, hue=0)
    same = ColourJitter.draw(nothing, torch.Generator().manual_seed(1)).apply(rgb)
    # Hue goes through 256 steps around six sides of 255 levels each.
    assert np.abs(same.astype(int) - rgb).max() <= 6


def test_colour_changes_by_hand():
    red = np.full((16, 16, 3), (200, 0, 0), dtype=np.uint8)
    dark = ColourJitter((0, 1, 2, 3), 0.5, 1.0, 1.0, 0.0).apply(red)
    assert dark[0, 0].tolist() == [100, 0, 0]
    green = ColourJitter((3, 0, 1, 2), 1.0, 1.0, 1.0, 1 / 3).apply(red)
    assert green[0, 0, 1] > 190 and green[0, 0, [0, 2]].max() < 10
    backwards = ColourJitter((3, 0, 1, 2), 1.0, 1.0, 1.0, -1 / 3).apply(red)
    assert backwards[0, 0, 2] > 190
    grey = ColourJitter((0, 1, 2, 3), 1.0, 1.0, 0.0, 0.0).apply(red)
    assert len(set(grey[0, 0].tolist())) == 1


# --- depth --------------------------------------------------------------------------------------


def test_depth_goes_to_the_new_pixel_of_its_ray():
    K = np.array([[100.0, 0, 20], [0, 100, 10], [0, 0, 1]], dtype=np.float32)
    depth = np.zeros((20, 40), dtype=np.float32)
    depth[4, 6], depth[5, 30], depth[0, 0] = 7.0, 9.0, 3.0
    new_K = camera.crop(torch.from_numpy(K), 5, 2).numpy()
    found = redraw_depth(depth, K, new_K, (10, 30))
    assert found[2, 1] == 7 and found[3, 25] == 9
    assert np.count_nonzero(found) == 2


def test_the_nearest_depth_wins_unless_the_last_is_asked_for():
    K = np.array([[100.0, 0, 8], [0, 100, 8], [0, 0, 1]])
    half = np.array([[25.0, 0, 2], [0, 25, 2], [0, 0, 1]])
    depth = np.zeros((16, 16))
    depth[8, 8], depth[8, 9] = 4.0, 30.0
    assert redraw_depth(depth, K, half, (4, 4))[2, 2] == 4
    assert redraw_depth(depth, K, half, (4, 4), nearest_wins=False)[2, 2] == 30


def test_targets_are_points_of_the_reference_frame():
    rng = np.random.default_rng(5)
    depth = torch.tensor([[0.0, 10.0], [60.0, torch.inf]]).expand(3, 2, 2)
    K = strategies.intrinsics(rng, 2, 2).float().expand(3, 3, 3)
    reference_from_cam = strategies.motion(rng, 3).float()
    found = depth_targets(depth, K, reference_from_cam)
    assert found.valid.tolist() == [[[False, True], [False, False]]] * 3
    cam = rigid.apply(rigid.invert(reference_from_cam), found.points_reference[:, 0, 1:])
    assert cam[:, 0, 2].numpy() == pytest.approx(10, rel=1e-4)
    assert camera.project(K, cam)[:, 0].numpy() == pytest.approx(np.array([[1, 0]] * 3), abs=1e-3)
    edge = depth_targets(torch.full((1, 1), MOST_DEPTH), torch.eye(3), torch.eye(4))
    assert not edge.valid.any()


def test_points_in_the_picture_are_strictly_inside():
    K = np.array([[10.0, 0, 0], [0, 10, 0], [0, 0, 1]])
    points = np.array(
        [[1, 1, 1], [0, 1, 1], [1, 1, -1], [2, 1, 1], [1.99, 0.99, 1], [1, 5, 1]], dtype=float
    )
    inside = points_in_picture(points, np.eye(4), K, (20, 20))
    assert inside.tolist() == [0, 4]
    drawn = depth_last_wins(points, np.eye(4), K, (20, 20))
    assert np.count_nonzero(drawn) == len(inside)


# --- windows ------------------------------------------------------------------------------------

TREE = {
    "b": [f"{frame:03d}_left.npz" for frame in range(12)],
    "a": [f"{frame:03d}_{side}.npz" for frame in range(9) for side in ("left", "right")],
    "a_tmp": ["000_left.npz"],
}


def test_temporal_windows_need_every_frame():
    index = temporal_windows(TREE, step=2, length=4)
    assert index.scenes == ("a", "b")
    assert index.frames[:2] == ("000_left", "000_right") and len(index.frames) == 21
    named = [
        (window.scene, [index.frames[frame] for frame in window.frames])
        for window in index.windows
    ]
    assert named[0] == (0, ["000_left", "002_left", "004_left", "006_left"])
    assert len(named) == 3 + 3 + 6
    assert named[3][1][0] == "000_right" and named[6][0] == 1
    assert {window.stamps for window in index.windows} == {(0, 2, 4, 6)}
    holes = TREE | {"b": [name for name in TREE["b"] if name != "005_left.npz"]}
    assert len(temporal_windows(holes, step=2, length=4).windows) == 6 + 3


def test_surround_windows_keep_the_order_of_cameras():
    index = surround_windows(TREE, ["right", "left"])
    assert len(index.windows) == 9
    first = index.windows[0]
    assert [index.frames[frame] for frame in first.frames] == ["000_right", "000_left"]
    assert first.stamps == (0, 0)
    assert cameras_of(TREE) == ["left", "right"]


def test_windows_refuse_other_names():
    for tree in ({"a": ["000.npz"]}, {"a": ["x_left.npz"]}):
        with pytest.raises(InputError, match="rename or remove"):
            temporal_windows(tree)
    with pytest.raises(InputError, match="no cameras"):
        surround_windows(TREE, [])


# --- schedule -----------------------------------------------------------------------------------


def test_rate_warms_up_falls_and_rises_behind_the_end():
    schedule = RateSchedule(highest=1e-3, lowest=1e-5, warmup_epochs=2, epochs=10)
    assert schedule.rate(0) == 0 and schedule.rate(1) == pytest.approx(5e-4)
    assert schedule.rate(2) == pytest.approx(1e-3)
    assert schedule.rate(6) == pytest.approx((1e-3 + 1e-5) / 2)
    assert schedule.rate(10) == pytest.approx(1e-5)
    assert schedule.rate(10.5) > schedule.rate(10)


def test_parameters_are_sorted_by_name():
    groups = parameter_groups(
        ["token", "norm.weight", "head.weight", "head.bias", "sam.proj.weight", "sam.proj.bias"],
        weight_decay=0.1,
        rate_scales={"sam.": 10.0},
    )
    assert [(group.names, group.weight_decay, group.rate_scale) for group in groups] == [
        (("token", "head.weight"), 0.1, 1.0),
        (("norm.weight", "head.bias"), 0.0, 1.0),
        (("sam.proj.weight",), 0.1, 10.0),
        (("sam.proj.bias",), 0.0, 10.0),
    ]
