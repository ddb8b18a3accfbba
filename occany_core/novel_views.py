# SPDX-License-Identifier: Apache-2.0
"""Poses -> virtual poses: test-time view augmentation (paper 3.4, spec 10).

Every observed view spawns a straight line of views ahead of it, and pairs of turned and shifted
copies. `V` observed and `R` novel views.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from occany_core import rigid
from occany_core.config import NovelViewsConfig


@dataclass(frozen=True)
class ProposedViews:
    """Novel views and the observed view that each belongs to."""

    world_from_cam: Float[Tensor, "R 4 4"]
    owner: Int[Tensor, " R"]
    """Index of the observed view."""


def propose_views(
    world_from_cam: Float[Tensor, "V 4 4"], config: NovelViewsConfig
) -> ProposedViews:
    """Place novel views around the observed ones (test-time view augmentation).

    Order: all straight views (by observed view, then step), then the copies shifted and turned
        to the right, then those to the left. At most `config.max_views`, evenly thinned.
    """
    num_views = len(world_from_cam)
    device = world_from_cam.device
    steps = torch.arange(1, config.steps + 1, dtype=torch.float32)
    ahead = (
        torch.stack([rigid.shift(z=float(step) * config.forward_step) for step in steps])
        if config.steps
        else torch.zeros(0, 4, 4)
    )
    straight = (world_from_cam[:, None] @ ahead.to(device)).flatten(0, 1)
    poses = [straight]
    if config.yaw_deg > 0:
        for side in (1.0, -1.0):
            turn = rigid.yaw(torch.tensor(side * config.yaw_deg).deg2rad())
            poses.append(straight @ (rigid.shift(x=side * config.lateral) @ turn).to(device))
    owner = (
        torch.arange(num_views, device=device).repeat_interleave(config.steps).repeat(len(poses))
    )
    views = ProposedViews(torch.cat(poses), owner)
    if config.max_views and len(owner) > config.max_views:
        kept = torch.linspace(0, len(owner) - 1, config.max_views).round().long().to(device)
        views = ProposedViews(views.world_from_cam[kept], owner[kept])
    return views
