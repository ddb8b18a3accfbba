# SPDX-License-Identifier: Apache-2.0
"""Occupancy metrics: counts are summed over a set, ratios formed once at the end (spec 13)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool


@dataclass(frozen=True)
class OccupancyCounts:
    """Cells by outcome; add counts of scenes, then read the ratios."""

    true_positive: int = 0
    false_positive: int = 0
    false_negative: int = 0

    def __add__(self, other: "OccupancyCounts") -> "OccupancyCounts":
        return OccupancyCounts(
            self.true_positive + other.true_positive,
            self.false_positive + other.false_positive,
            self.false_negative + other.false_negative,
        )

    @property
    def precision(self) -> float:
        """Share of predicted cells that are occupied, in percent; 0 without a hit."""
        return self._percent(self.true_positive + self.false_positive)

    @property
    def recall(self) -> float:
        """Share of occupied cells that are predicted, in percent; 0 without a hit."""
        return self._percent(self.true_positive + self.false_negative)

    @property
    def iou(self) -> float:
        """Intersection over union in percent; 0 without a hit."""
        return self._percent(self.true_positive + self.false_positive + self.false_negative)

    def _percent(self, whole: int) -> float:
        return 100 * self.true_positive / whole if self.true_positive else 0.0

    def summary(self) -> dict[str, float]:
        """Return the three ratios, rounded to hundredths of a percent."""
        return {name: round(getattr(self, name), 2) for name in ("precision", "recall", "iou")}


def count_occupancy(
    predicted: Bool[np.ndarray, "X Y Z"],
    truth: Bool[np.ndarray, "X Y Z"],
    valid: Bool[np.ndarray, "X Y Z"],
) -> OccupancyCounts:
    """Count outcomes in the cells that are to be judged."""
    predicted, truth = predicted[valid], truth[valid]
    return OccupancyCounts(
        int((predicted & truth).sum()),
        int((predicted & ~truth).sum()),
        int((~predicted & truth).sum()),
    )
