# SPDX-License-Identifier: Apache-2.0
"""Known points drawn into views that nobody photographed (paper 3.2, spec 11).

One pixel each; the nearest wins. `B` scenes, `V` observed and `R` novel views.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from occany_core import camera


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
