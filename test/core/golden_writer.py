# SPDX-License-Identifier: Apache-2.0
"""Writes golden sets of other sizes, seeds and shapes in the layout of the public ones.

The numbers come from `plain_network` and `plain_geometry`, in float32 and in float64; their
difference is the noise of the set.
"""

import json
import re
import shutil
from dataclasses import dataclass

import golden_set
import numpy as np
import torch
import torch.nn.functional as F
from plain_geometry import (
    drawn,
    focal_length,
    novel_poses,
    placed,
    registered,
    rotation_of,
)
from plain_network import PlainDecoder, Weights, encode, grid, tokenize
from safetensors.torch import save_file

from occany_core.checkpoints.released import published_shapes
from occany_core.network import NetworkConfig, TransformerDims

SAM = ("sam256", "sam64", "sam32")
PATTERNS = {
    "encoder": r"patch_embed\.proj\.|blocks_enc\.\d+\.(attn\.proj|mlp\.fc2)\.",
    "decoder": r"feat_embed_enc_to_dec\.|pose_token$|image2_embed$|"
    r"blocks_dec\.\d+\.(attn\.proj|cross_attn\.proj|mlp\.fc2)\.|"
    r"inject_pose_token\.\d+\.0\.fc2\.|head_sam\.up1\.1\.",
    "raymap_encoder": r"proj\.",
}
FACTOR = 0.003


@dataclass(frozen=True)
class Spec:
    """What distinguishes one set from another."""

    tag: str = "Q"
    prefix: str = "other_"
    scenes: int = 1
    frames: int = 3
    height: int = 64
    width: int = 48
    encoder: tuple = (32, 3, 2)  # width, depth, heads
    decoder: tuple = (48, 2, 3)
    ray: tuple = (24, 1, 2)
    modality: int = 16
    levels: tuple = (24, 12, 8)
    sam_size: int = 96
    vpi: int = 2
    rot: float = 45
    fwd: float = 0.7
    lat: float = 0.3
    gen_sel: tuple = (0, 3, 5)

    @property
    def config(self):
        dims = [TransformerDims(width=w, depth=d, heads=h) for w, d, h in self.stacks]
        dims[2] = TransformerDims(width=self.ray[0], depth=0, heads=1)  # its blocks are dead
        return NetworkConfig(
            encoder=dims[0],
            decoder=dims[1],
            novel_view_encoder=dims[2],
            modality_width=self.modality,
            segmentation_dims=self.levels,
            segmentation_size=self.sam_size,
        )

    @property
    def stacks(self):
        return self.encoder, self.decoder, self.ray

    def manifest(self):
        names = ("embed_dim", "depth", "num_heads")
        enc, dec, ray = (dict(zip(names, stack)) for stack in self.stacks)
        return {
            "tag": self.tag, "B": self.scenes, "F": self.frames, "H": self.height,
            "W": self.width, "landscape_only": self.height <= self.width, "enc": enc,
            "dec": dec | {"distill_img_size": self.sam_size}, "ray": ray,
            "gen_sel": list(self.gen_sel), "vpi": self.vpi, "rot": self.rot, "fwd": self.fwd,
            "lat": self.lat, "prefix": self.prefix,
        }  # fmt: skip


def write_network_set(folder, spec):
    """Write the set into a folder; return the manifest's path."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(golden_set.REFERENCE / "golden" / "golden_weights.py", folder)
    parts = generated_parts(spec)
    images = torch.from_numpy(
        golden_set.recipe().signed_uniform(
            spec.tag, "img", (spec.scenes, spec.frames, 3, spec.height, spec.width)
        )
    )
    refit_point_heads(spec, parts, images)
    manifest = {"config": spec.manifest(), "noise": {}, "tensors": {}}
    shape = torch.tensor([spec.height, spec.width], dtype=torch.int32)
    recon = in_both(manifest["noise"], lambda dtype: reconstruct(spec, parts, images, dtype))
    recon |= {"img": images, "true_shape": shape.expand(*images.shape[:2], 2)}
    recon |= post("post", recon["render.raw"], recon["render.pose"])
    recon["post.norm_exp.pts3d"] = norm_exp(recon["single.raw"][..., :3])
    render, projected, owner = projection(spec, recon)
    tokens = in_both(
        manifest["noise"], lambda dtype: rendered(spec, parts, images, projected, dtype)
    )
    render |= tokens | post("gen.post", tokens["gen.raw"])
    render["gen.post.pose_absT_quaR"] = torch.stack([encoded(p) for p in render["poses"]])
    kept = {key: tensor for part in ("encoder", "decoder", "gen_decoder")
            for key, tensor in ((f"{part}.{k}", t) for k, t in parts[part].items())}  # fmt: skip
    save(folder, spec, "weights", kept)
    manifest["tensors"]["recon"] = save(folder, spec, "recon", recon)
    manifest["tensors"]["render"] = save(folder, spec, "render", render)
    noise = {}
    eps = in_both(
        noise, lambda dtype: epsilons(spec, parts, images, render["gen.tokens_proj"], dtype)
    )
    listed = save(folder, spec, "eps", eps)
    manifest["eps_fixture"] = {
        "factor": FACTOR, "patterns": PATTERNS, "noise": noise, "tensors": listed,
    }  # fmt: skip
    manifest["recon_2_gen"] = {
        i: [k for k, who in enumerate(owner) if who == i] for i in range(spec.frames)
    }
    checksum = golden_set.recipe().checksum
    manifest["raymap_checksums"] = {
        key: checksum(tensor.numpy()) for key, tensor in parts["raymap_encoder"].items()
    }
    path = folder / f"{spec.prefix}manifest.json"
    path.write_text(json.dumps(manifest))
    return path


def generated_parts(spec):
    parts = {}
    for name, shape in published_shapes(spec.config).items():
        part, _, key = name.partition("/")
        weight = golden_set.recipe().weight(f"{spec.tag}/{part}", key, shape)
        parts.setdefault(part, {})[key] = torch.from_numpy(np.ascontiguousarray(weight))
    return parts


def save(folder, spec, kind, arrays):
    arrays = {
        name: a.to(torch.float32 if a.is_floating_point() else torch.int32).contiguous().clone()
        for name, a in arrays.items()
    }
    save_file(arrays, folder / f"{spec.prefix}{kind}.safetensors")
    return {
        name: [list(a.shape), str(a.dtype).removeprefix("torch.")] for name, a in arrays.items()
    }


def in_both(noise, run):
    """Run in both float types; keep float32 and note how far float64 is from it."""
    single, double = run(torch.float32), run(torch.float64)
    for name, array in single.items():
        if array.is_floating_point():
            error = (array - double[name]).abs().max().item()
            noise[name] = [error, array.abs().max().item()]
    return single


def decoder_of(spec, parts, part, dtype):
    weights = Weights(parts[part], dtype)
    return PlainDecoder(weights, spec.decoder[2], spec.height, spec.width, spec.sam_size)


def run_scene(spec, parts, images, dtype):
    """Stages of one scene (F, 3, H, W)."""
    encoder = Weights(parts["encoder"], dtype)
    encoded_views = [encode(encoder, view.to(dtype), spec.encoder[2]) for view in images]
    tokens = [view["tokens"] for view in encoded_views]
    decoder = decoder_of(spec, parts, "decoder", dtype)
    memory, steps, start = None, [], 0
    while start < len(tokens):
        end = start + (2 if start == 0 else 1)
        rows, stages = decoder.build(tokens[start:end], memory)
        memory = rows if memory is None else [torch.cat(p) for p in zip(memory, rows)]
        steps.append((rows, stages))
        start = end
    views = [decoder.render(one, memory) for one in tokens]
    alone = decoder.build(tokens[:1], None)
    return encoded_views, steps, views, (*alone, decoder.render(tokens[0], alone[0])), memory


def gathered(values, sizes=None):
    """Stack values view after view; with sizes, as scenes x views."""
    stacked = torch.stack(list(values))
    return stacked if sizes is None else stacked.unflatten(0, sizes)


def reconstruct(spec, parts, images, dtype):
    """All arrays of the reconstruction file that the network makes."""
    scenes = [run_scene(spec, parts, scene, dtype) for scene in images]
    sizes = images.shape[:2]
    every = [view for scene in scenes for view in scene[0]]
    out = {f"enc.{name}": gathered(v[name] for v in every) for name in every[0]}
    out["enc.tokens"] = out["enc.tokens"].unflatten(0, sizes)
    out["enc.pos"] = grid(*images.shape[-2:]).expand(*sizes, -1, -1)
    seen = 0
    for s in range(len(scenes[0][1])):
        views = [view for scene in scenes for view in scene[1][s][1]]
        size = (len(scenes), len(views) // len(scenes))
        out |= {f"step{s}.{name}": value for name, value in of_step(s, views, size).items()}
        for layer in range(len(scenes[0][4])):
            out[f"step{s}.mem_new.{layer}"] = gathered(sc[1][s][0][layer] for sc in scenes)
        seen += size[1]
        labels = torch.arange(seen).repeat_interleave(out["enc.pos"].shape[2] + 1)
        out[f"step{s}.mem_labels"] = labels.expand(len(scenes), -1)
    final = [view for scene in scenes for view in scene[2]]
    for name in final[0]:
        flat = name.startswith("blk") or name == "norm"
        out[f"render.{name}"] = gathered((v[name] for v in final), None if flat else sizes)
    for name in ("raw", "pose"):
        out[f"single.{name}"] = gathered((s[3][1][0][name] for s in scenes), (len(scenes), 1))
    for layer in range(len(scenes[0][4])):
        out[f"single.mem.{layer}"] = gathered(s[3][0][layer] for s in scenes)
    for ours, name in (("raw", "render_raw"), ("sam32", "render_sam32")):
        out[f"single.{name}"] = gathered((s[3][2][ours] for s in scenes), (len(scenes), 1))
    return out


def of_step(step, views, sizes):
    """What a set keeps of one group of views: of the first ones more than of later ones."""
    out = {"feedback": gathered((v["feedback"] for v in views), sizes).flatten(1, 2)}
    for name in views[0]:
        is_inner = name == "norm" or "." in name
        if name.startswith("blk") or name == "norm":
            if step == 0 or (step == 1 and not is_inner):
                out[name] = gathered(v[name] for v in views)
        elif name != "feedback":
            out[name] = gathered((v[name] for v in views), sizes)
    return out


def refit_point_heads(spec, parts, images):
    """Make the heads predict a street-like scene, so that poses and projection are sound."""
    features = [
        view["norm"][1:]
        for scene in images
        for view in run_scene(spec, parts, scene, torch.float64)[2]
    ]
    inputs = torch.stack(features) + parts["decoder"]["pts3d_task_token"].double().reshape(1, -1)
    rows, columns = np.indices((spec.height, spec.width))
    rays = np.stack((columns - spec.width / 2, rows - spec.height / 2), -1) / (0.9 * spec.width)
    targets = []
    for view in range(len(features)):
        depth = 5 + 2 * np.sin(columns / 9 + view) + np.cos(rows / 7)
        local = np.concatenate((rays * depth[..., None], depth[..., None]), -1)
        world = local + np.array([0.1, 0.02, 0.6]) * (view % spec.frames)
        logit = 0.5 * np.sin(rows / 5)[..., None]
        maps = np.concatenate((world, local, logit), -1)
        cut = maps.reshape(spec.height // 16, 16, spec.width // 16, 16, 7)
        targets.append(cut.transpose(0, 2, 4, 1, 3).reshape(-1, 7 * 256))
    inputs = inputs.flatten(0, 1)
    inputs = torch.cat((inputs, inputs.new_ones(len(inputs), 1)), dim=1)
    targets = torch.from_numpy(np.concatenate(targets))
    normal = inputs.T @ inputs + 1e-3 * torch.eye(inputs.shape[1]).double()
    solved = torch.linalg.solve(normal, inputs.T @ targets).float()
    for part in ("decoder", "gen_decoder"):
        parts[part]["head_dec.proj.weight"] = solved[:-1].T.contiguous()
        parts[part]["head_dec.proj.bias"] = solved[-1].contiguous()


def norm_exp(points):
    length = points.double().norm(dim=-1, keepdim=True)
    return (points * torch.expm1(length) / length.clamp_min(1e-8)).float()


def post(name, raw, pose=None):
    """Confidence, colour, focal length and poses of raw maps (B, V, H, W, 10)."""
    double = raw.double()
    focal = torch.tensor([focal_length(scene[0, ..., 3:6]) for scene in raw])
    poses = [
        registered(view[..., :3], view[..., 3:6], view[..., 6].exp())
        for scene in double
        for view in scene
    ]
    out = {
        f"{name}.conf": 1 + double[..., 6].exp(),
        f"{name}.rgb": 2 * (double[..., 7:10].sigmoid() * (1 - 2e-6) + 1e-6) - 1,
        f"{name}.focal": focal[:, None].expand(raw.shape[:2]),
        f"{name}.c2w": torch.from_numpy(np.array(poses)).unflatten(0, raw.shape[:2]),
    }
    if pose is not None:
        flat = pose.double().flatten(0, 1).numpy()
        heads = np.array([placed(rotation_of(p[3:]), p[:3]) for p in flat])
        out[f"{name}.c2w_pose"] = torch.from_numpy(heads).unflatten(0, pose.shape[:2])
    return {key: value.float() for key, value in out.items()}


def encoded(poses):
    """Translation and quaternion (real first) of poses (R, 4, 4), by the eigenvector of R - I."""
    out = []
    for pose in poses.double().numpy():
        rotation = pose[:3, :3]
        real = np.sqrt(max(1 + np.trace(rotation), 0)) / 2
        values, vectors = np.linalg.eig(rotation)
        axis = np.real(vectors[:, np.argmin(np.abs(values - 1))])
        twist = np.array([rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0],
                          rotation[1, 0] - rotation[0, 1]])  # fmt: skip
        sign = 1.0 if twist @ axis >= 0 else -1.0
        imaginary = sign * axis * np.sqrt(max(1 - real**2, 0))
        out.append(np.concatenate((pose[:3, 3], [real], imaginary)))
    return torch.from_numpy(np.array(out)).float()


def projection(spec, recon):
    """Novel poses, the pictures drawn there (B, R, C, H, W), and the owners of all poses."""
    every, out = [], {}
    for scene in recon["post.c2w"].double().numpy():
        poses, owner = novel_poses(scene, vpi=spec.vpi, fwd=spec.fwd, rot=spec.rot, lat=spec.lat)
        every.append(poses)
    out["all_poses"] = torch.from_numpy(np.array(every)).float()
    out["poses"] = out["all_poses"][:, list(spec.gen_sel)]
    pictures, winners, resized_first = [], [], []
    for b in range(spec.scenes):
        points = recon["render.raw"][b, ..., :3].reshape(-1, 3)
        levels = [
            F.interpolate(
                recon[f"render.{name}"][b], (spec.height, spec.width), mode="bilinear"
            ).permute(0, 2, 3, 1)
            for name in SAM
        ]
        rgb = recon["img"][b].permute(0, 2, 3, 1)
        trust = recon["post.conf"][b][..., None] - 1
        carried = torch.cat((rgb, trust, *levels), dim=-1).reshape(len(points), -1)
        resized_first.append(torch.cat(levels, dim=-1)[:1])
        for pose in out["poses"][b]:
            focal = recon["post.focal"][b].mean()
            index, in_view = drawn(points, focal, pose, spec.height, spec.width)
            at = index.clamp_min(0)
            picture = torch.cat((in_view[at], points[at], carried[at]), dim=-1)
            pictures.append(picture * (index >= 0)[..., None])
            winners.append(index)
    sizes = out["poses"].shape[:2]
    maps = gathered(pictures, sizes)
    chosen = torch.arange(10, maps.shape[-1], 5)
    out["proj.index"] = gathered(winners, sizes)
    out["proj.cond10"] = maps[..., :10]
    out["proj.cond_sam_sel_channels"] = chosen
    out["proj.cond_sam_sel"] = maps[..., chosen]
    out["proj.resized_sam_sel"] = gathered(resized_first)[..., chosen - 10]
    return out, maps.permute(0, 1, 4, 2, 3), owner


def rendered(spec, parts, images, projected, dtype):
    """All arrays of the rendering file that the network makes."""
    ray = Weights(parts["raymap_encoder"], dtype)
    decoder = decoder_of(spec, parts, "gen_decoder", dtype)
    merged, views = [], []
    for scene, pictures in zip(images, projected):
        memory = run_scene(spec, parts, scene, dtype)[4]
        for picture in pictures:
            cat, tokens, encoded_view = tokenize(ray, picture.to(dtype))
            merged.append(cat)
            stages = decoder.render(encoded_view, memory)
            views.append(stages | {"tokens": tokens, "x_ray": encoded_view})
    sizes = projected.shape[:2]
    out = {"gen.tokens_cat": gathered(merged)[:2]}
    out["gen.tokens_proj"] = gathered(v["tokens"] for v in views)
    out["gen.x_ray"] = gathered((v["x_ray"] for v in views), sizes)
    out["gen.pos_ray"] = grid(spec.height, spec.width).expand(*sizes, -1, -1)
    for name in views[0]:
        if name.startswith("blk") or name == "norm":
            out[f"gen.dec.{name}"] = gathered(v[name] for v in views)
    out["gen.pose_head"] = gathered((v["pose"] for v in views), sizes)
    for name in ("raw", *SAM):
        out[f"gen.{name}"] = gathered((v[name] for v in views), sizes)
    return out


def epsilons(spec, parts, images, tokens, dtype):
    """The arrays of the file in which a wrong LayerNorm epsilon shows."""
    scaled = {
        part: {
            key: value * FACTOR if re.match(PATTERNS[part.removeprefix("gen_")], key) else value
            for key, value in weights.items()
        }
        for part, weights in parts.items()
    }
    ours = reconstruct(spec, scaled, images, dtype)
    kept = {name: ours[name] for name in ours if re.match(r"enc\.tokens|step[01]\.mem_new", name)}
    kept |= {"render.norm": ours["render.norm"], "render.sam32": ours["render.sam32"][:, :1]}
    ray = Weights(scaled["raymap_encoder"], dtype)
    encoded_tokens = ray.norm("norm_enc", ray.linear("proj", tokens.to(dtype)))
    return kept | {"x_ray_from_tokens_proj": encoded_tokens}
