# SPDX-License-Identifier: Apache-2.0
"""What is believed about the released weights, put to the test on a file (spec 16).

The statements were derived without the files. None of them decides whether a file can be used.
"""

import math
import re
from dataclasses import dataclass

import torch
from torch import Tensor

from occany_core.checkpoints.released import Parts, published_shapes
from occany_core.network import NetworkConfig

NEAR = 0.2
"""Relative deviation of a spread that still counts as untrained."""
ROUNDING = 1e-6


@dataclass(frozen=True)
class ReleaseCheck:
    """One statement and whether it holds."""

    statement: str
    verdict: str
    """yes, no or not applicable."""
    detail: str


def release_checks(parts: Parts, other_encoder: dict[str, Tensor] | None) -> list[ReleaseCheck]:
    """Put every statement to the test.

    Args:
        parts: The whole released file, with the weights that nothing uses.
        other_encoder: The encoder of the weights that training started from, if it is at hand.
    """
    return [
        _keys_and_shapes(parts),
        _untrained_blocks(parts),
        _copied_heads(parts),
        _frozen_encoder(parts, other_encoder),
        _untrained_colour_head(parts),
    ]


def _check(statement: str, holds: bool | None, detail: str) -> ReleaseCheck:
    verdict = "not applicable" if holds is None else "yes" if holds else "no"
    return ReleaseCheck(statement, verdict, detail)


def _keys_and_shapes(parts: Parts) -> ReleaseCheck:
    config = NetworkConfig()
    if "raymap_encoder" not in parts:
        config = NetworkConfig(novel_view_encoder=None)
    published = published_shapes(config)
    found = {
        f"{part}/{key}": tuple(tensor.shape)
        for part, weights in parts.items()
        for key, tensor in weights.items()
    }
    differing = sorted(
        name for name in published.keys() | found.keys() if published.get(name) != found.get(name)
    )
    detail = f"{len(found)} weights"
    if differing:
        detail = f"{len(differing)} differ, the first {differing[0]}"
    return _check("names and shapes are the published ones", not differing, detail)


def _untrained_blocks(parts: Parts) -> ReleaseCheck:
    """Blocks that training never reached have zero biases and Xavier-uniform weights."""
    statement = "the blocks of the rendering encoder were never trained"
    if "raymap_encoder" not in parts:
        return _check(statement, None, "the file has no rendering encoder")
    weights = {
        key: tensor
        for key, tensor in parts["raymap_encoder"].items()
        if re.match(r"blocks_enc\.\d+\.", key)
    }
    if not weights:
        return _check(statement, None, "the file has no such blocks")
    trained = [key for key, tensor in weights.items() if not _is_initial(key, tensor)]
    if not trained:
        return _check(statement, True, "all biases are 0, all weights within Xavier bounds")
    return _check(
        statement,
        False,
        f"{len(trained)} of {len(weights)} weights look trained, the first {trained[0]}: the "
        "published inference ignores these blocks although training used them; so does ours",
    )


def _is_initial(key: str, tensor: Tensor) -> bool:
    if key.endswith("bias"):
        return not tensor.any()
    if tensor.dim() != 2 or tensor.numel() == 0:
        return False
    bound = math.sqrt(6 / sum(tensor.shape))
    return float(tensor.abs().max()) <= bound * (1 + ROUNDING)


def _copied_heads(parts: Parts) -> ReleaseCheck:
    statement = "the heads of the rendering decoder equal those of the decoder"
    if "gen_decoder" not in parts:
        return _check(statement, None, "the file has no rendering decoder")
    keys = [key for key in parts["decoder"] if re.match(r"head_(dec|rgb|sam)\.", key)]
    copies = parts["gen_decoder"]
    differing = [key for key in keys if not _same(parts["decoder"][key], copies.get(key))]
    detail = f"{len(differing)} of {len(keys)} differ" if differing else f"{len(keys)} compared"
    return _check(statement, not differing, detail)


def _same(one: Tensor, other: object) -> bool:
    return (
        isinstance(other, Tensor)
        and (one.shape, one.dtype) == (other.shape, other.dtype)
        and torch.equal(one, other)
    )


def _frozen_encoder(parts: Parts, other: dict[str, Tensor] | None) -> ReleaseCheck:
    statement = "the encoder equals the one that training started from"
    if other is None:
        return _check(statement, None, "give that file with --compare-encoder")
    encoder = parts["encoder"]
    differing = [key for key in encoder if not _same(encoder[key], other.get(key))]
    detail = f"{len(encoder)} weights compared"
    if differing:
        detail = f"{len(differing)} of {len(encoder)} differ, the first {differing[0]}"
    return _check(statement, not differing, detail)


def _untrained_colour_head(parts: Parts) -> ReleaseCheck:
    """An affine map starts uniform within 1/sqrt(inputs) (spec 14: the framework's default)."""
    statement = "the colour head is near its initialisation"
    weights = {
        key: tensor
        for key, tensor in parts["decoder"].items()
        if key.startswith("head_rgb.") and key.endswith("weight") and tensor.dim() == 2
    }
    if not weights:
        return _check(statement, None, "the file has no colour head")
    ratios = []
    for tensor in weights.values():
        bound = tensor.shape[1] ** -0.5
        ratios.append(float(tensor.float().std()) / (bound / math.sqrt(3)))
    near = all(abs(ratio - 1) <= NEAR for ratio in ratios)
    spread = " and ".join(f"{ratio:.2f}" for ratio in ratios)
    return _check(statement, near, f"spread of its weights over that at the start: {spread}")
