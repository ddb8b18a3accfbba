# SPDX-License-Identifier: Apache-2.0
"""Tracking of all objects at once: the masks of transformers' session, which takes one by one."""

import pytest
import tiny_sam2
import torch
import torch.nn.functional as F
from tiny_sam2 import SIZE, features

from occany_core.bench.tracking import track_one_by_one
from occany_core.errors import ConfigError, InputError
from occany_core.semantics.features import PromptableFeatures
from occany_core.semantics.sam2_prompter import Sam2Prompter
from occany_core.semantics.sam2_tracker import ABSENT, Sam2Tracker

SIDE = SIZE // 4
OBJECTS = 5
EMPTY = 2
VIEWS = 19
"""More than the 7 memories and the 16 pointers."""
SAME = 8e-6
"""Of the RMS logit. One value rounded the other way to bfloat16 in a memory makes a part of it."""


def portrait_masks():
    masks = tiny_sam2.masks(OBJECTS).transpose(1, 2).clone()
    masks[EMPTY] = False
    return masks


@pytest.fixture(scope="module")
def model():
    """Half of what it tracks is hidden."""
    model = tiny_sam2.video_model(seed=2)
    head = model.mask_decoder.pred_obj_score_head
    scores = []
    listening = head.register_forward_hook(lambda _, __, score: scores.append(score.flatten()))
    Sam2Tracker(model).propagate(features(1), portrait_masks(), features(VIEWS, seed=1))
    listening.remove()
    head.proj_out.bias.data -= torch.cat(scores[1:]).median()
    return model


def silent(*arguments):
    """Report no progress."""


def compare(model, first_memory):
    observed, masks, others = features(1), portrait_masks(), features(VIEWS, seed=1)
    library = track_one_by_one(model, observed, masks, others, silent)
    tracker = Sam2Tracker(model, first_memory, objects_at_once=2)
    ours = tracker.propagate(observed, masks, others)
    assert ours.shape == (VIEWS + 1, OBJECTS, SIDE, SIDE)
    hidden = (library == ABSENT).flatten(2).all(dim=2)
    assert not hidden[0].any()
    assert 0.2 < hidden[1:].float().mean() < 0.8
    assert hidden[1:].any(dim=0).sum() >= 2  # objects
    assert torch.equal((ours == ABSENT).flatten(2).all(dim=2), hidden)
    assert torch.equal(ours[0], library[0])
    seen = library[1:][~hidden[1:]]
    rms = seen.square().mean().sqrt()
    assert (ours - library).abs().max() <= SAME * rms
    assert 1 < rms < 20
    assert 0.1 < (seen > 0).float().mean() < 0.9
    return ours


def test_masks_are_those_of_the_library_s_loop_over_objects(model):
    ours = compare(model, "mask")
    torch.testing.assert_close(ours[0, EMPTY], torch.full((SIDE, SIDE), -10.0))
    given = F.interpolate(portrait_masks()[:, None].float(), (SIDE, SIDE), mode="area")[:, 0]
    clear = (given - 0.5).abs() > 0.4
    assert torch.equal((ours[0] > 0)[clear], (given > 0.5)[clear])


def test_the_first_memory_can_be_that_of_the_released_program(model, monkeypatch):
    as_given = model._use_mask_as_output

    def enlarged(*arguments):
        answer = as_given(*arguments)
        answer.high_res_masks = F.interpolate(answer.pred_masks, (SIZE, SIZE), mode="bilinear")
        return answer

    plain = Sam2Tracker(model, "mask").propagate(
        features(1), portrait_masks(), features(VIEWS, seed=1)
    )
    monkeypatch.setattr(model, "_use_mask_as_output", enlarged)
    assert not torch.equal(compare(model, "logits"), plain)
    assert Sam2Tracker(model).first_memory == "logits"


def test_objects_do_not_know_of_each_other(model):
    tracker = Sam2Tracker(model)
    inputs = features(1), portrait_masks(), features(4, seed=1)
    together = tracker.propagate(*inputs)
    alone = tracker.propagate(inputs[0], inputs[1][1:2], inputs[2])
    torch.testing.assert_close(together[:, 1:2], alone, rtol=1e-5, atol=1e-5)


def test_devices_other_than_cpus_compute_the_same(model):
    """They take all objects and cells at once; the arithmetic does not need such a device."""
    inputs = features(1), portrait_masks(), features(4, seed=1)
    expected = Sam2Tracker(model).propagate(*inputs)
    tracker = Sam2Tracker(model, objects_at_once=64)
    for layer in tracker.attention.layers:
        layer.is_piecewise = False
    torch.testing.assert_close(tracker.propagate(*inputs), expected, rtol=1e-5, atol=1e-5)


def test_features_in_half_the_bits_are_widened(model):
    inputs = features(1), portrait_masks(), features(2, seed=1)
    coarse = [PromptableFeatures(*(level.bfloat16() for level in x.levels)) for x in inputs[::2]]
    tracked = Sam2Tracker(model).propagate(coarse[0], inputs[1], coarse[1])
    assert tracked.dtype == torch.float32
    prompted = Sam2Prompter(model).masks_from_boxes(coarse[0], torch.rand(1, 2, 4).sort()[0])
    assert prompted.dtype == torch.float32


def test_memory_matters(model):
    tracker = Sam2Tracker(model)
    observed, masks = features(1), portrait_masks()
    views = features(6, seed=1)
    tracked = tracker.propagate(observed, masks, views)
    later = tracker.propagate(observed, masks, views.views(slice(1, None)))
    assert (tracked[2:] - later[1:]).abs().max() > 1e-3
    moved = tracker.propagate(observed, masks.roll(40, dims=1), views)
    assert (tracked[1:] - moved[1:]).abs().max() > 1e-3


def test_nothing_to_track_and_nowhere_to_track_to(model):
    tracker = Sam2Tracker(model)
    none = tracker.propagate(features(1), portrait_masks()[:0], features(2))
    assert none.shape == (3, 0, SIDE, SIDE)
    alone = tracker.propagate(features(1), portrait_masks(), features(1).views(slice(0, 0)))
    assert alone.shape == (1, OBJECTS, SIDE, SIDE)
    one = tracker.propagate(features(1), portrait_masks(), features(1, seed=1))
    assert one.shape == (2, OBJECTS, SIDE, SIDE)
    torch.testing.assert_close(one[0], alone[0])


def test_wrong_input_is_named(model):
    tracker = Sam2Tracker(model)
    with pytest.raises(InputError, match="exactly one"):
        tracker.propagate(features(2), portrait_masks(), features(2))
    with pytest.raises(InputError, match="bool"):
        tracker.propagate(features(1), portrait_masks().float(), features(2))
    small = tiny_sam2.random_features(1, 64, torch.Generator())
    with pytest.raises(InputError, match="segmentation_size=64"):
        tracker.propagate(small, portrait_masks(), small)
    with pytest.raises(ConfigError, match="first_memory"):
        Sam2Tracker(model, "none")
    with pytest.raises(ConfigError, match="objects_at_once"):
        Sam2Tracker(model, objects_at_once=0)
