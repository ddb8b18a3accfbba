# SPDX-License-Identifier: Apache-2.0
"""View sets -> promptable features of every view, without any geometry.

`V` views, `s` side of the coarse features, which describe the network's picture squashed to a
square.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from occany_core.checkpoints import Model
from occany_core.config import OccAnyConfig
from occany_core.errors import ConfigError
from occany_core.images import View
from occany_core.observation import EncodedSet, encode, observe
from occany_core.semantics.class_probe import known_classes
from occany_core.semantics.features import PromptableFeatures
from occany_core.stopwatch import Stopwatch


@dataclass(frozen=True)
class SeenViews:
    """What the network makes of some pictures."""

    features: PromptableFeatures
    sets: tuple[EncodedSet, ...]
    """The view sets as the network got them."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the pictures as the network saw them [px]."""
        height, width = self.sets[0].batch.rgb.shape[1:3]
        return height, width


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
def promptable_features(
    model: Model, sets: Sequence[EncodedSet], config: OccAnyConfig
) -> PromptableFeatures:
    """Let the network look at all views together, as `reconstruct` does.

    Args:
        model: From `load_model`.
        sets: Oldest first, as `encode` makes them.
        config: Of the runtime; nothing else matters.

    Raises:
        ConfigError: The weights have no promptable features.
        DegenerateGeometryError: The prediction is not finite.
    """
    check_promptable(model)
    raw = observe(model, sets, config, Stopwatch(), with_segmentation=True).raw
    return PromptableFeatures(*(level[0].float() for level in raw.segmentation))


def see_views(model: Model, view_sets: list[list[View]], config: OccAnyConfig) -> SeenViews:
    """Prepare views, and let the network look at all of them together.

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
    sets = tuple(encode(model, views, config) for views in view_sets)
    return SeenViews(promptable_features(model, sets, config), sets)


@torch.inference_mode()
def class_logits(model: Model, features: PromptableFeatures) -> Float[Tensor, "V C s4 s4"]:
    """Return what the class probe says.

    Raises:
        ConfigError: The weights have none.
    """
    check_prompting(model)
    return model.network.class_probe(*features.levels)
