# SPDX-License-Identifier: Apache-2.0
"""Colour, class and normal of the ground: asphalt, paint, kerb, sidewalk, terrain."""

import math
from dataclasses import dataclass, replace

import torch

from occany_core.synthetic.carriageways import classes_beyond
from occany_core.synthetic.noise import value_noise
from occany_core.synthetic.ragged import rows
from occany_core.synthetic.scene import ROAD_CELL, RoadTensors, Scene

PAINT = (0.82, 0.80, 0.76)
SIDEWALK_TINT = (1.0, 0.98, 0.94)
EDGE_PROBE = 0.3  # metres over which the direction of a kerb is measured
ROUNDING = 0.004  # metres of height within which a point lies on the top or foot of a kerb
ROAD_NEIGHBOURHOOD = 14.0  # metres around a road's bounding box where it is looked at


@dataclass(frozen=True)
class RoadCoordinates:
    """Where ground points lie relative to their nearest road; all (M,), metres.

    edge_distance: beyond the carriageway's edge (negative inside); lateral: signed, left
    positive; along: arc length; half_width, sidewalk, lanes of that road; crossing: whether
    several carriageways meet here.
    """

    edge_distance: torch.Tensor
    lateral: torch.Tensor
    along: torch.Tensor
    half_width: torch.Tensor
    sidewalk: torch.Tensor
    lanes: torch.Tensor
    crossing: torch.Tensor


def road_coordinates(scene: Scene, points: torch.Tensor) -> RoadCoordinates:
    """Road coordinates of ground points (M,2+), world frame, metres."""
    points = points[:, :2]
    edge_distance = torch.full((len(points),), 1e9, device=points.device)
    lateral, along, half_width, sidewalk = (torch.zeros_like(edge_distance) for _ in range(4))
    lanes = torch.ones_like(edge_distance)
    carriageways = torch.zeros_like(edge_distance)
    cell = ((points - scene.road_grid_origin) / ROAD_CELL).floor().long()
    cells_x, cells_y = scene.road_grid_size
    on_grid = (cell >= 0).all(-1) & (cell[:, 0] < cells_x) & (cell[:, 1] < cells_y)
    for road in scene.roads:
        low = road.points.amin(0) - ROAD_NEIGHBOURHOOD
        high = road.points.amax(0) + ROAD_NEIGHBOURHOOD
        near = torch.nonzero(on_grid & ((points > low) & (points < high)).all(-1))[:, 0]
        if near.numel() == 0:
            continue
        in_cell = rows(cell, near)
        segment = rows(road.nearest_segment.view(-1), in_cell[:, 0] * cells_y + in_cell[:, 1])
        distance, signed, arc = _project_on(road, segment, rows(points, near))
        beyond = distance - road.half_width
        carriageways[near] += (beyond < 0.5).float()
        closer = torch.nonzero(beyond < rows(edge_distance, near))[:, 0]
        chosen = rows(near, closer)
        edge_distance[chosen] = rows(beyond, closer)
        lateral[chosen] = rows(signed, closer)
        along[chosen] = rows(arc, closer)
        half_width[chosen] = road.half_width
        sidewalk[chosen] = road.sidewalk
        lanes[chosen] = road.lanes
    return RoadCoordinates(
        edge_distance, lateral, along, half_width, sidewalk, lanes, carriageways > 1.5
    )


def _project_on(
    road: RoadTensors, segment: torch.Tensor, points: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Distance, signed lateral offset (left positive) and arc length, each (M,) metres.

    `segment` (M,) is a first guess; its two neighbours on either side are tried as well.
    """
    step = road.points[1:] - road.points[:-1]
    squared_length = (step * step).sum(-1)
    last = len(step) - 1
    x, y = points.unbind(-1)
    nearest = torch.full_like(x, math.inf)
    along, side = torch.zeros_like(x), torch.zeros_like(x)
    start_x, start_y = road.points[:-1].T.contiguous()
    step_x, step_y = step.T.contiguous()
    length = squared_length.sqrt()
    for shift in (-2, -1, 0, 1, 2) if last > 0 else (0,):
        k = (segment + shift).clamp(0, last)
        ox, oy = x - rows(start_x, k), y - rows(start_y, k)
        dx, dy = rows(step_x, k), rows(step_y, k)
        share = ((ox * dx + oy * dy) / rows(squared_length, k)).clamp(0, 1)
        rest_x, rest_y = ox - share * dx, oy - share * dy
        squared = rest_x * rest_x + rest_y * rest_y
        closer = squared < nearest
        nearest = torch.where(closer, squared, nearest)
        along = torch.where(closer, rows(road.arc_length, k) + share * rows(length, k), along)
        side = torch.where(closer, dx * oy - dy * ox, side)
    distance = nearest.sqrt()
    return distance, side.sign() * distance, along


def ground_surface(
    scene: Scene, points: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Albedo (M,3), Occ3D class (M,) int64 and unit normal (M,3) of ground points (M,3).

    World frame, metres.
    """
    ground = scene.ground
    x, y, z = points.unbind(-1)
    edge = ground.edges.at(x, y)
    rise_x, rise_y = ground.relief.gradient(x, y)
    normal = torch.stack([-rise_x, -rise_y, torch.ones_like(x)], -1)
    above = z - ground.relief.height(x, y)
    face = torch.nonzero((above > ROUNDING) & (above < ground.relief.kerb - ROUNDING))[:, 0]
    edge[face] = edge[face].clamp_min(0)
    normal[face] = _kerb_normals(scene, rows(x, face), rows(y, face))
    where = replace(
        road_coordinates(scene, points),
        edge_distance=edge,
        sidewalk=ground.edges.sidewalk_at(x, y),
    )
    albedo = _ground_color(scene, where, points)
    normal = torch.nn.functional.normalize(normal, dim=-1)
    return albedo, classes_beyond(edge, where.sidewalk), normal


def _kerb_normals(scene: Scene, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Directions (M,3) from a kerb towards its carriageway."""
    at, probe = scene.ground.edges.at, EDGE_PROBE
    along_x, along_y = at(x + probe, y) - at(x - probe, y), at(x, y + probe) - at(x, y - probe)
    return -torch.stack([along_x, along_y, torch.zeros_like(x)], -1)


def _ground_color(scene: Scene, where: RoadCoordinates, points: torch.Tensor) -> torch.Tensor:
    """Albedo (M,3) of ground points (M,3)."""
    style = scene.world.style
    x, y = points[:, 0], points[:, 1]
    coarse, fine = value_noise(x * 0.35, y * 0.35), value_noise(x * 4.1, y * 4.1)
    on_road = where.edge_distance < 0
    on_sidewalk = (where.edge_distance >= 0) & (where.edge_distance < where.sidewalk)

    terrain = torch.as_tensor(style.terrain, device=points.device, dtype=points.dtype)
    albedo = terrain * (0.55 + 0.5 * coarse + 0.35 * fine)[:, None]
    slabs = _sidewalk_grey(style.sidewalk, where, x, y, coarse, fine)
    tint = torch.tensor(SIDEWALK_TINT, device=points.device)
    albedo = torch.where(on_sidewalk[:, None], slabs[:, None] * tint, albedo)
    asphalt = _asphalt_grey(style.asphalt, where, coarse, fine)
    albedo = torch.where(on_road[:, None], asphalt[:, None], albedo)
    white = torch.tensor(PAINT, device=points.device) * (0.75 + 0.25 * fine[:, None])
    albedo = torch.where(_painted(scene, where, points, on_road)[:, None], white, albedo)

    return albedo


def _asphalt_grey(
    grey: float, where: RoadCoordinates, coarse: torch.Tensor, fine: torch.Tensor
) -> torch.Tensor:
    """Worn asphalt: blotches, and darker wheel tracks."""
    track = torch.exp(-(((where.lateral.abs() % 1.7) - 0.85) ** 2) * 12)
    return grey * (0.8 + 0.3 * coarse + 0.16 * (fine - 0.5)) * (1 - 0.12 * track)


def _sidewalk_grey(
    grey: float,
    where: RoadCoordinates,
    x: torch.Tensor,
    y: torch.Tensor,
    coarse: torch.Tensor,
    fine: torch.Tensor,
) -> torch.Tensor:
    """Diagonal slabs with dark joints and a bright kerb."""
    joint = ((x * 0.7071 + y * 0.7071) % 1.2 < 0.03) | ((x * 0.7071 - y * 0.7071) % 1.2 < 0.03)
    slabs = grey * (0.85 + 0.25 * coarse + 0.1 * fine) * torch.where(joint, 0.75, 1.0)
    return torch.where(where.edge_distance < 0.16, slabs * 1.25, slabs)


def _painted(
    scene: Scene, where: RoadCoordinates, points: torch.Tensor, on_road: torch.Tensor
) -> torch.Tensor:
    """Lane dashes, centre line, edge lines and zebra crossings, bool (M,)."""
    aside = where.lateral.abs()
    lane = where.half_width / where.lanes * 0.9
    lanes_aside = aside / lane.clamp_min(1)
    on_lane_border = (lanes_aside - lanes_aside.round()).abs() * lane < 0.07
    within = (aside > 0.5) & (aside < where.half_width - 1.6)
    dashes = on_lane_border & within & ((where.along % 9) < 3.2)
    centre_line = aside < 0.09
    edge_line = (where.edge_distance + 0.25).abs() < 0.06
    lines = (dashes | centre_line | edge_line) & ~where.crossing
    zebra = torch.zeros_like(on_road)
    for road in scene.roads[1:]:
        zebra |= _beside_crossing(road, points) & ((where.lateral % 1.1) < 0.55)
    return on_road & (lines | zebra)


def _beside_crossing(road: RoadTensors, points: torch.Tensor) -> torch.Tensor:
    """Points (M,) in the two bands next to a straight side road where pedestrians cross."""
    middle = road.points.mean(0)
    direction = (road.points[1] - road.points[0]) / (road.points[1] - road.points[0]).norm()
    along = (points[:, :2] - middle) @ direction
    across = (points[:, 0] - middle[0]) * -direction[1] + (points[:, 1] - middle[1]) * direction[0]
    band = (across.abs() > road.half_width + 0.6) & (across.abs() < road.half_width + 3.4)
    return band & (along.abs() < 14)
