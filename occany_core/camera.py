# SPDX-License-Identifier: Apache-2.0
"""Pinhole cameras as 3 x 3 matrices K in pixels: project, backproject, resize, crop.

The centre of the top-left pixel is (0, 0). Camera axes x right, y down, z forward, metres.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def pinhole(
    focal_px: Float[Tensor, "*batch"], height: int, width: int
) -> Float[Tensor, "*batch 3 3"]:
    """Return K with one focal length and the principal point (width / 2, height / 2).

    That is the released convention for uncalibrated cameras: half a pixel off the true centre
    (spec 9).
    """
    K = torch.zeros(*focal_px.shape, 3, 3, dtype=focal_px.dtype, device=focal_px.device)
    K[..., 0, 0] = K[..., 1, 1] = focal_px
    K[..., 0, 2], K[..., 1, 2], K[..., 2, 2] = width / 2, height / 2, 1
    return K


def pixel_grid(
    height: int, width: int, device: torch.device | str = "cpu"
) -> Float[Tensor, "height width 2"]:
    """Return (u, v) of every pixel centre."""
    v, u = torch.meshgrid(
        torch.arange(height, device=device, dtype=torch.float32),
        torch.arange(width, device=device, dtype=torch.float32),
        indexing="ij",
    )
    return torch.stack((u, v), dim=-1)


def project(
    K: Float[Tensor, "*batch 3 3"], points_cam: Float[Tensor, "*batch P 3"]
) -> Float[Tensor, "*batch P 2"]:
    """Return pixel (u, v) of points; meaningful where z is positive (spec 11.2)."""
    x, y, z = points_cam.unbind(-1)
    fx, fy, cx, cy = (K[..., i, j, None] for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    return torch.stack(((fx * x + cx * z) / (z + 1e-8), (fy * y + cy * z) / (z + 1e-8)), dim=-1)


def rays(
    K: Float[Tensor, "*batch 3 3"], height: int, width: int
) -> Float[Tensor, "*batch height width 3"]:
    """Return the ray through every pixel centre, with z = 1."""
    u, v = pixel_grid(height, width, K.device).unbind(-1)
    fx, fy, cx, cy = (K[..., i, j, None, None] for i, j in ((0, 0), (1, 1), (0, 2), (1, 2)))
    x, y = (u - cx) / fx, (v - cy) / fy
    return torch.stack((x, y, torch.ones_like(x)), dim=-1)


def backproject(
    K: Float[Tensor, "*batch 3 3"], depth: Float[Tensor, "*batch height width"]
) -> Float[Tensor, "*batch height width 3"]:
    """Return the camera-frame point [m] of every pixel from its depth along z [m]."""
    return rays(K, *depth.shape[-2:]) * depth[..., None]


def resize(
    K: Float[Tensor, "*batch 3 3"], scale_x: float, scale_y: float
) -> Float[Tensor, "*batch 3 3"]:
    """Return K of the picture resized by the given factors."""
    scaled = K.clone()
    scaled[..., 0, 0] *= scale_x
    scaled[..., 1, 1] *= scale_y
    scaled[..., 0, 2] = (K[..., 0, 2] + 0.5) * scale_x - 0.5
    scaled[..., 1, 2] = (K[..., 1, 2] + 0.5) * scale_y - 0.5
    return scaled


def crop(K: Float[Tensor, "*batch 3 3"], left: float, top: float) -> Float[Tensor, "*batch 3 3"]:
    """Return K of the picture without its first `left` columns and `top` rows."""
    moved = K.clone()
    moved[..., 0, 2] -= left
    moved[..., 1, 2] -= top
    return moved


def pluecker_map(
    K: Float[Tensor, "*batch 3 3"],
    world_from_cam: Float[Tensor, "*batch 4 4"],
    size: tuple[int, int],
) -> Float[Tensor, "*batch 6 height width"]:
    """Return moment and direction of every pixel's ray in the world (golden/README, `raymap`).

    The ray goes through (u + 0.5, v + 0.5), half a pixel off our pixel centres; slopes end at 1.

    Args:
        K: Pixels.
        world_from_cam: Metres.
        size: Height and width [px].

    Returns:
        Origin x direction [m], then the direction of unit length.
    """
    slopes = rays(crop(K, 0.5, 0.5), *size).clamp(-1, 1)
    rotation, origin = world_from_cam[..., :3, :3], world_from_cam[..., :3, 3]
    direction = torch.nn.functional.normalize(slopes, dim=-1)
    direction = direction @ rotation.transpose(-1, -2)[..., None, :, :]
    moment = torch.linalg.cross(origin[..., None, None, :].expand_as(direction), direction)
    return torch.cat((moment, direction), dim=-1).movedim(-1, -3)
