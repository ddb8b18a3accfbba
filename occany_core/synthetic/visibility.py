# SPDX-License-Identifier: Apache-2.0
"""Which primitive each pixel sees: cameras at given times -> depth and primitive per pixel.

The corners of every primitive, clipped at the near plane, give a pixel rectangle and so a list
of 8x8 tiles. All (tile, primitive) pairs of all frames are intersected together, nearest first,
and one integer minimum over (depth bits, primitive) resolves them. Pairs that lie wholly behind
what their tile already shows are skipped; the result equals brute force.
"""

import math
from dataclasses import dataclass

import torch

from occany_core.synthetic.intersections import NEAR, Vector, intersect, rotate_about_z
from occany_core.synthetic.primitives import Shape
from occany_core.synthetic.ragged import expand_rectangles, rows
from occany_core.synthetic.scene import Scene

TILE = 8  # pixels
FARTHEST_PRIMITIVE = 180.0  # metres in the plane
FARTHEST_GROUND = 400.0  # metres of depth
GROUND, SKY = -1, -2  # stand-ins for a primitive index

_GROUND_CODE, _SKY_CODE = 0xFFFFFF, 0xFFFFFE
_CODE_BITS = 24
_INFINITE_DEPTH_BITS = 0x7F800000
_CPU_PAIRS_AT_ONCE, _GPU_PAIRS_AT_ONCE = 2048, 262144
_DEPTH_ROUNDS = 6  # front-to-back passes between which hidden pairs are dropped


@dataclass(frozen=True)
class Visibility:
    """F frames of H x W pixels.

    depth (F,H,W) float32 z-depth in metres, inf where sky; primitive (F,H,W) int64, `GROUND` or
    `SKY`; rays (F,H,W,3) world directions of unit camera depth; centers (F,P,3) primitive
    centres at each frame's time; pairs: tile-primitive pairs that were intersected.
    """

    depth: torch.Tensor
    primitive: torch.Tensor
    rays: torch.Tensor
    centers: torch.Tensor
    pairs: int


@dataclass(frozen=True)
class _Pairs:
    """Candidate pairs: tile (global index), frame, primitive, nearest possible depth; (M,)."""

    tile: torch.Tensor
    frame: torch.Tensor
    primitive: torch.Tensor
    nearest: torch.Tensor

    def select(self, which: torch.Tensor | slice) -> "_Pairs":
        return _Pairs(
            self.tile[which], self.frame[which], self.primitive[which], self.nearest[which]
        )


@dataclass(frozen=True)
class _Bundle:
    """Rays of all frames by tile, with what they start from and may meet.

    rays: x, y, z parts, each (F * tiles, TILE * TILE); origins (F,3); centers (F,P,3).
    """

    scene: Scene
    rays: Vector
    origins: torch.Tensor
    centers: torch.Tensor


@torch.no_grad()
def cast(
    scene: Scene,
    K: torch.Tensor,
    world_from_cam: torch.Tensor,
    seconds: torch.Tensor,
    height: int,
    width: int,
) -> Visibility:
    """Casts one ray through every pixel centre of F cameras.

    K (F,3,3) pixels; world_from_cam (F,4,4); seconds (F,); all float32 on the scene's device.
    """
    tiles_x, tiles_y = -(-width // TILE), -(-height // TILE)
    centers = scene.centers_at(seconds)
    rays = _pixel_rays(K, world_from_cam, tiles_y * TILE, tiles_x * TILE)
    tile_rays = _by_tile(rays, tiles_y, tiles_x)
    pairs = _candidate_pairs(scene, K, world_from_cam, centers, tiles_y, tiles_x)
    keys = _ground_keys(tile_rays[2], world_from_cam[:, 2, 3], tiles_y * tiles_x)
    origins = world_from_cam[:, :3, 3]
    tested = _resolve(_Bundle(scene, tile_rays, origins, centers), keys, pairs)

    frames = len(K)
    keys = keys.view(frames, tiles_y, tiles_x, TILE, TILE).permute(0, 1, 3, 2, 4)
    keys = keys.reshape(frames, tiles_y * TILE, tiles_x * TILE)[:, :height, :width]
    depth = (keys >> _CODE_BITS).to(torch.int32).contiguous().view(torch.float32)
    primitive = keys & _GROUND_CODE
    primitive = torch.where(primitive == _GROUND_CODE, GROUND, primitive)
    primitive = torch.where(torch.isfinite(depth), primitive, SKY)
    return Visibility(depth, primitive, rays[:, :height, :width].contiguous(), centers, tested)


def _pixel_rays(
    K: torch.Tensor, world_from_cam: torch.Tensor, height: int, width: int
) -> torch.Tensor:
    """World directions (F,height,width,3) of unit camera depth through the pixel centres."""
    u = torch.arange(width, device=K.device, dtype=K.dtype)
    v = torch.arange(height, device=K.device, dtype=K.dtype)
    x = ((u[None] - K[:, 0, 2, None]) / K[:, 0, 0, None])[:, None, :]
    y = ((v[None] - K[:, 1, 2, None]) / K[:, 1, 1, None])[:, :, None]
    one = torch.ones((), device=K.device, dtype=K.dtype)
    in_camera = torch.stack(torch.broadcast_tensors(x, y, one), -1)
    return torch.einsum("fij,fyxj->fyxi", world_from_cam[:, :3, :3], in_camera)


def _by_tile(rays: torch.Tensor, tiles_y: int, tiles_x: int) -> Vector:
    """Rays (F,Y,X,3) -> x, y, z parts, each (F * tiles, TILE * TILE)."""
    tiled = rays.view(len(rays), tiles_y, TILE, tiles_x, TILE, 3).permute(5, 0, 1, 3, 2, 4)
    x, y, z = tiled.reshape(3, -1, TILE * TILE)
    return x, y, z


def _ground_keys(ray_z: torch.Tensor, camera_height: torch.Tensor, tiles: int) -> torch.Tensor:
    """Depth-and-code keys (F * tiles, TILE * TILE) of a world with nothing but ground and sky."""
    height = camera_height.repeat_interleave(tiles)[:, None]
    depth = torch.where(ray_z < -1e-6, -height / ray_z.clamp_max(-1e-6), math.inf)
    seen = depth < FARTHEST_GROUND
    ground = (depth.view(torch.int32).long() << _CODE_BITS) | _GROUND_CODE
    return torch.where(seen, ground, (_INFINITE_DEPTH_BITS << _CODE_BITS) | _SKY_CODE)


def _candidate_pairs(
    scene: Scene,
    K: torch.Tensor,
    world_from_cam: torch.Tensor,
    centers: torch.Tensor,
    tiles_y: int,
    tiles_x: int,
) -> _Pairs:
    """All tiles that the clipped outline of each primitive may touch."""
    rotation, origin = world_from_cam[:, :3, :3], world_from_cam[:, :3, 3]
    relative = centers - origin[:, None]
    close = (relative[..., :2] ** 2).sum(-1) < FARTHEST_PRIMITIVE**2
    depth = torch.einsum("fj,fpj->fp", rotation[:, :, 2], relative)
    frame, primitive = torch.nonzero(close & (depth > -scene.radius[None]), as_tuple=True)

    corners = _corners_in_camera(scene, rotation[frame], relative[frame, primitive], primitive)
    points, valid = _clip_at_near_plane(corners)
    z = points[..., 2].clamp_min(NEAR * 0.99)
    K = K[frame]
    u = K[:, 0, 0, None] * points[..., 0] / z + K[:, 0, 2, None]
    v = K[:, 1, 1, None] * points[..., 1] / z + K[:, 1, 2, None]
    first_x, last_x = _tile_range(u, valid, tiles_x)
    first_y, last_y = _tile_range(v, valid, tiles_y)
    owner, x, y = expand_rectangles(
        torch.stack([first_x, first_y], -1), torch.stack([last_x, last_y], -1)
    )
    nearest = (corners[..., 2].amin(-1) * 0.999 - 0.01).clamp_min(0)
    tile = frame[owner] * (tiles_y * tiles_x) + y * tiles_x + x
    return _Pairs(tile, frame[owner], primitive[owner], nearest[owner])


def _corners_in_camera(
    scene: Scene, rotation: torch.Tensor, relative: torch.Tensor, primitive: torch.Tensor
) -> torch.Tensor:
    """Box corners (M,8,3) in the camera; rotation (M,3,3) world_from_cam, relative (M,3)."""
    signs = [[sx, sy, sz] for sx in (-1.0, 1.0) for sy in (-1.0, 1.0) for sz in (-1.0, 1.0)]
    corners = torch.tensor(signs, device=rotation.device) * scene.half_extent[primitive][:, None]
    cos, sin = scene.cos[primitive][:, None], scene.sin[primitive][:, None]
    corners = torch.stack(rotate_about_z(corners.unbind(-1), cos, -sin), -1)
    return torch.einsum("mji,mkj->mki", rotation, corners + relative[:, None])


def _clip_at_near_plane(corners: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Corners (M,8,3) and near-plane points of the 12 edges -> points (M,20,3), valid (M,20)."""
    edges = [(i, j) for i in range(8) for j in range(i + 1, 8) if (i ^ j) in (1, 2, 4)]
    edges = torch.tensor(edges, device=corners.device)
    a, b = corners[:, edges[:, 0]], corners[:, edges[:, 1]]
    share = (NEAR - a[..., 2]) / (b[..., 2] - a[..., 2] + 1e-12)
    crossing = a + share.clamp(0, 1)[..., None] * (b - a)
    in_front = corners[..., 2] > NEAR
    crosses = (a[..., 2] > NEAR) != (b[..., 2] > NEAR)
    return torch.cat([corners, crossing], 1), torch.cat([in_front, crosses], 1)


def _tile_range(
    pixel: torch.Tensor, valid: torch.Tensor, tiles: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """First and last tile (M,) int64 covered by the valid pixel coordinates (M,20)."""
    low = torch.where(valid, pixel, 1e9).amin(1).clamp(-1e6, 1e6) / TILE - 0.2
    high = torch.where(valid, pixel, -1e9).amax(1).clamp(-1e6, 1e6) / TILE + 0.2
    return low.floor().clamp(0, tiles).long(), high.floor().clamp(-1, tiles - 1).long()


def _resolve(bundle: _Bundle, keys: torch.Tensor, pairs: _Pairs) -> int:
    """Lowers `keys` in place to the nearest hit of every pixel; returns the pairs intersected."""
    pairs = pairs.select(torch.argsort(pairs.nearest))
    at_once = _CPU_PAIRS_AT_ONCE if keys.device.type == "cpu" else _GPU_PAIRS_AT_ONCE
    tested = 0
    per_round = -(-len(pairs.tile) // _DEPTH_ROUNDS)
    for start in range(0, len(pairs.tile), max(per_round, 1)):
        batch = pairs.select(slice(start, start + per_round))
        shown = (keys.amax(-1) >> _CODE_BITS).to(torch.int32).view(torch.float32)
        batch = batch.select(batch.nearest <= shown[batch.tile])
        tested += len(batch.tile)
        for shape in Shape:
            same = batch.select(bundle.scene.indices_of(shape, batch.primitive))
            for begin in range(0, len(same.tile), at_once):
                part = same.select(slice(begin, begin + at_once))
                _lower(bundle, shape, keys, part)
    return tested


def _lower(bundle: _Bundle, shape: Shape, keys: torch.Tensor, pairs: _Pairs) -> None:
    """Intersects pairs of one shape and lowers their keys in place."""
    scene, primitive, tile = bundle.scene, pairs.primitive, pairs.tile
    cos, sin = rows(scene.cos, primitive)[:, None], rows(scene.sin, primitive)[:, None]
    offset = bundle.origins[pairs.frame] - bundle.centers[pairs.frame, primitive]
    origin = rotate_about_z(offset[:, :, None].unbind(1), cos, sin)
    ray = rotate_about_z(tuple(rows(part, tile) for part in bundle.rays), cos, sin)
    half_extent = rows(scene.half_extent, primitive)[:, :, None].unbind(1)
    depth = intersect(shape, half_extent, origin, ray)
    found = (depth.view(torch.int32).long() << _CODE_BITS) | primitive[:, None]
    keys.scatter_reduce_(0, tile[:, None].expand_as(found), found, "amin")
