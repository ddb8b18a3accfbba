# SPDX-License-Identifier: Apache-2.0
"""Known points drawn into views that nobody photographed (paper 3.2, spec 11).

One pixel each; the nearest wins. `B` scenes, `V` observed and `R` novel views.
"""

from dataclasses import dataclass

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


@dataclass(frozen=True)
class SourceFeatures:
    """What the pixels of observed views carry into novel views, besides their points."""

    dense: Float[Tensor, "B V 4 H W"]
    """Colour in [-1, 1] and confidence - 1."""
    levels: tuple[Float[Tensor, "B V C s s"], ...]
    """Promptable features at their own size; they are interpolated where a pixel needs them."""

    def level_at(
        self, scene: int, level: int, pixels: Int[Tensor, " P"], weight: Float[Tensor, " P"]
    ) -> Float[Tensor, "P C"]:
        """Interpolate one level at pixels of the observed views of a scene.

        Bilinear with half-pixel centres, as if the level were resized to the pictures' size.

        Args:
            scene: Index of the scene.
            level: Index of the level.
            pixels: Index into the V x H x W pixels.
            weight: Factor for each result.
        """
        maps = self.levels[level][scene]
        rows, columns = maps.shape[-2:]
        height, width = self.dense.shape[-2:]
        table = maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])  # (V s s, C)
        top, bottom, down = _neighbours(rows, height, maps)
        left, right, across = _neighbours(columns, width, maps)
        start = pixels // (height * width) * (rows * columns)
        y, x = pixels // width % height, pixels % width
        top, bottom = start + top[y] * columns, start + bottom[y] * columns
        left, right = left[x], right[x]
        down, across = down[y], across[x]
        corners = torch.stack((top + left, top + right, bottom + left, bottom + right), dim=1)
        upper, lower = weight * (1 - down), weight * down
        shares = torch.stack(
            (upper * (1 - across), upper * across, lower * (1 - across), lower * across), dim=1
        )
        return F.embedding_bag(corners, table, per_sample_weights=shares, mode="sum")


def _neighbours(size: int, resized: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return, for each place after resizing, the entries around it and the share of the second."""
    place = (torch.arange(resized, device=like.device) + 0.5) * (size / resized) - 0.5
    place = place.clamp_min(0)
    before = place.long()
    return before, (before + 1).clamp_max(size - 1), (place - before).to(like.dtype)


def source_features(
    images: Float[Tensor, "B V 3 H W"],
    confidence: Float[Tensor, "B V H W"],
    segmentation: tuple[Float[Tensor, "B V C s s"], ...],
) -> SourceFeatures:
    """Collect what source pixels carry (spec 11.1)."""
    return SourceFeatures(torch.cat((images, (confidence - 1)[:, :, None]), dim=2), segmentation)


def project_points(
    points_world: Float[Tensor, "B V H W 3"],
    features: SourceFeatures,
    K: Float[Tensor, "B R 3 3"],
    world_from_cam: Float[Tensor, "B R 4 4"],
) -> Float[Tensor, "B R C+6 H W"]:
    """Draw all observed points into every novel view, with their features (spec 11.2).

    Args:
        points_world: Source points; all are drawn, whatever their confidence.
        features: What each source pixel carries along.
        K: Of the novel views, at the pictures' size.
        world_from_cam: Of the novel views.

    Returns:
        Per pixel the winning point in the novel camera, the same in the world, colour,
        confidence - 1 and segmentation; zero where no point falls. Channels are stored last.
    """
    scenes, novel = K.shape[:2]
    height, width = points_world.shape[2:4]
    channels = 10 + sum(level.shape[2] for level in features.levels)
    out = points_world.new_empty(scenes, novel, height * width, channels)
    for scene in range(scenes):
        points = points_world[scene].reshape(-1, 3)
        dense = features.dense[scene].permute(0, 2, 3, 1).reshape(-1, 4)
        for view in range(novel):
            winner, points_cam = nearest_points(
                points, K[scene, view], world_from_cam[scene, view], height, width
            )
            winner = winner.flatten()
            hit = winner >= 0
            at = winner.clamp_min(0)
            picture = out[scene, view]
            carried = torch.cat((points_cam[at], points[at], dense[at]), dim=1)
            picture[:, :10] = carried.where(hit[:, None], 0.0)
            start = 10
            for level, maps in enumerate(features.levels):
                end = start + maps.shape[2]
                picture[:, start:end] = features.level_at(scene, level, at, hit.to(points.dtype))
                start = end
    return out.unflatten(2, (height, width)).permute(0, 1, 4, 2, 3)
