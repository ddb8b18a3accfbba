# SPDX-License-Identifier: Apache-2.0
"""Masks with classes and scores are painted into label maps, best score first (spec 11).

`M` masks, `V` views, `H W` pixels.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from occany_core.errors import InputError
from occany_core.voxels import ClassTable

UNLABELLED = 255
"""A label that is never painted, whatever the convention."""
MIN_TRACKED_SCORE = 0.15
"""Objects up to this score are not painted in views into which they were tracked."""
SCORE_BIN = 0.01
"""Masks of one class whose scores round to the same multiple of it are one object."""


@dataclass(frozen=True)
class LabelledMasks:
    """Objects found in one view."""

    masks: Bool[Tensor, "M H W"]
    scores: Float[Tensor, " M"]
    """0 to 1."""
    labels: Int[Tensor, " M"]

    def __post_init__(self) -> None:
        """Check that the three belong together."""
        counts = len(self.masks), len(self.scores), len(self.labels)
        if self.masks.ndim != 3 or len(set(counts)) > 1:
            raise InputError(
                f"masks of shape {tuple(self.masks.shape)} came with {counts[1]} scores and "
                f"{counts[2]} labels; give masks (M, H, W), M scores and M labels"
            )

    def __getitem__(self, chosen: Tensor) -> "LabelledMasks":
        """Return some of the objects."""
        return LabelledMasks(self.masks[chosen], self.scores[chosen], self.labels[chosen])

    def cpu(self) -> "LabelledMasks":
        """Return the same on the CPU."""
        return LabelledMasks(self.masks.cpu(), self.scores.cpu(), self.labels.cpu())


def merge_masks(found: LabelledMasks, score_bin: float = SCORE_BIN) -> LabelledMasks:
    """Unite masks of the same class and nearly the same score.

    Two scores are nearly the same if `score / score_bin` rounds (half to even) to the same
    integer. The score of a union is the highest. Objects stay in the order of their first masks.
    """
    bins = (found.scores.double() / score_bin).round().long().tolist()
    objects: dict[tuple[int, int], list[int]] = {}
    for index, pair in enumerate(zip(found.labels.tolist(), bins, strict=True)):
        objects.setdefault(pair, []).append(index)
    if len(objects) == len(found.scores):
        return found
    return LabelledMasks(
        torch.stack([found.masks[same].any(dim=0) for same in objects.values()]),
        torch.stack([found.scores[same].amax() for same in objects.values()]),
        found.labels.new_tensor([label for label, _ in objects]),
    )


def paint_observed(found: LabelledMasks, classes: ClassTable) -> UInt8[Tensor, "H W"]:
    """Give each pixel the class of the best mask that covers it, else `empty`.

    Masks labelled `empty`, `other` or 255 are left out: they paint nothing and hide nothing. Of
    equal scores the earlier mask is taken.
    """
    usable = torch.ones_like(found.labels, dtype=torch.bool)
    for label in (classes.empty, classes.other, UNLABELLED):
        usable &= found.labels != label
    found = found[usable]
    found = found[found.scores.argsort(descending=True, stable=True)]
    empty = torch.full_like(found.masks[:1].any(dim=0), classes.empty, dtype=torch.uint8)
    if not len(found.scores):
        return empty
    best = found.masks.to(torch.uint8).argmax(dim=0)  # the first of the largest
    return torch.where(found.masks.any(dim=0), found.labels.to(torch.uint8)[best], empty)


def paint_tracked(
    tracked: Bool[Tensor, "V M H W"],
    objects: LabelledMasks,
    classes: ClassTable,
    min_score: float = MIN_TRACKED_SCORE,
) -> UInt8[Tensor, "V H W"]:
    """Paint views into which the objects of an observed view were tracked.

    Args:
        tracked: Masks of the objects in every view.
        objects: As in the observed view; their own masks are not used.
        classes: Label convention.
        min_score: Only objects with a higher score are painted.
    """
    painted = torch.empty_like(tracked[:, :1].any(dim=1), dtype=torch.uint8)
    kept = objects.scores > min_score
    for view, masks in zip(painted, tracked, strict=True):
        moved = LabelledMasks(masks, objects.scores, objects.labels)
        view.copy_(paint_observed(moved[kept], classes))
    return painted


def paint_prompted(
    found: LabelledMasks, view: Int[Tensor, " M"], num_views: int, classes: ClassTable
) -> UInt8[Tensor, "V H W"]:
    """Paint what prompts found in several views; the detector has dropped weak answers.

    Args:
        found: Masks of all views together.
        view: The view of each mask.
        num_views: V.
        classes: Label convention.
    """
    return torch.stack([paint_observed(found[view == i], classes) for i in range(num_views)])
