# SPDX-License-Identifier: Apache-2.0
"""Render-ready copy of a world on one device: StreetWorld -> tensors, light, road look-up grid.

World frame, metres. Build once per world (tens of milliseconds) and use for many frames.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from occany_core.synthetic.primitives import Shape
from occany_core.synthetic.ragged import rows
from occany_core.synthetic.world import StreetWorld

ROAD_CELL = 4.0  # metres, cell of the look-up grid "nearest segment of each road"
ROAD_MARGIN = 20.0  # metres that the grid reaches beyond all roads


@dataclass(frozen=True)
class Light:
    """Weather and camera tone of one world.

    sun (3,) unit vector towards the sun; sun_color, sky_color, ambient (3,) linear light;
    cloud_cover 0..1; fog in 1/m; exposure, red_gain, noise (standard deviation), vignette.
    """

    overcast: bool
    sun: torch.Tensor
    sun_color: torch.Tensor
    sky_color: torch.Tensor
    ambient: torch.Tensor
    cloud_cover: float
    fog: float
    exposure: float
    red_gain: float
    noise: float
    vignette: float


@dataclass(frozen=True)
class RoadTensors:
    """One road as in `Road`: points (K,2), widths in metres, lanes, arc_length (K,).

    nearest_segment (cells_x, cells_y) int64: per look-up cell, the polyline segment closest to it.
    """

    points: torch.Tensor
    half_width: float
    sidewalk: float
    lanes: int
    arc_length: torch.Tensor
    nearest_segment: torch.Tensor


class Scene:
    """A `StreetWorld` as float32 tensors on one device; P primitives.

    Primitive fields as in `Primitives`, plus `cos`, `sin` (P,) of the yaw and `reach` (P,3), the
    half extents of the axis-aligned box around each primitive.
    """

    def __init__(self, world: StreetWorld, device: str | torch.device = "cpu") -> None:
        primitives = world.primitives
        self.device = torch.device(device)
        self.world = world
        self.shape = self._tensor(primitives.shape)
        self.material = self._tensor(primitives.material)
        self.semantics = self._tensor(primitives.semantics)
        self.instance = self._tensor(primitives.instance)
        self.center = self._tensor(primitives.center)
        self.half_extent = self._tensor(primitives.half_extent)
        self.color = self._tensor(primitives.color)
        self.second_color = self._tensor(primitives.second_color)
        self.velocity = self._tensor(primitives.velocity)
        self.pattern = self._tensor(primitives.pattern)
        self.variation = self._tensor(primitives.variation)
        yaw = self._tensor(primitives.yaw)
        self.cos, self.sin = torch.cos(yaw), torch.sin(yaw)
        self.reach = self._reach()
        self.radius = self.half_extent.norm(dim=-1)
        self.light = draw_light(world.seed, self.device)
        self._add_roads()

    def __len__(self) -> int:
        return self.shape.numel()

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        """A contiguous copy on the device; float64 becomes float32."""
        tensor = torch.as_tensor(array, device=self.device)
        tensor = tensor.float() if tensor.is_floating_point() else tensor
        return tensor.contiguous()

    def _reach(self) -> torch.Tensor:
        hx, hy, hz = self.half_extent.unbind(-1)
        cos, sin = self.cos.abs(), self.sin.abs()
        return torch.stack([cos * hx + sin * hy, sin * hx + cos * hy, hz], -1)

    def _add_roads(self) -> None:
        points = [self._tensor(road.points) for road in self.world.roads]
        everything = torch.cat(points)
        self.road_grid_origin = everything.amin(0) - ROAD_MARGIN
        span = everything.amax(0) + ROAD_MARGIN - self.road_grid_origin
        self.road_grid_size = tuple((span / ROAD_CELL).ceil().long().tolist())
        axes = [torch.arange(n, device=self.device) for n in self.road_grid_size]
        cells = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).float()
        centers = cells.add(0.5).mul(ROAD_CELL) + self.road_grid_origin
        self.roads = [
            RoadTensors(
                points=polyline,
                half_width=road.half_width,
                sidewalk=road.sidewalk,
                lanes=road.lanes,
                arc_length=self._tensor(road.arc_length),
                nearest_segment=_nearest_segment(centers, polyline),
            )
            for road, polyline in zip(self.world.roads, points, strict=True)
        ]

    def indices_of(self, shape: Shape, primitive: torch.Tensor) -> torch.Tensor:
        """Positions in `primitive` (M,) whose primitive has this shape."""
        return torch.nonzero(rows(self.shape, primitive) == int(shape))[:, 0]

    def centers_at(self, seconds: torch.Tensor) -> torch.Tensor:
        """Centres (F,P,3) at times (F,) seconds."""
        centers = self.center[None].expand(len(seconds), -1, -1).clone()
        centers[..., :2] += self.velocity[None] * seconds[:, None, None]
        return centers


def _nearest_segment(centers: torch.Tensor, polyline: torch.Tensor) -> torch.Tensor:
    """Index of the polyline segment nearest to each cell centre (X,Y,2) -> (X,Y)."""
    start = polyline[:-1]
    step = polyline[1:] - start
    offset = centers.reshape(-1, 1, 2) - start
    along = ((offset * step).sum(-1) / (step * step).sum(-1)).clamp(0, 1)
    distance = ((offset - along[..., None] * step) ** 2).sum(-1)
    return distance.argmin(-1).reshape(centers.shape[:2])


def draw_light(seed: int, device: torch.device) -> Light:
    """Weather and tone of the world with this seed."""
    u = torch.rand(16, generator=torch.Generator().manual_seed(seed)).tolist()
    elevation = math.radians(8 + 62 * u[0])
    azimuth = 2 * math.pi * u[1]
    overcast = u[2] < 0.3
    warmth = max(0.0, 1 - elevation / 0.6)
    sun = torch.tensor(
        [
            math.cos(azimuth) * math.cos(elevation),
            math.sin(azimuth) * math.cos(elevation),
            math.sin(elevation),
        ],
        device=device,
    )
    sun_color = torch.tensor([1.25, 1.12 - 0.25 * warmth, 0.95 - 0.5 * warmth], device=device)
    blue_sky = [0.45 + 0.3 * warmth, 0.62, 0.92 - 0.2 * warmth]
    sky_color = torch.tensor([0.75, 0.78, 0.82] if overcast else blue_sky, device=device)
    return Light(
        overcast=overcast,
        sun=sun,
        sun_color=sun_color * (1.15 * (0.25 if overcast else 1.0)),
        sky_color=sky_color,
        ambient=(0.78 if overcast else 0.42) * (0.55 + 0.45 * sky_color),
        cloud_cover=0.2 + 0.7 * u[3],
        fog=0.0 if u[4] < 0.6 else 0.004 + 0.02 * u[5] ** 2,
        exposure=0.75 + 0.55 * u[6],
        red_gain=0.92 + 0.16 * u[7],
        noise=0.004 + 0.02 * u[8],
        vignette=0.25 * u[9],
    )
