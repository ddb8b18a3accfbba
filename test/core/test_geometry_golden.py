# SPDX-License-Identifier: Apache-2.0
"""Focal, registration, poses and z-buffer equal the released function."""

import json

import golden_set as golden
import numpy as np
import pytest
import torch

from occany_core import camera, rigid
from occany_core.config import NovelViewsConfig
from occany_core.network.heads import confidence_from_logit
from occany_core.network.rope import RotaryTable, grid_positions
from occany_core.novel_views import propose_views
from occany_core.poses import estimate_focal, pose_from_encoding, register
from occany_core.projection import nearest_points

pytestmark = golden.needs_reference
INFERENCE = golden.REFERENCE / "golden_inference"


@pytest.fixture(scope="module")
def geometry() -> dict[str, torch.Tensor]:
    return golden.tensors("geometry")


@pytest.mark.parametrize("case", ["clean", "noisy", "zero_neg_depth", "mirrored"])
def test_focal_and_registration(geometry, case):
    raw = geometry[f"{case}.raw"]
    focal = estimate_focal(raw[:, 0, ..., 3:6])
    torch.testing.assert_close(focal, geometry[f"{case}.focal"][:, 0], rtol=5e-5, atol=1e-4)
    poses = register(raw[..., :3], raw[..., 3:6], confidence_from_logit(raw[..., 6]))
    torch.testing.assert_close(poses, geometry[f"{case}.c2w"], rtol=5e-5, atol=5e-5)
    assert torch.det(poses[..., :3, :3]).min() > 0


def test_inverse_and_pose_head(geometry):
    inverse = rigid.invert(geometry["noisy.c2w"])
    torch.testing.assert_close(inverse, geometry["affine_inverse.out"], rtol=0, atol=1e-5)
    poses = pose_from_encoding(geometry["pose_out"])
    torch.testing.assert_close(poses, geometry["clean.c2w_pose"], rtol=0, atol=1e-5)


def test_rotary_embedding(geometry):
    names = sorted(key for key in geometry if key.startswith("rope."))
    source, positions, rotated = (
        geometry[next(n for n in names if n.endswith(end))] for end in ("in", "pos", "out")
    )
    for one, where, expected in zip(source, positions, rotated, strict=True):
        table = RotaryTable(where.long(), source.shape[-1])
        torch.testing.assert_close(table.rotate(one), expected, rtol=0, atol=1e-5)
    assert grid_positions(2, 3, source.device).tolist()[3] == [1, 0]


CASES = (
    json.loads(str(np.load(INFERENCE / "ttva_poses.npz")["meta"])) if INFERENCE.is_dir() else {}
)


@pytest.mark.parametrize("case", [name for name, c in CASES.items() if not c.get("nseed")])
def test_novel_view_poses(case):
    settings = CASES[case]
    with np.load(INFERENCE / "ttva_poses.npz") as file:
        seen, expected = file[f"{case}/recon_c2w"], file[f"{case}/gen_c2w"]
        owner = file[f"{case}/owner"]
    config = NovelViewsConfig(
        steps=max(settings["vpi"], 0),
        forward_step=settings["fwd"],
        yaw_deg=settings["rot"] or 0.0,
        lateral=settings["lat"] or 0.0,
    )
    for scene, poses in enumerate(torch.from_numpy(seen).float()):
        views = propose_views(poses, config)
        torch.testing.assert_close(
            views.world_from_cam, torch.from_numpy(expected[scene]).float(), rtol=0, atol=1e-5
        )
        assert views.owner.tolist() == owner.tolist()


def test_z_buffer_edge_cases():
    fixture = golden.tensors("poses_zbuffer")
    points = fixture["zbuffer.points"]
    height, width = points.shape[2:4]
    K = camera.pinhole(fixture["zbuffer.focal"].mean(), height, width)
    for view, pose in enumerate(fixture["zbuffer.poses"].view(-1, 4, 4)):
        winner, points_cam = nearest_points(points.reshape(-1, 3), K, pose, height, width)
        expected = fixture["zbuffer.index"].view(-1, height, width)[view]
        assert torch.equal(winner, expected.long())
        hit = winner >= 0
        local = fixture["zbuffer.local_xyz"].view(-1, height, width, 3)[view]
        torch.testing.assert_close(points_cam[winner[hit]], local[hit], rtol=1e-5, atol=1e-5)
