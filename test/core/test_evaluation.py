# SPDX-License-Identifier: Apache-2.0
"""Occupancy scores: counts add up, perfect is 100, and SynthOcc scores every setting."""

import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds
from street_views import small_street_model

from occany_core.config import OccAnyConfig, from_flat
from occany_core.errors import ConfigError
from occany_core.evaluation.metrics import OccupancyCounts, count_occupancy
from occany_core.evaluation.synthocc import constant_scene, evaluate, uncalibrated, view_sets
from occany_core.evaluation.view_augmentation import new_figure, sweep, variants
from occany_core.novel_views import propose_views
from occany_core.synthetic.classes import SemanticClass
from occany_core.synthetic.synthocc import scenes

shapes = st.tuples(*[st.integers(1, 6)] * 3)


def grids(seed: int, shape: tuple, number: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.random(shape) < 0.5 for _ in range(number)]


# --- metrics ------------------------------------------------------------------------------------


@given(seeds, shapes)
def test_counts_equal_a_loop(seed, shape):
    predicted, truth, valid = grids(seed, shape, 3)
    expected = [0, 0, 0]
    for cell in np.ndindex(shape):
        if valid[cell] and (predicted[cell] or truth[cell]):
            expected[0 if predicted[cell] and truth[cell] else 1 if predicted[cell] else 2] += 1
    assert count_occupancy(predicted, truth, valid) == OccupancyCounts(*expected)


@given(seeds, shapes)
def test_counts_of_parts_add_up(seed, shape):
    predicted, truth, valid, part = grids(seed, shape, 4)
    whole = count_occupancy(predicted, truth, valid)
    halves = count_occupancy(predicted, truth, valid & part)
    halves = halves + count_occupancy(predicted, truth, valid & ~part)
    assert halves == whole
    assert whole + OccupancyCounts() == whole


@given(seeds, shapes)
def test_a_perfect_grid_scores_100(seed, shape):
    truth, valid = grids(seed, shape, 2)
    truth.flat[0] = valid.flat[0] = True
    scores = count_occupancy(truth, truth, valid).summary()
    assert scores == {"precision": 100.0, "recall": 100.0, "iou": 100.0}


@given(seeds, shapes)
def test_iou_is_the_smallest_of_the_ratios(seed, shape):
    predicted, truth, valid = grids(seed, shape, 3)
    counts = count_occupancy(predicted, truth, valid)
    assert 0 <= counts.iou <= min(counts.precision, counts.recall) <= 100
    swapped = count_occupancy(truth, predicted, valid)
    assert swapped.iou == counts.iou
    assert swapped.precision == counts.recall


def test_ratios_by_hand():
    counts = OccupancyCounts(true_positive=3, false_positive=1, false_negative=2)
    assert counts.summary() == {"precision": 75.0, "recall": 60.0, "iou": 50.0}


def test_no_hit_scores_zero():
    nothing = np.zeros((2, 2, 2), bool)
    for predicted, truth in ((nothing, nothing), (nothing, ~nothing), (~nothing, nothing)):
        scores = count_occupancy(predicted, truth, ~nothing).summary()
        assert set(scores.values()) == {0.0}


def test_cells_that_nobody_judges_do_not_count():
    predicted, truth = np.ones((2, 2, 2), bool), np.zeros((2, 2, 2), bool)
    assert count_occupancy(predicted, truth, truth) == OccupancyCounts()


# --- SynthOcc -----------------------------------------------------------------------------------


def first(setting: str):
    return next(scenes(setting, 1))


def test_the_constant_scene_is_a_street():
    grid = constant_scene()
    assert grid.shape == OccAnyConfig().voxels.shape
    assert grid.dtype == bool
    assert 0.001 < grid.mean() < 0.3
    layers = grid.sum((0, 1))
    assert layers.argmax() in (1, 2, 3), "the ground is the fullest layer"


def test_views_of_the_settings():
    surround = view_sets(first("surround"))
    sequence = view_sets(first("sequence"))
    assert [len(one) for one in surround] == [6]
    assert [len(one) for one in sequence] == [1] * 5
    assert len({view.camera for view in surround[0]}) == 6
    stamps = [one[0].stamp for one in sequence]
    assert stamps == sorted(stamps) and len(set(stamps)) == 5
    for view in surround[0] + sequence[0]:
        assert view.K.shape == (3, 3)
        assert view.rig_from_cam.shape == (4, 4)


def test_forgetting_calibration_keeps_the_first_mounting_only():
    (views,) = uncalibrated(view_sets(first("surround")))
    assert all(view.K is None for view in views)
    assert [view.rig_from_cam is not None for view in views] == [True] + [False] * 5


SETTINGS = {
    "surround",
    "surround_no_novel_views",
    "surround_uncalibrated",
    "sequence",
    "monocular",
    "constant_scene",
    "constant_scene_sequence",
    "constant_scene_monocular",
}


def test_evaluation_scores_every_setting():
    steps = []
    config = from_flat({"runtime.device": "cpu"})
    result = evaluate(
        small_street_model(), 1, config, lambda setting, done, count: steps.append((setting, done))
    )
    assert set(result) == SETTINGS
    for scores in result.values():
        assert set(scores) == {"precision", "recall", "iou", "iou_above_ground"}
        assert all(0 <= value <= 100 for value in scores.values())
    assert steps == [("surround", 1), ("sequence", 1), ("monocular", 1)]
    truth = first("monocular")
    occupied = truth.semantics != SemanticClass.FREE
    expected = count_occupancy(constant_scene(), occupied, truth.mask_camera).summary()
    found = result["constant_scene_monocular"]
    assert {name: found[name] for name in expected} == expected
    assert found["iou"] == pytest.approx(expected["iou"])
    # The small network knows about the ground and a wall and nothing else.
    assert result["surround"]["iou"] > 5


# --- rendered views -----------------------------------------------------------------------------


def test_ingredients_of_view_augmentation_come_one_after_the_other():
    chosen = variants(3.0, 60.0, 2.0, steps=2)
    counted = [
        len(propose_views(torch.eye(4).expand(6, 4, 4), one.novel_views).owner) for one in chosen
    ]
    assert counted == [0, 6, 18, 18, 12, 36, 36]
    assert len({one.name for one in chosen}) == len(chosen)


def test_sweep_without_views_is_plain_reconstruction():
    model, config = small_street_model(), from_flat({"runtime.device": "cpu"})
    none, ahead = sweep(model, variants(3.0, 60.0, 2.0, steps=1)[:2], 1, config)
    assert (none.rendered, ahead.rendered) == (0, 6)
    scores = evaluate(model, 1, config)["surround_no_novel_views"]
    assert none.ratios == {name: scores[name] for name in none.ratios}
    assert none.seconds > 0


def test_a_plot_without_matplotlib_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(ConfigError, match="occany_ros\\[view\\]"):
        new_figure()
