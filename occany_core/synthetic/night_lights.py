# SPDX-License-Identifier: Apache-2.0
"""Light of a night street: lamps over the road and the headlights of the ego vehicle.

Pools of light under the lamps are laid out once per world on a map of the ground; nothing casts a
shadow in them. World frame, metres; linear light.
"""

import torch

from occany_core.synthetic.carriageways import EdgeMap
from occany_core.synthetic.ragged import rows
from occany_core.synthetic.world import StreetWorld

POOL_CELL = 2.0  # metres of the map of lamp light
POOL_STRENGTH = 0.6  # linear light right under a lamp
HEADLIGHT = (1.8, 0.0, 0.65)  # metres in the rig frame
HEADLIGHT_COLOR = (1.0, 0.96, 0.86)
HEADLIGHT_STRENGTH = 1.6
HALF_DISTANCE = 11.0  # metres at which it has fallen to a half
CONE = 0.42  # width of the beam to either side, as a tangent
CUT_OFF, DIP = 0.015, 0.14  # tangents above and below which the beam fades


class NightLights:
    """Lamps of one world and the headlights of its ego vehicle on its own path."""

    def __init__(
        self, world: StreetWorld, edges: EdgeMap, position: torch.Tensor, color: torch.Tensor
    ) -> None:
        """Lamps at position (L,3), z above the ground, metres, of color (L,3)."""
        self.world, self.origin = world, edges.origin
        self.pools = _lamp_pools(edges, position, color)

    def on(
        self,
        seconds: torch.Tensor,
        frame: torch.Tensor,
        points: torch.Tensor,
        normals: torch.Tensor,
    ) -> torch.Tensor:
        """Light (M,3) on points and unit normals (M,3), each in a frame (M,) of seconds (F,)."""
        cells_x, cells_y = self.pools.shape[:2]
        x, y = ((points[:, :2] - self.origin) / POOL_CELL).unbind(-1)
        x, y = x.clamp(0, cells_x - 1.001), y.clamp(0, cells_y - 1.001)
        share_x, share_y = (x % 1)[:, None], (y % 1)[:, None]
        first, flat = x.long() * cells_y + y.long(), self.pools.view(-1, 3)
        near = torch.lerp(rows(flat, first), rows(flat, first + 1), share_y)
        far = torch.lerp(rows(flat, first + cells_y), rows(flat, first + cells_y + 1), share_y)
        from_lamps = torch.lerp(near, far, share_x) * (0.55 + 0.45 * normals[:, 2:])
        return from_lamps + self._headlights(seconds, frame, points, normals)

    def _headlights(
        self,
        seconds: torch.Tensor,
        frame: torch.Tensor,
        points: torch.Tensor,
        normals: torch.Tensor,
    ) -> torch.Tensor:
        poses = torch.tensor(self.world.ego_poses(seconds.tolist()), device=points.device).float()
        rotation = rows(poses[:, :3, :3], frame)
        lamp = points.new_tensor(HEADLIGHT)
        offset = points - rows(poses[:, :3, 3], frame)
        ahead, left, up = (torch.einsum("mji,mj->mi", rotation, offset) - lamp).unbind(-1)
        reach = ahead.clamp_min(0.1)
        beam = torch.exp(-((left / reach / CONE) ** 2) * 2) * (ahead > 0)
        slope = up / reach
        beam = beam * torch.where(slope > CUT_OFF, torch.exp(-(slope - CUT_OFF) * 40), 1.0)
        beam = beam * torch.exp(-((slope + DIP).clamp(max=0) ** 2) * 30)
        towards = -torch.nn.functional.normalize(offset, dim=-1)
        cosine = (towards * normals).sum(-1).clamp_min(0)
        strength = HEADLIGHT_STRENGTH / (1 + (ahead / HALF_DISTANCE) ** 2)
        light = strength * beam * (0.12 + 0.88 * cosine)
        return light[:, None] * points.new_tensor(HEADLIGHT_COLOR)


def _lamp_pools(edges: EdgeMap, position: torch.Tensor, color: torch.Tensor) -> torch.Tensor:
    """Light (X,Y,3) of all street lamps at ground level, on cells of `POOL_CELL`."""
    cells_x, cells_y = (-(-n // int(POOL_CELL)) for n in edges.values.shape)
    x = torch.arange(cells_x, device=position.device) * POOL_CELL + edges.origin[0]
    y = torch.arange(cells_y, device=position.device) * POOL_CELL + edges.origin[1]
    squared_height = position[:, 2] ** 2
    across_x = (x[:, None] - position[:, 0]) ** 2
    across_y = (y[:, None] - position[:, 1]) ** 2
    distance = across_x[:, None] + across_y[None] + squared_height
    return POOL_STRENGTH * (squared_height / distance) ** 2 @ color
