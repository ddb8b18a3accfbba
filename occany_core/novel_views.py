# SPDX-License-Identifier: Apache-2.0
"""Poses -> virtual poses, and known points drawn into them (paper 3.4, spec 10 and 11).

Every observed view spawns a straight line of views ahead of it, and pairs of turned and shifted
copies. Known points are drawn one pixel each; the nearest wins. `B` scenes, `V` observed and `R`
novel views.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from occany_core import camera, rigid
from occany_core.config import NovelViewsConfig


@dataclass(frozen=True)
class ProposedViews:
    """Novel views and the observed view that each belongs to."""

    world_from_cam: Float[Tensor, "R 4 4"]
    owner: Int[Tensor, " R"]
    """Index of the observed view."""


def propose_views(
    world_from_cam: Float[Tensor, "V 4 4"], config: NovelViewsConfig
) -> ProposedViews:
    """Place novel views around the observed ones (test-time view augmentation).

    Order: all straight views (by observed view, then step), then the copies shifted and turned
        to the right, then those to the left. At most `config.max_views`, evenly thinned.
    """
    num_views = len(world_from_cam)
    device = world_from_cam.device
    steps = torch.arange(1, config.steps + 1, dtype=torch.float32)
    ahead = (
        torch.stack([rigid.shift(z=float(step) * config.forward_step) for step in steps])
        if config.steps
        else torch.zeros(0, 4, 4)
    )
    straight = (world_from_cam[:, None] @ ahead.to(device)).flatten(0, 1)
    poses = [straight]
    if config.yaw_deg > 0:
        for side in (1.0, -1.0):
            turn = rigid.yaw(torch.tensor(side * config.yaw_deg).deg2rad())
            poses.append(straight @ (rigid.shift(x=side * config.lateral) @ turn).to(device))
    owner = (
        torch.arange(num_views, device=device).repeat_interleave(config.steps).repeat(len(poses))
    )
    views = ProposedViews(torch.cat(poses), owner)
    if config.max_views and len(owner) > config.max_views:
        kept = torch.linspace(0, len(owner) - 1, config.max_views).round().long().to(device)
        views = ProposedViews(views.world_from_cam[kept], owner[kept])
    return views


def nearest_points(
    points_world: Float[Tensor, "P 3"],
    K: Float[Tensor, "3 3"],
    world_from_cam: Float[Tensor, "4 4"],
    height: int,
    width: int,
) -> tuple[Int[Tensor, "height width"], Float[Tensor, "P 3"]]:
    """Draw points into one view with a z-buffer.

    A point covers the pixel nearest to its projection (halves to even); points at or behind the
    camera vanish. Ties go to the lower index.

    Returns:
        The index of the winning point per pixel, -1 where none falls; and all points in the view's
        frame.
    """
    points_cam = (points_world - world_from_cam[:3, 3]) @ world_from_cam[:3, :3]
    pixels = camera.project(K, points_cam).round()
    depth = points_cam[:, 2]
    limits = pixels.new_tensor([width, height])
    inside = ((pixels >= 0) & (pixels < limits)).all(dim=-1) & (depth > 0)
    index = inside.nonzero()[:, 0]
    u, v = pixels[index].long().unbind(-1)
    # Positive floats order like their bits: one integer minimum settles depth first, then index.
    key = (depth[index].contiguous().view(torch.int32).long() << 32) | index
    empty = torch.iinfo(torch.int64).max
    nearest = torch.full((height * width,), empty, dtype=torch.int64, device=points_world.device)
    nearest.scatter_reduce_(0, v * width + u, key, "amin")
    winner = torch.where(nearest == empty, -1, nearest & 0xFFFFFFFF)
    return winner.view(height, width), points_cam


def project_points(
    points_world: Float[Tensor, "B V H W 3"],
    features: Float[Tensor, "B V C H W"],
    K: Float[Tensor, "B R 3 3"],
    world_from_cam: Float[Tensor, "B R 4 4"],
) -> Float[Tensor, "B R C+6 H W"]:
    """Draw all observed points into every novel view, with their features (spec 11.2).

    Args:
        points_world: Source points; all are drawn, whatever their confidence.
        features: What each source pixel carries along (`source_features`).
        K: Of the novel views, at the pictures' size.
        world_from_cam: Of the novel views.

    Returns:
        Per pixel the winning point in the novel camera, the same in the world, and its features;
        zero where no point falls.
    """
    scenes, novel = K.shape[:2]
    height, width = points_world.shape[2:4]
    out = []
    for scene in range(scenes):
        points = points_world[scene].reshape(-1, 3)
        carried = torch.cat(
            (points, features[scene].permute(0, 2, 3, 1).reshape(len(points), -1)), dim=1
        )
        for view in range(novel):
            winner, points_cam = nearest_points(
                points, K[scene, view], world_from_cam[scene, view], height, width
            )
            hit = winner >= 0
            at = winner[hit]
            picture = carried.new_zeros(height, width, 3 + carried.shape[1])
            picture[hit] = torch.cat((points_cam[at], carried[at]), dim=1)
            out.append(picture.permute(2, 0, 1))
    return torch.stack(out).unflatten(0, (scenes, novel))


def source_features(
    images: Float[Tensor, "B V 3 H W"],
    confidence: Float[Tensor, "B V H W"],
    segmentation: tuple[Float[Tensor, "B V C s s"], ...],
) -> Float[Tensor, "B V C H W"]:
    """Stack what source pixels carry: colour in [-1, 1], confidence - 1, segmentation."""
    sizes, shape = images.shape[:2], images.shape[-2:]
    levels = [
        F.interpolate(
            level.flatten(0, 1), size=shape, mode="bilinear", align_corners=False
        ).unflatten(0, sizes)
        for level in segmentation
    ]
    return torch.cat((images, (confidence - 1)[:, :, None], *levels), dim=2)
