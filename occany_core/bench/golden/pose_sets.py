# SPDX-License-Identifier: Apache-2.0
"""Novel poses and the z-buffer: `ttva_poses.npz` and `poses_zbuffer.safetensors`."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from occany_core import camera
from occany_core.bench.golden.checklist import Checklist, Stage
from occany_core.bench.golden.manifest import manifest_with
from occany_core.config import NovelViewsConfig
from occany_core.novel_views import ProposedViews, propose_views
from occany_core.projection import nearest_points

TTVA_TOLERANCE = 1e-5
"""Absolute, from the description of the inference sets."""
FLIPS = 0.001
"""Share of pixels at which rounding may choose another point (golden/README)."""
SETTING_NAMES = {
    "steps": ("vpi", "views_per_interval"),
    "forward_step": ("fwd", "forward"),
    "yaw_deg": ("rot", "rotate_angle"),
    "lateral": ("lat", "seed_translation_distance"),
    "seeds": ("nseed", "num_seed_rotations"),
    "seed_step_deg": ("seed_rot", "seed_rotation_angle"),
}
"""Our settings and how sets name them."""


def novel_views_config(settings: Mapping[str, float | None]) -> NovelViewsConfig:
    """Read the settings of a set; what is missing or null is off.

    In seed mode a set's shift is that of the seeds, and the side views have none.
    """
    found = {"steps": 0, "forward_step": 0.0, "yaw_deg": 0.0, "lateral": 0.0, "seeds": 0}
    for ours, names in SETTING_NAMES.items():
        values = [settings[name] for name in names if settings.get(name) is not None]
        if values:
            found[ours] = values[0]
    if found["seeds"] > 0:
        found["seed_lateral"], found["lateral"] = found["lateral"], 0.0
    at_least = {"steps": 0, "yaw_deg": 0.0, "seeds": 1}
    found |= {name: max(found[name], least) for name, least in at_least.items()}
    return NovelViewsConfig(**found)


def ownership(owner: Int[Tensor, " R"]) -> dict[int, list[int]]:
    """Return the novel views of every observed view that has any."""
    return {int(pose): (owner == pose).nonzero()[:, 0].tolist() for pose in owner.unique()}


def check_ttva(path: Path) -> list[Stage]:
    """Compare novel poses, their owners and the subset without turned views, case by case."""
    checklist = Checklist.of(path)
    for case, settings in json.loads(str(checklist.given("meta"))).items():
        config = novel_views_config(settings)
        observed = checklist.given(f"{case}/recon_c2w")
        scenes = [propose_views(scene, config) for scene in observed]
        poses = torch.stack([views.world_from_cam for views in scenes])
        checklist.within(f"{case}/gen_c2w", poses, TTVA_TOLERANCE)
        _check_owners(checklist, case, scenes[0])
    return checklist.report()


def _check_owners(checklist: Checklist, case: str, views: ProposedViews) -> None:
    ours = {
        f"{case}/owner": views.owner,
        f"{case}/semantic_view_ids_nsr": views.unturned.nonzero()[:, 0],
    }
    for pose, owned in ownership(views.owner).items():
        ours[f"{case}/map_{pose}"] = torch.tensor(owned)
    checklist.agree(ours)


def check_poses_zbuffer(path: Path) -> list[Stage]:
    """Compare novel poses with the cases of the manifest, and the z-buffer's edge cases."""
    manifest = manifest_with(path.parent, "posegen")
    checklist = Checklist.of(path)
    checklist.listed(manifest.get("tensors", {}).get(path.stem, {}))
    observed = checklist.given("posegen.c2w")
    for case, settings in manifest["posegen"].items():
        config = novel_views_config(settings)
        scenes = [propose_views(s[: settings["n_input_poses"]], config) for s in observed]
        poses = torch.stack([views.world_from_cam for views in scenes])
        checklist.agree({f"posegen.{case}.poses": poses})
        ours, golden = ownership(scenes[0].owner), settings.get("recon_2_gen", {})
        wrong = [pose for pose, views in golden.items() if ours.get(int(pose)) != views]
        checklist.holds(f"posegen.{case} recon_2_gen", wrong)
    _check_zbuffer(checklist)
    return checklist.report()


def _check_zbuffer(checklist: Checklist) -> None:
    points, poses = checklist.given("zbuffer.points"), checklist.given("zbuffer.poses")
    focal = checklist.given("zbuffer.focal")
    height, width = points.shape[-3:-1]
    winners, seen = [], []
    for scene in range(len(points)):
        K = camera.pinhole(focal[scene : scene + 1].mean(), height, width)
        for pose in poses[scene]:
            winner, in_camera = nearest_points(
                points[scene].reshape(-1, 3), K, pose, height, width
            )
            winners.append(winner)
            seen.append(in_camera[winner.clamp_min(0)].where((winner >= 0)[..., None], 0.0))
    winners, golden = torch.stack(winners), checklist.arrays["zbuffer.index"]
    checklist.exact("zbuffer.index", winners, FLIPS)
    # A point that only rounding chose is not wrong twice.
    flipped = (winners.view_as(golden) != golden)[..., None]
    local = torch.stack(seen).view_as(checklist.arrays["zbuffer.local_xyz"])
    local = torch.where(flipped, checklist.arrays["zbuffer.local_xyz"], local)
    checklist.agree({"zbuffer.local_xyz": local})


CHECKS = {
    "*ttva_poses.npz": check_ttva,
    "*poses_zbuffer.safetensors": check_poses_zbuffer,
}
