# SPDX-License-Identifier: Apache-2.0
"""What the prompt decoder and the class probe minimise: focal, dice, quality; cross-entropy.

After "Segment Anything" (Kirillov et al. 2023). `V` views, `M` prompts of a view, `a` side of the
fine level.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from occany_core.errors import ConfigError
from occany_core.network.prompt_decoder import ClassProbe, PromptDecoder, PromptedMasks
from occany_core.training.prompts import PromptTargets

RAREST = 1e-3
"""Classes with a smaller share of the cells weigh as if they had it."""


@dataclass(frozen=True, kw_only=True)
class MaskLossSettings:
    """Weights of the terms, and the shape of the focal one."""

    focal: float = 20.0
    dice: float = 1.0
    quality: float = 1.0
    classes: float = 1.0
    inside_share: float = 0.5
    """Focal weight of cells inside against those outside."""
    focus: float = 2.0
    """Exponent by which cells that are already right count less."""
    shapes_features: bool = False
    """Whether features learn to be asked, besides looking like the teacher's."""

    def __post_init__(self) -> None:
        if min(self.focal, self.dice, self.quality, self.classes, self.focus) < 0:
            raise ConfigError(f"no weight of the mask losses may be negative: {self}")
        if not 0 < self.inside_share < 1:
            raise ConfigError(f"inside_share is {self.inside_share}; it must be between 0 and 1")

    @property
    def has_masks(self) -> bool:
        """Whether any of the weights lets the prompt decoder learn."""
        return max(self.focal, self.dice, self.quality) > 0

    @property
    def has_any(self) -> bool:
        """Whether anything learns."""
        return self.has_masks or self.classes > 0


@dataclass(frozen=True)
class PromptingLoss:
    """The terms, each before its weight; `total` has the weights."""

    focal: Float[Tensor, ""]
    dice: Float[Tensor, ""]
    quality: Float[Tensor, ""]
    classes: Float[Tensor, ""]
    total: Float[Tensor, ""]
    overlap: Float[Tensor, ""]
    """Mean intersection over union of the valid masks, without gradient."""
    right: Float[Tensor, ""]
    """Share of cells with the right class, without gradient."""


def prompting_loss(  # noqa: PLR0913 - two networks, their input and their two kinds of truth
    decoder: PromptDecoder,
    probe: ClassProbe,
    levels: Sequence[Float[Tensor, "V C h w"]],
    targets: PromptTargets,
    classes: Int[Tensor, "V a a"],
    class_weights: Float[Tensor, " classes"],
    settings: MaskLossSettings,
) -> PromptingLoss:
    """Train decoder and probe on features, of a teacher, of a student, or of both in one batch.

    What has no weight is not run and counts as 0.

    Args:
        decoder: Prompts -> masks.
        probe: Fine features -> classes.
        levels: Coarse, middle and fine features; a gradient reaches them if `shapes_features`.
        targets: Prompts and masks of the same views.
        classes: True class of each cell of the fine level.
        class_weights: Of `weights_of_classes`.
        settings: Weights.
    """
    kept = levels if settings.shapes_features else [level.detach() for level in levels]
    coarse, middle, fine = kept
    focal = dice = quality = probed = overlap = right = fine.new_zeros(())
    if settings.has_masks:
        answers = decoder(coarse, (fine, middle), targets.prompts)
        focal, dice, quality = mask_terms(answers, targets.masks, targets.valid, settings)
        found = mask_iou(answers.logits.detach() > 0, targets.masks)
        overlap = (found * targets.valid).sum() / targets.valid.sum().clamp_min(1)
    if settings.classes > 0:
        logits = probe(coarse, middle, fine)
        probed = F.cross_entropy(logits, classes, weight=class_weights)
        right = (logits.detach().argmax(dim=1) == classes).float().mean()
    total = settings.focal * focal + settings.dice * dice
    total = total + settings.quality * quality + settings.classes * probed
    return PromptingLoss(focal, dice, quality, probed, total, overlap, right)


def mask_terms(
    answers: PromptedMasks,
    masks: Bool[Tensor, "V M a a"],
    valid: Bool[Tensor, "V M"],
    settings: MaskLossSettings,
) -> list[Float[Tensor, ""]]:
    """Return focal, dice and quality term, each the mean over the valid prompts; 0 if none is."""
    share = valid / valid.sum().clamp_min(1)
    overlap = mask_iou(answers.logits.detach() > 0, masks)
    terms = (
        focal_term(answers.logits, masks, settings),
        dice_term(answers.logits, masks),
        (answers.quality - overlap).square(),
    )
    return [(term * share).sum() for term in terms]


def focal_term(
    logits: Float[Tensor, "*batch a a"],
    masks: Bool[Tensor, "*batch a a"],
    settings: MaskLossSettings,
) -> Float[Tensor, "*batch"]:
    """Return the focal loss of each mask, the mean of its cells (Lin et al. 2017)."""
    truth = masks.to(logits.dtype)
    surprise = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
    wrong = -torch.expm1(-surprise)  # 1 - probability of the truth
    weight = torch.where(masks, settings.inside_share, 1 - settings.inside_share)
    return (weight * wrong**settings.focus * surprise).mean(dim=(-2, -1))


def dice_term(
    logits: Float[Tensor, "*batch a a"], masks: Bool[Tensor, "*batch a a"]
) -> Float[Tensor, "*batch"]:
    """Return one minus the soft overlap of each mask, with one cell more in both."""
    probability = logits.sigmoid()
    both = (probability * masks).sum(dim=(-2, -1))
    either = probability.sum(dim=(-2, -1)) + masks.sum(dim=(-2, -1))
    return 1 - (2 * both + 1) / (either + 1)


def mask_iou(
    found: Bool[Tensor, "*batch a a"], masks: Bool[Tensor, "*batch a a"]
) -> Float[Tensor, "*batch"]:
    """Return the intersection over union of masks; 1 where both are empty."""
    both = (found & masks).sum(dim=(-2, -1))
    either = (found | masks).sum(dim=(-2, -1))
    return torch.where(either > 0, both / either.clamp_min(1), 1.0)


def weights_of_classes(counts: Int[Tensor, " classes"]) -> Float[Tensor, " classes"]:
    """Weigh classes by the inverse root of how common they are; the mean over cells is near 1."""
    share = counts / counts.sum().clamp_min(1)
    weights = share.clamp_min(RAREST).rsqrt()
    return weights / (weights * share).sum().clamp_min(RAREST)
