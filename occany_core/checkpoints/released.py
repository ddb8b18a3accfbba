# SPDX-License-Identifier: Apache-2.0
"""Key names of the released base checkpoints -> ours (spec 15, `occany_state_dict.tsv`).

The only module that knows the foreign names. Released files have four parts: `encoder`, `decoder`,
`raymap_encoder`, `gen_decoder`.
"""

import re

from torch import Tensor

from occany_core.errors import CheckpointError

_BLOCK = {
    "norm1.": "norm_self.",
    "attn.": "self_attention.",
    "norm2.": "norm_memory.",
    "cross_attn.projq.": "memory_attention.query.",
    "cross_attn.proj.": "memory_attention.proj.",
    "norm3.": "norm_mlp.",
    "mlp.": "mlp.",
}
_WRITER = {"norm_y.": "norm.", "cross_attn.projk.": "key.", "cross_attn.projv.": "value."}
_DECODER = {
    "feat_embed_enc_to_dec.": "embed.",
    "pose_token": "pose_token",
    "image2_embed": "not_reference",
    "norm_dec.": "norm.",
    "feedback_layer.": "feedback.",
    "feedback_norm.": "feedback_norm.",
}
_HEADS = {
    "pts3d_task_token": "point_token",
    "sam_task_token": "segmentation_token",
    "rgb_task_token": "rgb_token",
    "head_dec.proj.": "points.proj.",
    "head_pose.": "pose.",
    "head_rgb.proj.": "rgb.proj.",
    "head_sam.proj.": "segmentation.proj.",
    "head_sam.up1.1.": "segmentation.middle.0.",
    "head_sam.up1.2.": "segmentation.middle.1.",
    "head_sam.up2.1.": "segmentation.fine.0.",
}
_NOVEL_VIEW_ENCODER = {
    "patch_embed_pts3d_local.proj.": "tokenizers.points_cam.",
    "patch_embed_pts3d.proj.": "tokenizers.points_world.",
    "patch_embed_rgb.proj.": "tokenizers.rgb.",
    "patch_embed_conf.proj.": "tokenizers.confidence.",
    "patch_embed_sam_256.proj.": "tokenizers.coarse.",
    "patch_embed_sam_64.proj.": "tokenizers.middle.",
    "patch_embed_sam_32.proj.": "tokenizers.fine.",
    "patch_embed_proj.": "merge.",
    "proj.": "proj.",
    "norm_enc.": "norm.",
}
_DEAD = {
    "raymap_encoder": r"blocks_enc\.|t_embedder\.|proj_mem\.",
    "gen_decoder": r"feedback_|blocks_dec\.\d+\.(norm_y|cross_attn\.proj[kv])\.",
}
"""Released weights that influence nothing (spec 11.4, 11.5): known, and left out."""


def _replace_start(key: str, table: dict[str, str]) -> str | None:
    for start, ours in table.items():
        if key.startswith(start):
            return ours + key[len(start) :]
    return None


def _decoder_key(key: str, decoder: str, heads: str) -> str | None:
    if block := re.match(r"blocks_dec\.(\d+)\.(.*)", key):
        if name := _replace_start(block[2], _WRITER):
            return f"{decoder}.writers.{block[1]}.{name}"
        name = _replace_start(block[2], _BLOCK)
        return name and f"{decoder}.blocks.{block[1]}.{name}"
    if injection := re.match(r"inject_pose_token\.(\d+)\.0\.(.*)", key):
        return f"{decoder}.blocks.{injection[1]}.pose_injection.{injection[2]}"
    if name := _replace_start(key, _DECODER):
        return f"{decoder}.{name}"
    name = _replace_start(key, _HEADS)
    return name and f"{heads}.{name}"


def _our_key(part: str, key: str) -> str | None:
    if part == "encoder":
        table = {"patch_embed.proj.": "stem.proj.", "norm_enc.": "norm.", "blocks_enc.": "blocks."}
        name = _replace_start(key, table)
        return name and f"encoder.{name}"
    if part == "decoder":
        return _decoder_key(key, "decoder", "heads")
    if part == "gen_decoder":
        return _decoder_key(key, "novel_view_decoder", "novel_view_heads")
    name = _replace_start(key, _NOVEL_VIEW_ENCODER) if part == "raymap_encoder" else None
    return name and f"novel_view_encoder.{name}"


def state_dict_from_released(parts: dict[str, dict[str, Tensor]]) -> dict[str, Tensor]:
    """Rename the weights of a released checkpoint; weights that influence nothing are left out.

    Args:
        parts: `{part: {released key: tensor}}`.

    Returns:
        A state dict for `OccAnyNetwork`, to be loaded strictly.

    Raises:
        CheckpointError: A key is neither used nor known to be dead.
    """
    renamed = {}
    for part, weights in parts.items():
        for key, tensor in weights.items():
            if part in _DEAD and re.match(_DEAD[part], key):
                continue
            name = _our_key(part, key)
            if name is None:
                raise CheckpointError(
                    f"the released checkpoint holds {part}/{key}, which no known version has; "
                    "it is damaged or of another model"
                )
            renamed[name] = tensor[0] if key == "pose_token" else tensor  # stored (1, 1, 1, D)
    return renamed
