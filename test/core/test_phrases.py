# SPDX-License-Identifier: Apache-2.0
"""Captions, and the phrase rule against a slow loop over queries and tokens."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from strategies import seeds

from occany_core.datasets.class_tables import load_classes
from occany_core.errors import ConfigError, InputError
from occany_core.semantics.class_prompts import PromptTable, vocabulary
from occany_core.semantics.phrases import (
    DEMO,
    EVALUATION,
    PhraseThresholds,
    caption_of,
    labelled_queries,
)

CLS, SEP, STOP = 101, 102, 1012
WORDS = {1: "concrete", 2: "barrier", 3: "car", 4: "road", 5: "##s", 6: "sign"}
TEXTS = ("Concrete-Barrier", "barrier", "car", "road_sign", "sign", "car")
PROMPTS = PromptTable(TEXTS, (3, 4, 5, 6, 7, 8))
ALL = [CLS, 1, 2, STOP, 2, STOP, 3, STOP, 4, 6, STOP, 6, STOP, 3, STOP, SEP]


def decode(ids):
    names = WORDS | {CLS: "[CLS]", SEP: "[SEP]", STOP: "."}
    return " ".join(names[index] for index in ids).replace(" ##", "")


def slowly(logits, ids, prompts, thresholds):
    """The rule as the page words it, for one query after the other."""
    found = []
    for query, row in enumerate(logits.numpy()):
        scores = [np.float32(1) / (np.float32(1) + np.exp(-value)) for value in row[: len(ids)]]
        score = max(scores)
        if not score > np.float32(thresholds.box):
            continue
        best = scores.index(score)
        right = best  # the separator that ends the segment; a full stop ends its own
        while right < len(ids) and ids[right] not in (CLS, SEP, STOP):
            right += 1
        left = best - 1
        while left >= 0 and ids[left] not in (CLS, SEP, STOP):
            left -= 1
        told = [
            ids[token]
            for token in range(left + 1, right)
            if scores[token] > np.float32(thresholds.text)
        ]
        phrase = decode(told).replace(".", "").strip()
        for text, label in zip(prompts.texts, prompts.labels):
            if text.lower().replace("-", " ").replace("_", " ") == phrase:
                found.append((query, float(score), label))
                break
    return found


def as_rows(found):
    columns = found.queries.tolist(), found.scores.tolist(), found.labels.tolist()
    return list(zip(*columns))


@given(seeds, st.sampled_from([EVALUATION, DEMO, PhraseThresholds(0.3, 0.6)]), st.integers(0, 12))
def test_the_rule_equals_a_loop(seed, thresholds, queries):
    rng = np.random.default_rng(seed)
    ids = [CLS]
    for _ in range(rng.integers(0, 5)):
        ids += [*rng.choice(list(WORDS), rng.integers(0, 4)).tolist(), STOP]
    ids.append(SEP)
    levels = [-math.inf, -4.0, -2.5, -1.0, 0.0, 1.0, 1.5]  # few, so that there are ties
    values = rng.choice(levels, (queries, len(ids) + rng.integers(0, 3)))
    values[:, len(ids) :] = -math.inf
    logits = torch.from_numpy(values).float()
    found = as_rows(labelled_queries(logits, torch.tensor(ids), decode, PROMPTS, thresholds))
    expected = slowly(logits, ids, PROMPTS, thresholds)
    assert [row[::2] for row in found] == [row[::2] for row in expected]
    np.testing.assert_allclose([r[1] for r in found], [r[1] for r in expected], rtol=1e-6)


def answer(*scored):
    """One query, with the probabilities of some tokens of the caption of all prompts."""
    scores = torch.full((1, len(ALL)), 1e-6)
    for token, score in scored:
        scores[0, token] = score
    return scores.logit()


@pytest.mark.parametrize(
    ("scored", "label"),
    [
        (((1, 0.5), (2, 0.4)), 3),  # concrete barrier
        (((1, 0.01), (2, 0.4)), 4),  # of which only "barrier" is strong enough
        (((1, 0.5), (2, 0.01)), None),  # "concrete" is no prompt
        (((3, 0.5), (1, 0.2), (2, 0.2)), 3),  # the full stop belongs to what is on its left
        (((3, 0.5),), None),  # and says nothing by itself
        (((1, 0.5), (2, 0.5), (6, 0.4)), 3),  # other segments do not matter
        (((2, 0.5), (6, 0.5)), 4),  # of equal ones the first
        (((8, 0.3), (9, 0.3)), 6),  # an underscore in the prompt is a blank
        (((8, 0.3), (9, 0.04)), None),
        (((13, 0.9),), 5),  # of equal prompts the first counts
        (((0, 0.9),), None),  # [CLS] and [SEP] say nothing
        (((15, 0.9), (13, 0.8)), None),
        (((6, 0.04),), None),  # too weak
    ],
)
def test_single_queries(scored, label):
    found = labelled_queries(answer(*scored), torch.tensor(ALL), decode, PROMPTS)
    assert found.labels.tolist() == ([] if label is None else [label])
    best = max(score for _, score in scored)
    assert found.scores.tolist() == pytest.approx([] if label is None else [best])


def test_the_demo_takes_all_tokens_of_a_segment():
    logits = answer((1, 0.2), (2, 0.001))
    assert labelled_queries(logits, torch.tensor(ALL), decode, PROMPTS, DEMO).labels.tolist() == [
        3
    ]
    weak = answer((1, 0.14), (2, 0.14))
    assert not len(labelled_queries(weak, torch.tensor(ALL), decode, PROMPTS, DEMO).labels)


def test_thresholds_have_to_be_exceeded():
    at, ids = torch.zeros(1, 3), torch.tensor([CLS, 3, STOP])
    assert not len(labelled_queries(at, ids, decode, PROMPTS, PhraseThresholds(0.5, 0)).labels)
    assert not len(labelled_queries(at, ids, decode, PROMPTS, PhraseThresholds(0, 0.5)).labels)


def test_answers_without_anything_are_empty():
    nothing = torch.full((4, len(ALL)), -math.inf)
    for logits in (nothing, nothing[:0], torch.full_like(nothing, math.nan)):
        found = labelled_queries(logits, torch.tensor(ALL), decode, PROMPTS, DEMO)
        assert found.queries.shape == found.scores.shape == found.labels.shape == (0,)
        assert found.labels.dtype == found.queries.dtype == torch.int64


def test_a_caption_longer_than_the_answer_is_an_error():
    with pytest.raises(InputError, match="16 tokens and the detector answered for 10"):
        labelled_queries(torch.zeros(1, 10), torch.tensor(ALL), decode, PROMPTS)


def test_captions():
    assert caption_of(PromptTable(("Car", "traffic-sign", "other_flat "), (1, 2, 3))) == (
        "car. traffic sign. other flat."
    )
    for texts in ((), ("",), ("st. bernard",)):
        with pytest.raises(InputError, match="prompts"):
            caption_of(PromptTable(texts, tuple(range(len(texts)))))


def test_captions_of_the_evaluation_sets():
    def caption(name):
        table = load_classes(name)
        asked = [one for one in table.classes if one.id != table.other]
        texts = [text for one in asked for text in one.prompts]
        return caption_of(PromptTable(tuple(texts), tuple(range(len(texts)))))

    kitti, nuscenes = caption("semantic_kitti"), caption("occ3d_nuscenes")
    assert kitti.startswith("sky. car. bicycle. bike. motorcycle.")
    assert kitti.endswith("pole. lamp post. traffic sign.")
    assert nuscenes == caption_of(vocabulary().prompts)
    assert nuscenes.startswith("barrier. concrete barrier.")
    assert nuscenes.endswith("tree. bush. sky. empty.")


@pytest.mark.parametrize("box", [-0.1, 1.0, math.nan])
def test_thresholds_have_a_range(box):
    with pytest.raises(ConfigError, match="box threshold"):
        PhraseThresholds(box=box)
