# SPDX-License-Identifier: Apache-2.0
"""Stages of rendering under the names that network sets use (golden/README).

Novel poses, projection and tokens start from the reconstruction of the set, not from ours, so that
each stage stands on its own. `B` scenes, `F` frames, `R` novel views.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from occany_core import camera
from occany_core.bench.golden.checklist import Checklist
from occany_core.bench.golden.pose_sets import novel_views_config, ownership
from occany_core.bench.golden.reconstruction import (
    SEGMENTATION,
    Stages,
    activated,
    levels,
    rendered,
)
from occany_core.bench.golden.recorder import Recorder
from occany_core.network import OccAnyNetwork, SceneMemory, Tokens
from occany_core.network.rope import grid_positions
from occany_core.novel_views import propose_views
from occany_core.poses import encoding_from_pose
from occany_core.projection import (
    SourceFeatures,
    nearest_points,
    project_points,
    source_features,
)

FLIPS = 0.001
"""Share of pixels at which rounding may choose another point (golden/README)."""
DENSE = 10
"""Channels of a projected picture before the promptable features."""


def projection(
    manifest: Mapping, recon: Mapping[str, Tensor], render: Checklist
) -> Float[Tensor, "B R C H W"]:
    """Compare novel poses and projected pictures.

    Args:
        manifest: Of the network set.
        recon: Arrays of the reconstruction file.
        render: The rendering file.

    Returns:
        The projected pictures. Where rounding made another point win than in the set, the set's
        winner is taken, so that the stages after it can be compared.
    """
    _check_poses(manifest, recon, render)
    poses, source = render.arrays["poses"], _source(recon)
    focal = recon["post.focal"].mean(dim=1, keepdim=True)
    K = camera.pinhole(focal, *source.points.shape[2:4]).expand(*poses.shape[:2], 3, 3)
    projected = project_points(source.points, source.features, K, poses)
    winners, golden = _winners(source.points, K, poses), render.arrays["proj.index"]
    render.exact("proj.index", winners, FLIPS)
    projected = _with_winners(projected, winners != golden, golden, source, poses)
    maps = projected.permute(0, 1, 3, 4, 2)
    chosen = render.given("proj.cond_sam_sel_channels").long()
    scenes, frames = render.arrays["proj.resized_sam_sel"].shape[:2]
    resized = _first_frame(source.features)[:scenes, :frames]
    render.agree(
        {
            "proj.cond10": maps[..., :DENSE],
            "proj.cond_sam_sel": maps[..., chosen],
            "proj.resized_sam_sel": resized[..., chosen - DENSE],
        }
    )
    return projected


def rendering(
    network: OccAnyNetwork,
    projected: Float[Tensor, "B R C H W"],
    observed: Tokens,
    memory: SceneMemory,
    golden: Mapping[str, Tensor],
) -> Stages:
    """Run tokenizer, rendering encoder and rendering decoder.

    Args:
        network: With the weights of the set.
        projected: From `projection`.
        observed: Tokens of the observed frames.
        memory: Of the observed frames.
        golden: Arrays of the rendering file, for what follows the raw maps.
    """
    encoder = network.novel_view_encoder
    with Recorder({"merge": encoder.merge, "encoder": encoder}) as seen:
        tokens = network.tokenize(projected)
        render, raw = rendered(
            network.novel_view_decoder,
            network.novel_view_heads,
            lambda: network.render_novel(tokens, observed, memory),
        )
    merged = seen.inputs["merge"][0]
    positions = grid_positions(*observed.grid, projected.device)
    stages = {
        "gen.tokens_cat": merged[: len(golden.get("gen.tokens_cat", merged))],
        "gen.tokens_proj": tokens,
        "gen.x_ray": seen.outputs["encoder"][0],
        "gen.pos_ray": positions.expand(*tokens.shape[:2], -1, -1),
        "gen.pose_head": raw.pose_encoding,
        "gen.raw": render.pop("raw"),
    }
    stages |= {f"gen.dec.{name}": stage for name, stage in render.items()}
    stages |= levels("gen.", raw) | activated("gen.post", golden["gen.raw"])
    stages["gen.post.pose_absT_quaR"] = encoding_from_pose(golden["poses"])
    return stages


def _check_poses(manifest: Mapping, recon: Mapping[str, Tensor], render: Checklist) -> None:
    settings = manifest["config"]
    config = novel_views_config(settings)
    proposed = [propose_views(scene, config) for scene in recon["post.c2w"]]
    every = torch.stack([views.world_from_cam for views in proposed])
    render.agree({"all_poses": every, "poses": every[:, settings["gen_sel"]]})
    if "recon_2_gen" in manifest:
        ours = ownership(proposed[0].owner)
        golden = {int(pose): views for pose, views in manifest["recon_2_gen"].items()}
        render.holds("recon_2_gen", [pose for pose in golden if ours.get(pose) != golden[pose]])


@dataclass(frozen=True)
class Source:
    """What is drawn into novel views."""

    points: Float[Tensor, "B F H W 3"]
    features: SourceFeatures


def _source(recon: Mapping[str, Tensor]) -> Source:
    sizes = recon["img"].shape[:2]
    maps = [recon[f"render.{level}"] for level in SEGMENTATION if f"render.{level}" in recon]
    maps = [level.reshape(*sizes, *level.shape[-3:]) for level in maps]
    features = source_features(recon["img"], recon["post.conf"], tuple(maps))
    return Source(recon["render.raw"][..., :3], features)


def _winners(points: Tensor, K: Tensor, poses: Tensor) -> Int[Tensor, "B R H W"]:
    height, width = points.shape[2:4]
    winners = [
        nearest_points(points[b].reshape(-1, 3), K[b, r], poses[b, r], height, width)[0]
        for b in range(len(points))
        for r in range(poses.shape[1])
    ]
    return torch.stack(winners).unflatten(0, poses.shape[:2])


def _with_winners(
    projected: Float[Tensor, "B R C H W"],
    different: Bool[Tensor, "B R H W"],
    golden: Int[Tensor, "B R H W"],
    source: Source,
    poses: Float[Tensor, "B R 4 4"],
) -> Float[Tensor, "B R C H W"]:
    """Put the set's winner where ours differs."""
    projected = projected.clone()
    for b, r, y, x in different.nonzero().tolist():
        at = int(golden[b, r, y, x])
        pixel = projected.new_zeros(projected.shape[2])
        if at >= 0:
            point = source.points[b].reshape(-1, 3)[at]
            in_camera = (point - poses[b, r, :3, 3]) @ poses[b, r, :3, :3]
            dense = source.features.dense[b].movedim(1, -1).reshape(-1, DENSE - 6)[at]
            promptable = _at_pixels(source.features, b, torch.tensor([at]))[0]
            pixel = torch.cat((in_camera, point, dense, promptable))
        projected[b, r, :, y, x] = pixel
    return projected


def _at_pixels(
    features: SourceFeatures, scene: int, pixels: Int[Tensor, " P"]
) -> Float[Tensor, "P C"]:
    """Return the promptable features of source pixels, all levels side by side."""
    one = torch.ones(len(pixels))
    picked = [features.level_at(scene, i, pixels, one) for i in range(len(features.levels))]
    return torch.cat(picked, dim=1)


def _first_frame(features: SourceFeatures) -> Float[Tensor, "B 1 H W C"]:
    """Return the promptable features of frame 0 at the size of the picture."""
    height, width = features.dense.shape[-2:]
    pixels = torch.arange(height * width)
    scenes = [_at_pixels(features, scene, pixels) for scene in range(len(features.dense))]
    return torch.stack(scenes).unflatten(1, (1, height, width))
