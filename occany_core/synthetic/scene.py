# SPDX-License-Identifier: Apache-2.0
"""Render-ready copy of a world on one device: StreetWorld -> tensors and road look-up grid.

World frame, metres. Build once per world (tens of milliseconds) and use for many frames.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from occany_core.synthetic.ground_rays import Ground
from occany_core.synthetic.imaging import draw_imaging
from occany_core.synthetic.light import draw_light
from occany_core.synthetic.night_lights import NightLights
from occany_core.synthetic.primitives import PIERCED, Material, Shape
from occany_core.synthetic.ragged import rows
from occany_core.synthetic.relief import lifted
from occany_core.synthetic.world import StreetWorld

ROAD_CELL = 4.0  # metres, cell of the look-up grid "nearest segment of each road"
ROAD_MARGIN = 20.0  # metres that the grid reaches beyond all roads


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

    Primitive fields as in `Primitives`, plus `cos`, `sin` (P,) of the yaw and `reach` (P,3), half
    extents of an axis-aligned box around each primitive wherever it stands.
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
        self.pierced = self._tensor(np.isin(primitives.material, PIERCED))
        self.half_extent = self._tensor(primitives.half_extent)
        self.color = self._tensor(primitives.color)
        self.second_color = self._tensor(primitives.second_color)
        self.velocity = self._tensor(primitives.velocity)
        self.pattern = self._tensor(primitives.pattern)
        self.variation = self._tensor(primitives.variation)
        yaw = self._tensor(primitives.yaw)
        self.cos, self.sin = torch.cos(yaw), torch.sin(yaw)
        self.slant = self._tensor(primitives.slant)
        self.leaning = self._tensor(primitives.leaning)
        self.ground = Ground(world.ground.relief, world.ground.edges.to(self.device))
        self.reach = self._reach()
        self.radius = self.reach.norm(dim=-1)
        self.light = draw_light(world.seed, self.device)
        self.imaging = draw_imaging(world.seed, night=self.light.lamps > 0)
        self.night_lights = self._night_lights() if self.light.lamps else None
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
        steepest = self.slant.abs() + self.leaning * self.ground.relief.steepest()
        rise = steepest * torch.hypot(hx, hy)
        return torch.stack([cos * hx + sin * hy, sin * hx + cos * hy, hz + rise], -1)

    def _night_lights(self) -> NightLights:
        lamps = torch.nonzero(self.material == int(Material.LAMP))[:, 0]
        position, color = rows(self.center, lamps), rows(self.second_color, lamps)
        return NightLights(self.world, self.ground.edges, position, color)

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

    def kinds(self, primitive: torch.Tensor) -> Iterator[tuple[Shape, bool, torch.Tensor]]:
        """Shape, whether it has holes, and the positions (M,) in `primitive` of that kind."""
        kind = rows(self.shape * 2 + self.pierced, primitive)
        for shape in Shape:
            for pierced in (False, True):
                yield shape, pierced, torch.nonzero(kind == int(shape) * 2 + pierced)[:, 0]

    def placed_at(self, seconds: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Centres (F,P,3) in the world and shears (F,P,2), rise per metre, at seconds (F,)."""
        centers = self.center[None].expand(len(seconds), -1, -1).clone()
        centers[..., :2] += self.velocity[None] * seconds[:, None, None]
        slants = self.slant * self.cos, self.slant * self.sin
        z, *shear = lifted(self.ground.relief, centers, self.leaning, slants)
        centers[..., 2] = z
        return centers, torch.stack(shear, -1)


def _nearest_segment(centers: torch.Tensor, polyline: torch.Tensor) -> torch.Tensor:
    """Index of the polyline segment nearest to each cell centre (X,Y,2) -> (X,Y)."""
    start = polyline[:-1]
    step = polyline[1:] - start
    offset = centers.reshape(-1, 1, 2) - start
    along = ((offset * step).sum(-1) / (step * step).sum(-1)).clamp(0, 1)
    distance = ((offset - along[..., None] * step) ** 2).sum(-1)
    return distance.argmin(-1).reshape(centers.shape[:2])
