# SPDX-License-Identifier: Apache-2.0
"""Boxes and promptable features -> masks, by any decoder that was trained for such features.

`V` views, `M` boxes of a view, `s` side of the coarse level; masks have side 4s.
"""

from typing import Protocol

from jaxtyping import Bool, Float
from torch import Tensor

from occany_core.network.prompt_decoder import PromptDecoder, Prompts
from occany_core.semantics.features import PromptableFeatures


class Prompter(Protocol):
    """Asks features for masks."""

    def masks_from_boxes(
        self, features: PromptableFeatures, boxes: Float[Tensor, "V M 4"]
    ) -> Float[Tensor, "V M s4 s4"]:
        """Return the mask of each box, as logits.

        Args:
            features: Of V views.
            boxes: Left, top, right, bottom; 0 to 1 of the picture.
        """


class Tracker(Protocol):
    """Carries masks from one view into others."""

    def propagate(
        self,
        observed: PromptableFeatures,
        masks: Bool[Tensor, "M H W"],
        others: PromptableFeatures,
    ) -> Float[Tensor, "R1 M s4 s4"]:
        """Return the masks in the observed view, and then in each of R others, as logits.

        Args:
            observed: Of one view.
            masks: Its objects.
            others: Of R views, nearest first.
        """


class NetworkPrompter:
    """The mask decoder that was trained together with the network."""

    def __init__(self, decoder: PromptDecoder) -> None:
        self.decoder = decoder

    def masks_from_boxes(
        self, features: PromptableFeatures, boxes: Float[Tensor, "V M 4"]
    ) -> Float[Tensor, "V M s4 s4"]:
        """As `Prompter.masks_from_boxes`."""
        finer = features.fine, features.middle
        return self.decoder(features.coarse, finer, Prompts.of_boxes(boxes.clamp(0, 1))).logits
