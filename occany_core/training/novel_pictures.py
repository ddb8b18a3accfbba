# SPDX-License-Identifier: Apache-2.0
"""Known points drawn into the novel views of many scenes at once.

The same function as `projection.project_points`, which goes view by view to save memory; here
one integer minimum settles all pixels of a batch. `B` scenes, `V` observed and `R` novel views.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from occany_core import camera
from occany_core.projection import SourceFeatures

NOBODY = torch.iinfo(torch.int64).max


def draw_points(
    points_world: Float[Tensor, "B V H W 3"],
    features: SourceFeatures,
    K: Float[Tensor, "B R 3 3"],
    world_from_cam: Float[Tensor, "B R 4 4"],
) -> Float[Tensor, "B R C+6 H W"]:
    """Draw all observed points into every novel view of their scene.

    Args:
        points_world: Source points [m]; all are drawn.
        features: What each source pixel carries along.
        K: Of the novel views [px].
        world_from_cam: Of the novel views [m].

    Returns:
        Per pixel the nearest point in the novel camera, the same in the world, colour,
        confidence - 1 and promptable features; zero where no point falls.
    """
    size = points_world.shape[2:4]
    points = points_world.flatten(1, 3)  # (B, P, 3)
    winner = nearest_of_scenes(points, K, world_from_cam, size)
    hit = (winner >= 0)[..., None]
    at = winner.clamp_min(0)  # (B, R, HW)
    world = _carried(points, at)
    rotation, centre = world_from_cam[..., :3, :3], world_from_cam[..., None, :3, 3]
    dense = features.dense.permute(0, 1, 3, 4, 2).flatten(1, 3)
    parts = [(world - centre) @ rotation, world, _carried(dense, at)]
    for level in features.levels:
        full = F.interpolate(level.flatten(0, 1), size, mode="bilinear", align_corners=False)
        full = full.unflatten(0, level.shape[:2]).permute(0, 1, 3, 4, 2).flatten(1, 3)
        parts.append(_carried(full, at))
    drawn = torch.cat(parts, dim=-1).where(hit, 0.0)
    return drawn.unflatten(2, size).permute(0, 1, 4, 2, 3)


def nearest_of_scenes(
    points: Float[Tensor, "B P 3"],
    K: Float[Tensor, "B R 3 3"],
    world_from_cam: Float[Tensor, "B R 4 4"],
    size: tuple[int, int],
) -> Int[Tensor, "B R HW"]:
    """Return the nearest point per pixel of every view, -1 where none falls (z-buffer).

    A point covers the pixel nearest to its projection; ties go to the lower index.
    """
    height, width = size
    scenes, novel = K.shape[:2]
    rotation, centre = world_from_cam[..., :3, :3], world_from_cam[..., None, :3, 3]
    points_cam = (points[:, None] - centre) @ rotation  # (B, R, P, 3)
    pixels = camera.project(K, points_cam).round()
    depth = points_cam[..., 2]
    limits = pixels.new_tensor([width, height])
    inside = ((pixels >= 0) & (pixels < limits)).all(dim=-1) & (depth > 0)
    u, v = pixels.where(inside[..., None], 0.0).long().unbind(-1)
    # Positive floats order like their bits: one integer minimum settles depth first, then index.
    order = torch.arange(points.shape[1], device=points.device)
    key = (depth.contiguous().view(torch.int32).long() << 32) | order
    nearest = torch.full((scenes, novel, height * width), NOBODY, device=points.device)
    nearest.scatter_reduce_(2, v * width + u, key.where(inside, NOBODY), "amin")
    return torch.where(nearest == NOBODY, -1, nearest & 0xFFFFFFFF)


def _carried(
    values: Float[Tensor, "B P C"], at: Int[Tensor, "B R HW"]
) -> Float[Tensor, "B R HW C"]:
    scene = torch.arange(len(values), device=values.device)[:, None, None]
    return values[scene, at]
