# SPDX-License-Identifier: Apache-2.0
"""Reads the golden sets: fixtures of the released function on small inputs (docs/parity.md)."""

import importlib.util
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from occany_core.checkpoints.released import state_dict_from_released
from occany_core.network import NetworkConfig, OccAnyNetwork, TransformerDims

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = Path(os.environ.get("OCCANY_REFERENCE", ROOT.parent / "shared" / "reference"))
needs_reference = pytest.mark.skipif(
    not (REFERENCE / "golden").is_dir(),
    reason="the golden sets are development data: set OCCANY_REFERENCE to their folder",
)


def tensors(name: str, folder: str = "golden") -> dict[str, torch.Tensor]:
    return load_file(REFERENCE / folder / f"{name}.safetensors")


def manifest(name: str = "tiny_manifest") -> dict:
    return json.loads((REFERENCE / "golden" / f"{name}.json").read_text())


def recipe():
    """The documented generator of pseudo-random weights."""
    spec = importlib.util.spec_from_file_location(
        "golden_weights", REFERENCE / "golden" / "golden_weights.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def assert_golden(ours: torch.Tensor, golden: torch.Tensor, noise: list[float] | None) -> None:
    """Compare within the rule of the golden set: four times the released code's own rounding."""
    golden = golden.to(ours.dtype)
    largest = golden.abs().max().item()
    allowed = 4 * noise[0] + 2e-6 * largest if noise else 1e-5 * largest
    assert ours.shape == golden.shape
    error = (ours - golden).abs().max().item()
    assert error <= allowed, f"largest error {error:.3g}, allowed {allowed:.3g}"


def tiny_config() -> NetworkConfig:
    dims = manifest()["config"]
    return NetworkConfig(
        encoder=_dims(dims["enc"]),
        decoder=_dims(dims["dec"]),
        novel_view_encoder=TransformerDims(width=dims["ray"]["embed_dim"], depth=0, heads=2),
        segmentation_size=dims["dec"]["distill_img_size"],
    )


def _dims(entry: dict) -> TransformerDims:
    return TransformerDims(
        width=entry["embed_dim"], depth=entry["depth"], heads=entry["num_heads"]
    )


def tiny_parts() -> dict[str, dict[str, torch.Tensor]]:
    """Released-style weights of the tiny fixture; the rendering encoder's come from the recipe."""
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors("tiny_weights").items():
        part, _, name = key.partition(".")
        parts.setdefault(part, {})[name] = tensor
    golden_weights, config = recipe(), tiny_config()
    tag = f"{manifest()['config']['tag']}/raymap_encoder"
    shapes = released_rendering_encoder_shapes(config)
    parts["raymap_encoder"] = {
        key: torch.from_numpy(np.asarray(golden_weights.weight(tag, key, shape)))
        for key, shape in shapes.items()
    }
    return parts


def released_rendering_encoder_shapes(config: NetworkConfig) -> dict[str, tuple[int, ...]]:
    """Keys and shapes of the live part of a released rendering encoder."""
    width, channels = config.novel_view_encoder.width, config.modality_width
    shapes: dict[str, tuple[int, ...]] = {}
    modalities = {"pts3d_local": 3, "pts3d": 3, "rgb": 3, "conf": 1, "sam_256": 256}
    for name, count in (modalities | {"sam_64": 64, "sam_32": 32}).items():
        shapes[f"patch_embed_{name}.proj.weight"] = (channels, count, 16, 16)
        shapes[f"patch_embed_{name}.proj.bias"] = (channels,)
    shapes["patch_embed_proj.weight"] = (width, 7 * channels)
    shapes["patch_embed_proj.bias"] = (width,)
    shapes["proj.weight"] = (config.encoder.width, width)
    shapes["proj.bias"] = (config.encoder.width,)
    shapes["norm_enc.weight"] = shapes["norm_enc.bias"] = (config.encoder.width,)
    return shapes


def golden_network(config: NetworkConfig, parts: dict) -> OccAnyNetwork:
    network = OccAnyNetwork(config)
    network.load_state_dict(state_dict_from_released(parts), strict=True)
    return network.eval()
