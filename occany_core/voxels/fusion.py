# SPDX-License-Identifier: Apache-2.0
"""Observed and rendered points of many views become one grid.

Points are in the grid frame (body axes x forward, y left, z up), metres.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
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
from occany_core.voxels.published import ConfidenceGrid
from occany_core.voxels.rays import count_rays
from occany_core.voxels.surfaces import double_columns, fill_flat_gaps

RAY_STRIDE = 2
"""Every so many pixels, in both directions, one ray is cast."""


@dataclass(frozen=True)
class ViewPoints:
    """Points of one view in the grid frame."""

    points: Float[Tensor, "H W 3"]
    confidence: Float[Tensor, "H W"]
    """0 where a point must not count, for being out of range."""
    centre: Float[Tensor, "3"]
    """Where the camera is [m]."""

    def kept(self, threshold: float) -> Bool[Tensor, "H W"]:
        """Return the points more confident than a threshold."""
        return self.confidence > threshold


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
        self._seen = _stage(config, self.spec, config.min_confidence, device)
        self._rendered = _stage(config, self.spec, config.min_confidence_novel, device)

    def see(self, views: list[ViewPoints]) -> None:
        """Take in the points of observed views, and the rays to them."""
        self._seen.add(views)
        if self.config.carve_free and views:
            self._passes += _count_passes(views, self.spec, self.config)

    def render(self, views: list[ViewPoints]) -> None:
        """Take in the points of rendered views."""
        self._rendered.add(views)

    def grid(self) -> VoxelGrid:
        """Decide about every cell, from what is in so far."""
        hits, passes = self._seen.hits(), self._passes
        if self.config.method == "trilinear":
            probability = torch.full_like(hits, UNKNOWN, dtype=torch.int8)
            probability[passes > 0] = FREE
            probability[hits > 0] = OCCUPIED
            completed = (self._rendered.hits() > 0) & (hits == 0)
        else:
            evidence = hits / (hits + self.config.pass_weight * passes).clamp_min(1e-6)
            probability = (evidence * OCCUPIED).round().to(torch.int8)
            probability[(hits == 0) & (passes == 0)] = UNKNOWN
            supported = self._rendered.hits() >= self.config.min_rendered_points
            completed = supported & (probability == UNKNOWN)
        probability[completed] = OCCUPIED
        return VoxelGrid(self.spec, probability.cpu().numpy(), completed.cpu().numpy())

    def highest_confidence(self) -> "HighestConfidence | None":
        """Return what any pair of thresholds can be applied to; None for the method `cell`."""
        if self.config.method != "trilinear":
            return None
        return HighestConfidence(
            self._seen.confidence.highest().cpu().numpy(),
            self._rendered.confidence.highest().cpu().numpy(),
        )


@dataclass(frozen=True)
class HighestConfidence:
    """The highest confidence of any point that marks a cell; 0 where none does (spec 7, 8).

    Points that count whatever their confidence (`voxels.ground_tolerance`,
    `voxels.keep_most_confident`) are above all usual thresholds.
    """

    observed: Float[np.ndarray, "X Y Z"]
    rendered: Float[np.ndarray, "X Y Z"]

    def occupied(
        self, min_confidence: float, min_confidence_novel: float
    ) -> Bool[np.ndarray, "X Y Z"]:
        """Return what the published rule occupies with these thresholds, both stages together."""
        return (self.observed > min_confidence) | (self.rendered > min_confidence_novel)


def _stage(
    config: VoxelsConfig, spec: VoxelGridSpec, threshold: float, device: torch.device | str
) -> "_CountedSurfaces | _MarkedCells":
    kind = _MarkedCells if config.method == "trilinear" else _CountedSurfaces
    return kind(spec, threshold, device)


class _CountedSurfaces:
    """Points per cell of one stage, with the gaps of its surfaces filled."""

    def __init__(self, spec: VoxelGridSpec, threshold: float, device: torch.device | str) -> None:
        self.spec = spec
        self.threshold = threshold
        self._hits = torch.zeros(spec.shape, dtype=torch.long, device=device)

    def add(self, views: list[ViewPoints]) -> None:
        surfaces = []
        for view in views:
            kept = view.kept(self.threshold)
            from_camera, kept = double_columns(view.points - view.centre, kept)
            filled = fill_flat_gaps(from_camera, kept, self.spec.resolution).points
            surfaces += [from_camera[kept] + view.centre, filled + view.centre]
        if surfaces:
            self._hits += count_points(torch.cat(surfaces), self.spec)

    def hits(self) -> Int[Tensor, "X Y Z"]:
        return self._hits


class _MarkedCells:
    """Cells that the published rule marks for one stage."""

    def __init__(self, spec: VoxelGridSpec, threshold: float, device: torch.device | str) -> None:
        self.threshold = threshold
        self.confidence = ConfidenceGrid(spec, device)

    def add(self, views: list[ViewPoints]) -> None:
        for view in views:
            self.confidence.add(view.points.flatten(0, 1), view.confidence.flatten())

    def hits(self) -> Int[Tensor, "X Y Z"]:
        return self.confidence.occupied(self.threshold).long()


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


def _count_passes(
    views: list[ViewPoints], spec: VoxelGridSpec, config: VoxelsConfig
) -> Int[Tensor, "X Y Z"]:
    """Count the pixels whose rays pass through each cell, from a sample of them."""
    some = (slice(None, None, RAY_STRIDE),) * 2
    ends = [view.points[some][view.kept(config.min_confidence)[some]] for view in views]
    centres = [view.centre.expand_as(end) for view, end in zip(views, ends, strict=True)]
    rays = count_rays(torch.cat(centres), torch.cat(ends), spec, config.max_range)
    return rays * RAY_STRIDE**2
