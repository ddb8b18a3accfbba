# SPDX-License-Identifier: Apache-2.0
"""Files in the layout of the released ones (spec 15), small or large, with any weights."""

import argparse
import enum
import sys
import types
from contextlib import contextmanager
from pathlib import Path

import torch
from tiny_networks import tiny_config

from occany_core.checkpoints.released import Parts, published_shapes

NEW_ENUM = "occany.model.must3r_blocks.head"
OLD_ENUM = "occany.must3r_blocks.head"
TINY_TEXT = (
    "Must3rDecoder(img_size=(48, 48), enc_embed_dim=32, embed_dim=32, num_heads=2, depth=2, "
    "pointmaps_activation=ActivationType.LINEAR, pred_sam_features=True, distill_img_size=64, "
    "feedback_type='single_mlp', memory_mode='kv', use_multitask_token=True)"
)


@contextmanager
def foreign_enum(module: str = NEW_ENUM):
    """The enum that released files carry, importable only in this block, as when they are made."""
    names = [module.rsplit(".", dots)[0] for dots in range(module.count("."), -1, -1)]
    modules = {name: types.ModuleType(name) for name in names}
    kind = enum.Enum("ActivationType", {"LINEAR": "linear", "NORM_EXP": "norm_exp"}, module=module)
    modules[module].ActivationType = kind
    sys.modules.update(modules)
    try:
        yield kind
    finally:
        for name in names:
            del sys.modules[name]


def tiny_parts(*, renders: bool = True) -> Parts:
    """Random weights under released names, with the dead ones, for `tiny_config("patch")`."""
    generator = torch.Generator().manual_seed(3)
    parts: Parts = {"encoder": {}, "decoder": {}}
    for name, shape in published_shapes(tiny_config("patch")).items():
        part, key = name.split("/")
        if renders or part in parts:
            weight = torch.randn(shape, generator=generator)
            parts.setdefault(part, {})[key] = weight * shape[-1] ** -0.5
    return parts


def write_released(
    path: Path, parts: Parts, *, module: str = NEW_ENUM, arguments: dict | None = None, **entries
) -> Path:
    """Write `torch.save({parts, args, epoch, optimizer, scaler})`."""
    with foreign_enum(module) as activation:
        values = {
            "decoder": TINY_TEXT,
            "encoder": "Dust3rEncoder(embed_dim=32, depth=2, num_heads=2)",
            "pointmaps_activation": activation.LINEAR,
            "sam_model": "SAM2",
            "projection_features": "pts3d_local,pts3d,rgb,conf,sam",
            "use_raymap_only_conditioning": False,
            "time_cond": False,
            "lr": 7e-5,
        }
        for name, value in (arguments or {}).items():
            values[name] = activation(value) if name == "pointmaps_activation" else value
        content = {
            **parts,
            "args": argparse.Namespace(**values),
            "epoch": 99,
            "optimizer": {"state": {0: {"exp_avg": torch.ones(32)}}, "param_groups": [{"lr": 1}]},
            "scaler": {"scale": 1024.0},
            **entries,
        }
        torch.save(content, path)
    return path
