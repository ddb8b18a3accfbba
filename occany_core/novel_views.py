# SPDX-License-Identifier: Apache-2.0
"""Poses -> virtual poses: test-time view augmentation (paper 3.4, spec 10).

Every observed view spawns a straight line of views ahead of it, and pairs of turned and shifted
copies. `V` observed and `R` novel views.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from occany_core import rigid
from occany_core.config import NovelViewsConfig


@dataclass(frozen=True)
class ProposedViews:
    """Novel views and the observed view that each belongs to."""

    world_from_cam: Float[Tensor, "R 4 4"]
    owner: Int[Tensor, " R"]
    """Index of the observed view."""
    unturned: Bool[Tensor, " R"]
    """The published subset without side views, to which labels may be carried over: the first
    third of each observed view's own views, or all where there are no side views. With several
    seeds that third holds side views of the first seeds, as published."""


def propose_views(
    world_from_cam: Float[Tensor, "V 4 4"], config: NovelViewsConfig
) -> ProposedViews:
    """Place novel views around the observed ones (test-time view augmentation).

    Order: all straight views (by observed view, then step), then the copies shifted and turned
        to the right, then those to the left. With several seeds this repeats, seed after seed. At
        most `config.max_views`, evenly thinned.
    """
    device = world_from_cam.device
    seeds = [(world_from_cam @ motion.to(device)) for motion in _seed_motions(config)]
    poses = [_around(seed, config) for seed in seeds]
    blocks = sum(len(block) for block in poses)
    straight = len(world_from_cam) * config.steps
    owner = torch.arange(len(world_from_cam), device=device).repeat_interleave(config.steps)
    # Views of one owner are as many in every block: its first third is the first third of all.
    unturned = torch.arange(blocks * straight, device=device) < (
        straight * (len(seeds) if config.yaw_deg > 0 else blocks)
    )
    views = ProposedViews(
        torch.cat([pose for block in poses for pose in block]), owner.repeat(blocks), unturned
    )
    if config.max_views and len(views.owner) > config.max_views:
        last = len(views.owner) - 1
        kept = torch.linspace(0, last, config.max_views).round().long().to(device)
        views = ProposedViews(views.world_from_cam[kept], views.owner[kept], unturned[kept])
    return views


def _seed_motions(config: NovelViewsConfig) -> list[Float[Tensor, "4 4"]]:
    """Return `cam_from_seed` of every seed: turned evenly about straight ahead, and shifted."""
    motions = []
    for index in range(config.seeds):
        angle = config.seed_step_deg * (index - (config.seeds - 1) / 2)
        side = config.seed_lateral * ((angle > 0) - (angle < 0))
        motions.append(rigid.shift(x=side) @ rigid.yaw(torch.tensor(angle).deg2rad()))
    return motions


def _around(
    world_from_cam: Float[Tensor, "V 4 4"], config: NovelViewsConfig
) -> list[Float[Tensor, "S 4 4"]]:
    """Return the straight views ahead of each pose and, if asked for, both turned copies."""
    ahead = [rigid.shift(z=step * config.forward_step) for step in range(1, config.steps + 1)]
    ahead = torch.stack(ahead) if ahead else torch.zeros(0, 4, 4)
    straight = (world_from_cam[:, None] @ ahead.to(world_from_cam.device)).flatten(0, 1)
    poses = [straight]
    if config.yaw_deg > 0:
        for side in (1.0, -1.0):
            turn = rigid.yaw(torch.tensor(side * config.yaw_deg).deg2rad())
            motion = rigid.shift(x=side * config.lateral) @ turn
            poses.append(straight @ motion.to(straight.device))
    return poses
