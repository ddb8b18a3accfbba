# SPDX-License-Identifier: Apache-2.0
"""Which primitive each pixel sees: cameras at given times -> depth and primitive per pixel.

The corners of every primitive, clipped at the near plane, give a pixel rectangle and so a list
of 8x8 tiles. All (tile, primitive) pairs of all frames are intersected together, nearest first,
and one integer minimum over (depth bits, primitive) resolves them. Pairs that lie wholly behind
what their tile already shows are skipped; the result equals brute force.
"""

from dataclasses import dataclass

import torch

from occany_core.synthetic.ground_rays import ground_depth
from occany_core.synthetic.intersections import (
    NEAR,
    Vector,
    in_body_axes,
    intersect,
    rotate_about_z,
)
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
    `SKY`; rays (F,H,W,3) world directions of unit camera depth; centers (F,P,3) and shears (F,P,2)
    of the primitives at each frame's time; pairs: tile-primitive pairs that were intersected.
    """

    depth: torch.Tensor
    primitive: torch.Tensor
    rays: torch.Tensor
    centers: torch.Tensor
    shears: torch.Tensor
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

    rays: x, y, z parts, each (F * tiles, TILE * TILE); origins (F,3); centers (F,P,3) and shears
    (F,P,2) of the primitives.
    """

    scene: Scene
    rays: Vector
    origins: torch.Tensor
    centers: torch.Tensor
    shears: torch.Tensor


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
    centers, shears = scene.placed_at(seconds)
    rays = _pixel_rays(K, world_from_cam, tiles_y * TILE, tiles_x * TILE)
    tile_rays = _by_tile(rays, tiles_y, tiles_x)
    bundle = _Bundle(scene, tile_rays, world_from_cam[:, :3, 3], centers, shears)
    pairs = _candidate_pairs(bundle, K, world_from_cam, tiles_y, tiles_x)
    keys = _ground_keys(bundle, tiles_y * tiles_x)
    tested = _resolve(bundle, keys, pairs)

    frames = len(K)
    keys = keys.view(frames, tiles_y, tiles_x, TILE, TILE).permute(0, 1, 3, 2, 4)
    keys = keys.reshape(frames, tiles_y * TILE, tiles_x * TILE)[:, :height, :width]
    depth = (keys >> _CODE_BITS).to(torch.int32).contiguous().view(torch.float32)
    primitive = keys & _GROUND_CODE
    primitive = torch.where(primitive == _GROUND_CODE, GROUND, primitive)
    primitive = torch.where(torch.isfinite(depth), primitive, SKY)
    rays = rays[:, :height, :width].contiguous()
    return Visibility(depth, primitive, rays, centers, shears, tested)


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


def _ground_keys(bundle: _Bundle, tiles: int) -> torch.Tensor:
    """Depth-and-code keys (F * tiles, TILE * TILE) of a world with nothing but ground and sky."""
    x, y, z = bundle.rays
    keys = torch.full_like(z, (_INFINITE_DEPTH_BITS << _CODE_BITS) | _SKY_CODE, dtype=torch.int64)
    # A ray that climbs faster than the ground anywhere never meets it.
    steepest = bundle.scene.ground.relief.steepest() + 1e-6
    may_meet = torch.nonzero((z < steepest * torch.hypot(x, y)).any(-1))[:, 0]
    frame = torch.div(may_meet, tiles, rounding_mode="floor")
    origins = rows(bundle.origins, frame)[:, :, None].unbind(1)
    rays = tuple(rows(part, may_meet) for part in bundle.rays)
    depth = ground_depth(bundle.scene.ground, origins, rays, FARTHEST_GROUND)
    code = torch.where(torch.isfinite(depth), _GROUND_CODE, _SKY_CODE)
    keys[may_meet] = (depth.view(torch.int32).long() << _CODE_BITS) | code
    return keys


def _candidate_pairs(
    bundle: _Bundle, K: torch.Tensor, world_from_cam: torch.Tensor, tiles_y: int, tiles_x: int
) -> _Pairs:
    """All tiles that the clipped outline of each primitive may touch."""
    scene, rotation = bundle.scene, world_from_cam[:, :3, :3]
    relative = bundle.centers - bundle.origins[:, None]
    close = (relative[..., :2] ** 2).sum(-1) < FARTHEST_PRIMITIVE**2
    depth = torch.einsum("fj,fpj->fp", rotation[:, :, 2], relative)
    frame, primitive = torch.nonzero(close & (depth > -scene.radius[None]), as_tuple=True)

    offsets = _corner_offsets(scene, primitive, bundle.shears[frame, primitive])
    corners = relative[frame, primitive][:, None] + offsets
    corners = torch.einsum("mji,mkj->mki", rotation[frame], corners)  # in the camera
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


def _corner_offsets(scene: Scene, primitive: torch.Tensor, shear: torch.Tensor) -> torch.Tensor:
    """From the centre to the corners (M,8,3) of a primitive's box, world axes; shear (M,2)."""
    signs = [[sx, sy, sz] for sx in (-1.0, 1.0) for sy in (-1.0, 1.0) for sz in (-1.0, 1.0)]
    corners = torch.tensor(signs, device=shear.device) * scene.half_extent[primitive][:, None]
    cos, sin = scene.cos[primitive][:, None], scene.sin[primitive][:, None]
    x, y, z = rotate_about_z(corners.unbind(-1), cos, -sin)
    return torch.stack([x, y, z + shear[:, :1] * x + shear[:, 1:] * y], -1)


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
        for shape, pierced, chosen in bundle.scene.kinds(batch.primitive):
            same = batch.select(chosen)
            for begin in range(0, len(same.tile), at_once):
                part = same.select(slice(begin, begin + at_once))
                _lower(bundle, (shape, pierced), keys, part)
    return tested


def _lower(bundle: _Bundle, kind: tuple[Shape, bool], keys: torch.Tensor, pairs: _Pairs) -> None:
    """Intersects pairs of one kind (shape, pierced) and lowers their keys in place."""
    shape, pierced = kind
    scene, primitive, tile = bundle.scene, pairs.primitive, pairs.tile
    turn = rows(scene.cos, primitive)[:, None], rows(scene.sin, primitive)[:, None]
    body = pairs.frame * len(scene) + primitive
    shear = rows(bundle.shears.view(-1, 2), body)[:, :, None].unbind(1)
    offset = rows(bundle.origins, pairs.frame) - rows(bundle.centers.view(-1, 3), body)
    origin = in_body_axes(offset[:, :, None].unbind(1), turn, shear)
    ray = in_body_axes(tuple(rows(part, tile) for part in bundle.rays), turn, shear)
    half_extent = rows(scene.half_extent, primitive)[:, :, None].unbind(1)
    depth = intersect(shape, half_extent, origin, ray, pierced)
    found = (depth.view(torch.int32).long() << _CODE_BITS) | primitive[:, None]
    keys.scatter_reduce_(0, tile[:, None].expand_as(found), found, "amin")
