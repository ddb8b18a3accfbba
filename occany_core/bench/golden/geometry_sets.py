# SPDX-License-Identifier: Apache-2.0
"""Closed-form geometry: `geometry.safetensors` and `cameras_projection.npz`.

Activations, focal length, registration, pose head, inverses, rotary positions, ray maps, drawing.
"""

from pathlib import Path

import torch
from torch import Tensor

from occany_core import camera, rigid
from occany_core.bench.golden.checklist import Checklist, Stage
from occany_core.bench.golden.manifest import read_manifests
from occany_core.bench.golden.reconstruction import activated
from occany_core.network.point_activation import confidence_from_logit, exponential_points
from occany_core.network.rope import RotaryTable
from occany_core.poses import encoding_from_pose, estimate_focal, pose_from_encoding, register
from occany_core.projection import SourceFeatures, project_points

RELATIVE_POSE_TOLERANCE = 1e-3
"""For poses and focal lengths of the inference set, from its description."""
TOLERANCE = 1e-4
"""For everything else there, absolute."""
DENSE = 4
"""Features that every source pixel carries at full size."""


def check_geometry(path: Path) -> list[Stage]:
    """Compare `geometry.safetensors`; its cases are whatever has a `.raw`."""
    checklist = Checklist.of(path)
    for manifest in read_manifests(path.parent).values():
        if path.stem in manifest.get("tensors", {}):
            checklist.listed(manifest["tensors"][path.stem])
    poses = pose_from_encoding(checklist.given("pose_out"))
    for name in [name for name in checklist.arrays if name.endswith(".raw")]:
        _check_case(checklist, name.removesuffix(".raw"), poses)
    checklist.agree({"affine_inverse.out": rigid.invert(checklist.arrays["noisy.c2w"])})
    _check_rope(checklist)
    _check_ray_map(checklist)
    return checklist.report()


def _check_case(checklist: Checklist, case: str, poses: Tensor) -> None:
    raw = checklist.given(f"{case}.raw")
    checklist.agree(activated(case, raw) | {f"{case}.c2w_pose": poses})
    points, points_cam = (exponential_points(raw[..., i : i + 3], longest=None) for i in (0, 3))
    focal = estimate_focal(points_cam[:, 0])
    ours = {
        f"{case}.norm_exp.pts3d": points,
        f"{case}.norm_exp.pts3d_local": points_cam,
        f"{case}.norm_exp.focal": focal[:, None].expand(raw.shape[:2]),
    }
    if f"{case}.norm_exp.c2w" in checklist.arrays:
        confidence = confidence_from_logit(raw[..., 6])
        ours[f"{case}.norm_exp.c2w"] = register(points, points_cam, confidence)
    if f"{case}.post_pose_absT_quaR" in checklist.arrays:
        encoding = encoding_from_pose(checklist.arrays[f"{case}.c2w"])
        ours[f"{case}.post_pose_absT_quaR"] = encoding
    checklist.agree(ours)


def _check_rope(checklist: Checklist) -> None:
    heads, positions = checklist.given("rope.in"), checklist.given("rope.pos").long()
    tables = [RotaryTable(one, heads.shape[-1]) for one in positions]
    rotated = [table.rotate(one) for table, one in zip(tables, heads, strict=True)]
    checklist.agree({"rope.out": torch.stack(rotated)})


def _check_ray_map(checklist: Checklist) -> None:
    """The poses of the map are those of the case without noise."""
    fx, fy, cx, cy = checklist.given("raymap.fxfycxcy").unbind(-1)
    K = torch.eye(3).repeat(*fx.shape, 1, 1)
    K[..., 0, 0], K[..., 1, 1], K[..., 0, 2], K[..., 1, 2] = fx, fy, cx, cy
    size = tuple(checklist.arrays["raymap.out"].shape[-2:])
    ours = camera.pluecker_map(K, checklist.arrays["clean.c2w"], size)
    checklist.agree({"raymap.out": ours})


def check_cameras_projection(path: Path) -> list[Stage]:
    """Compare cameras and drawn pictures of the inference set."""
    checklist = Checklist.of(path)
    _check_cameras(checklist)
    _check_drawn(checklist)
    _check_intrinsics(checklist)
    _check_world_to_camera(checklist)
    return checklist.report()


def _close(checklist: Checklist, name: str, ours: Tensor) -> None:
    """Compare poses or focal lengths."""
    largest = checklist.arrays[name].abs().max().item()
    checklist.within(name, ours, RELATIVE_POSE_TOLERANCE * largest)


def _check_cameras(checklist: Checklist) -> None:
    raw = checklist.given("raw_head")
    stages = activated("post", raw)
    checklist.within("post/pts3d", raw[..., :3], TOLERANCE)
    checklist.within("post/pts3d_local", raw[..., 3:6], TOLERANCE)
    checklist.within("post/conf", stages["post.conf"], TOLERANCE)
    for name in ("focal", "c2w"):
        _close(checklist, f"post/{name}", stages[f"post.{name}"])


def _check_drawn(checklist: Checklist) -> None:
    """Draw pixels with any number of features behind their points."""
    carried = checklist.given("proj/features")
    poses = checklist.given("proj/gen_c2w")
    points, features = carried[..., :3], carried[..., 3:].permute(0, 1, 4, 2, 3)
    padding = features.new_zeros(*features.shape[:2], DENSE, *features.shape[3:])
    rest = (features[:, :, DENSE:],) if features.shape[2] > DENSE else ()
    source = SourceFeatures(torch.cat((features, padding), dim=2)[:, :, :DENSE], rest)
    focal = checklist.given("proj/focal")
    K = camera.pinhole(focal, *points.shape[2:4])[:, None].expand(*poses.shape[:2], 3, 3)
    drawn = project_points(points, source, K, poses).permute(0, 1, 3, 4, 2)
    channels = checklist.arrays["proj/cond"].shape[-1]
    checklist.within("proj/cond", drawn[..., :channels], TOLERANCE)


def _check_intrinsics(checklist: Checklist) -> None:
    """The size of the picture stands in the principal point alone."""
    focal, golden = checklist.given("intr/focal"), checklist.arrays["intr/K"]
    width, height = (round(2 * v) for v in golden[0, :2, 2].tolist())
    horizontal, vertical = (camera.pinhole(focal[:, i], height, width) for i in (0, 1))
    checklist.within("intr/K_1d", horizontal, TOLERANCE)
    horizontal[:, 1] = vertical[:, 1]
    checklist.within("intr/K", horizontal, TOLERANCE)


def _check_world_to_camera(checklist: Checklist) -> None:
    """The focal length comes with the points of this format; nothing here determines it."""
    checklist.given("da3fmt/focal")
    world_from_cam = checklist.given("da3fmt/c2w34")
    points = checklist.given("da3fmt/pointmap")
    world_from_cam = rigid.compose(world_from_cam[..., :3], world_from_cam[..., 3])
    ours = rigid.apply(rigid.invert(world_from_cam), points.flatten(2, 3))
    checklist.within("da3fmt/pts3d_local", ours, TOLERANCE)


CHECKS = {
    "*geometry.safetensors": check_geometry,
    "*cameras_projection.npz": check_cameras_projection,
}
