# SPDX-License-Identifier: Apache-2.0
"""A LiDAR on the roof: a scene at one time -> scan of beams by azimuths -> sparse depth pictures.

The scan is read from four square views around the scanner, at the pixels nearest to its beams, so
each return lies exactly on what that pixel's ray meets, before range noise.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch

from occany_core.synthetic.rigs import mounted_camera
from occany_core.synthetic.scene import Scene
from occany_core.synthetic.visibility import cast

ROOF = (0.4, 0.0, 1.95)  # metres in the rig frame
LOWEST, HIGHEST = -25.0, 12.0  # degrees of elevation
AZIMUTHS = 1024
FARTHEST_RETURN = 75.0  # metres
DROPOUT = 0.10  # share of returns that get lost
RANGE_NOISE = 0.02  # metres, standard deviation
QUARTERS = (0.0, 90.0, 180.0, -90.0)  # degrees of yaw of the four views
VIEW_WIDTH, VIEW_HEIGHT, VIEW_ANGLE = 400, 304, 91.0


@dataclass(frozen=True)
class Scan:
    """B beams by A azimuths: origin (3,), rays (B,A,3) world directions, depth (B,A) along them.

    `origin + depth * ray` is a return in the world, metres; depth is inf where nothing came back.
    """

    origin: torch.Tensor
    rays: torch.Tensor
    depth: torch.Tensor

    def points(self) -> torch.Tensor:
        """All returns (N,3), world frame, metres."""
        came_back = torch.isfinite(self.depth)
        return self.origin + (self.depth[..., None] * self.rays)[came_back]


def scan(scene: Scene, world_from_rig: np.ndarray, second: float, beams: int, seed: int) -> Scan:
    """A whole turn at one moment, with lost returns and range noise drawn from the seed.

    world_from_rig (4,4); beams spread evenly between the lowest and the highest elevation.
    """
    device, size = scene.device, (VIEW_WIDTH, VIEW_HEIGHT)
    views = [mounted_camera("", yaw, VIEW_ANGLE, ROOF, 0.0, size) for yaw in QUARTERS]
    poses = np.stack([world_from_rig @ view.rig_from_cam for view in views])
    world_from_cam = torch.tensor(poses, device=device).float()
    K = torch.tensor(np.stack([view.K for view in views]), device=device).float()
    seconds = torch.full((len(views),), second, device=device)
    seen = cast(scene, K, world_from_cam, seconds, VIEW_HEIGHT, VIEW_WIDTH)

    pixel = _pixels_of_beams(views[0].K, beams, device)
    rays, depth = seen.rays.view(-1, 3)[pixel], seen.depth.view(-1)[pixel]
    length = rays.norm(dim=-1)
    generator = torch.Generator(device=device).manual_seed(seed)
    noise = torch.randn(depth.shape, generator=generator, device=device) * RANGE_NOISE
    lost = torch.rand(depth.shape, generator=generator, device=device) < DROPOUT
    reach = depth * length + noise
    depth = torch.where(lost | (reach > FARTHEST_RETURN), math.inf, reach / length)
    return Scan(world_from_cam[0, :3, 3], rays, depth)


def _pixels_of_beams(K: np.ndarray, beams: int, device: torch.device) -> torch.Tensor:
    """Flat index (B,A) into the four views' pixels for each beam and azimuth."""
    elevation = torch.linspace(math.radians(HIGHEST), math.radians(LOWEST), beams, device=device)
    azimuth = torch.arange(AZIMUTHS, device=device) * (2 * math.pi / AZIMUTHS)
    view = (azimuth / (math.pi / 2)).round().long() % 4
    aside = azimuth - (azimuth / (math.pi / 2)).round() * (math.pi / 2)
    focal, middle_x, middle_y = float(K[0, 0]), float(K[0, 2]), float(K[1, 2])
    u = (middle_x - focal * torch.tan(aside)).round().long()
    v = (middle_y - focal * torch.tan(elevation)[:, None] / torch.cos(aside)).round().long()
    inside = v.clamp(0, VIEW_HEIGHT - 1)
    return (view * VIEW_HEIGHT + inside) * VIEW_WIDTH + u.clamp(0, VIEW_WIDTH - 1)


def sparse_depth(
    points: torch.Tensor, K: torch.Tensor, world_from_cam: torch.Tensor, height: int, width: int
) -> torch.Tensor:
    """Depth (H,W) of the nearest of the points (N,3) in each pixel of a camera, inf elsewhere.

    K (3,3) pixels; world_from_cam (4,4).
    """
    in_cam = (points - world_from_cam[:3, 3]) @ world_from_cam[:3, :3]
    in_cam = in_cam[in_cam[:, 2] > 0.1]
    u, v = ((in_cam @ K.T)[:, :2] / in_cam[:, 2:]).round().long().unbind(-1)
    inside = (u >= 0) & (u < width) & (v >= 0) & (v < height)
    depth = torch.full((height * width,), math.inf, device=points.device)
    pixel = (v * width + u)[inside]
    depth.scatter_reduce_(0, pixel, in_cam[inside, 2], "amin")
    return depth.view(height, width)
