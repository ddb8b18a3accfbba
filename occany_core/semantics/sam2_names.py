# SPDX-License-Identifier: Apache-2.0
"""Names of weights in original SAM2.1 checkpoints -> those of transformers (semantics 3.3)."""

import re

import torch
from torch import Tensor

PLACE_CODE = "shared_image_embedding.positional_embedding"
PLACE_CODE_OF_PROMPTS = "prompt_encoder.shared_embedding.positional_embedding"
"""The same numbers stand under both names."""

_HEAD = (
    r"^(mask_decoder\.(?:output_hypernetworks_mlps\.\d+|iou_prediction_head|pred_obj_score_head)"
    r"|object_pointer_proj)\.layers\."
)
_RULES = (
    (r"^sam_(prompt_encoder|mask_decoder)\.", r"\1."),
    (r"^maskmem_tpos_enc$", "memory_temporal_positional_encoding"),
    (r"^no_mem_embed$", "no_memory_embedding"),
    (r"^no_mem_pos_enc$", "no_memory_positional_encoding"),
    (r"^no_obj_ptr$", "no_object_pointer"),
    (r"^no_obj_embed_spatial$", "occlusion_spatial_embedding_parameter"),
    (r"^obj_ptr_proj\.", "object_pointer_proj."),
    (r"^obj_ptr_tpos_proj\.", "temporal_positional_encoding_projection_layer."),
    (r"^image_encoder\.neck\.convs\.(\d+)\.conv\.", r"vision_encoder.neck.convs.\1."),
    (
        r"\.pe_layer\.positional_encoding_gaussian_matrix$",
        ".shared_embedding.positional_embedding",
    ),
    (r"\.mask_downscaling\.0\.", ".mask_embed.conv1."),
    (r"\.mask_downscaling\.1\.", ".mask_embed.layer_norm1."),
    (r"\.mask_downscaling\.3\.", ".mask_embed.conv2."),
    (r"\.mask_downscaling\.4\.", ".mask_embed.layer_norm2."),
    (r"\.mask_downscaling\.6\.", ".mask_embed.conv3."),
    (r"\.output_upscaling\.0\.", ".upscale_conv1."),
    (r"\.output_upscaling\.1\.", ".upscale_layer_norm."),
    (r"\.output_upscaling\.3\.", ".upscale_conv2."),
    (_HEAD + r"0\.", r"\1.proj_in."),
    (_HEAD + r"1\.", r"\1.layers.0."),
    (_HEAD + r"2\.", r"\1.proj_out."),
    (r"\.mlp\.layers\.0\.", ".mlp.proj_in."),
    (r"\.mlp\.layers\.1\.", ".mlp.proj_out."),
    (r"^memory_encoder\.out_proj\.", "memory_encoder.projection."),
    (r"^memory_encoder\.pix_feat_proj\.", "memory_encoder.feature_projection."),
    (r"^memory_encoder\.fuser\.", "memory_encoder.memory_fuser."),
    (r"\.mask_downsampler\.encoder\.12\.", ".mask_downsampler.final_conv."),
    *(
        (
            rf"\.mask_downsampler\.encoder\.{3 * k + step}\.",
            f".mask_downsampler.layers.{k}.{what}.",
        )
        for k in range(4)
        for step, what in enumerate(("conv", "layer_norm"))
    ),
    (r"\.dwconv\.", ".depthwise_conv."),
    (r"\.pwconv([12])\.", r".pointwise_conv\1."),
    (r"\.gamma$", ".scale"),
    (r"\.out_proj\.", ".o_proj."),
    (r"\.norm(\d|_final_attn|)\.", r".layer_norm\1."),
)
_TRUNK = "image_encoder.trunk."
_POINT = re.compile(r"^sam_prompt_encoder\.point_embeddings\.(\d+)\.weight$")


def transformers_names(original: dict[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of an original SAM2.1 checkpoint; its trunk is left out.

    Names that the table does not know stay as they are, so that whoever loads them meets them.
    """
    renamed: dict[str, Tensor] = {}
    points: dict[int, Tensor] = {}
    for name, tensor in original.items():
        if name.startswith(_TRUNK):
            continue
        if point := _POINT.match(name):
            points[int(point[1])] = tensor
            continue
        for pattern, replacement in _RULES:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    if points:
        parts = [points[kind] for kind in sorted(points)]
        renamed["prompt_encoder.point_embed.weight"] = torch.cat(parts)
    if PLACE_CODE_OF_PROMPTS in renamed:
        renamed[PLACE_CODE] = renamed[PLACE_CODE_OF_PROMPTS]
    return renamed
