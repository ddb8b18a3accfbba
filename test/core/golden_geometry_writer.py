# SPDX-License-Identifier: Apache-2.0
"""Writes golden sets of closed-form geometry, with other cases, sizes and batches."""

import json

import numpy as np
import torch
from golden_writer import encoded, norm_exp, post
from plain_geometry import drawn, novel_poses, placed, rotation_of
from safetensors.torch import save_file

CASES = {  # name: settings, number of observed poses
    "line": ({"vpi": 3, "fwd": 1.5}, 2),
    "sides": ({"vpi": 2, "fwd": 2, "rot": 50, "lat": 1.2}, 3),
    "none": ({"vpi": 0, "fwd": 2, "rot": 50, "lat": 1.2}, 2),
    "one_seed": ({"vpi": 1, "fwd": 1, "rot": 25, "lat": 0.7, "nseed": 1}, 2),
    "seeds": ({"vpi": 1, "fwd": 1, "rot": 25, "lat": 0.7, "nseed": 4, "seed_rot": 12}, 2),
}
LONG_NAMES = {
    "vpi": "views_per_interval", "fwd": "forward", "rot": "rotate_angle",
    "lat": "seed_translation_distance", "nseed": "num_seed_rotations",
    "seed_rot": "seed_rotation_angle",
}  # fmt: skip


def poses(rng, number):
    return np.array(
        [placed(rotation_of(rng.normal(size=4)), rng.normal(size=3)) for _ in range(number)]
    )


def around(observed, settings):
    """Poses, owners, and indices of the first third of each owner's views."""
    named = {"step" if k == "seed_rot" else k: v for k, v in settings.items()}
    found, owner = novel_poses(observed, **named)
    share = 3 if settings.get("rot") else 1
    lists = {i: [k for k, who in enumerate(owner) if who == i] for i in range(len(observed))}
    kept = sorted(k for views in lists.values() for k in views[: len(views) // share])
    return found.reshape(-1, 4, 4), owner, {i: v for i, v in lists.items() if v}, kept


def write_ttva(folder, seed=5, scenes=2):
    rng, arrays, meta = np.random.default_rng(seed), {}, {}
    for case, (settings, number) in CASES.items():
        meta[case] = {"lat": None} | settings
        observed = np.array([poses(rng, number) for _ in range(scenes)])
        results = [around(scene, settings) for scene in observed]
        _, owner, lists, kept = results[0]
        arrays |= {
            f"{case}/recon_c2w": observed.astype(np.float32),
            f"{case}/gen_c2w": np.array([r[0] for r in results]).astype(np.float32),
            f"{case}/owner": np.array(owner, dtype=np.int64),
            f"{case}/semantic_view_ids_nsr": np.array(kept, dtype=np.int64),
        }
        arrays |= {f"{case}/map_{i}": np.array(views) for i, views in lists.items()}
    np.savez(folder / "ttva_poses.npz", meta=np.array(json.dumps(meta)), **arrays)


def pointmaps(rng, scenes, frames, height, width):
    """Raw maps (B, V, H, W, 10) of a scene with some noise, and the true poses."""
    rows, columns = np.indices((height, width))
    true = np.array([[poses(rng, 1)[0] for _ in range(frames)] for _ in range(scenes)])
    depth = rng.uniform(3, 9, (scenes, frames, height, width, 1))
    slopes = np.stack((columns - width / 2, rows - height / 2, np.full_like(rows, 30)), -1) / 30
    local = slopes * depth + rng.normal(0, 0.02, (scenes, frames, height, width, 3))
    world = np.einsum("bvij,bvhwj->bvhwi", true[..., :3, :3], local)
    world += true[..., None, None, :3, 3] + rng.normal(0, 0.02, world.shape)
    rest = rng.normal(0, 0.7, (scenes, frames, height, width, 4))
    return torch.from_numpy(np.concatenate((world, local, rest), -1)).float()


def rotated(heads, positions):
    """Rotary embedding, element by element."""
    out, width = np.zeros(heads.shape), heads.shape[-1]
    quarter = width // 4
    for b, h, n in np.ndindex(heads.shape[:3]):
        for half in range(2):
            for j in range(quarter):
                angle = positions[b, n, half] * 100 ** (-2 * j / (width / 2))
                u, v = (heads[b, h, n, half * 2 * quarter + j + k * quarter] for k in (0, 1))
                turned = (
                    u * np.cos(angle) - v * np.sin(angle),
                    v * np.cos(angle) + u * np.sin(angle),
                )
                for k in (0, 1):
                    out[b, h, n, half * 2 * quarter + j + k * quarter] = turned[k]
    return out


def ray_map(intrinsics, cameras, height, width):
    """Moment and direction of the ray through the middle of every pixel."""
    out = np.zeros((*intrinsics.shape[:2], 6, height, width))
    for b, v, row, column in np.ndindex(*intrinsics.shape[:2], height, width):
        fx, fy, cx, cy = intrinsics[b, v]
        slope = np.clip([(column + 0.5 - cx) / fx, (row + 0.5 - cy) / fy, 1], -1, 1)
        direction = cameras[b, v, :3, :3] @ (slope / np.linalg.norm(slope))
        out[b, v, :3, row, column] = np.cross(cameras[b, v, :3, 3], direction)
        out[b, v, 3:, row, column] = direction
    return out


def geometry_arrays(seed=9, scenes=1, frames=2, height=20, width=12):
    rng, arrays = np.random.default_rng(seed), {}
    for case in ("clean", "noisy", "upright"):
        raw = pointmaps(rng, scenes, frames, height, width)
        arrays |= {f"{case}.raw": raw} | post(case, raw)
    arrays["noisy.norm_exp.pts3d"] = norm_exp(arrays["noisy.raw"][..., :3])
    arrays["noisy.norm_exp.pts3d_local"] = norm_exp(arrays["noisy.raw"][..., 3:6])
    quaternions = rng.normal(size=(scenes, frames, 7))
    arrays["pose_out"] = torch.from_numpy(quaternions)
    heads = [placed(rotation_of(q[3:]), q[:3]) for q in quaternions.reshape(-1, 7)]
    for case in ("clean", "upright"):
        arrays[f"{case}.c2w_pose"] = torch.from_numpy(np.array(heads)).view(scenes, frames, 4, 4)
    cameras = arrays["noisy.c2w"].double()
    arrays["affine_inverse.out"] = torch.linalg.inv(cameras)
    arrays["noisy.post_pose_absT_quaR"] = torch.stack([encoded(scene) for scene in cameras])
    arrays["rope.in"] = torch.from_numpy(rng.normal(size=(2, 3, 5, 16)))
    arrays["rope.pos"] = torch.from_numpy(rng.integers(0, 9, (2, 5, 2)))
    turned = rotated(arrays["rope.in"].numpy(), arrays["rope.pos"].numpy())
    arrays["rope.out"] = torch.from_numpy(turned)
    intrinsics = np.array([[[9.0, 8.0, 5.5, 7.0]] * frames] * scenes)
    arrays["raymap.fxfycxcy"] = torch.from_numpy(intrinsics)
    arrays["raymap.out"] = torch.from_numpy(
        ray_map(intrinsics, arrays["clean.c2w"].double().numpy(), 14, 30)
    )
    return arrays


def zbuffer_arrays(seed=3, scenes=2):
    """Poses of every case and points drawn, with ties and points behind."""
    rng, arrays = np.random.default_rng(seed), {}
    observed = np.array([poses(rng, 3) for _ in range(scenes)])
    arrays["posegen.c2w"] = torch.from_numpy(observed)
    described = {}
    for case, (settings, number) in CASES.items():
        results = [around(scene[:number], settings) for scene in observed]
        arrays[f"posegen.{case}.poses"] = torch.from_numpy(np.array([r[0] for r in results]))
        described[case] = {LONG_NAMES[name]: value for name, value in settings.items()}
        described[case] |= {"n_input_poses": number, "recon_2_gen": results[0][2]}
    points = torch.from_numpy(rng.normal(0, 3, (scenes, 2, 9, 5, 3))).float()
    points[:, 1, :4] = points[:, 0, :4]
    views = torch.from_numpy(np.array([poses(rng, 3) for _ in range(scenes)])).float()
    focal = torch.tensor([6.0, 7.5][:scenes])
    index, local = [], []
    for b in range(scenes):
        for view in views[b]:
            winner, seen = drawn(points[b].reshape(-1, 3), focal[b], view, 9, 5)
            index.append(winner)
            local.append(seen[winner.clamp_min(0)] * (winner >= 0)[..., None])
    arrays |= {"zbuffer.points": points, "zbuffer.poses": views, "zbuffer.focal": focal}
    arrays["zbuffer.index"] = torch.stack(index).unflatten(0, (scenes, 3))
    arrays["zbuffer.local_xyz"] = torch.stack(local).unflatten(0, (scenes, 3))
    return arrays, described


def write_geometry_sets(folder):
    """Write the four files and their manifest."""
    folder.mkdir(parents=True, exist_ok=True)
    write_ttva(folder)
    zbuffer, described = zbuffer_arrays()
    listed = {}
    for name, arrays in (("geometry", geometry_arrays()), ("poses_zbuffer", zbuffer)):
        kept = {
            key: a.to(torch.float32 if a.is_floating_point() else torch.int32).contiguous()
            for key, a in arrays.items()
        }
        save_file(kept, folder / f"{name}.safetensors")
        listed[name] = {
            key: [list(a.shape), str(a.dtype).removeprefix("torch.")] for key, a in kept.items()
        }
    manifest = {"tag": "other", "posegen": described, "tensors": listed}
    (folder / "misc_manifest.json").write_text(json.dumps(manifest))
