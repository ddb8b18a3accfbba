# SPDX-License-Identifier: Apache-2.0
"""SAM2's features of real pictures, with random weights of a tiny SAM2 of transformers."""

import pytest
import tiny_sam2
import torch
from tiny_sam2 import SIZE, pictures

from occany_core.errors import ConfigError, InputError
from occany_core.images import segmentation_tensor
from occany_core.semantics.sam2_features import CHUNK, Sam2Encoder, load_sam2


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_sam2.save_image_model(tmp_path_factory.mktemp("sam2"))


def test_levels_are_what_the_mask_decoder_of_sam2_is_prompted_on(folder):
    encoder = load_sam2(folder, SIZE)
    rgb = pictures(2)
    coarse, middle, fine = encoder(rgb).levels
    assert [tuple(level.shape) for level in (coarse, middle, fine)] == [
        (2, 256, 8, 8),
        (2, 64, 16, 16),
        (2, 32, 32, 32),
    ]
    boxes = torch.tensor([[[10.0, 20.0, 90.0, 100.0]], [[0.0, 5.0, 60.0, 60.0]]])
    ours = encoder.model(
        image_embeddings=[fine, middle, coarse], input_boxes=boxes, multimask_output=False
    )
    squares = segmentation_tensor(rgb, SIZE)
    whole = encoder.model(pixel_values=squares, input_boxes=boxes, multimask_output=False)
    torch.testing.assert_close(ours.pred_masks, whole.pred_masks)
    assert ours.pred_masks.std() > 0
    plain = encoder.model.get_image_features(squares).fpn_hidden_states[-1]
    added = coarse.flatten(2).permute(2, 0, 1) - plain
    expected = encoder.model.no_memory_embedding.expand_as(added)
    torch.testing.assert_close(added, expected, rtol=1e-4, atol=1e-4)


def test_more_pictures_than_one_chunk_give_the_same_as_one_by_one(folder):
    encoder = load_sam2(folder, SIZE)
    rgb = pictures(CHUNK + 1)
    together, alone = encoder(rgb), encoder(rgb[-1:])
    for level, one in zip(together.levels, alone.levels):
        torch.testing.assert_close(level[-1:], one, rtol=1e-4, atol=1e-4)
    assert not any(level.requires_grad for level in together.levels)


def test_wrong_sizes_and_pictures_are_named(folder):
    encoder = load_sam2(folder, SIZE)
    with pytest.raises(ConfigError, match="feature maps"):
        Sam2Encoder(encoder.model, 2 * SIZE)
    with pytest.raises(InputError, match="uint8"):
        encoder(pictures(1).float())
    with pytest.raises(InputError, match="at least one view"):
        encoder(pictures(1)[:0])
