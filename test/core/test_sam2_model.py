# SPDX-License-Identifier: Apache-2.0
"""Loading SAM2: from the format of transformers and from original names, and never from a network.

The table of names is read backwards here, written anew, so that a slip in it cannot hide.
"""

import json
import socket
import sys

import pytest
import tiny_sam2
import torch
from safetensors.torch import load_file, save_file
from tiny_sam2 import SIZE, features

from occany_core.bench.tracking import enliven
from occany_core.errors import CheckpointError, ConfigError
from occany_core.semantics.sam2_model import (
    load_image_model,
    load_video_model,
    sam2_video_config,
    video_model_without_pictures,
)
from occany_core.semantics.sam2_prompter import Sam2Prompter
from occany_core.semantics.sam2_tracker import Sam2Tracker

LOADERS = (load_image_model, load_video_model)
BOXES = torch.tensor([[[0.1, 0.2, 0.7, 0.8], [0.0, 0.0, 0.3, 0.9]]])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tiny_sam2.save_video_model(tmp_path_factory.mktemp("sam2_video"))


@pytest.fixture(scope="module")
def full():
    tiny_sam2.library()
    torch.manual_seed(0)
    model = video_model_without_pictures(sam2_video_config(), SIZE)
    enliven(model, torch.Generator().manual_seed(0))
    return model


STARTS = {
    "prompt_encoder.": "sam_prompt_encoder.",
    "mask_decoder.": "sam_mask_decoder.",
    "memory_temporal_positional_encoding": "maskmem_tpos_enc",
    "no_memory_embedding": "no_mem_embed",
    "no_memory_positional_encoding": "no_mem_pos_enc",
    "no_object_pointer": "no_obj_ptr",
    "occlusion_spatial_embedding_parameter": "no_obj_embed_spatial",
    "object_pointer_proj": "obj_ptr_proj",
    "temporal_positional_encoding_projection_layer": "obj_ptr_tpos_proj",
}
INSIDE = {
    **{
        f"mask_downsampler.layers.{layer}.{what}": f"mask_downsampler.encoder.{3 * layer + step}"
        for layer in range(4)
        for what, step in (("conv", 0), ("layer_norm", 1))
    },
    "shared_embedding.positional_embedding": "pe_layer.positional_encoding_gaussian_matrix",
    "mask_embed.conv1": "mask_downscaling.0",
    "mask_embed.layer_norm1": "mask_downscaling.1",
    "mask_embed.conv2": "mask_downscaling.3",
    "mask_embed.layer_norm2": "mask_downscaling.4",
    "mask_embed.conv3": "mask_downscaling.6",
    "upscale_conv1": "output_upscaling.0",
    "upscale_layer_norm": "output_upscaling.1",
    "upscale_conv2": "output_upscaling.3",
    "o_proj": "out_proj",
    "feature_projection": "pix_feat_proj",
    "memory_fuser": "fuser",
    "memory_encoder.projection": "memory_encoder.out_proj",
    "depthwise_conv": "dwconv",
    "pointwise_conv": "pwconv",
    ".scale": ".gamma",
    "mask_downsampler.final_conv": "mask_downsampler.encoder.12",
    "layer_norm": "norm",
}
MLP = {"proj_in": "layers.0", "proj_out": "layers.1"}
HEAD = {".layers.0.": ".layers.1.", "proj_out": "layers.2", "proj_in": "layers.0"}
HEADS = ("hypernetworks", "prediction_head", "score_head", "obj_ptr_proj")


def original_name(name):
    for ours, theirs in STARTS.items():
        if name.startswith(ours):
            name = theirs + name[len(ours) :]
    of_part = HEAD if any(head in name for head in HEADS) else MLP if ".mlp." in name else {}
    for ours, theirs in {**INSIDE, **of_part}.items():
        name = name.replace(ours, theirs)
    return name


def original_names(weights):
    """Names of transformers -> names of original checkpoints."""
    renamed = {original_name(name): tensor.clone() for name, tensor in weights.items()}
    renamed.pop("shared_image_embedding.positional_embedding", None)  # the two are one
    renamed.pop("shared_image_embedding.pe_layer.positional_encoding_gaussian_matrix", None)
    points = renamed.pop("sam_prompt_encoder.point_embed.weight")
    for kind, point in enumerate(points.split(1)):
        renamed[f"sam_prompt_encoder.point_embeddings.{kind}.weight"] = point.clone()
    return renamed


def write_original(model, path, **more):
    weights = original_names(model.state_dict())
    for level, width in enumerate((1152, 576, 288, 144)):
        weights[f"image_encoder.neck.convs.{level}.conv.weight"] = torch.zeros(256, width, 1, 1)
        weights[f"image_encoder.neck.convs.{level}.conv.bias"] = torch.zeros(256)
    weights["image_encoder.trunk.blocks.0.norm1.weight"] = torch.zeros(144)
    torch.save({"model": weights | more}, path)
    return path


def outcome(model):
    """Masks that depend on all weights."""
    prompted = Sam2Prompter(model).masks_from_boxes(features(1), BOXES)
    tracked = Sam2Tracker(model).propagate(features(1), tiny_sam2.masks(2), features(3, seed=1))
    return torch.cat((prompted, tracked))


def test_original_checkpoints_give_the_same_model(full, tmp_path):
    path = write_original(full, tmp_path / "sam2.1.pt")
    loaded = load_video_model(path, SIZE)
    assert loaded.state_dict().keys() == full.state_dict().keys()
    for name, tensor in full.state_dict().items():
        if name != "shared_image_embedding.positional_embedding":
            assert torch.equal(loaded.state_dict()[name], tensor), name
    # the two codes of places are one in original checkpoints
    full.shared_image_embedding.positional_embedding.copy_(
        full.prompt_encoder.shared_embedding.positional_embedding
    )
    assert torch.equal(outcome(loaded), outcome(full))


def test_what_works_on_supplied_features_is_small(full):
    number = sum(parameter.numel() for parameter in full.parameters())
    assert round(number / 1e6, 1) == 11.7
    assert not any(name.startswith("vision_encoder") for name, _ in full.named_parameters())


def test_folders_in_the_format_of_transformers_give_the_same_model(folder):
    whole = tiny_sam2.library().Sam2VideoModel.from_pretrained(folder)
    loaded = load_video_model(folder, SIZE)
    weights = whole.state_dict()
    for name, tensor in loaded.state_dict().items():
        assert torch.equal(weights[name], tensor), name
    assert {name for name in weights if name not in loaded.state_dict()} == {
        name for name in weights if name.startswith("vision_encoder.")
    }
    assert loaded.config.memory_attention_num_layers == 3
    assert outcome(loaded).std() > 0


def test_the_image_model_reads_a_folder_of_a_video_model(folder):
    model = load_image_model(folder, SIZE)
    prompts = Sam2Prompter(model).masks_from_boxes(features(1), BOXES)
    video = Sam2Prompter(load_video_model(folder, SIZE)).masks_from_boxes(features(1), BOXES)
    assert torch.equal(prompts, video)


@pytest.mark.parametrize("load", LOADERS)
def test_nothing_is_fetched_from_a_network(load, folder, monkeypatch):
    def refuse(*arguments, **keywords):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    load(folder, SIZE)
    with pytest.raises(CheckpointError, match=r"occany download sam2\.1-hiera-large --to FOLDER"):
        load("facebook/sam2.1-hiera-large", SIZE)


@pytest.mark.parametrize("load", LOADERS)
def test_a_machine_without_transformers_is_told_which_extra_to_install(load, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ConfigError, match=r"occany_ros\[semantics\]"):
        load("anything", SIZE)


@pytest.mark.parametrize("load", LOADERS)
def test_impossible_sizes_and_empty_folders_are_named(load, folder, tmp_path):
    with pytest.raises(ConfigError, match="multiple of 32"):
        load(folder, 100)
    with pytest.raises(CheckpointError, match="cannot load SAM2"):
        load(tmp_path, SIZE)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "sam2_video"}))
    with pytest.raises(CheckpointError, match="cannot load SAM2"):
        load(tmp_path, SIZE)


def changed(folder, target, change):
    (target / "config.json").write_text((folder / "config.json").read_text())
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize("load", LOADERS)
def test_weights_are_not_filled_up_with_random_numbers(load, folder, tmp_path):
    changed(folder, tmp_path, lambda weights: weights.pop("mask_decoder.conv_s0.weight"))
    with pytest.raises(CheckpointError, match=r"lacks mask_decoder\.conv_s0\.weight"):
        load(tmp_path, SIZE)


@pytest.mark.parametrize("load", LOADERS)
def test_weights_that_nobody_knows_are_named(load, folder, tmp_path):
    changed(folder, tmp_path, lambda weights: weights.update(mystery=torch.ones(1)))
    with pytest.raises(CheckpointError, match="also holds mystery"):
        load(tmp_path, SIZE)


@pytest.mark.parametrize("load", LOADERS)
def test_weights_of_another_shape_are_named(load, folder, tmp_path):
    changed(
        folder,
        tmp_path,
        lambda weights: weights.update({"mask_decoder.conv_s0.bias": torch.ones(3)}),
    )
    with pytest.raises(CheckpointError, match="conv_s0"):
        load(tmp_path, SIZE)


def test_an_image_model_lacks_what_tracks(tmp_path):
    tiny_sam2.save_image_model(tmp_path)
    with pytest.raises(CheckpointError, match=r"lacks .*memory"):
        load_video_model(tmp_path, SIZE)


def test_original_checkpoints_that_do_not_serve_are_named(full, tmp_path):
    path = write_original(full, tmp_path / "sam2.1.pt", mystery=torch.ones(1))
    with pytest.raises(CheckpointError, match="also holds mystery"):
        load_video_model(path, SIZE)
    with pytest.raises(CheckpointError, match="cannot encode pictures"):
        load_image_model(path, SIZE)
    torch.save({"weights": {}}, path)
    with pytest.raises(CheckpointError, match="no weights under 'model'"):
        load_video_model(path, SIZE)
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match="not a zip-format"):
        load_video_model(path, SIZE)
