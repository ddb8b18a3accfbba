# SPDX-License-Identifier: Apache-2.0
"""What a stage starts from: which parameters learn, the mean scene, the reconstruction's copy."""

import torch
import torch.nn.functional as F
from torch import nn

from occany_core.network import OccAnyNetwork
from occany_core.network.attention import TransformerBlock
from occany_core.network.decoder import DecoderBlock
from occany_core.network.heads import log_points
from occany_core.training.batches import LEAST_DEPTH, Batch, points_on_rays
from occany_core.training.learner import observed_confidence
from occany_core.training.pool import Pool
from occany_core.training.recipe import Objective, Stage

PRIOR_SAMPLES = 300
FAR = 60.0
"""Where the prior puts directions that hardly ever meet a surface [m]."""
LEAST_HITS = 20


def has_prior(network: OccAnyNetwork) -> bool:
    """Whether the point heads start from the mean scene."""
    return network.config.point_head == "convolutional"


def learns(name: str, stage: Stage, objective: Objective) -> bool:
    """Whether a parameter learns in a stage: chosen by the recipe, and reached by a loss."""
    if not name.startswith(stage.trained) or name.startswith(stage.frozen):
        return False
    if "heads.rgb" in name:  # no loss ever touched it
        return False
    if "heads.segmentation" in name:
        return objective.forcing > 0 and stage.novel != "nearby"
    return not (name.startswith("heads.pose.") and objective.pose == 0)


def compile_blocks(network: OccAnyNetwork) -> None:
    """Have PyTorch compile the transformer blocks; most of a step's time is spent there."""
    for module in network.modules():
        if isinstance(module, TransformerBlock | DecoderBlock):
            module.compile()


@torch.no_grad()
def set_prior(network: OccAnyNetwork, pool: Pool) -> None:
    """Set the mean-scene prior of the point heads from the observed views of a pool."""
    parts = pool.samples(PRIOR_SAMPLES)
    pictures = parts["rgb"].shape[1]
    depth, rays = parts["depth"][:, :pictures].float(), parts["rays"][:, :pictures].float()
    hit = (depth > LEAST_DEPTH)[..., None]
    count = hit.sum(dim=(0, 1))
    mean = (log_points(points_on_rays(rays, depth)) * hit).sum(dim=(0, 1)) / count.clamp_min(1)
    far = torch.cat((rays.mean(dim=(0, 1)), torch.ones_like(mean[..., :1])), dim=-1)
    mean = torch.where(count < LEAST_HITS, log_points(FAR * far), mean).permute(2, 0, 1)
    both = torch.cat((mean, mean, torch.zeros_like(mean[:1])))[None]
    heads = [network.heads]
    if network.renders_novel_views:
        heads.append(network.novel_view_heads)
    for one in heads:
        size = one.points.prior.shape[-2:]
        one.points.prior.copy_(F.interpolate(both, size=size, mode="bilinear"))


@torch.no_grad()
def centre_confidence(network: OccAnyNetwork, batches: list[Batch]) -> None:
    """Shift the confidence logits so that the median confidence of observed surfaces is 2.

    Only the order of confidences is learned; this makes thresholds mean the same for every run.
    """
    logits = torch.cat([observed_confidence(network, batch) for batch in batches])
    network.heads.points.prior[:, 6] -= logits.median()


def copy_reconstruction(network: OccAnyNetwork) -> None:
    """Let rendering start from the decoder and the heads of the reconstruction."""
    _copy_matching(network.decoder, network.novel_view_decoder)
    _copy_matching(network.heads, network.novel_view_heads)


def _copy_matching(source: nn.Module, target: nn.Module) -> None:
    known = target.state_dict()
    target.load_state_dict(
        {k: v for k, v in source.state_dict().items() if k in known}, strict=False
    )
