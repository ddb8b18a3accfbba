# SPDX-License-Identifier: Apache-2.0
"""Masks are merged and painted as plain loops would do it."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds

from occany_core.errors import InputError
from occany_core.semantics import (
    LabelledMasks,
    PromptTable,
    corners_of,
    merge_masks,
    paint_observed,
    paint_prompted,
    paint_tracked,
)
from occany_core.voxels import ClassTable

CLASSES = ClassTable(5, other=4, empty=0)
LABELS = [0, 1, 2, 3, 4, 255]


def drawn(rng: np.random.Generator, number: int) -> LabelledMasks:
    """Objects of which several have equal or nearly equal scores."""
    scores = rng.choice([0.1, 0.15, 0.151, 0.2, 0.205002, 0.304, 0.3051, 0.9], number)
    return LabelledMasks(
        torch.from_numpy(rng.random((number, 4, 6)) < 0.4),
        torch.from_numpy(scores + rng.choice([0, 1e-4], number)).float(),
        torch.from_numpy(rng.choice(LABELS, number)),
    )


def painted_in_a_loop(masks, scores, labels) -> np.ndarray:
    picture = np.full(masks.shape[1:], CLASSES.empty)
    for index in sorted(range(len(scores)), key=lambda i: -scores[i]):
        if labels[index] not in (CLASSES.empty, CLASSES.other, 255):
            picture[masks[index] & (picture == CLASSES.empty)] = labels[index]
    return picture


@given(seeds, st.integers(0, 9))
def test_painting_equals_a_loop(seed, number):
    found = drawn(np.random.default_rng(seed), number)
    ours = paint_observed(found, CLASSES)
    assert ours.dtype == torch.uint8
    expected = painted_in_a_loop(found.masks.numpy(), found.scores.tolist(), found.labels.tolist())
    np.testing.assert_array_equal(ours, expected)


@given(seeds, st.integers(0, 9))
def test_merging_equals_a_loop(seed, number):
    found = drawn(np.random.default_rng(seed), number)
    objects = []  # (class, bin, mask, score)
    for mask, score, label in zip(found.masks, found.scores.tolist(), found.labels.tolist()):
        for one in objects:
            if one[:2] == [label, round(score / 0.01)]:
                one[2], one[3] = one[2] | mask, max(one[3], score)
                break
        else:
            objects.append([label, round(score / 0.01), mask, score])
    merged = merge_masks(found)
    assert merged.labels.tolist() == [one[0] for one in objects]
    assert merged.scores.tolist() == [one[3] for one in objects]
    assert all(torch.equal(ours, one[2]) for ours, one in zip(merged.masks, objects))


def test_halves_round_to_even_and_classes_stay_apart():
    scores = torch.tensor([0.125, 0.25, 0.375, 0.5, 0.125])
    found = LabelledMasks(torch.eye(5).bool()[:, None], scores, torch.tensor([1, 1, 1, 1, 2]))
    merged = merge_masks(found, score_bin=0.25)  # 0.5 -> 0, 1 -> 1, 1.5 -> 2, 2 -> 2
    assert merged.scores.tolist() == [0.125, 0.25, 0.5, 0.125]
    assert merged.masks[2, 0].tolist() == [False, False, True, True, False]
    assert merged.labels.tolist() == [1, 1, 1, 2]


@given(seeds, st.integers(0, 3))
def test_tracked_objects_need_a_score(seed, num_views):
    rng = np.random.default_rng(seed)
    objects = drawn(rng, 8)
    tracked = torch.from_numpy(rng.random((num_views, 8, 4, 6)) < 0.4)
    ours = paint_tracked(tracked, objects, CLASSES)
    assert ours.shape == (num_views, 4, 6)
    strong = objects.scores > 0.15
    scores, labels = objects.scores[strong].tolist(), objects.labels[strong].tolist()
    for picture, masks in zip(ours, tracked):
        expected = painted_in_a_loop(masks[strong].numpy(), scores, labels)
        np.testing.assert_array_equal(picture, expected)


@given(seeds)
def test_prompted_masks_are_painted_view_by_view(seed):
    rng = np.random.default_rng(seed)
    found, view = drawn(rng, 12), torch.from_numpy(rng.integers(0, 3, 12))
    ours = paint_prompted(found, view, 4, CLASSES)
    for index, picture in enumerate(ours):
        here = found[view == index]
        masks, labels = here.masks.numpy(), here.labels.tolist()
        expected = painted_in_a_loop(masks, here.scores.tolist(), labels)
        np.testing.assert_array_equal(picture, expected)
    assert not ours[3].any()


def test_prompts_of_empty_and_other_are_not_asked():
    table = PromptTable(("sky", "car", "van", "thing"), (0, 1, 1, 4)).without(CLASSES)
    assert table == PromptTable(("car", "van"), (1, 1))


def test_corners_of_boxes():
    boxes = torch.tensor([[0.5, 0.25, 1.0, 0.5], [0.0, 1.0, 0.5, 0.5]])
    assert corners_of(boxes).tolist() == [[0, 0, 1, 0.5], [-0.25, 0.75, 0.25, 1.25]]


def test_masks_need_as_many_scores_and_labels():
    masks = torch.zeros(2, 3, 4).bool()
    with pytest.raises(InputError, match=r"\(2, 3, 4\).*3 scores.*2 labels"):
        LabelledMasks(masks, torch.zeros(3), torch.zeros(2).long())
    with pytest.raises(InputError, match=r"\(3, 4\)"):
        LabelledMasks(masks[0], torch.zeros(3), torch.zeros(3).long())
