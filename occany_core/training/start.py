# SPDX-License-Identifier: Apache-2.0
"""What runs and stages start from: weights, what learns, the mean scene, the reconstruction."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from occany_core.errors import ConfigError
from occany_core.network import OccAnyNetwork
from occany_core.network.attention import TransformerBlock
from occany_core.network.decoder import DecoderBlock
from occany_core.network.point_activation import log_points
from occany_core.training.batches import LEAST_DEPTH, Batch, points_on_rays
from occany_core.training.learner import observed_confidence
from occany_core.training.pool import Pool
from occany_core.training.recipe import Recipe, Stage
from occany_core.training.state import Origin

PRIOR_SAMPLES = 300
FAR = 60.0
"""Where the prior puts directions that hardly ever meet a surface [m]."""
LEAST_HITS = 20
CONDITIONING = "novel_view_encoder.merge.weight"
"""Merges what novel views are conditioned on, the oldest modalities first."""
RENDERED = "procedural streets"
RANDOM = "random weights"


@dataclass(frozen=True)
class Start:
    """What a run begins with, besides its recipe."""

    weights: dict[str, Tensor] | None = None
    """By name, instead of random ones; missing ones stay random."""
    name: str = RANDOM
    """Of the weights."""
    sha256: str = ""
    """Of the weights."""
    is_rendered: bool = False
    """The samples are streets that are rendered for this run, not shards of somebody's folder."""

    def origin(self, shards: Path) -> Origin:
        """Return what is written down of it, with the name of the folder of shards."""
        data = RENDERED if self.is_rendered else f"shards of {shards.resolve().name}"
        return Origin(data=(data,), start=self.name, sha256=self.sha256)


def has_prior(network: OccAnyNetwork) -> bool:
    """Whether the point heads start from the mean scene."""
    return network.config.point_head == "convolutional"


def learns(name: str, stage: Stage, recipe: Recipe) -> bool:
    """Whether a parameter learns in a stage: chosen by the recipe, and reached by a loss."""
    if not stage.trains(name):
        return False
    asked = recipe.asked(stage)
    reached = {
        "heads.rgb": False,  # no loss ever touched it
        "heads.segmentation": recipe.forces(stage) or (asked.has_any and asked.shapes_features),
        "novel_view_heads.segmentation": recipe.forces(stage),
        "novel_view_heads.rgb": False,
        "heads.pose.": recipe.objective.pose > 0,
        "prompt_decoder.": asked.has_masks,
        "class_probe.": asked.classes > 0,
    }
    return next((value for start, value in reached.items() if name.startswith(start)), True)


def check_stages(network: OccAnyNetwork, recipe: Recipe) -> None:
    """See that every stage has something to do.

    Raises:
        ConfigError: A stage trains nothing.
    """
    names = [name for name, _ in network.named_parameters()]
    for stage in recipe.stages:
        if not any(learns(name, stage, recipe) for name in names):
            raise ConfigError(
                f"stage {stage.name} trains nothing: {', '.join(stage.trained)} are not in the "
                "network, or no loss reaches them; leave it out with --stages"
            )


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


def start_from(network: OccAnyNetwork, weights: dict[str, Tensor]) -> tuple[str, ...]:
    """Load weights of a network that may lack parts of this one.

    Parts that are missing or of another shape keep the weights they have. Where the conditioning
    of novel views has become wider, what it knew stays and the rest starts at 0, so that the
    network still says the same.

    Returns:
        The parts that start anew.

    Raises:
        ConfigError: There are weights that this network has no place for.
    """
    own = network.state_dict()
    if unknown := sorted(weights.keys() - own.keys()):
        raise ConfigError(
            f"the network of this recipe has no place for {len(unknown)} of the weights to start "
            f"from, the first {unknown[0]}; set the recipe's network.* as their card says"
        )
    wider = weights.get(CONDITIONING)
    if wider is not None and wider.shape[1] < own[CONDITIONING].shape[1]:
        more = own[CONDITIONING].shape[1] - wider.shape[1]
        weights = weights | {CONDITIONING: F.pad(wider, (0, more))}
    known = {name: one for name, one in weights.items() if one.shape == own[name].shape}
    network.load_state_dict(own | known)
    return tuple(sorted({_new_part(name, known) for name in own.keys() - known.keys()}))


def _new_part(name: str, known: Iterable[str]) -> str:
    """Return the largest part of the network around a weight of which nothing is known."""
    words = name.split(".")
    parts = (".".join(words[:count]) for count in range(1, len(words)))
    is_new = (part for part in parts if not any(one.startswith(f"{part}.") for one in known))
    return next(is_new, name)


@torch.no_grad()
def centre_confidence(network: OccAnyNetwork, batches: list[Batch]) -> None:
    """Shift the confidence logits so that the median confidence of observed surfaces is 2.

    Only the order of confidences is learned; this makes thresholds mean the same for every run.
    """
    logits = torch.cat([observed_confidence(network, batch) for batch in batches])
    network.heads.points.shift_confidence(-float(logits.median()))


def copy_reconstruction(network: OccAnyNetwork) -> None:
    """Let rendering start from the decoder and the heads of the reconstruction."""
    _copy_matching(network.decoder, network.novel_view_decoder)
    _copy_matching(network.heads, network.novel_view_heads)


def _copy_matching(source: nn.Module, target: nn.Module) -> None:
    known = target.state_dict()
    target.load_state_dict(
        {k: v for k, v in source.state_dict().items() if k in known}, strict=False
    )
