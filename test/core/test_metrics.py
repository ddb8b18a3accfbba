# SPDX-License-Identifier: Apache-2.0
"""Metrics of labelled grids, depth, clouds, trajectories against plain loops and known cases."""

from dataclasses import astuple

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from occany_core import camera
from occany_core.datasets.class_tables import LabelConvention, load_classes
from occany_core.errors import InputError
from occany_core.evaluation.cloud_metrics import (
    CloudErrors,
    cloud_errors,
    has_true_point,
    mean_cloud_errors,
    predicted_cloud,
    true_points,
)
from occany_core.evaluation.depth_metrics import depth_errors, mean_depth_errors
from occany_core.evaluation.nearest_neighbours import LEAF_POINTS, nearest_distances
from occany_core.evaluation.semantic_metrics import count_semantics, count_superclasses
from occany_core.evaluation.trajectory_metrics import (
    annotated_path,
    displacement_error,
    fill_up,
    predicted_path,
)

RNG = np.random.default_rng(11)

# --- labelled grids -----------------------------------------------------------------------------

THREE = LabelConvention(("empty", "ground", "car"), empty=0, ignore=255)


def grid(*ids: int) -> np.ndarray:
    return np.array(ids, np.uint8).reshape(1, 1, -1)


def test_counts_of_a_small_grid():
    counts = count_semantics(grid(1, 1, 2, 0, 2, 1), grid(1, 2, 0, 1, 2, 255), THREE)
    assert counts.true_positive.tolist() == [0, 1, 1]
    assert counts.false_positive.tolist() == [1, 1, 1]
    assert counts.false_negative.tolist() == [1, 1, 1]
    assert counts.truth_cells.tolist() == [1, 2, 2]
    geometry = counts.geometry
    assert (geometry.true_positive, geometry.false_positive, geometry.false_negative) == (3, 1, 1)
    assert counts.mean_iou == pytest.approx(100 / 3, abs=1e-3)
    assert counts.summary() == {"precision": 75, "recall": 75, "iou": 60, "mean_iou": 33.33}


def test_unknown_occupied_cells_miss_but_raise_no_false_alarm():
    kitti = load_classes("semantic_kitti")
    counts = count_semantics(grid(20, 20), grid(1, 0), kitti.convention)
    assert counts.geometry.true_positive == counts.geometry.false_positive == 1
    assert counts.false_negative[1] == 1 and counts.false_negative[0] == 1
    assert counts.false_positive.sum() == 0
    # nuScenes: the same label is a class, and is wrong.
    occ3d = load_classes("occ3d_nuscenes")
    counts = count_semantics(grid(0, 0), grid(4, 17), occ3d.convention)
    assert counts.false_positive[0] == 2


def test_superclasses_forgive_confusion_within():
    kitti = load_classes("semantic_kitti")
    predicted, truth = grid(1, 9, 20, 0), grid(4, 13, 9, 255)  # car/truck, road/building, other
    counts = count_superclasses(predicted, truth, kitti)
    names = kitti.superclasses.names
    assert counts.true_positive[names.index("vehicle")] == 1
    assert counts.false_positive[names.index("ground")] == 1
    assert counts.false_negative[names.index("ground")] == 1
    assert counts.false_negative[names.index("structure")] == 1
    assert counts.true_positive.sum() == 1


def test_classes_absent_from_both_still_count_in_the_mean():
    counts = count_semantics(grid(1, 1), grid(1, 1), THREE)
    assert counts.class_iou[2] == 0
    assert counts.mean_iou == pytest.approx(50, abs=1e-3)


@given(st.integers(0, 2**32 - 1))
def test_counts_add_up_over_scenes(seed):
    rng = np.random.default_rng(seed)
    predicted, truth = (rng.choice([0, 1, 2, 255], (4, 3, 5)).astype(np.uint8) for _ in range(2))
    whole = count_semantics(predicted, truth, THREE)
    parts = count_semantics(predicted[:1], truth[:1], THREE)
    parts = parts + count_semantics(predicted[1:], truth[1:], THREE)
    assert parts.geometry == whole.geometry
    for name in ("true_positive", "false_positive", "false_negative"):
        np.testing.assert_array_equal(getattr(parts, name), getattr(whole, name))


def test_counts_that_do_not_belong_together_are_refused():
    kitti = load_classes("semantic_kitti")
    with pytest.raises(InputError, match="class tables"):
        count_semantics(grid(1), grid(1), THREE) + count_semantics(
            grid(1), grid(1), kitti.convention
        )
    with pytest.raises(InputError, match="differ in shape"):
        count_semantics(grid(1), grid(1, 2), THREE)


# --- depth --------------------------------------------------------------------------------------


def test_depth_errors_of_known_pixels():
    truth = np.array([[10.0, 20.0, 0.0, 80.0], [40.0, 5.0, 5.0, 5.0]])
    predicted = np.array([[11.0, 10.0, 3.0, 80.0], [40.0, -5.0, np.nan, 0.0]])
    errors = depth_errors(predicted, truth)  # judged: 10, 20 and 40 m
    assert errors.abs_rel == pytest.approx((0.1 + 0.5 + 0) / 3)
    assert errors.sq_rel == pytest.approx((0.1 + 5 + 0) / 3)
    assert errors.rmse == pytest.approx(np.sqrt(101 / 3))
    assert errors.rmse_log == pytest.approx(np.sqrt((np.log(1.1) ** 2 + np.log(2) ** 2) / 3))
    assert (errors.within_1, errors.within_2, errors.within_3) == pytest.approx((2 / 3,) * 3)
    nearer = depth_errors(predicted, truth, max_depth=40)
    assert nearer.abs_rel == pytest.approx(0.3)


def test_samples_without_a_pixel_are_left_out_of_the_mean():
    assert depth_errors(np.full((2, 2), -1.0), np.ones((2, 2))) is None
    one = depth_errors(np.array([2.0]), np.array([1.0]))
    two = depth_errors(np.array([1.0, 1.0, 1.0]), np.ones(3))
    mean = mean_depth_errors([one, None, two])
    assert mean.abs_rel == 0.5 and mean.within_1 == 0.5  # samples weigh the same
    with pytest.raises(InputError, match="no sample"):
        mean_depth_errors([None])
    with pytest.raises(InputError, match="differ in shape"):
        depth_errors(np.ones(3), np.ones(4))


# --- clouds -------------------------------------------------------------------------------------


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 6 * LEAF_POINTS), st.integers(0, 50))
def test_nearest_distances_equal_a_plain_search(seed, points, queries):
    rng = np.random.default_rng(seed)
    cloud = np.round(rng.normal(0, (30, 1, 10), (points, 3)), rng.integers(0, 5))  # with ties
    asked = rng.normal(0, 40, (queries, 3))
    plain = np.linalg.norm(asked[:, None] - cloud[None], axis=-1).min(axis=1)
    np.testing.assert_allclose(nearest_distances(asked, cloud), plain, rtol=1e-12)


def test_nearest_distances_of_many_points():
    cloud = RNG.normal(0, 20, (20_000, 3)).astype(np.float32)
    asked = np.concatenate((cloud[:70_000:7] + np.float32(0.01), RNG.normal(0, 500, (50, 3))))
    ours = nearest_distances(asked, cloud)
    some = RNG.choice(len(asked), 200)
    some[:50] = np.arange(len(asked) - 50, len(asked))
    differences = asked[some, None].astype(np.float64) - cloud[None]
    plain = np.sqrt((differences**2).sum(axis=-1)).min(axis=1)
    np.testing.assert_allclose(ours[some], plain, rtol=1e-12)


def test_points_all_in_one_place():
    cloud = np.ones((1000, 3))
    np.testing.assert_allclose(nearest_distances(np.zeros((2, 3)), cloud), np.sqrt(3))


def test_cloud_errors_of_known_clouds():
    predicted = np.array([[0.0, 0, 0], [0.3, 0, 0], [10, 0, 0]])
    truth = np.array([[0.0, 0, 0], [0, 0.5, 0]])
    errors = cloud_errors(predicted, truth)
    assert errors.accuracy == pytest.approx(10.3 / 3)
    assert errors.completeness == pytest.approx(0.25)
    assert errors.overall == pytest.approx((10.3 / 3 + 0.25) / 2)
    assert errors.precision == pytest.approx(2 / 3)
    assert errors.recall == 0.5  # a distance of exactly the threshold is no match
    assert errors.f_score == pytest.approx(2 * (2 / 3) * 0.5 / (2 / 3 + 0.5))


def test_empty_clouds_are_missing_distances_and_zero_shares():
    cloud, nothing = np.zeros((4, 3)), np.zeros((0, 3))
    for errors in (cloud_errors(nothing, cloud), cloud_errors(cloud, nothing)):
        assert errors == CloudErrors(np.inf, np.inf, np.inf, 0.0, 0.0, 0.0)
    mean = mean_cloud_errors([cloud_errors(cloud, cloud + 1), cloud_errors(nothing, cloud)])
    assert mean.accuracy == pytest.approx(np.sqrt(3)) and mean.precision == 0
    mean = mean_cloud_errors([cloud_errors(cloud, cloud), cloud_errors(nothing, cloud)])
    assert mean.f_score == 0.5
    assert mean_cloud_errors([cloud_errors(nothing, cloud)]).accuracy == np.inf
    with pytest.raises(InputError, match="no samples"):
        mean_cloud_errors([])


def test_far_clouds_match_nothing():
    errors = cloud_errors(np.zeros((3, 3)), np.full((2, 3), 9.0))
    assert astuple(errors)[3:] == (0.0, 0.0, 0.0)


def test_true_points_project_back_to_their_pixels():
    K = torch.tensor([[10.0, 0, 3], [0, 12, 2], [0, 0, 1]])
    depth = torch.rand(2, 5, 7) * 60
    world_from_cam = torch.eye(4).repeat(2, 1, 1)
    world_from_cam[1, :3, 3] = torch.tensor([1.0, 2, 3])
    points = true_points(depth, K.expand(2, 3, 3), world_from_cam)
    assert points.shape == (2, 5, 7, 3)
    pixels = camera.project(K, (points[1] - world_from_cam[1, :3, 3]).reshape(-1, 3))
    torch.testing.assert_close(pixels.view(5, 7, 2), camera.pixel_grid(5, 7), rtol=0, atol=1e-3)
    kept = has_true_point(torch.tensor([0.0, 1e-3, 50.0, 50.01, -1]))
    assert kept.tolist() == [False, True, True, False, False]


def test_predicted_clouds_keep_what_is_finite_and_near():
    points = torch.arange(21.0).view(7, 3)
    points_cam = torch.tensor([[0.0, 0, z] for z in (1, 50, 50.01, -5, 1, 1, 1)])
    points[4, 0], points_cam[5, 1] = torch.inf, torch.nan
    confidence = torch.tensor([1.0, 1, 1, 1, 1, 1, torch.nan])
    kept = predicted_cloud(points, points_cam, confidence)
    assert kept[:, 0].tolist() == [0, 3, 9]


# --- trajectories -------------------------------------------------------------------------------


def test_paths_are_seen_from_the_first_frame():
    """The camera looks along the world's x axis and drives there, then turns left."""
    first = torch.tensor([[0.0, 0, 1, 5], [-1, 0, 0, 5], [0, -1, 0, 5], [0, 0, 0, 1]])
    ahead, turned = first.clone(), first.clone()
    ahead[:3, 3] += torch.tensor([2.0, 0, 0])
    turned[:3, :3] = torch.tensor([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])  # looks along y: left
    turned[:3, 3] += torch.tensor([2.0, 1, 0])
    path = predicted_path(torch.stack((first, ahead, turned)))
    expected = torch.tensor([[0, 0, np.pi / 2], [0, 2, np.pi / 2], [-1, 2, np.pi]])
    torch.testing.assert_close(path, expected.float(), atol=1e-6, rtol=0)
    without_last_row = predicted_path(torch.stack((first, ahead, turned))[:, :3])
    torch.testing.assert_close(without_last_row, path)


def test_headings_have_one_value_for_left():
    left = torch.eye(4)
    left[:3, :3] = torch.tensor([[0.0, 0, -1], [0, 1, 0], [1, 0, -0.0]])
    heading = predicted_path(torch.stack((torch.eye(4), left)))[1, 2]
    assert heading.item() == pytest.approx(np.pi)


def test_way_points_become_a_path():
    path = annotated_path(np.array([[9.0, 9], [5, 10], [5, 20]]), frames=13)
    np.testing.assert_allclose(path[:6], np.linspace((0, 0), (5, 10), 6))
    np.testing.assert_allclose(path[10], (5, 20))
    np.testing.assert_allclose(path[12], (5, 24))  # goes on as before


def test_complete_and_single_annotations():
    complete = RNG.normal(size=(25, 2))
    np.testing.assert_array_equal(annotated_path(complete), complete)
    np.testing.assert_array_equal(annotated_path(np.array([[3.0, 4.0]])), np.zeros((25, 2)))


@pytest.mark.parametrize("wrong", [np.zeros((0, 2)), np.zeros((3, 3)), np.full((2, 2), np.nan)])
def test_broken_annotations_are_refused(wrong):
    with pytest.raises(InputError, match="way-points"):
        annotated_path(wrong)


def test_displacement_counts_the_first_frame():
    truth = np.zeros((2, 4, 2))
    predicted = truth.copy()
    predicted[0, 1:] = (3, 4)
    np.testing.assert_allclose(displacement_error(predicted, truth), (3.75, 0))
    with pytest.raises(InputError, match="differ in shape"):
        displacement_error(predicted, truth[:, 1:])


def test_short_samples_repeat_their_last_picture():
    assert fill_up(["a", "b"], 4) == ["a", "b", "b", "b"]
    assert fill_up(list("abcdef"), 4) == list("abcd")
    with pytest.raises(InputError, match="without pictures"):
        fill_up([])
