# SPDX-License-Identifier: Apache-2.0
"""Dense voxel truth of a street: world and ego pose -> class per cell; rays -> cells a camera saw.

Grid frame: the ego (rig) frame at the given time, x forward, y left, z up, metres; cell (i,j,k)
covers origin + [i, i+1) * resolution and so on. Classes are Occ3D ids, `FREE` where empty.
"""

from dataclasses import dataclass

import numpy as np
import torch

from occany_core.synthetic.classes import SemanticClass
from occany_core.synthetic.primitives import Primitives, Shape
from occany_core.synthetic.roads import Road
from occany_core.synthetic.world import StreetWorld

ROAD_NEIGHBOURHOOD = 15.0  # metres around a road's bounding box where it is looked at
RAY_START = 0.3  # metres from the camera
RAY_END = 60.0  # metres of depth
RAY_STEP = 0.7  # cells between the samples of a ray
DENSE_RANGE = 15.0  # metres up to which a quarter of the rays is enough


@dataclass(frozen=True)
class GridFrame:
    """Placement of a voxel grid: min corner [m], cells along x, y, z, side of a cell [m]."""

    origin: tuple[float, float, float] = (-40.0, -40.0, -1.0)
    shape: tuple[int, int, int] = (200, 200, 16)
    resolution: float = 0.4


OCC3D_GRID = GridFrame()


def voxel_classes(
    world: StreetWorld,
    seconds: float,
    world_from_ego: np.ndarray,
    grid: GridFrame = OCC3D_GRID,
) -> np.ndarray:
    """Class per cell (X,Y,Z) uint8; a cell is filled where its centre lies in or close to a body.

    world_from_ego (4,4) must be planar (yaw and xy). Bodies thinner than a cell are widened to
    30 % of it, later primitives overwrite earlier ones, and the ground fills the cell below z=0.
    """
    classes = np.full(grid.shape, int(SemanticClass.FREE), np.uint8)
    ground_layer = int(np.floor((-1e-3 - grid.origin[2]) / grid.resolution))
    if 0 <= ground_layer < grid.shape[2]:
        classes[:, :, ground_layer] = _ground_classes(world, world_from_ego, grid)
    _fill_bodies(classes, world.primitives, seconds, world_from_ego, grid)
    return classes


def _cell_centers(grid: GridFrame, axis: int, index: np.ndarray) -> np.ndarray:
    return (index + 0.5) * grid.resolution + grid.origin[axis]


def _ground_classes(world: StreetWorld, world_from_ego: np.ndarray, grid: GridFrame) -> np.ndarray:
    """Road, sidewalk or terrain below each column (X,Y) uint8."""
    x = _cell_centers(grid, 0, np.arange(grid.shape[0]))
    y = _cell_centers(grid, 1, np.arange(grid.shape[1]))
    in_ego = np.stack(np.meshgrid(x, y, indexing="ij"), -1)
    points = in_ego @ world_from_ego[:2, :2].T + world_from_ego[:2, 3]
    nearest = np.full(points.shape[:2], 1e9)
    classes = np.full(points.shape[:2], int(SemanticClass.TERRAIN), np.uint8)
    for road in world.roads:
        low = road.points.min(0) - ROAD_NEIGHBOURHOOD
        high = road.points.max(0) + ROAD_NEIGHBOURHOOD
        near = ((points > low) & (points < high)).all(-1)
        if not near.any():
            continue
        beyond = np.full(nearest.shape, 1e9)
        beyond[near] = _distance_to(road, points[near]) - road.half_width
        closer = beyond < nearest
        nearest[closer] = beyond[closer]
        outside = np.where(
            beyond < road.sidewalk, int(SemanticClass.SIDEWALK), int(SemanticClass.TERRAIN)
        )
        classes[closer] = np.where(beyond < 0, int(SemanticClass.DRIVEABLE_SURFACE), outside)[
            closer
        ]
    return classes


def _distance_to(road: Road, points: np.ndarray) -> np.ndarray:
    """Distance of points (M,2) to the road, looking only at segments near their bounding box."""
    low, high = points.min(0), points.max(0)
    middle, radius = (low + high) / 2, np.linalg.norm(high - low) / 2
    step = road.points[1:] - road.points[:-1]
    offset = middle - road.points[:-1]
    along = np.clip((offset * step).sum(-1) / (step * step).sum(-1), 0, 1)
    to_middle = np.linalg.norm(offset - along[:, None] * step, axis=-1)
    useful = np.nonzero(to_middle <= to_middle.min() + 2 * radius)[0]
    squared = np.full(len(points), np.inf)
    x, y = np.ascontiguousarray(points.T)
    for k in useful:
        ox, oy = x - road.points[k, 0], y - road.points[k, 1]
        dx, dy = step[k]
        share = np.clip((ox * dx + oy * dy) / (dx * dx + dy * dy), 0, 1)
        squared = np.minimum(squared, (ox - share * dx) ** 2 + (oy - share * dy) ** 2)
    return np.sqrt(squared)


def _fill_bodies(
    classes: np.ndarray,
    primitives: Primitives,
    seconds: float,
    world_from_ego: np.ndarray,
    grid: GridFrame,
) -> None:
    """Writes the class of every primitive into the cells it fills, in order of the primitives."""
    resolution = grid.resolution
    cos_ego, sin_ego = world_from_ego[0, 0], world_from_ego[1, 0]
    ego_from_world = np.array([[cos_ego, sin_ego], [-sin_ego, cos_ego]])
    center = primitives.centers_at(seconds)
    center[:, :2] = (center[:, :2] - world_from_ego[:2, 3]) @ ego_from_world.T
    yaw = primitives.yaw - np.arctan2(sin_ego, cos_ego)
    cos, sin = np.cos(yaw), np.sin(yaw)
    half = np.maximum(primitives.half_extent, resolution * 0.30)
    reach = np.stack(
        [
            abs(cos) * half[:, 0] + abs(sin) * half[:, 1],
            abs(sin) * half[:, 0] + abs(cos) * half[:, 1],
            half[:, 2],
        ],
        -1,
    )
    origin, shape = np.array(grid.origin), np.array(grid.shape)
    first = np.floor((center - reach - origin) / resolution).astype(int).clip(0)
    end = np.minimum(np.ceil((center + reach - origin) / resolution).astype(int), shape)

    body, i, j = _columns(first, end)
    x = _cell_centers(grid, 0, i) - center[body, 0]
    y = _cell_centers(grid, 1, j) - center[body, 1]
    local_x = cos[body] * x + sin[body] * y
    local_y = -sin[body] * x + cos[body] * y
    is_box = primitives.shape == int(Shape.BOX)
    is_ellipsoid = primitives.shape == int(Shape.ELLIPSOID)
    round_half = half + resolution * 0.2
    in_box = (abs(local_x) <= half[body, 0] + resolution * 0.25) & (
        abs(local_y) <= half[body, 1] + resolution * 0.25
    )
    radial = (local_x / round_half[body, 0]) ** 2 + (local_y / round_half[body, 1]) ** 2
    inside = np.nonzero(np.where(is_box[body], in_box, radial <= 1))[0]
    body, i, j, radial = body[inside], i[inside], j[inside], radial[inside]

    column, k = _ranges(first[body, 2], end[body, 2])
    body, radial = body[column], radial[column]
    z = _cell_centers(grid, 2, k) - center[body, 2]
    upright = abs(z) <= half[body, 2] + resolution * 0.25
    curved = radial + (z / round_half[body, 2]) ** 2 <= 1
    inside = np.nonzero(np.where(is_ellipsoid[body], curved, upright))[0]
    cell = np.ravel_multi_index((i[column], j[column], k), grid.shape)[inside]
    classes.reshape(-1)[cell] = primitives.semantics[body[inside]]


def _columns(first: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Owner, i and j of all columns in the boxes [first, end) (P,3), ordered by owner."""
    size = (end - first).clip(0)
    size[(size == 0).any(-1)] = 0
    owner, index = _ranges(np.zeros(len(size), int), size[:, 0] * size[:, 1])
    depth = size[owner, 1]
    return owner, first[owner, 0] + index // depth, first[owner, 1] + index % depth


def _ranges(start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Owner and value of all integers in the ranges [start, end) (N,), ordered by owner."""
    count = end - start
    owner = np.repeat(np.arange(len(count)), count)
    return owner, np.arange(len(owner)) - (np.cumsum(count) - count)[owner] + start[owner]


def seen_cells(
    depth: torch.Tensor,
    rays: torch.Tensor,
    world_from_cam: torch.Tensor,
    world_from_ego: np.ndarray,
    grid: GridFrame = OCC3D_GRID,
) -> np.ndarray:
    """Bool (X,Y,Z): cells that a pixel's ray crosses, up to and including what it hits.

    depth (F,H,W) metres, inf for sky; rays (F,H,W,3) world directions of unit camera depth;
    world_from_cam (F,4,4). Rays end after 60 m; up to 15 m, where they lie closer together than
    cells, only every second pixel of both axes is followed.
    """
    ego = torch.as_tensor(world_from_ego, dtype=torch.float64)
    corner = torch.tensor(grid.origin, dtype=torch.float64)
    camera = world_from_cam[:, :3, 3].cpu().double()
    start = ((camera - ego[:3, 3]) @ ego[:3, :3] - corner).float()
    direction = (rays.cpu().double() @ ego[:3, :3]).float()
    length = direction.norm(dim=-1)
    direction = direction / length[..., None]
    end = depth.cpu().clamp(max=RAY_END) * length + grid.resolution * 0.5
    start = start[:, None, None].expand_as(direction)
    seen = torch.zeros(grid.shape, dtype=torch.bool)
    near, far = (slice(None), slice(None, None, 2), slice(None, None, 2)), slice(None)
    for pixels, begin, stop in ((near, RAY_START, DENSE_RANGE), (far, DENSE_RANGE, RAY_END)):
        _follow(
            seen,
            start[pixels].reshape(-1, 3),
            direction[pixels].reshape(-1, 3),
            (begin, end[pixels].reshape(-1).clamp(max=stop)),
            grid,
        )
    return seen.numpy()


def _follow(
    seen: torch.Tensor,
    start: torch.Tensor,
    direction: torch.Tensor,
    span: tuple[float, torch.Tensor],
    grid: GridFrame,
) -> None:
    """Marks the cells along M rays.

    start (M,3) from the grid's corner; span (begin, end (M,)) along the unit direction (M,3);
    metres.
    """
    begin, end = span
    useful = end > begin
    start, direction, end = start[useful], direction[useful], end[useful]
    enter, leave = _inside_grid(start, direction, grid)
    step = grid.resolution * RAY_STEP
    first = ((enter.clamp_min(begin) - RAY_START) / step).floor().clamp_min(0).long()
    last = ((torch.minimum(leave, end) - RAY_START) / step).floor().long()
    _mark(seen, start, direction, first, last, grid)


def _inside_grid(
    start: torch.Tensor, direction: torch.Tensor, grid: GridFrame
) -> tuple[torch.Tensor, torch.Tensor]:
    """Range in metres (M,) where each ray enters and leaves the grid; start is from its corner."""
    size = torch.tensor(grid.shape) * grid.resolution
    inverse = 1.0 / torch.where(direction.abs() < 1e-9, 1e-9, direction)
    a, b = -start * inverse, (size - start) * inverse
    return torch.minimum(a, b).amax(-1), torch.maximum(a, b).amin(-1)


def _mark(
    seen: torch.Tensor,
    start: torch.Tensor,
    direction: torch.Tensor,
    first: torch.Tensor,
    last: torch.Tensor,
    grid: GridFrame,
) -> None:
    """Sets the cells of samples first..last of every ray."""
    alive = last >= first
    start, direction, first, last = (v[alive] for v in (start, direction, first, last))
    start = (start / grid.resolution).T.contiguous()
    direction = (direction / grid.resolution).T.contiguous()
    flat = seen.view(-1)
    nx, ny, nz = grid.shape
    step = grid.resolution * RAY_STEP
    while first.numel():
        distance = RAY_START + first * step
        i, j, k = (s + distance * d for s, d in zip(start, direction, strict=True))
        marked = (first <= last) & (i >= 0) & (i < nx) & (j >= 0) & (j < ny) & (k >= 0) & (k < nz)
        cell = (i.long() * ny + j.long()) * nz + k.long()
        flat[cell[marked]] = True
        first = first + 1
        alive = torch.nonzero(first <= last)[:, 0]
        if alive.numel() < 0.8 * first.numel():  # drop finished rays now and then, not each step
            start, direction = start[:, alive], direction[:, alive]
            first, last = first[alive], last[alive]
