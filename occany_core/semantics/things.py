# SPDX-License-Identifier: Apache-2.0
"""What was found in one view: boxes, scores and classes, each with the logits of its mask.

`M` things, `a b` cells of the masks, which cover the picture whatever its aspect; `H W` pixels.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from occany_core.datasets.class_tables import load_classes
from occany_core.semantics.class_prompts import TABLE
from occany_core.semantics.detections import Detections, boxes_of_masks
from occany_core.semantics.features import PromptableFeatures
from occany_core.semantics.masks import Prompter
from occany_core.semantics.painting import LabelledMasks
from occany_core.semantics.probe_detector import Regions


@dataclass(frozen=True)
class FoundThings:
    """Of one view."""

    found: Detections
    masks: Float[Tensor, "M a b"]
    """Logits, positive inside."""

    def __getitem__(self, chosen: Tensor) -> "FoundThings":
        """Return some of them."""
        return FoundThings(self.found[chosen], self.masks[chosen])

    def cpu(self) -> "FoundThings":
        """Return the same on the CPU."""
        parts = (part.cpu() for part in (self.found.boxes, self.found.scores, self.found.labels))
        return FoundThings(Detections(*parts), self.masks.cpu())

    def at(self, size: tuple[int, int]) -> LabelledMasks:
        """Return the masks at the size (height, width) of a picture."""
        masks = masks_of_logits(self.masks, size)
        return LabelledMasks(masks, self.found.scores, self.found.labels)

    @staticmethod
    def of_masks(objects: LabelledMasks) -> "FoundThings":
        """Find the boxes around masks."""
        found = Detections(boxes_of_masks(objects.masks), objects.scores, objects.labels)
        return FoundThings(found, torch.where(objects.masks, 1.0, -1.0))


def masks_of_logits(
    logits: Float[Tensor, "M a b"], size: tuple[int, int]
) -> Bool[Tensor, "M H W"]:
    """Stretch masks over a picture of (height, width): inside where positive."""
    if not len(logits):
        return torch.zeros(0, *size, dtype=torch.bool, device=logits.device)
    return F.interpolate(logits[None], tuple(size), mode="bilinear", align_corners=False)[0] > 0


def things_of_boxes(
    features: PromptableFeatures, found: Detections, prompter: Prompter
) -> FoundThings:
    """Ask for the mask of each box of one view."""
    if not len(found.scores):
        return FoundThings(found, features.fine.new_zeros(0, *features.fine.shape[2:]))
    return FoundThings(found, prompter.masks_from_boxes(features, found.boxes[None])[0])


def things_of_regions(
    features: PromptableFeatures, regions: Regions, prompter: Prompter
) -> FoundThings:
    """Ask for the masks of things of one view; stuff is where its region is.

    For decoders that were trained on things only: road has no outline that they could know.
    """
    masks = torch.where(regions.masks, 1.0, -1.0)
    countable = load_classes(TABLE).countable
    asked = torch.isin(regions.found.labels, regions.found.labels.new_tensor(countable))
    if asked.any():
        boxes = regions.found.boxes[asked][None]
        masks[asked] = prompter.masks_from_boxes(features, boxes)[0]
    return FoundThings(regions.found, masks)
