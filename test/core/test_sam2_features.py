# SPDX-License-Identifier: Apache-2.0
"""SAM2 as a teacher, with random weights of a tiny SAM2 of transformers."""

import sys

import pytest
import torch

from occany_core.errors import CheckpointError, ConfigError, InputError
from occany_core.semantics.sam2_features import (
    CHUNK,
    Sam2Teacher,
    load_sam2,
    prepared_for_sam2,
)

SIZE = 128


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny SAM2 on disk, set up for the 1024 px that released ones have."""
    transformers = pytest.importorskip(
        "transformers", reason="transformers, the extra [semantics], is not installed"
    )
    torch.manual_seed(0)
    backbone = transformers.Sam2HieraDetConfig(
        hidden_size=8,
        num_attention_heads=1,
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 2, 4, 8],
        window_size_per_stage=[8, 4, 4, 4],
        global_attention_blocks=[3],
    )
    config = transformers.Sam2Config(
        vision_config=transformers.Sam2VisionConfig(
            backbone_config=backbone, backbone_channel_list=[64, 32, 16, 8], fpn_hidden_size=256
        ),
        mask_decoder_config={"mlp_dim": 64},
    )
    model = transformers.Sam2Model(config)
    torch.nn.init.normal_(model.no_memory_embedding)
    path = tmp_path_factory.mktemp("sam2")
    model.save_pretrained(path)
    return path


def pictures(number, height=48, width=80):
    generator = torch.Generator().manual_seed(number)
    shape = (number, height, width, 3)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def test_levels_are_what_the_mask_decoder_of_sam2_is_prompted_on(folder):
    teacher = load_sam2(folder, SIZE)
    rgb = pictures(2)
    coarse, middle, fine = teacher(rgb)
    assert [tuple(level.shape) for level in (coarse, middle, fine)] == [
        (2, 256, 8, 8),
        (2, 64, 16, 16),
        (2, 32, 32, 32),
    ]
    boxes = torch.tensor([[[10.0, 20.0, 90.0, 100.0]], [[0.0, 5.0, 60.0, 60.0]]])
    ours = teacher.model(
        image_embeddings=[fine, middle, coarse], input_boxes=boxes, multimask_output=False
    )
    whole = teacher.model(
        pixel_values=prepared_for_sam2(rgb, SIZE), input_boxes=boxes, multimask_output=False
    )
    torch.testing.assert_close(ours.pred_masks, whole.pred_masks)
    assert ours.pred_masks.std() > 0
    plain = teacher.model.get_image_features(prepared_for_sam2(rgb, SIZE)).fpn_hidden_states[-1]
    added = coarse.flatten(2).permute(2, 0, 1) - plain
    expected = teacher.model.no_memory_embedding.expand_as(added)
    torch.testing.assert_close(added, expected, rtol=1e-4, atol=1e-4)


def test_more_pictures_than_one_chunk_give_the_same_as_one_by_one(folder):
    teacher = load_sam2(folder, SIZE)
    rgb = pictures(CHUNK + 1)
    together, alone = teacher(rgb), teacher(rgb[-1:])
    for level, one in zip(together, alone):
        torch.testing.assert_close(level[-1:], one, rtol=1e-4, atol=1e-4)
    assert not any(level.requires_grad for level in together)


def test_wrong_weights_and_sizes_are_named(folder, tmp_path):
    with pytest.raises(CheckpointError, match="cannot load SAM2"):
        load_sam2(tmp_path, SIZE)
    with pytest.raises(ConfigError, match="multiple of 32"):
        load_sam2(folder, 100)
    with pytest.raises(ConfigError, match="feature maps"):
        Sam2Teacher(load_sam2(folder, SIZE).model, 2 * SIZE)
    with pytest.raises(InputError, match="uint8"):
        load_sam2(folder, SIZE)(pictures(1).float())


def test_weights_of_another_model_are_not_filled_up_with_random_numbers(folder, tmp_path):
    from safetensors.torch import load_file, save_file

    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    weights = load_file(folder / "model.safetensors")
    weights.pop("mask_decoder.conv_s0.weight")
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="conv_s0"):
        load_sam2(tmp_path, SIZE)


def test_a_machine_without_transformers_is_told_which_extra_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"occany_ros\[semantics\]"):
        load_sam2("anything", SIZE)


def test_pictures_are_squashed_whole_and_normalised_as_sam2_expects():
    half = torch.zeros(1, 40, 100, 3, dtype=torch.uint8)
    half[:, :, 50:] = 255
    left, right = prepared_for_sam2(half, 64)[0].split(32, dim=2)
    for values, level in ((left[:, :, 2:-4], 0.0), (right[:, :, 4:-2], 1.0)):
        expected = [(level - m) / d for m, d in zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))]
        torch.testing.assert_close(values.mean(dim=(1, 2)), torch.tensor(expected))
        assert values.std(dim=(1, 2)).max() < 1e-4
