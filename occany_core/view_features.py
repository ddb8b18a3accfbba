# SPDX-License-Identifier: Apache-2.0
"""View sets -> promptable features of every view -> the things that the weights find in them.

By the network's own mask decoder and class probe; no other model is asked. The decoder was trained
on things only, so that stuff, such as road, is outlined by the class probe alone. `V` views, `M`
things of a view, `s` side of the coarse features, which describe the network's picture squashed to
a square.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from occany_core.checkpoints import Model
from occany_core.config import OccAnyConfig
from occany_core.datasets.class_tables import load_classes
from occany_core.errors import ConfigError
from occany_core.images import View
from occany_core.observation import encode, observe
from occany_core.semantics.class_probe import known_classes
from occany_core.semantics.class_prompts import TABLE
from occany_core.semantics.detections import Detections
from occany_core.semantics.features import PromptableFeatures
from occany_core.semantics.masks import NetworkPrompter
from occany_core.semantics.probe_detector import RegionSettings, find_regions
from occany_core.stopwatch import Stopwatch


@dataclass(frozen=True)
class SeenViews:
    """What the network makes of some pictures."""

    features: PromptableFeatures
    size: tuple[int, int]
    """Height and width of the pictures as the network saw them [px]."""


@dataclass(frozen=True)
class FoundThings:
    """What was found in one view."""

    found: Detections
    masks: Float[Tensor, "M s4 s4"]
    """Logits of the square picture, positive inside."""

    def __getitem__(self, chosen: Tensor) -> "FoundThings":
        """Return some of them."""
        return FoundThings(self.found[chosen], self.masks[chosen])

    def cpu(self) -> "FoundThings":
        """Return the same on the CPU."""
        parts = (part.cpu() for part in (self.found.boxes, self.found.scores, self.found.labels))
        return FoundThings(Detections(*parts), self.masks.cpu())


def check_promptable(model: Model) -> None:
    """See that weights have promptable features.

    Raises:
        ConfigError: They have none.
    """
    if not model.network.config.segmentation_dims:
        raise ConfigError(
            f"the weights {model.name} have no promptable features "
            "(network.segmentation_dims); use others, such as 'default'"
        )


def check_prompting(model: Model) -> None:
    """See that weights can name and outline things.

    Raises:
        ConfigError: They have no class probe, or one for unknown classes.
    """
    if not known_classes(model):
        raise ConfigError(
            f"the weights {model.name} have no class probe and mask decoder "
            "(network.prompt_classes); use others, such as 'default'"
        )


@torch.inference_mode()
def see_views(model: Model, view_sets: list[list[View]], config: OccAnyConfig) -> SeenViews:
    """Let the network look at all views together, as `reconstruct` does.

    Args:
        model: From `load_model`.
        view_sets: Oldest first, as `predict` takes them.
        config: Of pictures, calibration and runtime; nothing else matters.

    Raises:
        ConfigError: The weights have no promptable features.
        InputError: As `encode`.
        DegenerateGeometryError: The prediction is not finite.
    """
    check_promptable(model)
    sets = [encode(model, views, config) for views in view_sets]
    raw = observe(model, sets, config, Stopwatch(), with_segmentation=True).raw
    features = PromptableFeatures(*(level[0].float() for level in raw.segmentation))
    return SeenViews(features, tuple(raw.confidence.shape[-2:]))


@torch.inference_mode()
def class_logits(model: Model, features: PromptableFeatures) -> Float[Tensor, "V C s4 s4"]:
    """Return what the class probe says.

    Raises:
        ConfigError: The weights have none.
    """
    check_prompting(model)
    return model.network.class_probe(*features.levels)


@torch.inference_mode()
def find_things(
    model: Model,
    features: PromptableFeatures,
    wanted: Sequence[int],
    settings: RegionSettings | None = None,
) -> list[FoundThings]:
    """Detect things and stuff of some classes in each view, and ask for the masks of things.

    Args:
        model: With class probe and mask decoder.
        features: Of V views, from these weights.
        wanted: Class ids.
        settings: Which regions count.

    Raises:
        ConfigError: The weights have no probe.
        InputError: An unknown class.
    """
    views = find_regions(class_logits(model, features), wanted, settings)
    prompter = NetworkPrompter(model.network.prompt_decoder)
    countable = load_classes(TABLE).countable
    things = []
    for index, one in enumerate(views):
        masks = torch.where(one.masks, 1.0, -1.0)
        asked = torch.isin(one.found.labels, one.found.labels.new_tensor(countable))
        if asked.any():
            here = features.views(slice(index, index + 1))
            masks[asked] = prompter.masks_from_boxes(here, one.found.boxes[asked][None])[0]
        things.append(FoundThings(one.found, masks))
    return things
