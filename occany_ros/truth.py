# SPDX-License-Identifier: Apache-2.0
"""Published grids against the ground truth of the bundled recording: intersection over union.

Only cells count that the cameras of the recording can see (`mask_camera` of the truth).
"""

from dataclasses import dataclass

import numpy as np

from occany_core.synthetic.recording import RecordingTruth

FREE = 17
"""Class of empty cells in the truth."""

SAME_STAMP_NS = 1_000_000
"""Stamps closer than this are of one moment."""


@dataclass(slots=True)
class Overlap:
    """Cells counted over grids."""

    both: int = 0
    either: int = 0
    grids: int = 0

    def add(self, truth: RecordingTruth, stamp_ns: int, occupied: np.ndarray) -> None:
        """Count a grid (X, Y, Z) bool if there is truth for its stamp and its shape."""
        index = int(np.argmin(np.abs(truth.stamps - stamp_ns)))
        is_close = abs(int(truth.stamps[index]) - stamp_ns) < SAME_STAMP_NS
        if not is_close or occupied.shape != truth.semantics[index].shape:
            return
        visible = truth.mask_camera[index]
        true = truth.semantics[index] != FREE
        self.both += int(np.count_nonzero(occupied & true & visible))
        self.either += int(np.count_nonzero((occupied | true) & visible))
        self.grids += 1

    @property
    def iou(self) -> float | None:
        """Intersection over union of occupied cells, or None when nothing could be compared."""
        return self.both / self.either if self.grids and self.either else None
