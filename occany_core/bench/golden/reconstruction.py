# SPDX-License-Identifier: Apache-2.0
"""Stages of reconstruction under the names that network sets use (golden/README).

`B` scenes, `F` frames, `T` tokens of a frame with the pose token. Arrays of several scenes lie
scene after scene, then frame after frame.
"""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

from occany_core.bench.golden.recorder import Recorder
from occany_core.network import OccAnyNetwork, RawMaps, SceneMemory, Tokens
from occany_core.network.decoder import Decoder
from occany_core.network.heads import Heads
from occany_core.network.occany import FIRST_GROUP
from occany_core.network.point_activation import confidence_from_logit, exponential_points
from occany_core.network.rope import grid_positions
from occany_core.poses import estimate_focal, pose_from_encoding, register

SEGMENTATION = ("sam256", "sam64", "sam32")
"""Names of the coarse, middle and fine level."""
Stages = dict[str, Tensor]


def reconstruction(network: OccAnyNetwork, images: Float[Tensor, "B F 3 H W"]) -> Stages:
    """Run everything up to the raw maps: encoder, both decoder passes, one frame alone."""
    stages, tokens = _encoder(network, images)
    stages |= _memory_pass(network, tokens)
    memory = network.update_memory(tokens)
    render, raw = rendered(network.decoder, network.heads, lambda: network.render(tokens, memory))
    stages |= {f"render.{name}": stage for name, stage in render.items()}
    stages |= {"render.pose": raw.pose_encoding} | levels("render.", raw)
    return stages | _single(network, tokens.views(slice(0, 1)))


def after_network(golden: Mapping[str, Tensor]) -> Stages:
    """Compute activations, focal length and poses, each from the raw maps of the set."""
    stages = activated("post", golden["render.raw"])
    stages["post.c2w_pose"] = pose_from_encoding(golden["render.pose"])
    if "single.raw" in golden:
        points = exponential_points(golden["single.raw"][..., :3], longest=None)
        stages["post.norm_exp.pts3d"] = points
    return stages


def activated(name: str, raw: Float[Tensor, "B V H W C"]) -> Stages:
    """Turn raw maps into confidence, colour, focal length and registered poses."""
    confidence = confidence_from_logit(raw[..., 6])
    focal = estimate_focal(raw[:, 0, ..., 3:6])
    return {
        f"{name}.conf": confidence,
        f"{name}.rgb": colour(raw[..., 7:10]),
        f"{name}.focal": focal[:, None].expand(raw.shape[:2]),
        f"{name}.c2w": register(raw[..., :3], raw[..., 3:6], confidence),
    }


def colour(raw: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 3"]:
    """Activate the colour head (spec 8), which only golden sets evaluate."""
    return 2 * (raw.sigmoid() * (1 - 2e-6) + 1e-6) - 1


def memory_rows(memory: SceneMemory, layer: int) -> Float[Tensor, "B M two_D"]:
    """Return keys and values side by side, head after head, as sets store them."""
    parts = (memory.keys[layer], memory.values[layer])
    return torch.cat([part.transpose(1, 2).flatten(2) for part in parts], dim=-1)


def rendered(decoder: Decoder, heads: Heads, run: Callable[[], RawMaps]) -> tuple[Stages, RawMaps]:
    """Record the read-only pass of a decoder: blocks, final norm and raw maps."""
    modules = {f"blk{i}": block for i, block in enumerate(decoder.blocks)}
    with Recorder(modules | {"norm": decoder.norm, "points": heads.points}) as seen:
        raw = run()
    stages = {name: seen.outputs[name][0] for name in (*modules, "norm")}
    sizes, grid = raw.confidence.shape[:2], _grid(heads, raw)
    stages["raw"] = raw_channels(heads, seen.outputs["points"][0], stages["norm"], grid)
    stages["raw"] = stages["raw"].unflatten(0, sizes)
    return stages, raw


def raw_channels(
    heads: Heads,
    points: Float[Tensor, "G 7 H W"],
    features: Float[Tensor, "G T D"],
    grid: tuple[int, int],
) -> Float[Tensor, "G H W C"]:
    """Put the colour channels, which inference never needs, behind those of the point head."""
    maps = [points]
    if heads.rgb is not None:
        maps.append(heads.rgb(features[:, 1:] + heads.rgb_token, grid))
    return torch.cat(maps, dim=1).permute(0, 2, 3, 1)


def _grid(heads: Heads, raw: RawMaps) -> tuple[int, int]:
    height, width = raw.confidence.shape[-2:]
    return height // heads.points.patch_size, width // heads.points.patch_size


def levels(name: str, raw: RawMaps) -> Stages:
    """Return the promptable features, each level under its name."""
    names = (f"{name}{level}" for level in SEGMENTATION)
    return dict(zip(names, raw.segmentation, strict=False))


def _encoder(network: OccAnyNetwork, images: Tensor) -> tuple[Stages, Tokens]:
    blocks = {f"enc.blk{i}": block for i, block in enumerate(network.encoder.blocks)}
    with Recorder(blocks | {"stem": network.encoder.stem.proj}) as seen:
        tokens = network.encode(images)
    stages = {name: seen.outputs[name][0] for name in blocks}
    stages["enc.patch"] = seen.outputs["stem"][0].flatten(2).transpose(1, 2)
    stages["enc.tokens"] = tokens.tokens
    positions = grid_positions(*tokens.grid, images.device)
    stages["enc.pos"] = positions.expand(*images.shape[:2], -1, -1)
    return stages, tokens


def _watched(decoder: Decoder) -> dict[str, nn.Module]:
    modules = {"norm": decoder.norm, "feedback": decoder.feedback}
    for i, block in enumerate(decoder.blocks):
        modules |= {
            f"blk{i}": block,
            f"blk{i}.self": block.self_attention,
            f"blk{i}.cross": block.memory_attention,
            f"blk{i}.mlp": block.mlp,
            f"blk{i}.pose_inject": block.pose_injection,
        }
    return modules


def _memory_pass(network: OccAnyNetwork, tokens: Tokens) -> Stages:
    """Record what each group of frames gives while the memory is built."""
    watched = _watched(network.decoder)
    with Recorder(watched) as seen:
        _, features = network.update_memory_online(tokens)
    memory = network.update_memory(tokens)  # the way inference goes
    online = online_maps(network, tokens, features)
    frames, per_frame = features.shape[1:3]
    stages, start = {}, 0
    for step, views in enumerate(group_sizes(frames)):
        end = start + views
        stages |= {f"step{step}.{name}": seen.outputs[name][step] for name in watched}
        for name, maps in online.items():
            stages[f"step{step}.{name}"] = maps[:, start:end]
        for layer in range(len(memory.keys)):
            rows = memory_rows(memory, layer)[:, start * per_frame : end * per_frame]
            stages[f"step{step}.mem_new.{layer}"] = rows
        labels = torch.arange(end).repeat_interleave(per_frame)
        stages[f"step{step}.mem_labels"] = labels.expand(len(features), -1)
        start = end
    return stages


def group_sizes(frames: int) -> list[int]:
    """Return how many frames are written together, group after group (spec 6.4)."""
    first = min(FIRST_GROUP, frames)
    return [first, *[1] * (frames - first)]


def online_maps(network: OccAnyNetwork, tokens: Tokens, features: Tensor) -> Stages:
    """Run the heads on what the decoder saw while the memory was built."""
    with Recorder({"points": network.heads.points}) as seen:
        raw = network.decode_online(tokens, features)
    sizes = features.shape[:2]
    flat = features.flatten(0, 1)
    maps = raw_channels(network.heads, seen.outputs["points"][0], flat, tokens.grid)
    stages = {"raw": maps.unflatten(0, sizes), "pose": raw.pose_encoding}
    return stages | levels("", raw)


def _single(network: OccAnyNetwork, tokens: Tokens) -> Stages:
    """Reconstruct one frame alone, which sees itself."""
    _, features = network.update_memory_online(tokens)
    memory = network.update_memory(tokens)
    stages = {f"single.{k}": v for k, v in online_maps(network, tokens, features).items()}
    for layer in range(len(memory.keys)):
        stages[f"single.mem.{layer}"] = memory_rows(memory, layer)
    render, raw = rendered(network.decoder, network.heads, lambda: network.render(tokens, memory))
    stages |= levels("single.render_", raw)
    return stages | {"single.render_raw": render["raw"], "single.render_pose": raw.pose_encoding}
