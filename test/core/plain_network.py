# SPDX-License-Identifier: Apache-2.0
"""The released function again, as the specification tells it: view by view, in any float type.

Slow and without a class of ours: no folded queries, no preallocated memory, no skipped layer. It
makes golden sets of other sizes, and is itself held by the public ones. Weights keep their
released names (`docs/parity.md`).
"""

import math

import torch
import torch.nn.functional as F


class Weights:
    """Released weights of one part in one float type, and the few layers they are used in."""

    def __init__(self, part, dtype):
        self.of = {key: tensor.to(dtype) for key, tensor in part.items()}

    def linear(self, name, x):
        return x @ self.of[f"{name}.weight"].T + self.of[f"{name}.bias"]

    def norm(self, name, x, eps=1e-6):
        centred = x - x.mean(-1, keepdim=True)
        variance = (centred**2).mean(-1, keepdim=True)
        scaled = centred / (variance + eps).sqrt()
        return scaled * self.of[f"{name}.weight"] + self.of[f"{name}.bias"]

    def mlp(self, name, x):
        hidden = self.linear(f"{name}.fc1", x)
        gelu = 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2)))
        return self.linear(f"{name}.fc2", gelu)

    def depth(self, blocks):
        return 1 + max(int(key.split(".")[1]) for key in self.of if key.startswith(blocks))

    def conv(self, name, maps):
        """3 x 3 on one map (C, h, w)."""
        weight, bias = self.of[f"{name}.weight"], self.of[f"{name}.bias"]
        return F.conv2d(maps[None], weight, bias, padding=1)[0]

    def patches(self, name, picture):
        """One token per patch of a picture (C, H, W), row by row."""
        weight, bias = self.of[f"{name}.weight"], self.of[f"{name}.bias"]
        size = weight.shape[-1]
        cut = picture.unfold(1, size, size).unfold(2, size, size)  # (C, h, w, p, p)
        cut = cut.permute(1, 2, 0, 3, 4).flatten(2).flatten(0, 1)
        return cut @ weight.flatten(1).T + bias


def rotate(t, positions):
    """Rotary embedding of one head (N, d) by token (y, x)."""
    halves = []
    for half, place in zip(t.chunk(2, dim=-1), positions.to(t.dtype).T):
        u, v = half.chunk(2, dim=-1)
        quarter = u.shape[-1]
        omega = 100 ** (-2 * torch.arange(quarter, dtype=t.dtype) / (2 * quarter))
        angle = place[:, None] * omega
        halves += [u * angle.cos() - v * angle.sin(), v * angle.cos() + u * angle.sin()]
    return torch.cat(halves, dim=-1)


def attend(queries, keys, values, heads, positions=None):
    """Softmax attention of (N, D) to (M, D), head by head."""
    out = []
    for q, k, v in zip(*(x.chunk(heads, dim=-1) for x in (queries, keys, values))):
        if positions is not None:
            q, k = rotate(q, positions), rotate(k, positions)
        out.append(torch.softmax(q @ k.T / math.sqrt(q.shape[-1]), dim=-1) @ v)
    return torch.cat(out, dim=-1)


def self_attention(weights, name, x, heads, positions):
    q, k, v = weights.linear(f"{name}.qkv", x).chunk(3, dim=-1)
    return weights.linear(f"{name}.proj", attend(q, k, v, heads, positions))


def grid(height, width):
    return torch.tensor([[y, x] for y in range(height // 16) for x in range(width // 16)])


def encode(weights, picture, heads):
    """Stages of one picture (3, H, W): `patch`, `blk0`..., `tokens`."""
    positions = grid(*picture.shape[1:])
    x = weights.patches("patch_embed.proj", picture)
    stages = {"patch": x}
    for i in range(weights.depth("blocks_enc.")):
        name = f"blocks_enc.{i}"
        x = x + self_attention(
            weights, f"{name}.attn", weights.norm(f"{name}.norm1", x), heads, positions
        )
        x = x + weights.mlp(f"{name}.mlp", weights.norm(f"{name}.norm2", x))
        stages[f"blk{i}"] = x
    return stages | {"tokens": weights.norm("norm_enc", x)}


class PlainDecoder:
    """One decoder over views of H x W pixels."""

    def __init__(self, weights, heads, height, width, sam_size):
        self.weights, self.heads, self.size, self.sam = weights, heads, (height, width), sam_size
        self.layers = weights.depth("blocks_dec.")
        self.positions = torch.cat((torch.zeros(1, 2).long(), grid(height, width) + 1))

    def prepared(self, tokens, is_reference):
        x = self.weights.linear("feat_embed_enc_to_dec", tokens)
        x = torch.cat((self.weights.of["pose_token"].reshape(1, -1), x))
        return x if is_reference else x + self.weights.of["image2_embed"].reshape(1, -1)

    def rows(self, layer, x):
        """What the memory keeps of the input of one layer: keys, then values."""
        name = f"blocks_dec.{layer}"
        y = self.weights.norm(f"{name}.norm_y", x)
        parts = [self.weights.linear(f"{name}.cross_attn.proj{kind}", y) for kind in "kv"]
        return torch.cat(parts, dim=-1)

    def block(self, layer, x, rows):
        """Return the output of a layer, and what its parts said."""
        w, name, pose = self.weights, f"blocks_dec.{layer}", x[:1]
        normed = w.norm(f"{name}.norm1", x)
        said = {"self": self_attention(w, f"{name}.attn", normed, self.heads, self.positions)}
        x = x + said["self"]
        query = w.linear(f"{name}.cross_attn.projq", w.norm(f"{name}.norm2", x))
        attended = attend(query, *rows.chunk(2, dim=-1), self.heads)
        said["cross"] = w.linear(f"{name}.cross_attn.proj", attended)
        x = x + said["cross"]
        said["pose_inject"] = w.mlp(f"inject_pose_token.{layer}.0", pose)
        x = torch.cat((x[:1], x[1:] + said["pose_inject"]))
        said["mlp"] = w.mlp(f"{name}.mlp", w.norm(f"{name}.norm3", x))
        return x + said["mlp"], said

    def build(self, group, memory):
        """Write a group of views; memory is a list of rows per layer, or None at the start.

        Returns the new rows per layer and the stages of every view.
        """
        first = memory is None
        xs = [self.prepared(t, first and j == 0) for j, t in enumerate(group)]
        stages = [{} for _ in group]
        saved = []
        for layer in range(self.layers):
            saved.append(list(xs))
            own = [self.rows(layer, x) for x in xs]
            for j in range(len(xs)):
                seen = [] if first else [memory[layer]]
                seen += [own[k] for k in range(len(xs)) if k != j or (first and len(xs) == 1)]
                xs[j], said = self.block(layer, xs[j], torch.cat(seen))
                stages[j] |= {f"blk{layer}.{part}": value for part, value in said.items()}
                stages[j][f"blk{layer}"] = xs[j]
        feedback = [
            self.weights.mlp("feedback_layer", self.weights.norm("feedback_norm", s, 1e-5))
            for s in saved[-1]
        ]
        rows = []
        for layer, inputs in enumerate(saved):
            fed = zip(inputs, feedback)
            last = layer == self.layers - 1
            rows.append(torch.cat([self.rows(layer, s if last else s + phi) for s, phi in fed]))
        for j, x in enumerate(xs):
            stages[j] |= {"feedback": feedback[j], **self.outputs(x)}
        return rows, stages

    def render(self, tokens, memory):
        """Decode one view against a finished memory."""
        x, stages = self.prepared(tokens, False), {}
        for layer in range(self.layers):
            x, _ = self.block(layer, x, memory[layer])
            stages[f"blk{layer}"] = x
        return stages | self.outputs(x)

    def outputs(self, x):
        w, (height, width) = self.weights, self.size
        f = w.norm("norm_dec", x)
        point_token, rgb_token, sam_token = (
            w.of[f"{name}_task_token"].reshape(1, -1) for name in ("pts3d", "rgb", "sam")
        )
        values = [w.linear("head_dec.proj", f[1:] + point_token)]
        values.append(w.mlp("head_rgb.proj", f[1:] + rgb_token))
        raw = torch.cat(
            [
                v.reshape(height // 16, width // 16, -1, 16, 16)  # (h, w, channel, dy, dx)
                .permute(0, 3, 1, 4, 2)
                .reshape(height, width, -1)
                for v in values
            ],
            dim=-1,
        )
        maps = (f[1:] + sam_token).T.reshape(1, -1, height // 16, width // 16)
        side = self.sam // 16
        square = F.interpolate(maps, (side, side), mode="bilinear", align_corners=False)[0]
        coarse = w.mlp("head_sam.proj", square.permute(1, 2, 0)).permute(2, 0, 1)
        middle = w.conv("head_sam.up1.1", doubled(coarse)).permute(1, 2, 0)
        middle = F.gelu(w.norm("head_sam.up1.2", middle)).permute(2, 0, 1)
        fine = F.gelu(w.conv("head_sam.up2.1", doubled(middle)))
        pose = w.mlp("head_pose", f[0])
        sam = {"sam256": coarse, "sam64": middle, "sam32": fine}
        return {"norm": f, "raw": raw, "pose": pose, **sam}


def doubled(maps):
    return F.interpolate(maps[None], scale_factor=2, mode="bilinear", align_corners=False)[0]


def tokenize(weights, picture):
    """Tokens of a projected picture (C, H, W): concatenated, merged, encoded."""
    names = ("pts3d_local", "pts3d", "rgb", "conf", "sam_256", "sam_64", "sam_32")
    parts, start = [], 0
    for name in names:
        end = start + weights.of[f"patch_embed_{name}.proj.weight"].shape[1]
        parts.append(weights.patches(f"patch_embed_{name}.proj", picture[start:end]))
        start = end
    merged = torch.cat(parts, dim=-1)
    tokens = weights.linear("patch_embed_proj", merged)
    return merged, tokens, weights.norm("norm_enc", weights.linear("proj", tokens))
