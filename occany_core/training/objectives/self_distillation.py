# SPDX-License-Identifier: Apache-2.0
"""Self-distillation of the plus model: the frozen start's depth, brought to the LiDAR's scale.

Training page 5. Only pixels with LiDAR depth take part.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from occany_core.training.objectives.regression import per_item, step_error, valid_mean

LEAST_DEPTH = 0.01
MOST_DEPTH = 50.0
"""Depths outside take no part [m]."""
SUBSETS = 100
SUBSET_SIZE = 50
"""How many random subsets propose a scale, and how many pixels each has."""
INLIER_BAND = 0.1
"""Ratios within this part of a proposal agree with it."""
SCALE_LIMITS = (0.01, 100.0)


@dataclass(frozen=True)
class SelfDistillationLoss:
    """The two parts of the term."""

    depth: Float[Tensor, ""]
    steps: Float[Tensor, ""]
    """Of depth steps between neighbours [m]."""

    @property
    def total(self) -> Float[Tensor, ""]:
        """Return the sum of both."""
        return self.depth + self.steps


@torch.no_grad()
def scale_to_truth(
    teacher: Float[Tensor, "B N H W"],
    truth: Float[Tensor, "B N H W"],
    valid: Bool[Tensor, "B N H W"],
    method: Literal["consensus", "median"] = "consensus",
    generator: torch.Generator | None = None,
) -> Float[Tensor, " B"]:
    """Return what each item's teacher depth must be multiplied by to fit the LiDAR.

    Pixels of all views of an item are taken together. `consensus` lets random subsets propose
    their median ratio, keeps the proposal that most ratios agree with, and returns the median of
    those; items with fewer pixels than a subset use the plain median, items without any 1.

    Args:
        teacher: Depth of the frozen start, in its own unit.
        truth: LiDAR depth [m].
        valid: Where there is LiDAR depth.
        method: Consensus or plain median.
        generator: Draws the subsets; None takes torch's own.
    """
    usable = valid & (teacher > LEAST_DEPTH) & (truth > LEAST_DEPTH) & (truth < MOST_DEPTH)
    scales = []
    for item in range(len(teacher)):
        ratios = (truth[item] / teacher[item])[usable[item]]
        if len(ratios) == 0:
            scales.append(ratios.new_ones(()))
        elif method == "median" or len(ratios) < SUBSET_SIZE:
            scales.append(ratios.median())
        else:
            scales.append(_consensus(ratios, generator))
    return torch.stack(scales).clamp(*SCALE_LIMITS)


def self_distillation(
    depth: Float[Tensor, "B N H W"],
    teacher: Float[Tensor, "B N H W"],
    valid: Bool[Tensor, "B N H W"],
    scale: Float[Tensor, " B"],
) -> SelfDistillationLoss:
    """Compare depth with the scaled depth of the teacher.

    Args:
        depth: Predicted [m].
        teacher: Depth of the frozen start; gets no gradient.
        valid: Where there is LiDAR depth.
        scale: From `scale_to_truth`.
    """
    target = (per_item(scale, teacher) * teacher).detach()
    valid = valid & (depth > LEAST_DEPTH) & (target > LEAST_DEPTH) & (target < MOST_DEPTH)
    difference = depth - target
    error = difference.where(valid, 0.0).abs()
    return SelfDistillationLoss(valid_mean(error, valid), step_error(difference, valid))


def _consensus(
    ratios: Float[Tensor, " P"], generator: torch.Generator | None
) -> Float[Tensor, ""]:
    order = torch.rand(SUBSETS, len(ratios), generator=generator, device=ratios.device)
    subsets = ratios[order.topk(SUBSET_SIZE, dim=1).indices]
    proposals = subsets.median(dim=1).values[:, None]
    agree = (ratios - proposals).abs() < INLIER_BAND * proposals
    return ratios[agree[agree.sum(dim=1).argmax()]].median()
