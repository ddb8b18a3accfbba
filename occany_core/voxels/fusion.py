# SPDX-License-Identifier: Apache-2.0
"""Observed and rendered points of many views become one grid.

Points are in the grid frame (body axes x forward, y left, z up), metres.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, Int8
from torch import Tensor

from occany_core.config import VoxelsConfig
from occany_core.errors import InputError
from occany_core.voxels.grid import (
    FREE,
    OCCUPIED,
    UNKNOWN,
    VoxelGrid,
    VoxelGridSpec,
    count_points,
)
from occany_core.voxels.published import mark_trilinear
from occany_core.voxels.rays import count_rays
from occany_core.voxels.surfaces import double_columns, fill_flat_gaps

RAY_STRIDE = 2
"""Every so many pixels, in both directions, one ray is cast."""


@dataclass(frozen=True)
class ViewPoints:
    """Points of one view in the grid frame."""

    points: Float[Tensor, "H W 3"]
    kept: Bool[Tensor, "H W"]
    """Confident and within range."""
    centre: Float[Tensor, "3"]
    """Where the camera is [m]."""


class Fusion:
    """What the views given so far say about every cell; nobody has to keep the views.

    `cell`: a cell's probability weighs the points in it against the rays that pass through it;
    rendered points may only fill cells that are unknown. `trilinear`: the published rule, all
    points together, every touched cell occupied. Neither the order of views nor their grouping
    into calls matters.

    Args:
        config: Grid and rules.
        device: Where the points are, and where counting happens.
    """

    def __init__(self, config: VoxelsConfig, device: torch.device | str = "cpu") -> None:
        self.config = config
        self.spec = VoxelGridSpec.of(config)
        self._passes = torch.zeros(self.spec.shape, dtype=torch.long, device=device)
        self._seen = torch.zeros_like(self._passes)
        self._rendered = torch.zeros_like(self._passes)

    def see(self, views: list[ViewPoints]) -> None:
        """Take in the points of observed views, and the rays to them."""
        if not views:
            return
        self._seen += self._count(views)
        if self.config.carve_free:
            self._passes += _count_passes(views, self.spec, self.config.max_range)

    def render(self, views: list[ViewPoints]) -> None:
        """Take in the points of rendered views."""
        if views:
            self._rendered += self._count(views)

    def grid(self) -> VoxelGrid:
        """Decide about every cell, from what is in so far."""
        if self.config.method == "trilinear":
            probability, completed = self._marked_cells()
        else:
            probability, completed = self._weighed_cells()
        probability[completed] = OCCUPIED
        return VoxelGrid(self.spec, probability.cpu().numpy(), completed.cpu().numpy())

    def _count(self, views: list[ViewPoints]) -> Int[Tensor, "X Y Z"]:
        """Count the points in each cell; for `trilinear`, one where some point marks it."""
        if self.config.method == "trilinear":
            return mark_trilinear(torch.cat([v.points[v.kept] for v in views]), self.spec).long()
        return _count_surfaces(views, self.spec)

    def _weighed_cells(self) -> tuple[Int8[Tensor, "X Y Z"], Bool[Tensor, "X Y Z"]]:
        """Return the probability by observation, and the cells that rendered points fill."""
        hits, passes = self._seen, self._passes
        evidence = hits / (hits + self.config.pass_weight * passes).clamp_min(1e-6)
        probability = (evidence * OCCUPIED).round().to(torch.int8)
        probability[(hits == 0) & (passes == 0)] = UNKNOWN
        supported = self._rendered >= self.config.min_rendered_points
        return probability, supported & (probability == UNKNOWN)

    def _marked_cells(self) -> tuple[Int8[Tensor, "X Y Z"], Bool[Tensor, "X Y Z"]]:
        """Return the same by the published rule."""
        probability = torch.full_like(self._seen, UNKNOWN, dtype=torch.int8)
        probability[self._passes > 0] = FREE
        probability[self._seen > 0] = OCCUPIED
        return probability, (self._rendered > 0) & (self._seen == 0)


def fuse(
    observed: list[ViewPoints], rendered: list[ViewPoints], config: VoxelsConfig
) -> VoxelGrid:
    """Fuse observed and rendered points into one grid, by the rules of `Fusion`.

    Args:
        observed: Per view; at least one.
        rendered: Per novel view; may be empty.
        config: Grid and rules.

    Raises:
        InputError: No observed views.
    """
    if not observed:
        raise InputError("fuse got no observed views; give the points of at least one")
    fusion = Fusion(config, observed[0].points.device)
    fusion.see(observed)
    fusion.render(rendered)
    return fusion.grid()


def _count_surfaces(views: list[ViewPoints], spec: VoxelGridSpec) -> Int[Tensor, "X Y Z"]:
    """Count the kept points of all views, and those that fill the gaps between them."""
    surfaces = []
    for view in views:
        from_camera, kept = double_columns(view.points - view.centre, view.kept)
        filled = fill_flat_gaps(from_camera, kept, spec.resolution)
        surfaces += [from_camera[kept] + view.centre, filled + view.centre]
    return count_points(torch.cat(surfaces), spec)


def _count_passes(
    views: list[ViewPoints], spec: VoxelGridSpec, max_range: float
) -> Int[Tensor, "X Y Z"]:
    """Count the pixels whose rays pass through each cell, from a sample of them."""
    some = (slice(None, None, RAY_STRIDE),) * 2
    ends = [view.points[some][view.kept[some]] for view in views]
    centres = [view.centre.expand_as(end) for view, end in zip(views, ends, strict=True)]
    rays = count_rays(torch.cat(centres), torch.cat(ends), spec, max_range)
    return rays * RAY_STRIDE**2
