# SPDX-License-Identifier: Apache-2.0
"""Promptable features in training: who teaches them, and masks and classes asked of them.

`B` scenes, `V` views, `C` channels, `s` side of a level.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from occany_core.errors import ConfigError
from occany_core.network import NetworkConfig, OccAnyNetwork
from occany_core.semantics.sam2_features import Sam2Encoder, load_sam2
from occany_core.synthetic.teacher import SeenViews, StreetTeacher
from occany_core.training.batches import Targets, ViewLabels
from occany_core.training.mask_losses import (
    MaskLossSettings,
    PromptingLoss,
    prompting_loss,
    weights_of_classes,
)
from occany_core.training.prompts import PromptSettings, cells_of, sample_prompts
from occany_core.training.recipe import STREETS, Recipe

Teacher = Callable[[Float[Tensor, "B V 3 H W"], Targets], tuple[Float[Tensor, "B V C s s"], ...]]
"""Pictures in [-1, 1] and what is known of them -> features that Segmentation Forcing aims at."""
TEACHER_SHARE = 0.5
"""Of the views whose masks and classes are asked of the teacher's features while training; the
others, and all of them in validation, are asked of the student's (embedded default 4)."""
LEAVE_OUT = (
    "or leave segmentation out: --set objective.forcing=0 --set network.prompt_classes=null "
    "--stages reconstruction rendering"
)


def chosen_teacher(recipe: Recipe, device: torch.device) -> Teacher | None:
    """Make the teacher that a recipe names, or none where no stage needs one.

    Raises:
        ConfigError: No teacher is named, the network has no features to teach, or SAM2 needs a
            package that is not installed.
        CheckpointError: There are no such SAM2 weights.
    """
    stages = [stage for stage in recipe.stages if recipe.needs_teacher(stage)]
    if not stages:
        return None
    network, name = recipe.network, recipe.objective.teacher
    if network.segmentation_dims is None:
        raise ConfigError(f"objective.forcing needs network.segmentation_dims; {LEAVE_OUT}")
    if name == STREETS:
        return StreetFeatures(network, device)
    if not name:
        raise ConfigError(
            f"stage {stages[0].name} needs a segmentation teacher; choose one with --set "
            f"objective.teacher={STREETS} (rendered streets, any channels) or --set "
            f"objective.teacher=FOLDER (weights of SAM2), {LEAVE_OUT}"
        )
    return Sam2Features(load_sam2(name, network.segmentation_size, device))


class StreetFeatures:
    """The teacher of rendered streets, for batches."""

    def __init__(self, network: NetworkConfig, device: torch.device) -> None:
        self.teacher = StreetTeacher(network.segmentation_dims, network.segmentation_size, device)

    def __call__(self, images: Float[Tensor, "B V 3 H W"], targets: Targets) -> tuple[Tensor, ...]:
        """Read features off the labels and the colours, as they look after augmentation.

        Raises:
            ConfigError: The views have no labels.
        """
        labels = with_labels(targets)
        views = images.shape[:2]
        size = labels.semantics.shape[-2:]
        rgb = F.adaptive_avg_pool2d((images.flatten(0, 1) + 1) / 2, size)
        seen = SeenViews(
            rgb=rgb.movedim(1, -1),
            semantics=labels.semantics.flatten(0, 1),
            instance=labels.instance.flatten(0, 1),
            normal=labels.normal.flatten(0, 1),
            centres=labels.centres.flatten(0, 1),
        )
        return tuple(level.unflatten(0, views) for level in self.teacher(seen))


class Sam2Features:
    """SAM2 as a teacher, for batches."""

    def __init__(self, encoder: Sam2Encoder) -> None:
        self.encoder = encoder

    def __call__(self, images: Float[Tensor, "B V 3 H W"], targets: Targets) -> tuple[Tensor, ...]:
        """Encode the pictures."""
        del targets
        rgb = ((images.flatten(0, 1) + 1) * 127.5).round().byte().movedim(1, -1)
        levels = self.encoder(rgb).levels
        return tuple(level.unflatten(0, images.shape[:2]) for level in levels)


def with_labels(targets: Targets) -> ViewLabels:
    """Return what some views show.

    Raises:
        ConfigError: It is not known.
    """
    if targets.labels is None:
        raise ConfigError(
            f"these views have no labels of what they show; train on rendered streets, {LEAVE_OUT}"
        )
    return targets.labels


def masks_and_classes(
    network: OccAnyNetwork,
    levels: tuple[tuple[Float[Tensor, "B V C s s"], ...], tuple[Float[Tensor, "B V C s s"], ...]],
    labels: ViewLabels,
    settings: tuple[MaskLossSettings, PromptSettings],
    draws: torch.Generator,
) -> PromptingLoss:
    """Ask prompt decoder and class probe about features.

    Args:
        network: Has both.
        levels: Of the student, and of the teacher.
        labels: What the same views show.
        settings: Of the loss and of the prompts.
        draws: Decides prompts, and which views show the teacher's features.
    """
    losses, prompts = settings
    student, teacher = levels
    views, side = student[0].shape[:2].numel(), student[-1].shape[-1]
    share = TEACHER_SHARE if network.training else 0.0
    of_teacher = torch.rand(views, generator=draws, device=draws.device) < share
    mixed = [
        torch.where(of_teacher[:, None, None, None], theirs.flatten(0, 1), ours.flatten(0, 1))
        for ours, theirs in zip(student, teacher, strict=True)
    ]
    classes = cells_of(labels.semantics.flatten(0, 1), side)
    counts = torch.bincount(classes.flatten(), minlength=network.config.prompt_classes)
    return prompting_loss(
        network.prompt_decoder,
        network.class_probe,
        mixed,
        sample_prompts(labels.instance.flatten(0, 1), side, prompts, draws),
        classes,
        weights_of_classes(counts),
        losses,
    )
