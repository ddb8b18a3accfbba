# SPDX-License-Identifier: Apache-2.0
"""Points -> VoxelGrid: voxelise, carve free space, fuse observed and rendered points (spec 8, 9).

Points are in the grid frame (body axes x forward, y left, z up), metres. Cell (i, j, k) covers
`origin + resolution * [i, i + 1) x [j, j + 1) x [k, k + 1)`. `P` points, `X Y Z` cells, `C`
classes.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int8, UInt8
from torch import Tensor

from occany_core.config import VoxelsConfig

UNKNOWN, FREE, OCCUPIED = -1, 0, 100
OCCUPIED_FROM = 50
"""Cells with at least this probability [percent] count as occupied."""
RAY_STRIDE = 2
"""Every so many pixels, in both directions, one ray is cast."""


@dataclass(frozen=True)
class VoxelGridSpec:
    """Where the cells are."""

    origin: tuple[float, float, float]
    """Minimum corner of cell (0, 0, 0) in the grid frame [m]."""
    resolution: float
    """Edge of a cell [m]."""
    shape: tuple[int, int, int]
    """Cells along x, y, z."""

    @property
    def num_cells(self) -> int:
        """Cells in all."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    @classmethod
    def of(cls, config: VoxelsConfig) -> "VoxelGridSpec":
        """Take the geometry out of the settings."""
        return cls(tuple(config.origin), config.resolution, tuple(config.shape))


@dataclass(frozen=True)
class VoxelGrid:
    """A dense grid in host memory."""

    spec: VoxelGridSpec
    probability: Int8[np.ndarray, "X Y Z"]
    """-1 unknown, else the probability of being occupied in percent, 0 to 100."""
    completed: Bool[np.ndarray, "X Y Z"]
    """Occupied on the word of rendered views only."""
    labels: UInt8[np.ndarray, "X Y Z"] | None = None
    """Class ids, or None without semantics."""

    @property
    def occupied(self) -> Bool[np.ndarray, "X Y Z"]:
        """Cells that count as occupied."""
        return self.probability >= OCCUPIED_FROM

    @property
    def free(self) -> Bool[np.ndarray, "X Y Z"]:
        """Cells known to be empty."""
        return (self.probability >= 0) & ~self.occupied

    def occupied_centres(self) -> Float[np.ndarray, "P 3"]:
        """Return the centres of occupied cells [m]."""
        ijk = np.argwhere(self.occupied)
        return (np.asarray(self.spec.origin) + (ijk + 0.5) * self.spec.resolution).astype(
            np.float32
        )


def lattice_coordinates(points: Float[Tensor, "P 3"], spec: VoxelGridSpec) -> Float[Tensor, "P 3"]:
    """Return (point - origin) / resolution in float32."""
    return (points - points.new_tensor(spec.origin)) / spec.resolution


def _flat_index(ijk: Int[Tensor, "P 3"], spec: VoxelGridSpec) -> tuple[Tensor, Tensor]:
    """Return flat cell indices of the points inside, and the mask of those points."""
    limits = ijk.new_tensor(spec.shape)
    inside = ((ijk >= 0) & (ijk < limits)).all(dim=-1)
    i, j, k = ijk[inside].unbind(-1)
    return (i * spec.shape[1] + j) * spec.shape[2] + k, inside


def _cell_or_none(q: Float[Tensor, "P 3"], spec: VoxelGridSpec) -> Int[Tensor, " P"]:
    """Return the flat cell of lattice coordinates; `spec.num_cells` where there is none."""
    inside = ((q >= 0) & (q < q.new_tensor(spec.shape))).all(dim=-1)
    i, j, k = q.long().unbind(-1)  # truncation is floor for what is inside
    return torch.where(inside, (i * spec.shape[1] + j) * spec.shape[2] + k, spec.num_cells)


def _count_cells(cells: Int[Tensor, " P"], spec: VoxelGridSpec) -> Int[Tensor, "X Y Z"]:
    """Count how often each cell occurs; `spec.num_cells` stands for none."""
    return torch.bincount(cells, minlength=spec.num_cells + 1)[:-1].view(spec.shape)


def count_points(points: Float[Tensor, "P 3"], spec: VoxelGridSpec) -> Int[Tensor, "X Y Z"]:
    """Count the points in every cell; points outside or not finite are left out."""
    return _count_cells(_cell_or_none(lattice_coordinates(points, spec), spec), spec)


def _corners(
    points: Float[Tensor, "P 3"], spec: VoxelGridSpec
) -> "list[tuple[Int[Tensor, 'P 3'], Float[Tensor, ' P']]]":
    """List the eight lattice corners of each point with their trilinear weights, x outermost."""
    q = lattice_coordinates(points, spec)
    low = q.floor()
    rest = q - low
    low = low.long()
    sides = (
        (1 - rest[:, 0], rest[:, 0]),
        (1 - rest[:, 1], rest[:, 1]),
        (1 - rest[:, 2], rest[:, 2]),
    )
    return [
        (low + low.new_tensor([a, b, c]), sides[0][a] * sides[1][b] * sides[2][c])
        for a, b, c in product((0, 1), repeat=3)
    ]


def mark_trilinear(points: Float[Tensor, "P 3"], spec: VoxelGridSpec) -> Bool[Tensor, "X Y Z"]:
    """Mark every cell that gets a positive trilinear weight from some point.

    Parity: the published grids treat cell i as the lattice node at its lower corner, so a
        point marks up to eight cells and never the one below (spec 8).
    """
    marked = torch.zeros(spec.num_cells, dtype=torch.bool, device=points.device)
    for ijk, weight in _corners(points, spec):
        index, inside = _flat_index(ijk, spec)
        marked[index[weight[inside] > 0]] = True
    return marked.view(spec.shape)


@dataclass(frozen=True)
class ClassTable:
    """Ids with a special meaning in a label convention."""

    num_classes: int
    other: int
    """Occupied, class unknown."""
    empty: int
    """Not occupied."""


def label_trilinear(
    points: Float[Tensor, "P 3"],
    confidence: Float[Tensor, " P"],
    labels: Int[Tensor, " P"],
    spec: VoxelGridSpec,
    classes: ClassTable,
) -> UInt8[Tensor, "X Y Z"]:
    """Voxelise labelled points as published (spec 8).

    Per corner offset the best weight x (confidence - 1) of each class counts, the eight offsets
    add up, and the strongest class wins (lowest id on ties). Occupied cells without a usable label
    are `other`.
    """
    grid = torch.full((spec.num_cells,), classes.empty, dtype=torch.uint8, device=points.device)
    grid[mark_trilinear(points, spec).flatten()] = classes.other
    usable = (labels != classes.empty) & (labels != classes.other)
    points, confidence, labels = points[usable], confidence[usable], labels[usable]
    if len(points):
        scores = torch.zeros(spec.num_cells * classes.num_classes, device=points.device)
        for ijk, weight in _corners(points, spec):
            index, inside = _flat_index(ijk, spec)
            best = torch.zeros_like(scores)
            score = (weight * (confidence - 1)).clamp_min(0)[inside]
            best.scatter_reduce_(
                0, index * classes.num_classes + labels[inside].long(), score, "amax"
            )
            scores += best
        scores = scores.view(-1, classes.num_classes)
        strongest = scores.argmax(dim=1)
        decided = (scores.amax(dim=1) > 0) & (strongest != classes.empty)
        grid[decided] = strongest[decided].to(torch.uint8)
    return grid.view(spec.shape)


def count_rays(
    centres: Float[Tensor, "P 3"],
    points: Float[Tensor, "P 3"],
    spec: VoxelGridSpec,
    max_range: float,
) -> Int[Tensor, "X Y Z"]:
    """Count the rays from camera centres to points that pass through each cell.

    Rays are sampled once per cell length and end one cell before their point.
    """
    direction = points - centres
    length = direction.norm(dim=-1, keepdim=True)
    direction = direction / length.clamp_min(1e-6)
    reach, order = (length[:, 0] - spec.resolution).sort(descending=True)
    direction, start = (
        direction[order] / spec.resolution,
        lattice_coordinates(centres, spec)[order],
    )
    distances = torch.arange(
        0.5 * spec.resolution, max_range, spec.resolution, device=points.device
    )
    num_alive = torch.searchsorted(-reach, -distances)
    passed = [reach.new_zeros(0, dtype=torch.long)]
    for distance, count in zip(distances.tolist(), num_alive.tolist(), strict=True):
        samples = start[:count] + direction[:count] * distance
        passed.append(_cell_or_none(samples, spec))
    return _count_cells(torch.cat(passed), spec)


def fill_flat_gaps(
    points: Float[Tensor, "H W 3"], kept: Bool[Tensor, "H W"], resolution: float
) -> Float[Tensor, "P 3"]:
    """Return points between vertically neighbouring pixels of flat surfaces.

    Points are relative to the camera, in grid axes.

    Far ground is seen at a grazing angle: from one picture row to the next it skips several cells.
    Where two kept neighbours differ little in height (under one cell) and in range (under 1.7
    times), points are placed between them at most half a cell apart.
    """
    near, far = points[1:].reshape(-1, 3), points[:-1].reshape(-1, 3)
    gap = (far - near).norm(dim=-1)
    rises = (far[:, 2] - near[:, 2]).abs()
    flat = (rises < resolution) & (gap > resolution / 2) & (gap < 0.7 * near.norm(dim=-1))
    flat &= (kept[1:] & kept[:-1]).flatten()
    start, step, gap = near[flat], (far - near)[flat], gap[flat]
    num = (gap / (resolution / 2)).long()
    owner = torch.arange(len(num), device=points.device).repeat_interleave(num)
    place = torch.arange(len(owner), device=points.device) - (num.cumsum(0) - num)[owner] + 1
    return start[owner] + step[owner] * (place / (num[owner] + 1))[:, None]


def double_columns(
    points: Float[Tensor, "H W 3"], kept: Bool[Tensor, "H W"]
) -> tuple[Float[Tensor, "H W2 3"], Bool[Tensor, "H W2"]]:
    """Insert the midpoint between horizontal neighbours, kept where they are on one surface.

    That is where both are kept and lie within 15 % of their range of each other. Points are
    relative to the camera, in grid axes.
    """
    left, right = points[:, :-1], points[:, 1:]
    near = (right - left).norm(dim=-1) < 0.15 * torch.minimum(
        left.norm(dim=-1), right.norm(dim=-1)
    )
    height, width = kept.shape
    doubled = points.new_empty(height, 2 * width - 1, 3)
    doubled[:, ::2], doubled[:, 1::2] = points, (left + right) / 2
    doubled_kept = kept.new_empty(height, 2 * width - 1)
    doubled_kept[:, ::2], doubled_kept[:, 1::2] = kept, kept[:, :-1] & kept[:, 1:] & near
    return doubled, doubled_kept


def snap_to_ground(
    points: Float[Tensor, "P 3"], centres: Float[Tensor, "3"], tolerance: float
) -> Float[Tensor, "P 3"]:
    """Move points near or below the plane z = 0 along their viewing ray onto it.

    Nothing is seen below the ground of a level street, so a point there is too far away; one less
    than `tolerance` above it is most likely ground whose distance is a little off. A camera
    at or below the plane moves no point.
    """
    drop = centres[2] - points[:, 2]
    on_ray = (points[:, 2] < tolerance) & (drop > 0.2 * centres[2]) & (centres[2] > 0)
    scale = torch.where(on_ray, centres[2] / drop.clamp_min(1e-6), 1.0)
    return centres + (points - centres) * scale[:, None]


@dataclass(frozen=True)
class ViewPoints:
    """Points of one view in the grid frame."""

    points: Float[Tensor, "H W 3"]
    kept: Bool[Tensor, "H W"]
    """Confident and within range."""
    centre: Float[Tensor, "3"]
    """Where the camera is [m]."""


def fuse(
    observed: list[ViewPoints], rendered: list[ViewPoints], config: VoxelsConfig
) -> VoxelGrid:
    """Fuse observed and rendered points into one grid.

    `cell`: a cell's probability weighs the points in it against the rays that pass through it;
    rendered points may only fill cells that are unknown. `trilinear`: the published rule, all
    points together, every touched cell occupied.

    Args:
        observed: Per view; at least one.
        rendered: Per novel view; may be empty.
        config: Grid and rules.
    """
    spec = VoxelGridSpec.of(config)
    if config.method == "trilinear":
        return _fuse_trilinear(observed, rendered, config)
    hits = _count_surfaces(observed, spec)
    passes = _count_passes(observed, spec, config) if config.carve_free else torch.zeros_like(hits)
    evidence = hits / (hits + config.pass_weight * passes).clamp_min(1e-6)
    probability = (evidence * OCCUPIED).round().to(torch.int8)
    probability[(hits == 0) & (passes == 0)] = UNKNOWN
    supported = _count_surfaces(rendered, spec).to(hits.device) >= config.min_rendered_points
    completed = supported & (probability == UNKNOWN)
    probability[completed] = OCCUPIED
    return VoxelGrid(spec, probability.cpu().numpy(), completed.cpu().numpy())


def _count_surfaces(views: list[ViewPoints], spec: VoxelGridSpec) -> Int[Tensor, "X Y Z"]:
    """Count the kept points of all views, and those that fill the gaps between them."""
    if not views:
        return torch.zeros(spec.shape, dtype=torch.long)
    surfaces = []
    for view in views:
        from_camera, kept = double_columns(view.points - view.centre, view.kept)
        filled = fill_flat_gaps(from_camera, kept, spec.resolution)
        surfaces += [from_camera[kept] + view.centre, filled + view.centre]
    return count_points(torch.cat(surfaces), spec)


def _count_passes(
    observed: list[ViewPoints], spec: VoxelGridSpec, config: VoxelsConfig
) -> Int[Tensor, "X Y Z"]:
    """Count the pixels whose rays pass through each cell, from a sample of them."""
    some = (slice(None, None, RAY_STRIDE),) * 2
    ends = [view.points[some][view.kept[some]] for view in observed]
    centres = [view.centre.expand_as(end) for view, end in zip(observed, ends, strict=True)]
    rays = count_rays(torch.cat(centres), torch.cat(ends), spec, config.max_range)
    return rays * RAY_STRIDE**2


def _fuse_trilinear(
    observed: list[ViewPoints], rendered: list[ViewPoints], config: VoxelsConfig
) -> VoxelGrid:
    spec = VoxelGridSpec.of(config)
    seen = mark_trilinear(torch.cat([view.points[view.kept] for view in observed]), spec)
    added = torch.zeros_like(seen)
    for view in rendered:
        added |= mark_trilinear(view.points[view.kept], spec) & ~seen
    probability = torch.full(spec.shape, UNKNOWN, dtype=torch.int8, device=seen.device)
    if config.carve_free:
        probability[_count_passes(observed, spec, config) > 0] = FREE
    probability[seen | added] = OCCUPIED
    return VoxelGrid(spec, probability.cpu().numpy(), added.cpu().numpy())
