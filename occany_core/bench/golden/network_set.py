# SPDX-License-Identifier: Apache-2.0
"""A network set: weights, reconstruction, rendering and epsilon files that one manifest describes.

Everything is read from the manifest and the files: dims, heads, depths, seed tag, scenes, frames,
picture size. `B` scenes, `F` frames.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from occany_core.bench.golden.checklist import Checklist, Stage
from occany_core.bench.golden.recipe import Recipe
from occany_core.bench.golden.reconstruction import (
    SEGMENTATION,
    after_network,
    reconstruction,
)
from occany_core.bench.golden.rendering import projection, rendering
from occany_core.checkpoints.released import (
    compare_keys,
    published_shapes,
    state_dict_from_released,
)
from occany_core.network import NetworkConfig, OccAnyNetwork, TransformerDims

FILES = ("weights", "recon", "render", "eps")
MODALITIES = 7
"""Tokenizers of the released rendering encoder."""

Parts = dict[str, dict[str, Tensor]]


@dataclass(frozen=True)
class NetworkSet:
    """Where a set lies and what its manifest says."""

    path: Path
    """The manifest."""
    manifest: dict

    @classmethod
    def recognised(cls, path: Path, manifest: dict) -> "NetworkSet | None":
        """Take a manifest if it holds the dims of a network."""
        dims = manifest.get("config")
        described = isinstance(dims, dict) and all(
            isinstance(dims.get(kind), dict) and "num_heads" in dims[kind]
            for kind in ("enc", "dec")
        )
        return cls(path, manifest) if described else None

    def file(self, kind: str) -> Path:
        """Return the path of one of `FILES`, by the manifest's prefix or else its name."""
        named = self.path.name.removesuffix("manifest.json")
        prefix = self.manifest["config"].get("prefix", named)
        if not self.path.with_name(f"{prefix}recon.safetensors").is_file():
            prefix = named
        return self.path.with_name(f"{prefix}{kind}.safetensors")

    def files(self) -> list[Path]:
        """Return the files that exist."""
        return [self.file(kind) for kind in FILES if self.file(kind).is_file()]

    def open(self, kind: str) -> Checklist:
        """Open one file with its noise, and check that it holds what the manifest lists."""
        described = self.manifest["eps_fixture"] if kind == "eps" else self.manifest
        listed = described.get("tensors", {})
        checklist = Checklist.of(self.file(kind), described.get("noise"))
        checklist.listed(listed if kind == "eps" else listed.get(kind, {}))
        return checklist

    @property
    def tag(self) -> str:
        """Seed of the weights that are generated."""
        return self.manifest["config"].get("tag", self.manifest.get("tag", ""))


def check(golden: NetworkSet) -> list[Stage]:
    """Compare every array of a network set.

    Raises:
        InputError: A file of the set is damaged, or its weights cannot be generated.
        CheckpointError: The weights are not of a released network.
        KeyError: The manifest lacks a setting.
    """
    recipe = Recipe(golden.path.parent)
    weights = Checklist.of(golden.file("weights"))
    given = _given_parts(weights)
    config = network_config(golden, given)
    stages = [_generator(golden, recipe, config)]
    parts = _all_parts(golden, recipe, config, given)
    report = compare_keys(parts, config)
    weights.holds("released weights", (*report.missing, *report.unknown, *report.misshapen))
    network = _build(config, parts)
    stages += weights.report()
    recon = golden.open("recon")
    render = golden.open("render") if golden.file("render").is_file() else None
    with torch.inference_mode():
        _check_recon(network, recon)
        if render is not None:
            _check_render(network, golden, recon, render)
        stages += recon.report()
        if render is not None:
            stages += render.report()
        if golden.file("eps").is_file():
            stages += _check_eps(golden, config, parts, recon, render)
    return stages


def network_config(golden: NetworkSet, given: Parts) -> NetworkConfig:
    """Read the architecture from the manifest; what it does not say, from the weights."""
    dims = golden.manifest["config"]
    decoder = given.get("decoder", {})
    channels = tuple(
        len(decoder[key])
        for key in ("head_sam.proj.fc2.bias", "head_sam.up1.1.bias", "head_sam.up2.1.bias")
        if key in decoder
    )
    settings = {}
    if len(channels) == len(SEGMENTATION):
        settings["segmentation_dims"] = channels
    if "patch_embed.proj.weight" in given.get("encoder", {}):
        settings["patch_size"] = given["encoder"]["patch_embed.proj.weight"].shape[-1]
    if decoder:
        settings["rgb_head"] = any(key.startswith("head_rgb.") for key in decoder)
    if "distill_img_size" in dims["dec"]:
        settings["segmentation_size"] = dims["dec"]["distill_img_size"]
    merged = golden.manifest.get("tensors", {}).get("render", {}).get("gen.tokens_cat")
    if merged:
        settings["modality_width"] = merged[0][-1] // MODALITIES
    ray = dims.get("ray")
    return NetworkConfig(
        encoder=_dims(dims["enc"]),
        decoder=_dims(dims["dec"]),
        # Its blocks are dead: without them it is the released function.
        novel_view_encoder=_dims(ray | {"depth": 0, "num_heads": 1}) if ray else None,
        **settings,
    )


def _dims(entry: Mapping[str, int]) -> TransformerDims:
    return TransformerDims(
        width=entry["embed_dim"], depth=entry["depth"], heads=entry["num_heads"]
    )


def _given_parts(weights: Checklist) -> Parts:
    parts: Parts = {}
    for name in weights.arrays:
        part, _, key = name.partition(".")
        parts.setdefault(part, {})[key] = weights.given(name)
    return parts


def _shapes(config: NetworkConfig, part: str) -> dict[str, tuple[int, ...]]:
    names = published_shapes(config).items()
    return {name.removeprefix(f"{part}/"): s for name, s in names if name.startswith(f"{part}/")}


def _generator(golden: NetworkSet, recipe: Recipe, config: NetworkConfig) -> Stage:
    return recipe.checksums(
        f"{golden.tag}/raymap_encoder",
        _shapes(config, "raymap_encoder"),
        golden.manifest.get("raymap_checksums", {}),
    )


def _all_parts(golden: NetworkSet, recipe: Recipe, config: NetworkConfig, given: Parts) -> Parts:
    """Add the parts that the weights file does not hold; the recipe generates them."""
    parts = dict(given)
    needed = {name.partition("/")[0] for name in published_shapes(config)}
    for part in sorted(needed - set(given)):
        parts[part] = recipe.part(f"{golden.tag}/{part}", _shapes(config, part))
    return parts


def _build(config: NetworkConfig, parts: Parts) -> OccAnyNetwork:
    network = OccAnyNetwork(config)
    network.load_state_dict(state_dict_from_released(parts))
    return network.eval().requires_grad_(False)


def _check_recon(network: OccAnyNetwork, recon: Checklist) -> None:
    images = recon.given("img")
    batch, frames, _, height, width = images.shape
    recon.agree({"true_shape": torch.tensor([height, width]).expand(batch, frames, 2)})
    recon.agree(reconstruction(network, images))
    recon.agree(after_network(recon.arrays))


def _check_render(
    network: OccAnyNetwork, golden: NetworkSet, recon: Checklist, render: Checklist
) -> None:
    projected = projection(golden.manifest, recon.arrays, render)
    observed = network.encode(recon.arrays["img"])
    memory = network.update_memory(observed)
    render.agree(rendering(network, projected, observed, memory, render.arrays))


def _check_eps(
    golden: NetworkSet,
    config: NetworkConfig,
    parts: Parts,
    recon: Checklist,
    render: Checklist | None,
) -> list[Stage]:
    """Run the network with small residuals, in which a wrong LayerNorm epsilon shows."""
    eps, settings = golden.open("eps"), golden.manifest["eps_fixture"]
    patterns = settings["patterns"]
    scaled = {}
    for part, weights in parts.items():
        pattern = patterns.get(part) or patterns.get(part.removeprefix("gen_"), r"(?!)")
        scaled[part] = {
            key: tensor * settings["factor"] if re.match(pattern, key) else tensor
            for key, tensor in weights.items()
        }
    network = _build(config, scaled)
    ours = reconstruction(network, recon.arrays["img"])
    if "render.sam32" in ours:
        shape = eps.arrays["render.sam32"].shape
        ours["render.sam32"] = ours["render.sam32"][: shape[0], : shape[1]]
    eps.agree(ours)
    if render is not None and network.renders_novel_views:
        tokens = render.arrays["gen.tokens_proj"][None]
        encoded = network.novel_view_encoder(tokens, (tokens.shape[2], 1), tokens)
        eps.agree({"x_ray_from_tokens_proj": encoded})
    return eps.report()
