# SPDX-License-Identifier: Apache-2.0
"""Boxes on supplied features: the masks of transformers' Sam2Model on the pictures themselves."""

import pytest
import tiny_sam2
import torch
from tiny_sam2 import SIZE, features, pictures

from occany_core.errors import InputError
from occany_core.images import segmentation_tensor
from occany_core.semantics import sam2_prompter
from occany_core.semantics.sam2_features import load_sam2
from occany_core.semantics.sam2_prompter import Sam2Prompter

SAME = 4e-7
"""Of the RMS logit."""


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    return load_sam2(tiny_sam2.save_image_model(tmp_path_factory.mktemp("sam2")), SIZE)


def boxes(views, number, seed=0):
    generator = torch.Generator().manual_seed(seed)
    start = torch.rand(views, number, 2, generator=generator) * 0.6
    extent = 0.1 + 0.3 * torch.rand(views, number, 2, generator=generator)
    return torch.cat((start, start + extent), dim=-1)


def test_masks_are_those_of_the_whole_model_on_pictures(encoder):
    rgb, asked = pictures(3), boxes(3, 4)
    whole = encoder.model(
        pixel_values=segmentation_tensor(rgb, SIZE),
        input_boxes=asked * SIZE,
        multimask_output=False,
    ).pred_masks[:, :, 0]
    ours = Sam2Prompter(encoder.model).masks_from_boxes(encoder(rgb), asked)
    assert ours.shape == (3, 4, SIZE // 4, SIZE // 4)
    assert (ours - whole).abs().max() <= SAME * whole.square().mean().sqrt()
    assert 0.01 < (whole > 0).float().mean() < 0.99
    assert (ours[0, 0] - ours[0, 1]).abs().max() > 0.1


@pytest.mark.parametrize("at_once", [1, 3, 5])
def test_chunks_give_the_same_as_all_at_once(encoder, monkeypatch, at_once):
    prompter = Sam2Prompter(encoder.model)
    together = prompter.masks_from_boxes(features(3), boxes(3, 4))
    monkeypatch.setattr(sam2_prompter, "PROMPTS_AT_ONCE", at_once)
    chunked = prompter.masks_from_boxes(features(3), boxes(3, 4))
    torch.testing.assert_close(chunked, together, rtol=1e-5, atol=1e-5)


def test_no_box_and_no_view_give_no_mask(encoder):
    prompter = Sam2Prompter(encoder.model)
    side = SIZE // 4
    assert prompter.masks_from_boxes(features(2), boxes(2, 0)).shape == (2, 0, side, side)
    nothing = features(1).views(slice(0, 0))
    assert prompter.masks_from_boxes(nothing, boxes(0, 3)).shape == (0, 3, side, side)


def test_wrong_boxes_and_sizes_are_named(encoder):
    prompter = Sam2Prompter(encoder.model)
    with pytest.raises(InputError, match="views, boxes, 4"):
        prompter.masks_from_boxes(features(2), boxes(1, 3))
    small = tiny_sam2.random_features(1, 64, torch.Generator())
    with pytest.raises(InputError, match="segmentation_size=64"):
        prompter.masks_from_boxes(small, boxes(1, 3))
