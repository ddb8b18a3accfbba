# SPDX-License-Identifier: Apache-2.0
"""Masks of observed views, tracked into the views that were rendered around them (spec 11.1).

Rendered views come in chunks, and each belongs to an observed view (`ProposedViews.owner`). As
published, the views of one owner are tracked through together, a limited number at a time, and
every time anew from the owner. `V` observed and `R` rendered views.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from occany_core.semantics.class_prompts import UNLABELLED
from occany_core.semantics.features import PromptableFeatures
from occany_core.semantics.labelling import ViewLabels
from occany_core.semantics.masks import Tracker
from occany_core.semantics.painting import paint_observed, paint_tracked
from occany_core.semantics.things import masks_of_logits
from occany_core.voxels import ClassTable, ViewPoints


@dataclass(frozen=True)
class TrackingRules:
    """Into which views, how many at a time, and what is painted there."""

    owner: Int[Tensor, " R"]
    is_wanted: Bool[Tensor, " R"]
    chunk: int
    """Views of one owner that are tracked through together."""
    min_score: float
    classes: ClassTable


@dataclass(frozen=True)
class LabelledView:
    """A rendered view whose pixels have labels now."""

    points: ViewPoints
    pixels: UInt8[Tensor, "H W"]


class RenderedLabels:
    """Takes rendered views in order, and gives them back as soon as they are labelled.

    Args:
        tracker: Carries masks.
        observed: Features of the observed views.
        labels: Their objects.
        rules: See there.
    """

    def __init__(
        self,
        tracker: Tracker,
        observed: PromptableFeatures,
        labels: ViewLabels,
        rules: TrackingRules,
    ) -> None:
        self.tracker, self.observed, self.rules = tracker, observed, rules
        self.pixels = labels.pixels.clone()
        """Labels of the observed views: where masks were tracked, as the tracker has them."""
        self._objects = labels.objects
        self._waiting: dict[int, list[tuple[ViewPoints, PromptableFeatures]]] = {}
        self._missing = torch.bincount(
            rules.owner[rules.is_wanted], minlength=len(observed)
        ).tolist()

    def add(
        self, start: int, points: list[ViewPoints], levels: Sequence[Float[Tensor, "R C s s"]]
    ) -> Iterator[LabelledView]:
        """Take some rendered views, and yield those that are labelled by that.

        Args:
            start: Index of the first of them among all rendered views.
            points: Of each, in the grid frame.
            levels: Their promptable features.
        """
        features = PromptableFeatures(*levels)
        for offset, view in enumerate(points):
            if not self.rules.is_wanted[start + offset]:
                continue
            owner = int(self.rules.owner[start + offset])
            waiting = self._waiting.setdefault(owner, [])
            waiting.append((view, features.views(slice(offset, offset + 1))))
            self._missing[owner] -= 1
            if len(waiting) == self.rules.chunk or self._missing[owner] == 0:
                yield from self._track(owner, self._waiting.pop(owner))

    def _track(
        self, owner: int, views: list[tuple[ViewPoints, PromptableFeatures]]
    ) -> Iterator[LabelledView]:
        objects, classes = self._objects[owner], self.rules.classes
        if not len(objects.scores):
            return
        first = self.observed.views(slice(owner, owner + 1))
        others = PromptableFeatures.joined([features for _, features in views])
        logits = self.tracker.propagate(first, objects.masks, others)
        size = objects.masks.shape[1:]
        here = masks_of_logits(logits[0], size)
        moved = type(objects)(here, objects.scores, objects.labels)
        self.pixels[owner] = _unlabelled(paint_observed(moved, classes), classes)
        for (view, _), answer in zip(views, logits[1:], strict=True):
            masks = masks_of_logits(answer, size)[None]
            painted = paint_tracked(masks, objects, classes, self.rules.min_score)[0]
            yield LabelledView(view, _unlabelled(painted, classes))


def _unlabelled(pixels: UInt8[Tensor, "H W"], classes: ClassTable) -> UInt8[Tensor, "H W"]:
    return pixels.masked_fill(pixels == classes.empty, UNLABELLED)


def wanted_views(rendered: str, unturned: Bool[Tensor, " R"]) -> Bool[Tensor, " R"]:
    """Return into which rendered views masks are tracked, by `labels.rendered`."""
    return torch.ones_like(unturned) if rendered == "all" else unturned & (rendered != "none")
