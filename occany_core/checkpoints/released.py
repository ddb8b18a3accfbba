# SPDX-License-Identifier: Apache-2.0
"""Key names of the released base checkpoints <-> ours (spec 15, `occany_state_dict.tsv`).

The only module that knows the foreign names. Released files have two parts, `encoder` and
`decoder`, and with rendering two more, `raymap_encoder` and `gen_decoder`.
"""

import re
from dataclasses import dataclass

import torch
from torch import Tensor

from occany_core.errors import CheckpointError
from occany_core.network import NetworkConfig, OccAnyNetwork

RECONSTRUCTION_PARTS = ("encoder", "decoder")
RENDERING_PARTS = ("raymap_encoder", "gen_decoder")
DEAD_BLOCKS = 6
"""Transformer blocks of the released rendering encoder, whose output nothing uses (spec 11.4)."""
TIME_FREQUENCIES = 256
"""Input width of its equally dead time embedding."""

Parts = dict[str, dict[str, Tensor]]
Shapes = dict[str, tuple[int, ...]]

_ENCODER = {"patch_embed.proj.": "stem.proj.", "norm_enc.": "norm.", "blocks_enc.": "blocks."}
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
        name = _replace_start(key, _ENCODER)
        return name and f"encoder.{name}"
    if part == "decoder":
        return _decoder_key(key, "decoder", "heads")
    if part == "gen_decoder":
        return _decoder_key(key, "novel_view_decoder", "novel_view_heads")
    name = _replace_start(key, _NOVEL_VIEW_ENCODER) if part == "raymap_encoder" else None
    return name and f"novel_view_encoder.{name}"


def is_dead(part: str, key: str) -> bool:
    """Whether a released weight is known to influence nothing."""
    return part in _DEAD and re.match(_DEAD[part], key) is not None


def state_dict_from_released(parts: Parts) -> dict[str, Tensor]:
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
            if is_dead(part, key):
                continue
            name = _our_key(part, key)
            if name is None:
                raise CheckpointError(
                    f"the released checkpoint holds {part}/{key}, which no known version has; "
                    "it is damaged or of another model"
                )
            renamed[name] = tensor[0] if key == "pose_token" else tensor  # stored (1, 1, 1, D)
    return renamed


def _turned(table: dict[str, str]) -> dict[str, str]:
    return {ours: released for released, ours in table.items()}


def released_key(name: str) -> tuple[str, str]:
    """Return the part and the key under which released files keep one of our weights."""
    first, _, rest = name.partition(".")
    if first == "encoder":
        return "encoder", _replace_start(rest, _turned(_ENCODER))
    if first == "novel_view_encoder":
        return "raymap_encoder", _replace_start(rest, _turned(_NOVEL_VIEW_ENCODER))
    part = "gen_decoder" if first.startswith("novel_view") else "decoder"
    if first.endswith("heads"):
        return part, _replace_start(rest, _turned(_HEADS))
    if writer := re.match(r"writers\.(\d+)\.(.*)", rest):
        return part, f"blocks_dec.{writer[1]}.{_replace_start(writer[2], _turned(_WRITER))}"
    if injection := re.match(r"blocks\.(\d+)\.pose_injection\.(.*)", rest):
        return part, f"inject_pose_token.{injection[1]}.0.{injection[2]}"
    if block := re.match(r"blocks\.(\d+)\.(.*)", rest):
        return part, f"blocks_dec.{block[1]}.{_replace_start(block[2], _turned(_BLOCK))}"
    return part, _replace_start(rest, _turned(_DECODER))


def used_shapes(config: NetworkConfig) -> Shapes:
    """Return `part/key: shape` of the released weights that such a network uses."""
    with torch.device("meta"):
        expected = OccAnyNetwork(config).state_dict()
    shapes = {}
    for name, tensor in expected.items():
        part, key = released_key(name)
        shape = tuple(tensor.shape)
        shapes[f"{part}/{key}"] = (1, *shape) if key == "pose_token" else shape
    return shapes


def published_shapes(config: NetworkConfig) -> Shapes:
    """Return `part/key: shape` of a whole released file, with the weights that nothing uses."""
    shapes = used_shapes(config)
    if config.novel_view_encoder is None:
        return shapes
    for name in list(shapes):
        part, key = name.split("/")
        if part == "decoder" and is_dead("gen_decoder", key):
            shapes[f"gen_decoder/{key}"] = shapes[name]
    width = config.novel_view_encoder.width
    affine = {
        "t_embedder.mlp.0": (width, TIME_FREQUENCIES),
        "t_embedder.mlp.2": (width, width),
        "proj_mem": (width, config.encoder.width),
    }
    for block in range(DEAD_BLOCKS):
        affine |= {
            f"blocks_enc.{block}.attn.qkv": (3 * width, width),
            f"blocks_enc.{block}.attn.proj": (width, width),
            f"blocks_enc.{block}.mlp.fc1": (4 * width, width),
            f"blocks_enc.{block}.mlp.fc2": (width, 4 * width),
        }
    for key, shape in affine.items():
        shapes[f"raymap_encoder/{key}.weight"] = shape
        shapes[f"raymap_encoder/{key}.bias"] = shape[:1]
    return shapes


@dataclass(frozen=True)
class KeyReport:
    """What became of the weights of a released file, each named `part/key`."""

    used: tuple[str, ...]
    missing: tuple[str, ...]
    """Needed, and not in the file."""
    unused: tuple[str, ...]
    """In the file, and known to influence nothing."""
    unknown: tuple[str, ...]
    """In the file, and in no known version."""
    misshapen: tuple[str, ...]
    """Of another shape than the network needs, with both shapes."""

    @property
    def fits(self) -> bool:
        """Whether the file holds exactly what is needed."""
        return not (self.missing or self.unknown or self.misshapen)

    def __str__(self) -> str:
        """Counts, and the first few names of whatever is wrong."""
        parts = [f"{len(self.used)} weights used, {len(self.unused)} known and unused"]
        for kind in ("missing", "unknown", "misshapen"):
            names = getattr(self, kind)
            if names:
                more = f" and {len(names) - 3} more" if len(names) > 3 else ""
                parts.append(f"{len(names)} {kind}: {', '.join(names[:3])}{more}")
        return "; ".join(parts)


def compare_keys(parts: Parts, config: NetworkConfig) -> KeyReport:
    """Hold the weights of a file against what a network needs."""
    needed = used_shapes(config)
    found = {f"{part}/{key}": value for part, one in parts.items() for key, value in one.items()}
    used, unused, unknown, misshapen = [], [], [], []
    for name, tensor in found.items():
        shape = tuple(tensor.shape)
        if is_dead(*name.split("/", 1)):
            unused.append(name)
        elif name not in needed:
            unknown.append(name)
        elif shape != needed[name]:
            misshapen.append(f"{name} (is {_size(shape)}, must be {_size(needed[name])})")
        else:
            used.append(name)
    missing = [name for name in needed if name not in found]
    return KeyReport(*(tuple(names) for names in (used, missing, unused, unknown, misshapen)))


def _size(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape)) or "a single number"
