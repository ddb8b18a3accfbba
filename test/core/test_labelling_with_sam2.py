# SPDX-License-Identifier: Apache-2.0
"""The whole chain with a real SAM2 of random weights: boxes, masks, tracks, cells."""

import numpy as np
import pytest
import torch
from street_views import probed_model, street_config, surround
from tiny_sam2 import SIZE, library, save_video_model

from occany_core import Stream, predict
from occany_core.config import LabelsConfig
from occany_core.errors import ConfigError
from occany_core.observation import encode, observe
from occany_core.semantics import (
    LabelledMasks,
    PromptableFeatures,
    cell_labels,
    paint_observed,
    paint_tracked,
)
from occany_core.semantics.class_prompts import UNLABELLED, vocabulary
from occany_core.semantics.labelling import Labeller
from occany_core.semantics.sam2_features import load_sam2
from occany_core.semantics.things import masks_of_logits
from occany_core.stopwatch import Stopwatch
from occany_core.synthetic.classes import SemanticClass

CAR, FREE = SemanticClass.CAR, SemanticClass.FREE


@pytest.fixture(scope="module")
def sam2(tmp_path_factory):
    library()
    return str(save_video_model(tmp_path_factory.mktemp("sam2")))


@pytest.fixture(scope="module")
def model():
    """Features lively enough for masks with borders."""
    model = probed_model(CAR, dims=(256, 64, 32), size=SIZE)
    for weights in model.network.heads.segmentation.parameters():
        weights.data *= 3
    return model


def settings(sam2, **changes):
    return street_config(labels__pipeline="distilled", labels__sam2=sam2, **changes)


def test_masks_are_tracked_as_a_direct_call_of_sam2_does_it(model, sam2):
    config = settings(sam2, novel_views__steps=2, labels__rendered="all")
    labeller = Labeller(model, config.labels)
    scene = Stream(model, config, labeller).add(surround())

    encoded = encode(model, surround(), config)
    raw = observe(model, [encoded], config, Stopwatch(), with_segmentation=True).raw
    features = PromptableFeatures(*(level[0] for level in raw.segmentation))
    convention, size = vocabulary().convention, tuple(scene.labels.shape[1:])
    for view in range(3):
        here = features.views(slice(view, view + 1))
        # The probe says car everywhere: one box, the whole picture.
        whole = torch.tensor([[[0.0, 0.0, 1.0, 1.0]]])
        (logits,) = labeller.models.prompter.masks_from_boxes(here, whole)
        mask = masks_of_logits(logits, size)
        found = scene.objects[view]
        assert torch.equal(found.masks, mask)
        assert found.labels.tolist() == [CAR]
        first = labeller.models.tracker.propagate(here, mask, here)[0]
        resampled = LabelledMasks(masks_of_logits(first, size), found.scores, found.labels)
        painted = paint_observed(resampled, convention).numpy()
        expected = np.where(painted == FREE, UNLABELLED, painted)
        np.testing.assert_array_equal(scene.labels[view], expected)
    assert 0.02 < (scene.labels == CAR).mean() < 0.98


def test_rendered_views_vote_only_where_masks_are_tracked_into_them(model, sam2, monkeypatch):
    calls = []
    labeller = Labeller(model, settings(sam2).labels)
    tracked = labeller.models.tracker.propagate

    def counting(observed, masks, others):
        calls.append(len(others))
        return tracked(observed, masks, others)

    monkeypatch.setattr(labeller.models.tracker, "propagate", counting)
    seen = {}
    views = {"novel_views__steps": 1, "novel_views__yaw_deg": 30.0}
    for rendered in ("none", "unturned", "all"):
        calls.clear()
        now = settings(sam2, labels__rendered=rendered, **views)
        Stream(model, now, labeller).add(surround())
        seen[rendered] = list(calls)
    assert seen == {"none": [], "unturned": [1, 1, 1], "all": [3, 3, 3]}


def test_cells_that_only_rendered_views_fill_get_the_class_that_was_tracked_there(
    model, sam2, monkeypatch
):
    """Without the class of neighbours, which would reach most of them anyway, and those that only
    points between two pixels fill."""
    monkeypatch.setattr(cell_labels, "SPREAD", 0)
    labeller = Labeller(model, settings(sam2).labels)
    tracked = labeller.models.tracker.propagate

    def everywhere(observed, masks, others):
        return torch.full_like(tracked(observed, masks, others), 5.0)

    monkeypatch.setattr(labeller.models.tracker, "propagate", everywhere)
    named = {}
    for rendered in ("none", "all"):
        views = {"novel_views__steps": 1, "novel_views__yaw_deg": 30.0}
        now = settings(sam2, labels__rendered=rendered, labels__min_score_tracked=0.0, **views)
        grid = Stream(model, now, labeller).add(surround()).grid
        assert grid.completed.sum() > 5
        named[rendered] = grid.labels[grid.completed]
    assert (named["none"] == UNLABELLED).all()
    assert (named["all"] == CAR).mean() > 0.3
    assert set(named["all"].tolist()) <= {CAR, UNLABELLED}


def test_paint_of_a_tracked_view_is_that_of_its_mask(model, sam2):
    labeller = Labeller(model, settings(sam2).labels)
    features = PromptableFeatures(
        *(
            torch.randn(2, channels, side, side)
            for channels, side in ((256, 8), (64, 16), (32, 32))
        )
    )
    mask = torch.zeros(1, 32, 48, dtype=torch.bool)
    mask[:, 10:30, 5:40] = True
    found = LabelledMasks(mask, torch.tensor([0.9]), torch.tensor([int(CAR)]))
    logits = labeller.models.tracker.propagate(
        features.views(slice(0, 1)), mask, features.views(slice(1, 2))
    )
    moved = masks_of_logits(logits[1], (32, 48))[None]
    (painted,) = paint_tracked(moved, found, vocabulary().convention)
    assert torch.equal(painted == CAR, moved[0, 0])


def test_pretrained_features_are_those_of_the_prepared_pictures(sam2):
    plain = probed_model(CAR)  # whatever features the network has
    config = street_config(labels__pipeline="pretrained", labels__sam2=sam2)
    labeller = Labeller(plain, config.labels)
    scene = predict(plain, [surround()], config)
    features = load_sam2(sam2, 512)(torch.from_numpy(scene.rgb))
    whole = torch.tensor([0.0, 0.0, 1.0, 1.0]).expand(3, 1, 4)
    logits = labeller.models.prompter.masks_from_boxes(features, whole)
    for view, found in enumerate(scene.objects):
        expected = masks_of_logits(logits[view], tuple(scene.labels.shape[1:]))
        assert torch.equal(found.masks, expected)
    assert not labeller.tracks(config.labels)  # rendered views have no picture


def test_features_that_sam2_cannot_read_are_refused_with_the_way_out(sam2):
    wrong = LabelsConfig(pipeline="distilled", sam2=sam2)
    with pytest.raises(
        ConfigError, match=r"\(16, 8, 4\) channels instead of SAM2's \(256, 64, 32"
    ):
        Labeller(probed_model(CAR), wrong)
