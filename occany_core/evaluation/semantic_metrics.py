# SPDX-License-Identifier: Apache-2.0
"""Metrics of labelled grids: counts summed over a set, ratios formed once (evaluation page 13).

Pooling of the grid comes before this.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8

from occany_core.datasets.class_tables import DatasetClasses, LabelConvention
from occany_core.errors import InputError
from occany_core.evaluation.metrics import OccupancyCounts, count_occupancy

EPSILON = 1e-5
"""Added to the denominators of ratios by class, as published."""


@dataclass(frozen=True)
class SemanticCounts:
    """Outcomes of judged cells; add counts of scenes, then read the ratios."""

    convention: LabelConvention
    geometry: OccupancyCounts
    """Positive is every cell that is not empty, whatever its class."""
    true_positive: Int[np.ndarray, " C"]
    false_positive: Int[np.ndarray, " C"]
    false_negative: Int[np.ndarray, " C"]
    """By class, the empty one included."""

    def __add__(self, other: "SemanticCounts") -> "SemanticCounts":
        if self.convention != other.convention:
            raise InputError("counts of different class tables cannot be added")
        return SemanticCounts(
            self.convention,
            self.geometry + other.geometry,
            self.true_positive + other.true_positive,
            self.false_positive + other.false_positive,
            self.false_negative + other.false_negative,
        )

    @property
    def truth_cells(self) -> Int[np.ndarray, " C"]:
        """Judged cells of each class in the truth."""
        return self.true_positive + self.false_negative

    @property
    def class_precision(self) -> Float[np.ndarray, " C"]:
        """By class, in percent; 0 for a class that is never predicted."""
        return self._percent(self.true_positive + self.false_positive)

    @property
    def class_recall(self) -> Float[np.ndarray, " C"]:
        """By class, in percent; 0 for a class absent from the truth."""
        return self._percent(self.true_positive + self.false_negative)

    @property
    def class_iou(self) -> Float[np.ndarray, " C"]:
        """By class, in percent; 0 for a class absent from both."""
        return self._percent(self.true_positive + self.false_positive + self.false_negative)

    @property
    def mean_iou(self) -> float:
        """Mean over all classes but the empty one, absent ones included, in percent."""
        return float(self.class_iou[list(self.convention.averaged)].mean())

    @property
    def mean_iou_of_present(self) -> float:
        """The same over the classes that occur in the truth; 0 without any."""
        present = [index for index in self.convention.averaged if self.truth_cells[index]]
        return float(self.class_iou[present].mean()) if present else 0.0

    def _percent(self, whole: np.ndarray) -> np.ndarray:
        return 100 * self.true_positive / (whole + EPSILON)

    def summary(self) -> dict[str, float]:
        """Return precision, recall and IoU of the geometry, and the mean IoU, in percent."""
        return self.geometry.summary() | {"mean_iou": round(self.mean_iou, 2)}


def count_semantics(
    predicted: UInt8[np.ndarray, "*grid"],
    truth: UInt8[np.ndarray, "*grid"],
    convention: LabelConvention,
) -> SemanticCounts:
    """Count outcomes in the cells whose truth is not the ignored label.

    A predicted id beyond the convention's classes (SemanticKITTI's `other`) counts as occupied and
    as a miss of the true class, never as a false alarm of a class.

    Raises:
        InputError: The grids differ in shape.
    """
    if predicted.shape != truth.shape:
        raise InputError(
            f"predicted grid {predicted.shape} and truth {truth.shape} differ in shape; predict "
            "with the grid of the data set"
        )
    valid = truth != convention.ignore
    geometry = count_occupancy(predicted != convention.empty, truth != convention.empty, valid)
    predicted, truth = predicted[valid], truth[valid]
    classes = len(convention.names)
    hits, in_prediction, in_truth = (
        np.bincount(ids, minlength=256)[:classes].astype(np.int64)
        for ids in (truth[predicted == truth], predicted, truth)
    )
    return SemanticCounts(convention, geometry, hits, in_prediction - hits, in_truth - hits)


def count_superclasses(
    predicted: UInt8[np.ndarray, "*grid"],
    truth: UInt8[np.ndarray, "*grid"],
    dataset: DatasetClasses,
) -> SemanticCounts:
    """Count after mapping both grids to superclasses; ids that are no class stay what they are.

    Raises:
        InputError: The grids differ in shape.
    """
    lookup = dataset.superclass_lookup
    return count_semantics(lookup[predicted], lookup[truth], dataset.superclasses)
