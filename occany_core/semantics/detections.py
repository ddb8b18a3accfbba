# SPDX-License-Identifier: Apache-2.0
"""What a detector finds in a picture: boxes with classes and scores.

`M` boxes, `V` views, `H W` pixels.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from occany_core.errors import InputError
from occany_core.semantics.class_prompts import PromptTable


@dataclass(frozen=True)
class Detections:
    """Boxes of one picture."""

    boxes: Float[Tensor, "M 4"]
    """Left, top, right, bottom; 0 to 1 of the picture, beyond which they may reach."""
    scores: Float[Tensor, " M"]
    """0 to 1."""
    labels: Int[Tensor, " M"]
    """Class ids."""

    def __post_init__(self) -> None:
        """Check that the three belong together."""
        counts = len(self.boxes), len(self.scores), len(self.labels)
        if self.boxes.ndim != 2 or self.boxes.shape[1] != 4 or len(set(counts)) > 1:
            raise InputError(
                f"boxes of shape {tuple(self.boxes.shape)} came with {counts[1]} scores and "
                f"{counts[2]} labels; give boxes (M, 4), M scores and M labels"
            )

    def __getitem__(self, chosen: Tensor) -> "Detections":
        """Return some of them."""
        return Detections(self.boxes[chosen], self.scores[chosen], self.labels[chosen])


class Detector(Protocol):
    """Finds things named by texts in pictures."""

    def check(self, prompts: PromptTable) -> None:
        """Refuse prompts that cannot be asked for."""

    def detect(self, rgb: UInt8[Tensor, "V H W 3"], prompts: PromptTable) -> list[Detections]:
        """Return what each picture shows."""


def corners_of(boxes: Float[Tensor, "M 4"]) -> Float[Tensor, "M 4"]:
    """Turn (centre x, centre y, width, height) into (left, top, right, bottom), in any unit."""
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    return torch.cat((centre - half, centre + half), dim=1)


def boxes_of_masks(masks: Bool[Tensor, "*batch H W"]) -> Float[Tensor, "*batch 4"]:
    """Return left, top, right and bottom, 0 to 1 of the picture; all of it for empty masks."""
    sides = []
    for across in (-2, -1):  # columns, then rows
        hit = masks.any(dim=across).float()
        length = hit.shape[-1]
        sides.append((hit.argmax(-1) / length, 1 - hit.flip(-1).argmax(-1) / length))
    (left, right), (top, bottom) = sides
    return torch.stack((left, top, right, bottom), dim=-1)
