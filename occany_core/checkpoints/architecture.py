# SPDX-License-Identifier: Apache-2.0
"""Released file -> architecture of the network it fits (spec 1, 15).

Sizes come from the shapes of the weights; what shapes do not tell comes from the training
arguments, which are parsed as text and never evaluated. Whatever neither says is as published.
"""

import argparse
import ast
import re
from dataclasses import dataclass

from torch import Tensor

from occany_core.checkpoints.released import Parts
from occany_core.checkpoints.torch_file import PickledActivation
from occany_core.errors import CheckpointError, ConfigError
from occany_core.network import NetworkConfig, TransformerDims

PUBLISHED = NetworkConfig()
HEAD_WIDTH = 64
"""Of the attention in the image encoder and the decoders, in every published size."""
DEAD_HEAD_WIDTH = 48
"""Of the attention in the rendering encoder, whose blocks are not evaluated."""
LONGEST_TEXT = 10_000
DEEPEST = 100
"""Larger sizes in the text of a file are nonsense, and are not followed."""
EXPECTED_SETTINGS = {"feedback_type": "single_mlp", "memory_mode": "kv"}
EXPECTED_RENDERING_SETTINGS = {
    "sam_model": "SAM2",
    "projection_features": "pts3d_local,pts3d,rgb,conf,sam",
    "use_raymap_only_conditioning": False,
}
"""Settings that change the function and not the shapes, with the only value that we compute."""


@dataclass(frozen=True)
class HeadCounts:
    """Attention heads where a file does not say; None leaves it to the file or the rule."""

    encoder: int | None = None
    decoder: int | None = None


def arguments_of(content: object) -> dict[str, object]:
    """Return the training arguments of a file as a dictionary; empty where it has none.

    The text of the constructors under `encoder` and `decoder` becomes a dictionary of keywords.
    """
    values = vars(content) if isinstance(content, argparse.Namespace) else content
    if not isinstance(values, dict):
        return {"encoder": {}, "decoder": {}}
    found = dict(dict.items(values))
    for name in ("encoder", "decoder"):
        text = found.get(name)
        found[name] = constructor_keywords(text) if isinstance(text, str) else {}
    return found


def constructor_keywords(text: str) -> dict[str, object]:
    """Return the keywords of a constructor that is written out; evaluates nothing.

    Names like `ActivationType.LINEAR` become their last part, other expressions are left out.
    """
    if len(text) > LONGEST_TEXT:
        return {}
    try:
        call = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    keywords = call.keywords if isinstance(call, ast.Call) else []
    found = {}
    for keyword in keywords:
        if isinstance(keyword.value, ast.Attribute):
            found[keyword.arg] = keyword.value.attr
            continue
        try:
            found[keyword.arg] = ast.literal_eval(keyword.value)
        except (ValueError, TypeError, RecursionError, MemoryError):
            continue
    return found


def architecture(
    parts: Parts, arguments: dict, heads: HeadCounts, *, is_initialisation: bool = False
) -> NetworkConfig:
    """Derive the network that a released file fits.

    Args:
        parts: `{part: {released key: tensor}}`.
        arguments: What `arguments_of` returned.
        heads: Known better than the file does.
        is_initialisation: The file is a start for training: its settings of the function do not
            matter, ours are taken.

    Raises:
        CheckpointError: The file needs something that we do not compute, or does not say enough.
    """
    if not is_initialisation:
        _check_settings(arguments, has_rendering="raymap_encoder" in parts)
    text = arguments["decoder"]
    decoder, encoder = parts["decoder"], parts["encoder"]
    stem = _shape(encoder, "patch_embed.proj.weight", 4)
    embed = _shape(decoder, "feat_embed_enc_to_dec.weight", 2)
    try:
        return NetworkConfig(
            encoder=_dims(
                PUBLISHED.encoder,
                stem[0] if stem else text.get("enc_embed_dim"),
                _depth(encoder, "blocks_enc", arguments["encoder"].get("depth")),
                heads.encoder or arguments["encoder"].get("num_heads"),
            ),
            decoder=_dims(
                PUBLISHED.decoder,
                embed[0] if embed else text.get("embed_dim"),
                _depth(decoder, "blocks_dec", text.get("depth")),
                heads.decoder or text.get("num_heads"),
            ),
            novel_view_encoder=_rendering_dims(parts),
            modality_width=_modality_width(parts),
            patch_size=stem[-1] if stem else PUBLISHED.patch_size,
            point_activation="linear" if is_initialisation else _activation(arguments),
            segmentation_dims=_segmentation_dims(decoder),
            segmentation_size=_positive(text, "distill_img_size", PUBLISHED.segmentation_size),
            picture_width=_picture_width(text, arguments),
        )
    except ConfigError as error:
        raise CheckpointError(
            f"the file describes no network of this kind: {error}; where it is the number of "
            "heads, give --encoder-heads and --decoder-heads"
        ) from error


def _check_settings(arguments: dict, *, has_rendering: bool) -> None:
    expected = [(arguments["decoder"], EXPECTED_SETTINGS)]
    if has_rendering:
        expected.append((arguments, EXPECTED_RENDERING_SETTINGS))
    for values, settings in expected:
        for name, value in settings.items():
            found = values.get(name, value)
            if found != value:
                raise CheckpointError(
                    f"the file was trained with {name} = {str(found)[:60]!r}; only {value!r}, as "
                    "published, is computed here"
                )


def _shape(part: dict[str, Tensor], key: str, dimensions: int) -> tuple[int, ...] | None:
    """Return the shape of a weight, or None where it is missing or of another kind."""
    shape = tuple(part[key].shape) if key in part else ()
    return shape if len(shape) == dimensions else None


def _depth(part: dict[str, Tensor], blocks: str, said: object) -> int | None:
    """Return the depth that the arguments give, or the number of blocks in the file."""
    if isinstance(said, int) and 0 < said <= DEEPEST:
        return said
    return len({match[1] for key in part if (match := re.match(rf"{blocks}\.(\d+)\.", key))})


def _dims(published: TransformerDims, width: object, depth: int, heads: object) -> TransformerDims:
    width = width if isinstance(width, int) else published.width
    if width == published.width:  # so that missing blocks are missed
        depth = max(depth, published.depth)
    if not isinstance(heads, int):
        if width % HEAD_WIDTH:
            raise ConfigError(
                f"the file does not say how many attention heads its width of {width} has, and "
                f"published networks have {HEAD_WIDTH} channels per head"
            )
        heads = width // HEAD_WIDTH
    return TransformerDims(width=width, depth=depth, heads=heads)


def _rendering_dims(parts: Parts) -> TransformerDims | None:
    if "raymap_encoder" not in parts:
        return None
    merge = _shape(parts["raymap_encoder"], "patch_embed_proj.weight", 2)
    width = merge[0] if merge else PUBLISHED.novel_view_encoder.width
    heads = 1 if width % DEAD_HEAD_WIDTH else width // DEAD_HEAD_WIDTH
    return TransformerDims(width=width, depth=0, heads=heads)


def _modality_width(parts: Parts) -> int:
    shape = _shape(parts.get("raymap_encoder", {}), "patch_embed_conf.proj.weight", 4)
    return shape[0] if shape else PUBLISHED.modality_width


def _segmentation_dims(decoder: dict[str, Tensor]) -> tuple[int, int, int]:
    shapes = (
        _shape(decoder, "head_sam.proj.fc2.weight", 2),
        _shape(decoder, "head_sam.up1.1.weight", 4),
        _shape(decoder, "head_sam.up2.1.weight", 4),
    )
    published = PUBLISHED.segmentation_dims
    return tuple(
        shape[0] if shape else width for shape, width in zip(shapes, published, strict=True)
    )


def _activation(arguments: dict) -> str:
    found = arguments.get("pointmaps_activation")
    found = found.value if isinstance(found, PickledActivation) else found
    named = arguments["decoder"].get("pointmaps_activation")
    values = {str(value).lower() for value in (found, named) if value is not None}
    if len(values) > 1 or not values <= {"linear", "norm_exp"}:
        raise CheckpointError(
            f"the file gives its activation of points as {' and '.join(sorted(values))[:80]}; it "
            "must be one of linear and norm_exp"
        )
    return values.pop() if values else PUBLISHED.point_activation


def _positive(values: dict, name: str, otherwise: int) -> int:
    value = values.get(name)
    return value if isinstance(value, int) and value > 0 else otherwise


def _picture_width(text: dict, arguments: dict) -> int:
    for size in (text.get("img_size"), arguments.get("img_size")):
        sides = size if isinstance(size, tuple | list) else (size,)
        if sides and all(isinstance(side, int) and side > 0 for side in sides):
            return max(sides)
    return PUBLISHED.picture_width
