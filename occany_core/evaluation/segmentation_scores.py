# SPDX-License-Identifier: Apache-2.0
"""What weights score in pictures: masks of things from boxes, classes of pixels, detected boxes.

Judged at the size of the network's picture, `H W` pixels. `M` things of a view, `N` boxes, `C`
classes.
"""

from collections import defaultdict
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from occany_core.datasets.class_tables import DatasetClasses
from occany_core.semantics.detections import Detections

LEAST_PIXELS = 64
"""Things that show fewer pixels of the network's picture are not asked for; 64 are 0.6 % of it."""
HIT = 0.5
"""Intersection over union above which a mask is good and a box is a hit."""


@dataclass(frozen=True)
class VisibleThings:
    """The instances that one view shows."""

    masks: Bool[Tensor, "M H W"]
    boxes: Float[Tensor, "M 4"]
    """Left, top, right, bottom; 0 to 1 of the picture."""
    labels: Int[Tensor, " M"]
    """Class of most pixels of each."""

    def at_least(self, pixels: int) -> "VisibleThings":
        """Return those that show so many pixels."""
        kept = self.masks.sum(dim=(1, 2)) >= pixels
        return VisibleThings(self.masks[kept], self.boxes[kept], self.labels[kept])


def visible_things(
    instance: Int[np.ndarray, "H W"], semantics: UInt8[np.ndarray, "H W"]
) -> VisibleThings:
    """List what a view shows, by instance number; 0 is nothing."""
    ids = [one for one in np.unique(instance) if one]
    masks = np.stack([instance == one for one in ids]) if ids else np.zeros((0, *instance.shape))
    labels = [np.bincount(semantics[mask.astype(bool)]).argmax() for mask in masks]
    boxes = [_extent(mask) for mask in masks]
    return VisibleThings(
        torch.from_numpy(masks.astype(bool)),
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(labels, dtype=torch.long),
    )


def _extent(mask: Bool[np.ndarray, "H W"]) -> list[float]:
    """Return left, top, right and bottom, 0 to 1 of the picture."""
    rows, columns = np.nonzero(mask)
    height, width = mask.shape
    return [
        columns.min() / width,
        rows.min() / height,
        (columns.max() + 1) / width,
        (rows.max() + 1) / height,
    ]


def filled_boxes(boxes: Float[Tensor, "M 4"], size: tuple[int, int]) -> Bool[Tensor, "M H W"]:
    """Return masks of the pixels whose centres are in the boxes."""
    (height, width), sides = size, boxes[..., None]
    x = (torch.arange(width, device=boxes.device) + 0.5) / width
    y = (torch.arange(height, device=boxes.device) + 0.5) / height
    columns = (sides[:, 0] < x) & (x < sides[:, 2])
    rows = (sides[:, 1] < y) & (y < sides[:, 3])
    return rows[:, :, None] & columns[:, None]


def mask_iou(answered: Bool[Tensor, "M H W"], true: Bool[Tensor, "M H W"]) -> Float[Tensor, " M"]:
    """Return the intersection over union of each pair; 0 where both are empty."""
    both = (answered & true).sum(dim=(1, 2))
    return both / (answered | true).sum(dim=(1, 2)).clamp_min(1)


def box_iou(first: Float[Tensor, "M 4"], second: Float[Tensor, "N 4"]) -> Float[Tensor, "M N"]:
    """Return the intersection over union of all pairs; 0 where both are empty."""
    low = torch.maximum(first[:, None, :2], second[None, :, :2])
    high = torch.minimum(first[:, None, 2:], second[None, :, 2:])
    both = (high - low).clamp_min(0).prod(dim=-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).clamp_min(0).prod(dim=-1) for boxes in (first, second)]
    return both / (areas[0][:, None] + areas[1] - both).clamp_min(1e-12)


@dataclass
class MaskScores:
    """Masks that one kind of prompt gave."""

    ious: list[float] = field(default_factory=list)
    labels: list[int] = field(default_factory=list)

    def summary(self, countable: tuple[int, ...]) -> dict[str, float]:
        """Return counts, and percent.

        mean_iou over instances, above_half (share with an IoU above 0.5), and mean_iou_countable
        over those of countable classes.
        """
        ious = np.array(self.ious)
        counted = ious[np.isin(self.labels, countable)]
        return {
            "instances": len(ious),
            "mean_iou": _percent(ious),
            "above_half": _percent(ious > HIT),
            "countable": len(counted),
            "mean_iou_countable": _percent(counted),
        }


@dataclass
class BoxScores:
    """Boxes of one detector."""

    is_found: dict[int, list[bool]] = field(default_factory=lambda: defaultdict(list))
    """Of true instances, by class."""
    is_right: dict[int, list[bool]] = field(default_factory=lambda: defaultdict(list))
    """Of boxes, by class."""

    def add(self, found: Detections, true: VisibleThings) -> None:
        """Judge the boxes of one view.

        An instance that shows `LEAST_PIXELS` is found if a box of its class has an IoU above 0.5;
        a box is right if an instance of its class, however small, has.
        """
        hits = box_iou(true.boxes, found.boxes) > HIT
        hits &= true.labels[:, None] == found.labels
        judged = true.masks.sum(dim=(1, 2)) >= LEAST_PIXELS
        for label, hit in zip(true.labels[judged].tolist(), hits[judged], strict=True):
            self.is_found[label].append(bool(hit.any()))
        for label, hit in zip(found.labels.tolist(), hits.T, strict=True):
            self.is_right[label].append(bool(hit.any()))

    def summary(self, table: DatasetClasses) -> dict[str, object]:
        """Return shares of instances found and of boxes that are right, of countable classes."""
        kept = [table.classes[label] for label in table.countable]
        by_class = {
            one.name: _hits(self.is_found[one.id], self.is_right[one.id])
            for one in kept
            if self.is_found[one.id] or self.is_right[one.id]
        }
        found, right = (
            [hit for one in kept for hit in hits[one.id]]
            for hits in (self.is_found, self.is_right)
        )
        return _hits(found, right) | {"classes": by_class}


@dataclass
class SegmentationScores:
    """Add views, then read the summary."""

    table: DatasetClasses
    masks: dict[str, MaskScores] = field(default_factory=lambda: defaultdict(MaskScores))
    """By kind of prompt."""
    pixels: Int[np.ndarray, "C C"] | None = None
    """Pixels by true class, then by named class."""
    boxes: dict[str, BoxScores] = field(default_factory=lambda: defaultdict(BoxScores))
    """By what they were made of."""

    def add_masks(self, prompt: str, answered: Bool[Tensor, "M H W"], true: VisibleThings) -> None:
        """Judge the masks that prompts for some things gave, in their order."""
        self.masks[prompt].ious += mask_iou(answered, true.masks).tolist()
        self.masks[prompt].labels += true.labels.tolist()

    def add_pixels(
        self, named: UInt8[np.ndarray, "V H W"], true: UInt8[np.ndarray, "V H W"]
    ) -> None:
        """Judge classes of pixels, sky included."""
        classes = len(self.table.classes)
        pairs = true.astype(np.int64) * classes + named
        counts = np.bincount(pairs.flatten(), minlength=classes**2).reshape(classes, classes)
        self.pixels = counts if self.pixels is None else self.pixels + counts

    def summary(self) -> dict[str, dict]:
        """Return what was added: `masks` by prompt, `boxes` by detector, `pixels`; percent."""
        return {
            "masks": {name: one.summary(self.table.countable) for name, one in self.masks.items()},
            "boxes": {name: one.summary(self.table) for name, one in self.boxes.items()},
            "pixels": self._pixels(),
        }

    def _pixels(self) -> dict[str, object]:
        """Return accuracy, and IoU by class and on average over the classes that occur."""
        hits, true, named = (
            self.pixels.diagonal(),
            self.pixels.sum(axis=1),
            self.pixels.sum(axis=0),
        )
        iou = 100 * hits / np.maximum(true + named - hits, 1)
        occurring = [one for one in self.table.classes if true[one.id]]
        return {
            "mean_iou": round(float(iou[[one.id for one in occurring]].mean()), 2),
            "accuracy": round(100 * float(hits.sum() / true.sum()), 2),
            "classes": {
                one.name: {
                    "iou": round(float(iou[one.id]), 2),
                    "share": round(100 * float(true[one.id] / true.sum()), 2),
                }
                for one in occurring
            },
        }


def _hits(found: list[bool], right: list[bool]) -> dict[str, float]:
    return {
        "instances": len(found),
        "found": _percent(found),
        "boxes": len(right),
        "right": _percent(right),
    }


def _percent(values: object) -> float:
    """Return the mean in percent; 0 of nothing."""
    return round(100 * float(np.mean(values)), 2) if len(values) else 0.0
