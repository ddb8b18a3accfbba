# SPDX-License-Identifier: Apache-2.0
"""GroundingDINO as a detector, with a tiny random one of transformers."""

import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from tiny_detectors import save_grounding_dino

from occany_core.errors import CheckpointError, ConfigError, InputError
from occany_core.semantics.class_prompts import PromptTable
from occany_core.semantics.detections import corners_of
from occany_core.semantics.grounding_dino import (
    LONGEST_SIDE,
    SHORT_SIDE,
    GroundingDinoDetector,
    detector_size,
    load_grounding_dino,
    prepared_for_detector,
)
from occany_core.semantics.phrases import SEPARATORS, PhraseThresholds, labelled_queries

PROMPTS = PromptTable(("car", "traffic-sign", "sign", "motorcyclist", "bike"), (1, 2, 3, 4, 5))
CAPTION = "car. traffic sign. sign. motorcyclist. bike."
WEAK = PhraseThresholds(0.0, 0.0)
SMALL = 96
"""Shorter side at which tests look at pictures [px]."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    pytest.importorskip(
        "transformers", reason="transformers, the extra [semantics], is not installed"
    )
    return save_grounding_dino(tmp_path_factory.mktemp("grounding_dino"))


@pytest.fixture(scope="module")
def loaded(folder):
    return load_grounding_dino(folder)


def small(loaded, thresholds=WEAK, chunk=2):
    return GroundingDinoDetector(loaded.model, loaded.tokenizer, thresholds, chunk, SMALL)


def pictures(number, height=48, width=80):
    generator = torch.Generator().manual_seed(number)
    shape = (number, height, width, 3)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def test_boxes_are_those_of_the_network_with_classes_by_the_phrase_rule(loaded):
    rgb = pictures(1)
    (found,) = small(loaded).detect(rgb, PROMPTS)
    ids = torch.tensor(loaded.tokenizer(CAPTION)["input_ids"])
    answer = loaded.model(pixel_values=prepared_for_detector(rgb, SMALL), input_ids=ids[None])
    kept = labelled_queries(answer.logits[0], ids, loaded.tokenizer.decode, PROMPTS, WEAK)
    torch.testing.assert_close(found.boxes, corners_of(answer.pred_boxes[0][kept.queries]))
    torch.testing.assert_close(found.scores, kept.scores)
    assert torch.equal(found.labels, kept.labels)
    assert len(found.labels) == 20 and len(set(found.labels.tolist())) > 1
    assert not found.scores.requires_grad
    some = small(loaded, PhraseThresholds(float(found.scores.median()), 0.0))
    (fewer,) = some.detect(rgb, PROMPTS)
    assert 0 < len(fewer.labels) < 20


def test_a_long_caption_is_read_whole(loaded):
    ids = loaded.tokenizer(CAPTION)["input_ids"]
    assert (
        loaded.tokenizer.decode(ids) == "[CLS] car. traffic sign. sign. motorcyclist. bike. [SEP]"
    )
    assert {101, 102, 1012} <= set(ids)
    assert loaded.tokenizer.decode([]) == ""


def test_views_together_give_the_same_as_one_by_one(loaded):
    rgb = pictures(5)
    together = small(loaded, chunk=2).detect(rgb, PROMPTS)
    at_once = small(loaded, chunk=8).detect(rgb, PROMPTS)
    alone = [found for one in rgb for found in small(loaded).detect(one[None], PROMPTS)]
    assert len(together) == 5
    for parts in zip(together, at_once, alone):
        for found in parts[:2]:
            assert torch.equal(found.labels, parts[2].labels)
            torch.testing.assert_close(found.boxes, parts[2].boxes, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(found.scores, parts[2].scores, rtol=1e-4, atol=1e-5)
    assert not torch.equal(alone[0].scores, alone[1].scores)
    assert small(loaded).detect(rgb[:0], PROMPTS) == []


def test_prompts_are_compared_as_the_tokenizer_writes_them(loaded):
    rgb = pictures(1)
    plain, accented = (PromptTable((text, "bike"), (1, 2)) for text in ("car", "Cár"))
    (found,), (same,) = (small(loaded).detect(rgb, table) for table in (plain, accented))
    assert 1 in found.labels.tolist()
    assert torch.equal(found.labels, same.labels)
    with pytest.raises(InputError, match="prompt '車' has letters"):
        small(loaded).detect(rgb, PromptTable(("car", "車"), (1, 2)))


def test_prompts_that_do_not_fit_are_counted(loaded):
    many = PromptTable(("car",) * 20, (1,) * 20)
    with pytest.raises(InputError, match="20 prompts has 42 tokens and the detector reads 40"):
        small(loaded).detect(pictures(1), many)
    fits = PromptTable(("car",) * 19, (1,) * 19)  # 40 tokens
    assert len(small(loaded).detect(pictures(1), fits)) == 1


def test_wrong_pictures_and_settings_are_named(loaded):
    with pytest.raises(InputError, match="uint8"):
        loaded.detect(pictures(1).float(), PROMPTS)
    with pytest.raises(ConfigError, match="chunk is 0"):
        small(loaded, chunk=0)


@given(st.integers(16, 2000), st.integers(16, 2000))
def test_pictures_are_resized_as_the_processor_of_the_network_does(height, width):
    transforms = pytest.importorskip("transformers.image_transforms")
    ours = detector_size(height, width)
    theirs = transforms.get_size_with_aspect_ratio((height, width), SHORT_SIDE, LONGEST_SIDE)
    assert ours == theirs


def test_sizes_of_the_evaluation_sets():
    assert detector_size(342, 1216) == (375, 1333)
    assert detector_size(747, 1328) == (750, 1333)
    assert detector_size(900, 1200) == (800, 1066)


def test_pictures_are_resized_by_pil_and_normalised():
    rgb = pictures(2, 30, 60)
    ours = prepared_for_detector(rgb, SMALL)
    assert ours.shape == (2, 3, 80, 159)  # 5/3 of 96 and no longer
    resized = np.asarray(Image.fromarray(rgb[1].numpy()).resize((159, 80), Image.BILINEAR))
    expected = (resized / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    torch.testing.assert_close(
        ours[1], torch.from_numpy(expected).permute(2, 0, 1).float(), rtol=1e-5, atol=1e-5
    )


def test_a_name_that_is_no_folder_is_never_looked_up(folder):
    for name in ("IDEA-Research/grounding-dino-base", folder / "nothing"):
        with pytest.raises(CheckpointError, match="occany download grounding-dino-base --to"):
            load_grounding_dino(name)


def test_folders_without_the_whole_model_are_refused(folder, tmp_path):
    with pytest.raises(CheckpointError, match="does not hold a usable transformers"):
        load_grounding_dino(tmp_path)
    from safetensors.torch import load_file, save_file

    for path in folder.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    weights = load_file(folder / "model.safetensors")
    weights.pop("model.text_projection.weight")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"lacks \['model.text_projection.weight'\]"):
        load_grounding_dino(tmp_path)


def test_pickled_weights_are_not_read(folder, tmp_path):
    for path in folder.iterdir():
        if path.name != "model.safetensors":
            (tmp_path / path.name).write_bytes(path.read_bytes())
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match="usable"):
        load_grounding_dino(tmp_path)


def test_a_machine_without_transformers_is_told_which_extra_to_install(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"pip install 'occany_ros\[semantics\]'"):
        load_grounding_dino(folder)


def test_what_is_relied_on_inside_transformers(folder, loaded):
    """Says what changed when a new release of transformers breaks the detector."""
    from transformers import GroundingDinoConfig
    from transformers.models.grounding_dino import modeling_grounding_dino as library

    assert set(SEPARATORS) <= set(library.SPECIAL_TOKENS), "other ids bound the prompts"
    assert GroundingDinoConfig().max_text_len == 256, "another length of captions"
    assert GroundingDinoConfig().num_queries == 900, "another number of queries"
    ids = torch.tensor([[101, 1013, 1012, 102]])
    mask = torch.ones(1, SMALL, SMALL, dtype=torch.long)
    answer = loaded.model(
        pixel_values=torch.zeros(1, 3, SMALL, SMALL),
        pixel_mask=mask,
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        token_type_ids=torch.zeros_like(ids),
    )
    assert {"logits", "pred_boxes"} <= set(answer), "the answer names its parts in another way"
    assert answer.logits.shape == (1, 20, 40), "logits are not (views, queries, longest caption)"
    assert answer.logits[..., :4].isfinite().all(), "tokens of the caption have no logits"
    assert (answer.logits[..., 4:] == -torch.inf).all(), "logits beyond the caption are not -inf"
    assert answer.pred_boxes.shape == (1, 20, 4), "boxes are not (views, queries, 4)"
    assert ((answer.pred_boxes >= 0) & (answer.pred_boxes <= 1)).all(), "boxes are not relative"
    plain = loaded.model(pixel_values=torch.zeros(1, 3, SMALL, SMALL), input_ids=ids)
    assert torch.equal(plain.logits, answer.logits), "masks of ones are not the default any more"
