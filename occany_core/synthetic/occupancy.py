# SPDX-License-Identifier: Apache-2.0
"""Dense voxel truth of a street: world and ego pose -> class per cell; rays -> cells a camera saw.

Grid frame: the ego (rig) frame at the given time, x forward, y left, z up, metres; cell (i,j,k)
covers origin + [i, i+1) * resolution and so on. Classes are Occ3D ids, `FREE` where empty.
"""

from dataclasses import dataclass

import numpy as np
import torch

from occany_core.synthetic.classes import SemanticClass
from occany_core.synthetic.primitives import Shape
from occany_core.synthetic.world import StreetWorld

SURFACE_STEPS = 3  # of the search for the ground along a column; each gains two digits
RAY_START = 0.3  # metres from the camera
RAY_END = 60.0  # metres of depth
RAY_STEP = 0.7  # cells between the samples of a ray
HIT_MARGIN = 0.02  # metres behind a surface that a ray still counts as hitting it
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
    """Class per cell (X,Y,Z) uint8; a cell is filled where a body reaches into it.

    That is how Occ3D fills cells with the points of surfaces; judged is the centre of the cell
    against the body grown by half a cell along its own axes. The z axis of world_from_ego (4,4)
    may lean by a few degrees. Later primitives overwrite earlier ones, and of the ground the one
    cell of each column is filled that holds the surface below the column's centre.
    """
    classes = np.full(grid.shape, int(SemanticClass.FREE), np.uint8)
    _fill_ground(classes, world, world_from_ego, grid)
    _fill_bodies(classes, world, seconds, world_from_ego, grid)
    return classes


def _cell_centers(grid: GridFrame, axis: int, index: np.ndarray) -> np.ndarray:
    return (index + 0.5) * grid.resolution + grid.origin[axis]


def _fill_ground(
    classes: np.ndarray, world: StreetWorld, world_from_ego: np.ndarray, grid: GridFrame
) -> None:
    """Writes road, sidewalk or terrain into the surface cell of each column."""
    x = _cell_centers(grid, 0, np.arange(grid.shape[0]))
    y = _cell_centers(grid, 1, np.arange(grid.shape[1]))
    columns = np.stack(np.meshgrid(x, y, indexing="ij"), -1).reshape(-1, 2)
    foot = torch.from_numpy(columns @ world_from_ego[:3, :2].T + world_from_ego[:3, 3]).float()
    up = torch.from_numpy(world_from_ego[:3, 2]).float()
    height = torch.zeros_like(foot[:, 0])
    for _ in range(SURFACE_STEPS):
        point = foot + height[:, None] * up
        height += world.ground.height(point[:, 0], point[:, 1]) - point[:, 2]
    point = foot + height[:, None] * up
    surface = world.ground.edges.classes_at(point[:, 0], point[:, 1])
    layer = np.floor((height.numpy() - 1e-3 - grid.origin[2]) / grid.resolution).astype(int)
    inside = np.nonzero((layer >= 0) & (layer < grid.shape[2]))[0]
    flat = classes.reshape(-1, grid.shape[2])
    flat[inside, layer[inside]] = surface.numpy()[inside]


def _fill_bodies(
    classes: np.ndarray,
    world: StreetWorld,
    seconds: float,
    world_from_ego: np.ndarray,
    grid: GridFrame,
) -> None:
    """Writes the class of every primitive into the cells it fills, in order of the primitives."""
    bodies, resolution = world.primitives, grid.resolution
    center, body_from_ego = _bodies_in_ego(world, seconds, world_from_ego)
    half = bodies.half_extent + resolution * 0.5
    reach = (np.abs(np.linalg.inv(body_from_ego)) @ half[..., None])[..., 0]
    origin, shape = np.array(grid.origin), np.array(grid.shape)
    first = np.floor((center - reach - origin) / resolution).astype(int).clip(0)
    end = np.minimum(np.ceil((center + reach - origin) / resolution).astype(int), shape)

    body, i, j = _columns(first, end)
    x = (_cell_centers(grid, 0, i) - center[body, 0]).astype(np.float32)
    y = (_cell_centers(grid, 1, j) - center[body, 1]).astype(np.float32)
    foot = tuple(body_from_ego[body, a, 0] * x + body_from_ego[body, a, 1] * y for a in range(3))
    # What the lean of a column shifts at most is allowed for here and judged cell by cell below.
    widest = half[:, :2] + np.abs(body_from_ego[:, :2, 2]) * reach[:, 2:]
    useful = (np.abs(foot[0]) <= widest[body, 0]) & (np.abs(foot[1]) <= widest[body, 1])
    body, i, j, *foot = (v[useful] for v in (body, i, j, *foot))

    column, k = _ranges(first[body, 2], end[body, 2])
    body = body[column]
    z = (_cell_centers(grid, 2, k) - center[body, 2]).astype(np.float32)
    local = [(foot[a][column] + body_from_ego[body, a, 2] * z) / half[body, a] for a in range(3)]
    inside = np.nonzero(_inside(bodies.shape[body], local))[0]
    cell = np.ravel_multi_index((i[column], j[column], k), grid.shape)[inside]
    classes.reshape(-1)[cell] = bodies.semantics[body[inside]]


def _bodies_in_ego(
    world: StreetWorld, seconds: float, world_from_ego: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Centres (P,3) in the ego frame and body_from_ego (P,3,3), turn and shear; float32."""
    center, shear = world.placed_at(seconds)
    yaw = world.primitives.yaw
    cos, sin, zero, one = np.cos(yaw), np.sin(yaw), np.zeros_like(yaw), np.ones_like(yaw)
    body_from_world = np.stack(
        [cos, sin, zero, -sin, cos, zero, -shear[:, 0], -shear[:, 1], one], -1
    ).reshape(-1, 3, 3)
    rotation = world_from_ego[:3, :3]
    center = (center - world_from_ego[:3, 3]) @ rotation
    return center.astype(np.float32), (body_from_world @ rotation).astype(np.float32)


def _inside(shape: np.ndarray, local: list[np.ndarray]) -> np.ndarray:
    """Bool (M,): points x, y, z (M,) in units of the half extents lie in their shape (M,)."""
    x, y, z = local
    in_plane, upright = x * x + y * y, np.abs(z) <= 1
    in_box = (np.maximum(np.abs(x), np.abs(y)) <= 1) & upright
    in_cylinder = (in_plane <= 1) & upright
    in_round = np.where(shape == int(Shape.CYLINDER), in_cylinder, in_plane + z * z <= 1)
    return np.where(shape == int(Shape.BOX), in_box, in_round)


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
    end = depth.cpu().clamp(max=RAY_END) * length + HIT_MARGIN
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
    hit = (depth.cpu() <= RAY_END) & (length * depth.cpu() > RAY_START)
    _mark_points(seen, (start + direction * end[..., None])[hit], grid)
    return seen.numpy()


def _mark_points(seen: torch.Tensor, points: torch.Tensor, grid: GridFrame) -> None:
    """Sets the cells of points (M,3), metres from the grid's corner."""
    cells = (points / grid.resolution).floor().long()
    cells = cells[((cells >= 0) & (cells < torch.tensor(grid.shape))).all(-1)]
    seen[tuple(cells.T)] = True


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
