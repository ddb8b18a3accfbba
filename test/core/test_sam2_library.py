# SPDX-License-Identifier: Apache-2.0
"""What SAM2's prompter and tracker rely on inside transformers: an upgrade fails here, by name."""

import inspect
from importlib.metadata import version

import pytest
import tiny_sam2
import torch
from tiny_sam2 import SIZE

SIDE = SIZE // 16


@pytest.fixture(scope="module")
def model():
    return tiny_sam2.video_model()


def relied_on(what, found, expected):
    assert found == expected, (
        f"transformers {version('transformers')} changed {what}: {found} instead of {expected}; "
        "see occany_core/semantics/sam2_*.py and their parity tests"
    )


def parameters(call):
    return list(inspect.signature(call).parameters)


def test_prompt_encoder(model):
    relied_on(
        "prompt_encoder",
        parameters(model.prompt_encoder.forward),
        ["input_points", "input_labels", "input_boxes", "input_masks"],
    )
    relied_on("prompt_encoder.input_image_size", model.prompt_encoder.input_image_size, SIZE)
    size = model.prompt_encoder.mask_input_size
    relied_on("prompt_encoder.mask_input_size", tuple(size), (SIZE // 4, SIZE // 4))
    no_point = torch.full((3, 1, 1), -1)
    sparse, dense = model.prompt_encoder(torch.zeros(3, 1, 1, 2), no_point, None, None)
    relied_on("its answer to no point", tuple(sparse.shape), (3, 1, 2, 256))
    relied_on("its answer to no mask", tuple(dense.shape), (3, 256, SIDE, SIDE))
    sparse, _ = model.prompt_encoder(None, None, torch.zeros(2, 5, 4), None)
    relied_on("its answer to boxes", tuple(sparse.shape), (2, 5, 3, 256))


def test_mask_decoder(model):
    relied_on(
        "mask_decoder",
        parameters(model.mask_decoder.forward)[:6],
        [
            "image_embeddings",
            "image_positional_embeddings",
            "sparse_prompt_embeddings",
            "dense_prompt_embeddings",
            "multimask_output",
            "high_resolution_features",
        ],
    )
    places = model.get_image_wide_positional_embeddings()
    relied_on("image-wide places", tuple(places.shape), (1, 256, SIDE, SIDE))
    no_point = torch.full((3, 1, 1), -1)
    sparse, dense = model.prompt_encoder(torch.zeros(3, 1, 1, 2), no_point, None, None)
    finer = [torch.zeros(1, 32, SIDE * 4, SIDE * 4), torch.zeros(1, 64, SIDE * 2, SIDE * 2)]
    cells = torch.zeros(3, 256, SIDE, SIDE)
    answer = model.mask_decoder(cells, places, sparse, dense, True, finer)
    relied_on(
        "what mask_decoder returns",
        [tuple(part.shape) for part in answer],
        [(3, 1, 3, SIDE * 4, SIDE * 4), (3, 1, 3), (3, 1, 3, 256), (3, 1, 1)],
    )


def test_memory_encoder(model):
    relied_on(
        "memory_encoder",
        parameters(model.memory_encoder.forward),
        ["vision_features", "masks"],
    )
    features, _ = model.memory_encoder(
        torch.zeros(1, 256, SIDE, SIDE), torch.zeros(3, 1, SIZE, SIZE)
    )
    relied_on(
        "memory_encoder for several masks on one view", tuple(features.shape), (3, 64, SIDE, SIDE)
    )


@pytest.mark.parametrize(("part", "channels"), [("memory_encoder", 64), ("neck", 256)])
def test_codes_of_places(model, part, channels):
    owner = model.memory_encoder if part == "memory_encoder" else model.vision_encoder.neck
    code = owner.position_encoding
    relied_on(
        f"{part}.position_encoding", parameters(code.forward)[:3], ["shape", "device", "dtype"]
    )
    shape = torch.Size((1, channels, SIDE, SIDE))
    found = code(shape, torch.device("cpu"), torch.float32)
    relied_on(f"{part}.position_encoding", tuple(found.shape), tuple(shape))


def test_memory_attention(model):
    attention = model.memory_attention
    relied_on("arguments of memory_attention", len(parameters(attention.forward)), 5)
    relied_on(
        "memory_attention", {name for name, _ in attention.named_children()},
        {"layers", "layer_norm", "rotary_emb"},
    )  # fmt: skip
    for layer in attention.layers:
        names = {name for name, _ in layer.named_children()}
        relied_on(
            "a layer of memory_attention",
            names - {"dropout", "dropout1", "dropout2", "dropout3"},
            {"self_attn", "cross_attn_image", "linear1", "linear2", "activation"}
            | {"layer_norm1", "layer_norm2", "layer_norm3"},
        )
        for part, width in ((layer.self_attn, 256), (layer.cross_attn_image, 64)):
            names = {name for name, _ in part.named_children()}
            relied_on("its attention", names, {"q_proj", "k_proj", "v_proj", "o_proj"})
            relied_on("its keys", tuple(part.k_proj.weight.shape), (256, width))
            relied_on("its heads and scale", (part.num_attention_heads, part.scaling), (1, 1 / 16))
    cos, sin = attention.rotary_emb(attention.layer_norm.weight, attention.position_ids)
    relied_on("shape of its turns", (tuple(cos.shape), tuple(sin.shape)), ((1, SIDE**2, 256),) * 2)
    relied_on("pairs of its turns", bool(torch.equal(cos[..., ::2], cos[..., 1::2])), True)


def test_single_numbers_and_settings(model):
    shapes = {
        "no_memory_embedding": (1, 1, 256),
        "memory_temporal_positional_encoding": (7, 1, 1, 64),
        "no_object_pointer": (1, 256),
        "occlusion_spatial_embedding_parameter": (1, 64),
    }
    for name, shape in shapes.items():
        relied_on(name, tuple(getattr(model, name).shape), shape)
    pointer = model.object_pointer_proj(torch.zeros(2, 256))
    relied_on("object_pointer_proj", tuple(pointer.shape), (2, 256))
    ages = model.temporal_positional_encoding_projection_layer(torch.zeros(2, 256))
    relied_on("temporal_positional_encoding_projection_layer", tuple(ages.shape), (2, 64))
    drawn = model.mask_downsample(torch.zeros(2, 1, SIZE, SIZE))
    relied_on("mask_downsample", tuple(drawn.shape), (2, 1, SIDE * 4, SIDE * 4))
    settings = {
        "image_size": SIZE,
        "num_maskmem": 7,
        "max_object_pointers_in_encoder": 16,
        "sigmoid_scale_for_mem_enc": 20,
        "sigmoid_bias_for_mem_enc": -10,
        "multimask_output_in_sam": True,
        "multimask_output_for_tracking": True,
        "multimask_min_pt_num": 0,
        "enable_occlusion_spatial_embedding": True,
        "enable_temporal_pos_encoding_for_object_pointers": True,
        "memory_attention_rope_feat_sizes": [SIDE, SIDE],
    }
    for name, value in settings.items():
        relied_on(name, getattr(model.config, name), value)
    decoder = model.mask_decoder
    relied_on(
        "choice among several masks",
        (decoder.dynamic_multimask_stability_delta, decoder.dynamic_multimask_stability_thresh),
        (0.05, 0.98),
    )


def test_session_that_the_benchmark_and_the_tests_compare_with(model):
    session = tiny_sam2.library().Sam2VideoInferenceSession
    wanted = {"video_height", "video_width", "dtype", "max_vision_features_cache_size"}
    relied_on("Sam2VideoInferenceSession", wanted - set(parameters(session)), set())
    one = session(video_height=4, video_width=4, dtype=torch.float32)
    relied_on(
        "cache_vision_features",
        parameters(one.cache.cache_vision_features),
        ["frame_idx", "features"],
    )
    relied_on(
        "add_mask_inputs", parameters(one.add_mask_inputs), ["obj_idx", "frame_idx", "inputs"]
    )
    relied_on("obj_id_to_idx", one.obj_id_to_idx(5), 0)
    relied_on("obj_with_new_inputs", one.obj_with_new_inputs, [])
    relied_on(
        "propagate_in_video_iterator",
        parameters(model.propagate_in_video_iterator)[:2],
        ["inference_session", "start_frame_idx"],
    )
