# SPDX-License-Identifier: Apache-2.0
"""Occupancy scores: counts add up, perfect is 100, and SynthOcc scores every setting."""

import dataclasses
import json
import os
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from strategies import seeds
from street_views import probed_model, small_street_model

from occany_core import camera, predict, rigid
from occany_core.bench.precision import measure
from occany_core.checkpoints import load_model, save_model
from occany_core.cli import evaluate as evaluate_verb
from occany_core.cli.ablation_report import chart_of_sweep
from occany_core.cli.main import main
from occany_core.config import OccAnyConfig, from_flat
from occany_core.errors import ConfigError, InputError
from occany_core.evaluation import score_table
from occany_core.evaluation.baselines import constant_scene, exact_depth, ground_plane
from occany_core.evaluation.metrics import OccupancyCounts, count_occupancy
from occany_core.evaluation.scene_scores import SceneScores, exact_depth_at
from occany_core.evaluation.synthocc import (
    check_grid,
    evaluate,
    judged_labels,
    uncalibrated,
    view_sets,
)
from occany_core.evaluation.trajectory_metrics import pose_errors
from occany_core.evaluation.view_augmentation import VariantScore, sweep, variants
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


PREDICTED = {
    "surround": False,
    "surround_no_novel_views": False,
    "surround_uncalibrated": True,
    "sequence": True,
    "monocular": False,
}
"""What is predicted, and whether its poses are."""
BASELINES = {
    name + setting
    for name in ("constant_scene", "ground_plane", "exact_depth")
    for setting in ("", "_sequence", "_monocular")
}
CELLS = {"precision", "recall", "iou", "iou_above_ground"}
DEPTH, POSES = {"abs_rel", "within_1.25"}, {"translation_m", "rotation_deg"}


def test_evaluation_scores_every_setting():
    steps = []
    config = from_flat({"runtime.device": "cpu"})
    result = evaluate(
        small_street_model(), 1, config, lambda setting, done, count: steps.append((setting, done))
    )
    assert set(result) == set(PREDICTED) | BASELINES
    for name, scores in result.items():
        of_model = DEPTH | (POSES if PREDICTED[name] else set()) if name in PREDICTED else set()
        assert set(scores) == CELLS | of_model, name
        assert all(0 <= scores[key] <= 100 for key in CELLS)
    assert steps == [("surround", 1), ("sequence", 1), ("monocular", 1)]
    truth = first("monocular")
    occupied = truth.semantics != SemanticClass.FREE
    expected = count_occupancy(constant_scene(), occupied, truth.mask_camera).summary()
    found = result["constant_scene_monocular"]
    assert {name: found[name] for name in expected} == expected
    assert found["iou"] == pytest.approx(expected["iou"])
    # The small network knows about the ground and a wall and nothing else.
    assert result["surround"]["iou"] > 5
    # What knows the exact depth sees what stands on the ground; what never looks does not.
    assert result["exact_depth"]["iou"] > max(
        result[name]["iou"] for name in ("ground_plane", "constant_scene", "surround")
    )
    assert result["exact_depth"]["iou_above_ground"] > 25
    assert result["ground_plane"]["iou_above_ground"] == 0


def test_baselines_need_no_model():
    truth = first("surround")
    level = ground_plane(truth)
    assert level.sum() == 200 * 200 and level[:, :, 2].all()
    grid = exact_depth(truth, OccAnyConfig().voxels)
    occupied = truth.semantics != SemanticClass.FREE
    counts = count_occupancy(grid, occupied, truth.mask_camera)
    assert counts.recall > 80 and counts.precision > 75
    blind = dataclasses.replace(
        truth,
        views=[
            dataclasses.replace(view, depth=np.full_like(view.depth, np.inf))
            for view in truth.views
        ],
    )
    assert not exact_depth(blind, OccAnyConfig().voxels).any()


# --- what exact predictions score ---------------------------------------------------------------


def test_exact_depth_at_network_size_has_no_error():
    truth = first("monocular")
    view = truth.views[0]
    exact = exact_depth_at(view, 80, 144)
    assert exact.shape == (80, 144)
    assert (exact_depth_at(view, *view.depth.shape) == np.nan_to_num(view.depth, posinf=0)).all()
    scores = SceneScores()
    scores.add_depth(exact[None], truth)
    scores.add_depth(1.5 * exact[None], truth)
    assert scores.depth[0].abs_rel == 0 and scores.depth[0].within_1 == 1
    assert scores.depth[1].abs_rel == pytest.approx(0.5) and scores.depth[1].within_1 == 0
    assert scores.summary()["abs_rel"] == 0.25 and scores.summary()["within_1.25"] == 0.5
    # The same place of the picture, whatever its size.
    K = camera.crop(camera.resize(torch.from_numpy(view.K), 0.5625, 0.5625), 0, 0).numpy()
    for row, column in ((70, 20), (75, 100)):
        x, y = (column - K[0, 2]) / K[0, 0], (row - K[1, 2]) / K[1, 1]
        u, v = view.K[0, 0] * x + view.K[0, 2], view.K[1, 1] * y + view.K[1, 2]
        near = view.depth[int(v) : int(v) + 2, int(u) : int(u) + 2]
        assert near.min() <= exact[row, column] <= near.max()


def test_exact_poses_have_no_error_whatever_the_world():
    truth = first("sequence")
    scores = SceneScores()
    poses = torch.from_numpy(
        np.stack([view.world_from_rig @ view.rig_from_cam for view in truth.views])
    )
    scores.add_poses(rigid.yaw(torch.tensor(0.7)).double() @ poses, truth)
    assert scores.poses[0].translation_m < 1e-6 and scores.poses[0].rotation_deg < 1e-3
    moved = poses.clone()
    moved[1:, :3, 3] += torch.tensor([0.0, 3.0, 4.0])
    found = pose_errors(moved, poses)
    assert found.translation_m == pytest.approx(5) and found.rotation_deg < 1e-3
    turned = poses.clone()
    turned[1:] = turned[1:] @ rigid.yaw(torch.tensor(np.radians(10.0)))
    assert pose_errors(turned, poses).rotation_deg == pytest.approx(10)
    with pytest.raises(InputError, match="two or more"):
        pose_errors(poses[:1], poses[:1])


def test_exact_classes_score_100():
    truth = first("surround")
    scores = SceneScores()
    scores.add_classes(truth.semantics, truth)
    assert scores.summary()["mean_iou"] == scores.summary()["superclass_iou"] == 100
    confused = SceneScores()
    is_car = truth.semantics == SemanticClass.CAR
    confused.add_classes(np.where(is_car, np.uint8(SemanticClass.BUS), truth.semantics), truth)
    assert confused.summary()["superclass_iou"] == 100  # both are vehicles
    assert confused.summary()["mean_iou"] < 100
    wrong = np.where(truth.semantics == SemanticClass.FREE, SemanticClass.FREE, SemanticClass.BUS)
    blank = SceneScores()
    blank.add_classes(wrong.astype(np.uint8), truth)
    assert blank.classes.geometry.iou == 100
    assert blank.summary()["mean_iou"] < 10


def test_a_class_probe_labels_the_cells_it_sees():
    """A probe that always says sidewalk gives sidewalk wherever observed points vote."""
    model, config = probed_model(SemanticClass.SIDEWALK), from_flat({"runtime.device": "cpu"})
    scene = predict(model, view_sets(first("monocular")), config)
    labels = judged_labels(scene.grid)
    assert ((labels != SemanticClass.FREE) == scene.grid.occupied).all()
    seen = scene.grid.occupied & ~scene.grid.completed
    assert (labels[seen] == SemanticClass.SIDEWALK).mean() > 0.5
    assert set(np.unique(labels)) <= {
        SemanticClass.OTHER,
        SemanticClass.SIDEWALK,
        SemanticClass.FREE,
    }
    scores = evaluate(model, 1, config)
    assert all(("mean_iou" in scores[name]) == (name in PREDICTED) for name in scores)


# --- tables -------------------------------------------------------------------------------------


def test_tables_leave_out_what_nobody_has():
    scores = {"a": {"iou": 12.345, "rotation_deg": 3.0}, "longer name": {"iou": 6.0}}
    columns = (*score_table.OCCUPANCY, *score_table.GEOMETRY)
    assert score_table.cells(scores, columns) == [
        ["", "IoU", "turned [deg]"],
        ["a", "12.35", "3.00"],
        ["longer name", "6.00", ""],
    ]
    assert score_table.markdown(scores, columns).splitlines()[1:3] == [
        "| --- | ---: | ---: |",
        "| a | 12.35 | 3.00 |",
    ]
    lines = score_table.plain(scores, columns).splitlines()
    assert lines[2] == "longer name   6.00"


@pytest.mark.parametrize("judge", [evaluate, lambda *a: sweep(a[0], [], *a[1:]), measure])
@pytest.mark.parametrize(
    ("setting", "value", "judged"),
    [
        ("resolution", 0.2, "0.4"),
        ("origin", [-40, -40, -2], "(-40.0, -40.0, -1.0)"),
        ("shape", [20, 20, 8], "(200, 200, 16)"),
    ],
)
def test_cells_of_another_grid_are_not_judged(judge, setting, value, judged):
    config = from_flat({f"voxels.{setting}": value})
    words = f"voxels.{setting} is {getattr(config.voxels, setting)}; SynthOcc is judged with "
    with pytest.raises(ConfigError, match=re.escape(f"{words}{judged}: leave it out")):
        judge(None, 1, config)


def test_the_grid_of_the_set_may_be_written_out():
    check_grid(from_flat({"voxels.resolution": 0.4, "voxels.origin": [-40, -40, -1]}))


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


def test_the_sweep_is_drawn_line_by_line():
    scores = [
        VariantScore(one.name, views, 0.1, {"iou": 10.0 + views})
        for one, views in zip(variants(3.0, 60.0, 2.0, steps=2), (0, 6, 18, 18, 12, 36, 36))
    ]
    ahead, turned, shifted = chart_of_sweep(scores).lines
    assert ahead.x == (0, 6, 12) and ahead.y == (10, 16, 22)
    assert turned.x == shifted.x == (0, 18, 36)


# --- the command --------------------------------------------------------------------------------


def test_the_command_prints_one_object_and_fills_the_card(tmp_path, capsys):
    weights = tmp_path / "small.safetensors"
    save_model(small_street_model().network, {"name": "small", "licence": "none"}, weights)
    words = ["evaluate", "synthocc", "--limit", "1", "--model", str(weights)]
    words += ["--set", "runtime.device=cpu", "--markdown", str(tmp_path / "table.md")]
    assert main([*words, "--json", "--write-card"]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    found = json.loads(lines[-1])
    for name in ("surround", "surround_no_novel_views", "sequence", "monocular", "constant_scene"):
        assert CELLS - {"iou_above_ground"} <= found[name].keys()
    assert any("no class probe" in line for line in lines)
    card = load_model(weights, "cpu").card["metrics"]["synthocc"]
    assert card["scenes"] == 1 and "mean_iou" in card["left_out"]
    assert {name: card[name] for name in found} == found
    table = (tmp_path / "table.md").read_text().splitlines()
    assert [line.split("|")[1].strip() for line in table[2:]] == list(found)


def test_a_sweep_with_a_plot(tmp_path, monkeypatch):
    weights = tmp_path / "small.safetensors"
    save_model(small_street_model().network, {"name": "small", "licence": "none"}, weights)
    monkeypatch.setattr(evaluate_verb, "INGREDIENTS", (3.0, 60.0, 2.0, 1))
    words = ["evaluate", "ttva", "--limit", "1", "--model", str(weights)]
    words += ["--set", "runtime.device=cpu"]
    assert main([*words, "--plot", str(tmp_path / "ttva.txt")]) == 1
    assert main([*words, "--plot", str(tmp_path / "ttva.png")]) == 0
    with Image.open(tmp_path / "ttva.png") as picture:
        assert picture.width > 500


@pytest.mark.parametrize(
    ("words", "option"),
    [
        ("synthocc --plot x.png", "--plot"),
        ("synthocc -o out", "--out"),
        ("masks --markdown x.md", "--markdown"),
        ("ttva --markdown x.md", "--markdown"),
        ("ttva --recipe-set views_per_step=1", "--recipe-set"),
        ("ablations -o out --write-card", "--write-card"),
        ("ablations -o out --model m.safetensors", "--model"),
    ],
)
def test_options_of_other_protocols_are_refused(words, option, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", *words.split(), "--limit", "0"]) == 1
    refusal = f"{option} does nothing for evaluate {words.split()[0]}; leave it out"
    assert refusal in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", ["synthocc --markdown no/x.md", "ttva --plot no/x.png"])
def test_a_place_for_the_file_is_sought_before_the_work(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluate_verb, "load_model", None)
    assert main(["evaluate", *words.split()]) == 1
    assert f"cannot write {words.split()[-1]}: there is no folder no" in capsys.readouterr().err


def test_a_card_that_cannot_be_written_is_told_before_the_work(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(evaluate_verb, "load_model", None)
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    words = ["evaluate", "synthocc", "--model", str(tmp_path / "m.safetensors"), "--write-card"]
    assert main(words) == 1
    assert "m.json: you may not" in capsys.readouterr().err
