# SPDX-License-Identifier: Apache-2.0
"""Scores of masks, pixels and boxes: small cases by hand, and on a street with known answers."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from street_views import probed_model, small_street_model

from occany_core.checkpoints import load_model, save_model
from occany_core.cli.main import main
from occany_core.cli.model_card import card_as_markdown
from occany_core.datasets.class_tables import load_classes
from occany_core.errors import ConfigError
from occany_core.evaluation import score_table, segmentation
from occany_core.evaluation.segmentation import evaluate_masks, moved_boxes, on_cells
from occany_core.evaluation.segmentation_scores import (
    LEAST_PIXELS,
    BoxScores,
    SegmentationScores,
    VisibleThings,
    box_iou,
    filled_boxes,
    mask_iou,
    visible_things,
)
from occany_core.network.prompt_decoder import PromptedMasks
from occany_core.semantics import Detections
from occany_core.synthetic.classes import SemanticClass
from occany_core.synthetic.synthocc import scenes

TABLE = load_classes("occ3d_nuscenes")
CAR, ROAD, SKY = SemanticClass.CAR, SemanticClass.DRIVEABLE_SURFACE, SemanticClass.FREE
sides = st.integers(0, 12)
grid_boxes = st.lists(st.tuples(sides, sides, sides, sides), min_size=0, max_size=4)


def boxes_of(corners):
    """Boxes on a grid of 12 x 12 cells."""
    ordered = [(min(a, c), min(b, d), max(a, c), max(b, d)) for a, b, c, d in corners]
    return torch.tensor(ordered, dtype=torch.float32).reshape(-1, 4) / 12


def things(*named):
    """Visible things with the given (box, class), in a picture of 40 x 40."""
    boxes = torch.tensor([box for box, _ in named], dtype=torch.float32)
    return VisibleThings(
        filled_boxes(boxes, (40, 40)), boxes, torch.tensor([label for _, label in named])
    )


def found(*named):
    boxes = torch.tensor([box for box, _ in named], dtype=torch.float32).reshape(-1, 4)
    return Detections(boxes, torch.ones(len(named)), torch.tensor([label for _, label in named]))


# --- pieces -------------------------------------------------------------------------------------


@given(grid_boxes, grid_boxes)
def test_ious_of_boxes_are_those_of_their_cells(first, second):
    first, second = boxes_of(first), boxes_of(second)
    cells = [filled_boxes(boxes, (12, 12)) for boxes in (first, second)]
    got = box_iou(first, second)
    assert got.shape == (len(first), len(second))
    for i, one in enumerate(cells[0]):
        for j, other in enumerate(cells[1]):
            expected = mask_iou(one[None], other[None])[0]
            assert got[i, j] == pytest.approx(float(expected), abs=1e-5)


def test_visible_things_by_hand():
    instance = np.zeros((4, 8), np.int32)
    instance[1:3, 2:7], instance[0, 0] = 9, 4
    semantics = np.full((4, 8), SKY, np.uint8)
    semantics[1:3, 2:7], semantics[0, 0], semantics[2, 6] = CAR, SemanticClass.MANMADE, ROAD
    seen = visible_things(instance, semantics)
    assert seen.labels.tolist() == [SemanticClass.MANMADE, CAR]
    np.testing.assert_allclose(seen.boxes, [[0, 0, 1 / 8, 1 / 4], [2 / 8, 1 / 4, 7 / 8, 3 / 4]])
    assert torch.equal(seen.masks[1], torch.from_numpy(instance == 9))
    assert seen.at_least(2).labels.tolist() == [CAR]
    assert filled_boxes(seen.boxes, (4, 8))[1].sum() == 10
    nothing = visible_things(np.zeros((4, 8), np.int32), semantics)
    assert nothing.masks.shape == (0, 4, 8) and nothing.boxes.shape == (0, 4)


def test_masks_are_scored_one_by_one():
    scores = SegmentationScores(TABLE)
    true = things(((0, 0, 0.5, 0.5), CAR), ((0.5, 0.5, 1, 1), SemanticClass.MANMADE))
    answered = true.masks.clone()
    answered[0, :10] = False  # the upper half of the first
    scores.add_masks("box", answered, true)
    scores.add_pixels(np.full((1, 2, 2), CAR, np.uint8), np.full((1, 2, 2), CAR, np.uint8))
    assert scores.summary()["masks"]["box"] == {
        "instances": 2,
        "mean_iou": 75.0,
        "above_half": 50.0,
        "countable": 1,
        "mean_iou_countable": 50.0,
    }
    swapped = SegmentationScores(TABLE)
    swapped.add_masks("box", true.masks.flip(0), true)
    assert swapped.masks["box"].ious == [0, 0]


def test_classes_of_pixels_by_hand():
    scores = SegmentationScores(TABLE)
    true = np.array([[[CAR, CAR, ROAD, ROAD, SKY, SKY]]], np.uint8)
    named = np.array([[[CAR, ROAD, ROAD, ROAD, SKY, SemanticClass.BUS]]], np.uint8)
    for _ in range(2):
        scores.add_pixels(named, true)
    pixels = scores.summary()["pixels"]
    assert {name: row["iou"] for name, row in pixels["classes"].items()} == {
        "car": 50.0, "driveable_surface": 66.67, "free": 50.0
    }  # fmt: skip
    assert pixels["accuracy"] == 66.67
    assert pixels["mean_iou"] == pytest.approx((50 + 200 / 3 + 50) / 3, abs=0.01)


def test_boxes_must_meet_a_thing_of_their_class():
    true = things(((0, 0, 0.5, 0.5), CAR), ((0.5, 0.5, 1, 1), CAR), ((0.5, 0, 1, 0.5), ROAD))
    scores = BoxScores()
    scores.add(
        found(
            ((0, 0, 0.5, 0.4), CAR),  # IoU 0.8
            ((0.5, 0.5, 1, 1), SemanticClass.BUS),
            ((0, 0, 1, 1), CAR),
            ((0.5, 0, 1, 0.5), ROAD),
        ),
        true,
    )
    summary = scores.summary(TABLE)
    assert (summary["instances"], summary["found"]) == (2, 50.0)
    assert (summary["boxes"], summary["right"]) == (3, 33.33)
    assert summary["classes"]["car"] == {"instances": 2, "found": 50, "boxes": 2, "right": 50}
    assert "driveable_surface" not in summary["classes"], "road has no number"


def test_small_things_are_not_missed_but_make_boxes_right():
    tiny = things(((0, 0, 0.1, 0.1), CAR))
    assert tiny.masks.sum() < LEAST_PIXELS
    scores = BoxScores()
    scores.add(found(), tiny)
    assert scores.summary(TABLE)["instances"] == 0
    scores.add(found(((0, 0, 0.1, 0.1), CAR)), tiny)
    summary = scores.summary(TABLE)
    assert (summary["instances"], summary["boxes"], summary["right"]) == (0, 1, 100.0)


@given(st.integers(0, 1000))
def test_moved_boxes_stay_near_and_inside(seed):
    boxes = torch.tensor([[0.0, 0.2, 0.3, 0.9], [0.4, 0.4, 0.5, 0.6], [0.0, 0.0, 1.0, 1.0]])
    moved = moved_boxes(boxes, torch.Generator().manual_seed(seed))
    size = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
    assert ((moved - boxes).abs() <= 0.2 * size + 1e-6).all()
    assert (moved[:, 2:] > moved[:, :2]).all()
    assert moved.min() >= 0 and moved.max() <= 1
    assert not torch.equal(moved[1], boxes[1])


def test_cells_show_what_is_at_their_middle():
    mask = torch.zeros(1, 4, 8, dtype=torch.bool)
    mask[0, :2, 4:] = True
    assert on_cells(mask, 2).tolist() == [[[-1, 1], [-1, -1]]]


# --- on a street --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def car_model():
    return probed_model(CAR)


def test_a_probe_with_one_answer_scores_the_share_of_its_class(car_model):
    scores = evaluate_masks(car_model, 1)
    assert set(scores) == {"surround", "sequence"}
    for row in scores.values():
        cars = row["pixels"]["classes"]["car"]
        assert row["pixels"]["accuracy"] == cars["share"] == cars["iou"] > 1
        masks = row["masks"]
        assert len({one["instances"] for one in masks.values()}) == 1
        assert masks["exact_cells"]["mean_iou"] > masks["filled_box"]["mean_iou"]
        assert masks["filled_box"]["mean_iou"] > masks["filled_moved_box"]["mean_iou"]
        assert row["boxes"]["exact_classes"]["right"] > 50
    assert scores["surround"]["boxes"]["class_probe"]["boxes"] == 6  # whole pictures


def test_exact_answers_of_the_weights_score_their_bounds(car_model, monkeypatch):
    """Each answer is looked up in the truth by the box that was asked for."""
    (truth,) = scenes("surround", 1)
    known = []

    def logits(model, features):
        side = features.fine.shape[-1]
        maps = [segmentation.at_network_size(v.semantics, *size) for v in truth.views]
        return segmentation.exact_logits(np.stack(maps), torch.zeros(1, 18, side, side)) * 9

    def remembered(*arguments):
        known.append(visible_things(*arguments))
        return known[-1]

    def answer(image_embed, high_res_feats, prompts):
        boxes = prompts.points[0].flatten(-2)
        true = known[-1]
        which = (boxes[:, None] - true.boxes).abs().sum(dim=-1).argmin(dim=1)
        masks = on_cells(true.masks[which], high_res_feats[0].shape[-1])
        return PromptedMasks(masks[None], torch.ones(1, len(masks)))

    size = segmentation.see_views(
        car_model, segmentation.view_sets(truth), segmentation.OccAnyConfig()
    ).size
    monkeypatch.setattr(segmentation, "SETTINGS", ("surround",))
    monkeypatch.setattr(segmentation, "class_logits", logits)
    monkeypatch.setattr(segmentation, "visible_things", remembered)
    monkeypatch.setattr(car_model.network.prompt_decoder, "forward", answer)
    scores = evaluate_masks(car_model, 1)["surround"]
    assert scores["masks"]["box"] == scores["masks"]["exact_cells"]
    assert scores["boxes"]["class_probe"] == scores["boxes"]["exact_classes"]
    assert scores["pixels"]["accuracy"] > 85
    assert scores["pixels"]["classes"]["driveable_surface"]["iou"] > 85


def test_weights_without_a_probe_are_refused():
    with pytest.raises(ConfigError, match="no class probe"):
        evaluate_masks(small_street_model(), 1)


def test_the_command_prints_tables_and_one_object_and_fills_the_card(
    car_model, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr(segmentation, "SETTINGS", ("sequence",))
    weights = tmp_path / "car.safetensors"
    save_model(car_model.network, {"name": "car", "licence": "none"}, weights)
    arguments = ["--model", str(weights), "--limit", "1", "--json", "--write-card"]
    assert main(["evaluate", "masks", *arguments, "--set", "runtime.device=cpu"]) == 0
    out = capsys.readouterr().out
    scores = json.loads(out.splitlines()[-1])
    assert "sequence, filled moved box" in out and "driveable surface" in out
    model = load_model(weights, "cpu")
    assert model.card["metrics"]["masks"] == {"scenes": 1} | scores
    page = card_as_markdown(model)
    assert "`occany evaluate masks --limit 1`" in page
    for heading, table in score_table.of_segmentation(scores).items():
        assert heading in page
        assert all(f"| {name} |" in page for name in table)
