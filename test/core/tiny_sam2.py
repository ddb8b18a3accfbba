# SPDX-License-Identifier: Apache-2.0
"""Tiny but whole SAM2s of transformers with random weights, in memory and on disk."""

import pytest
import torch

from occany_core.bench.tracking import enliven, random_features, random_masks
from occany_core.semantics.sam2_model import video_model_without_pictures

SIZE = 128


def library():
    """transformers, or the test is skipped."""
    return pytest.importorskip(
        "transformers", reason="transformers, the extra [semantics], is not installed"
    )


def vision_config():
    transformers = library()
    backbone = transformers.Sam2HieraDetConfig(
        hidden_size=8,
        num_attention_heads=1,
        blocks_per_stage=[1, 1, 2, 1],
        embed_dim_per_stage=[8, 16, 32, 64],
        num_attention_heads_per_stage=[1, 2, 4, 8],
        window_size_per_stage=[8, 4, 4, 4],
        global_attention_blocks=[3],
    )
    return transformers.Sam2VisionConfig(
        backbone_config=backbone, backbone_channel_list=[64, 32, 16, 8], fpn_hidden_size=256
    )


def video_config():
    return library().Sam2VideoConfig(
        vision_config=vision_config(),
        mask_decoder_config={"mlp_dim": 64},
        memory_attention_num_layers=3,
        memory_attention_feed_forward_hidden_size=64,
        memory_fuser_intermediate_dim=64,
    )


def save_image_model(path):
    """Write a Sam2Model, set up for the 1024 px that released ones have."""
    transformers = library()
    config = transformers.Sam2Config(
        vision_config=vision_config(), mask_decoder_config={"mlp_dim": 64}
    )
    torch.manual_seed(0)
    model = transformers.Sam2Model(config)
    enliven(model, torch.Generator().manual_seed(0))
    model.save_pretrained(path)
    return path


def save_video_model(path):
    """Write a Sam2VideoModel, as released repositories hold it."""
    torch.manual_seed(0)
    model = library().Sam2VideoModel(video_config())
    enliven(model, torch.Generator().manual_seed(0))
    model.save_pretrained(path)
    return path


def video_model(seed=0):
    """Only what is behind the image encoder."""
    torch.manual_seed(seed)
    model = video_model_without_pictures(video_config(), SIZE)
    enliven(model, torch.Generator().manual_seed(seed))
    return model


def features(views, seed=0):
    return random_features(views, SIZE, torch.Generator().manual_seed(seed))


def masks(number, seed=0):
    return random_masks(number, torch.Generator().manual_seed(seed))


def pictures(number, height=48, width=80):
    generator = torch.Generator().manual_seed(number)
    shape = (number, height, width, 3)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
