# SPDX-License-Identifier: Apache-2.0
"""Points of the world -> the grid frame: onto the ground where they belong there, trusted if near.

The grid frame has body axes, and its ground goes through the foot of the rig. Metres.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from occany_core import rigid
from occany_core.config import VoxelsConfig
from occany_core.pointmaps import Pointmaps
from occany_core.poses import Cameras
from occany_core.voxels import LEVEL, Ground, ViewPoints, estimate_ground

SURE = 1000.0
"""What is added to the confidence of points that are to pass the thresholds."""
DOUBTFUL = 1.2
"""Points up to this confidence are sky or nothing at all."""


def find_ground(
    seen: Pointmaps, grid_from_world: Float[Tensor, "4 4"], voxels: VoxelsConfig, *, told: bool
) -> Ground:
    """Estimate the ground from what is seen of it, or take it to be level, as the settings say.

    Args:
        seen: Points; of the view set at which the grid stands, where the cameras are known.
        grid_from_world: Where the grid is.
        voxels: Settings.
        told: Whether the network knew the cameras. Then its metres are those of their height.
    """
    if voxels.ground == "level" or voxels.ground_tolerance == 0:
        return LEVEL
    points = rigid.apply(grid_from_world, seen.points_world.flatten(0, 2))
    confidence = seen.confidence.flatten(1)
    return estimate_ground(points.view(*confidence.shape, 3), confidence, knows_height=told)


def in_grid(
    maps: Pointmaps,
    cameras: Cameras,
    frame: tuple[Float[Tensor, "4 4"], Ground],
    voxels: VoxelsConfig,
) -> list[ViewPoints]:
    """Bring the points of every view to the grid frame; those out of range lose their trust.

    Of ground the viewing ray alone says where it is, so that its points need little confidence.

    Args:
        maps: In the world.
        cameras: Of the same views.
        frame: `grid_from_world`, and the ground in the grid frame.
        voxels: Says what is ground, and what is out of range.
    """
    grid_from_world, ground = frame
    views = []
    for view, confidence in enumerate(maps.confidence):
        points = rigid.apply(grid_from_world, maps.points_world[view].flatten(0, 1))
        centre = rigid.apply(grid_from_world, cameras.world_from_cam[view, None, :3, 3])[0]
        if voxels.ground_tolerance > 0:
            band = voxels.ground_tolerance, voxels.ground_tolerance_growth, voxels.kerb_height
            points, on_ground = ground.attract(points, centre, *band)
            is_sure = on_ground.view_as(confidence) & (confidence > voxels.min_confidence_ground)
            confidence = confidence + SURE * is_sure
        points = points.view_as(maps.points_cam[view])
        near = (points - centre).norm(dim=-1) < voxels.max_range
        views.append(ViewPoints(points, confidence.where(near, 0.0), centre))
    return views


def keep_most_confident(views: list[ViewPoints], share: float) -> list[ViewPoints]:
    """Let the most confident of the points that stand on the ground pass the thresholds.

    Pictures unlike those of the training lower all confidences, those of things before that of
    the ground they stand on; a threshold alone would leave an empty plain.

    Args:
        views: As `in_grid` returns them.
        share: Of the points that are neither ground nor `DOUBTFUL`, over all views.
    """
    confidence = torch.cat([view.confidence.flatten() for view in views])
    standing = confidence[(confidence > DOUBTFUL) & (confidence < SURE)]
    number = round(share * len(standing))
    if number == 0:
        return views
    least = standing.kthvalue(len(standing) - number + 1).values
    return [
        replace(
            view,
            confidence=view.confidence
            + SURE * ((view.confidence >= least) & (view.confidence < SURE)),
        )
        for view in views
    ]
