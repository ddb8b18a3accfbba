# SPDX-License-Identifier: Apache-2.0
"""The released architecture with generated weights: names, shapes, head counts and dims.

Full size (651 M weights, about 3 GB); everything comes from the manifest's tag and sizes.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from occany_core.bench.golden.checklist import Checklist, Stage
from occany_core.bench.golden.recipe import Recipe
from occany_core.bench.golden.reconstruction import (
    Stages,
    levels,
    memory_rows,
    rendered,
)
from occany_core.bench.golden.recorder import Recorder
from occany_core.checkpoints.released import (
    published_shapes,
    state_dict_from_released,
    used_shapes,
)
from occany_core.network import NetworkConfig, OccAnyNetwork
from occany_core.network.novel_view_encoder import conditioning_channels

_ROWS = re.compile(r"mem\.(\d+)\.tokens_(\d+(?:_\d+)*)_of_each_frame")
_LEVEL = re.compile(r"(\w+)\.(sam\d+)_s(\d+)")


@dataclass(frozen=True)
class ReleasedSet:
    """Where a set lies and what its manifest says."""

    path: Path
    """The manifest."""
    manifest: dict

    @classmethod
    def recognised(cls, path: Path, manifest: dict) -> "ReleasedSet | None":
        """Take a manifest without dims, but with checksums of all parts."""
        checksums = manifest.get("recipe_checksums")
        described = "config" not in manifest and isinstance(checksums, dict)
        described = described and all(isinstance(manifest.get(k), int) for k in "BFHWV")
        return cls(path, manifest) if described else None

    @property
    def data(self) -> Path:
        """Path of the file with the arrays."""
        stem = self.path.name.removesuffix("_manifest.json")
        return self.path.with_name(f"{stem}.safetensors")

    def files(self) -> list[Path]:
        """Return the files that exist."""
        return [self.data] if self.data.is_file() else []


def check(golden: ReleasedSet) -> list[Stage]:
    """Build the released architecture and compare its stages.

    Raises:
        InputError: A file of the set is damaged, or its weights cannot be generated.
    """
    manifest = golden.manifest
    checklist = Checklist.of(golden.data, manifest.get("noise"))
    checklist.listed(manifest.get("tensors", {}))
    recipe, config = Recipe(golden.path.parent), NetworkConfig()
    stages = list(_generator(recipe, config, manifest))
    network = _generated(recipe, config, manifest["tag"])
    sizes = {name: manifest[name] for name in "BFHWV"}
    images = recipe.input(
        manifest["tag"], "images", (sizes["B"], sizes["F"], 3, sizes["H"], sizes["W"])
    )
    channels = sum(conditioning_channels(config).values())
    shape = (sizes["B"], sizes["V"], sizes["H"], sizes["W"], channels)
    projected = recipe.input(manifest["tag"], "cond", shape).permute(0, 1, 4, 2, 3)
    with torch.inference_mode():
        checklist.agree(_selected(_run(network, images, projected), checklist.arrays))
    return stages + checklist.report()


def _of_part(shapes: Mapping[str, tuple[int, ...]], part: str) -> dict[str, tuple[int, ...]]:
    start = f"{part}/"
    return {n.removeprefix(start): s for n, s in shapes.items() if n.startswith(start)}


def _generator(recipe: Recipe, config: NetworkConfig, manifest: Mapping) -> Iterator[Stage]:
    shapes = published_shapes(config)
    for part, expected in manifest["recipe_checksums"].items():
        yield recipe.checksums(f"{manifest['tag']}/{part}", _of_part(shapes, part), expected)


def _generated(recipe: Recipe, config: NetworkConfig, tag: str) -> OccAnyNetwork:
    """Fill a network tensor by tensor: at no time are the weights there twice."""
    with torch.device("meta"):
        network = OccAnyNetwork(config)
    for name, shape in used_shapes(config).items():
        part, _, key = name.partition("/")
        weight = recipe.weight(f"{tag}/{part}", key, shape)
        renamed = state_dict_from_released({part: {key: weight}})
        network.load_state_dict(renamed, strict=False, assign=True)
    return network.eval().requires_grad_(False)


def _run(network: OccAnyNetwork, images: Tensor, projected: Tensor) -> Stages:
    tokens = network.encode(images)
    _, features = network.update_memory_online(tokens)
    online = network.decode_online(tokens, features, with_segmentation=False)
    memory = network.update_memory(tokens)
    stages = {"enc.tokens": tokens.tokens, "memory_pass.pose": online.pose_encoding}
    for layer in range(len(memory.keys)):
        rows = memory_rows(memory, layer)
        stages[f"mem.{layer}"] = rows.unflatten(1, (images.shape[1], -1))
    passes = {"render": (network.decoder, network.heads, lambda: network.render(tokens, memory))}
    with Recorder({"encoder": network.novel_view_encoder}) as seen:
        novel = network.tokenize(projected)
        passes["gen"] = (
            network.novel_view_decoder,
            network.novel_view_heads,
            lambda: network.render_novel(novel, tokens, memory),
        )
        for name, (decoder, heads, run) in passes.items():
            render, raw = rendered(decoder, heads, run)
            stages |= {f"{name}.raw": render["raw"], f"{name}.pose": raw.pose_encoding}
            stages |= levels(f"{name}.", raw)
    return stages | {"gen.x_ray": seen.outputs["encoder"][0]}


def _selected(stages: Stages, golden: Mapping[str, Tensor]) -> Stages:
    """Add what the set keeps of large arrays: some tokens of each frame, every n-th cell."""
    found = dict(stages)
    for name in golden:
        if rows := _ROWS.fullmatch(name):
            tokens = [int(token) for token in rows[2].split("_")]
            found[name] = stages[f"mem.{rows[1]}"][:, :, tokens]
        elif level := _LEVEL.fullmatch(name):
            step = int(level[3])
            found[name] = stages[f"{level[1]}.{level[2]}"][..., ::step, ::step]
    return found
