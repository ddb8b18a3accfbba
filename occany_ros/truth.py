# SPDX-License-Identifier: Apache-2.0
"""Published grids against the ground truth of the bundled recording: intersection over union.

Truth file (npz): `stamps` (T,) int64 ns; `semantics` (T, X, Y, Z) uint8 with 17 = free; `mask_camera`
which cells a camera can see. Only these cells count.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from occany_core.errors import InputError

FREE = 17


@dataclass(frozen=True, slots=True)
class Truth:
    """True occupancy of the cells that cameras see."""

    stamps_ns: np.ndarray
    """(T,) int64."""
    occupied: np.ndarray
    """(T, X, Y, Z) bool."""
    visible: np.ndarray
    """(T, X, Y, Z) bool."""


@dataclass(slots=True)
class Overlap:
    """Cells counted over grids."""

    both: int = 0
    either: int = 0
    grids: int = 0

    def add(self, predicted: np.ndarray, truth: np.ndarray, visible: np.ndarray) -> None:
        """Count one grid; all (X, Y, Z) bool."""
        self.both += int(np.count_nonzero(predicted & truth & visible))
        self.either += int(np.count_nonzero((predicted | truth) & visible))
        self.grids += 1

    @property
    def iou(self) -> float | None:
        """Intersection over union of occupied cells, or None when nothing could be compared."""
        return self.both / self.either if self.grids and self.either else None


def load_truth(path: Path) -> Truth:
    """Read a truth file.

    Raises:
        InputError: It does not exist or holds something else.
    """
    try:
        with np.load(path) as arrays:
            semantics = arrays["semantics"]
            mask = arrays["mask_camera"]
            stamps_ns = arrays["stamps"].astype(np.int64)
    except (OSError, KeyError, ValueError) as error:
        raise InputError(f"{path} is not a truth file ({error})") from error
    if mask.dtype != bool and mask.size != semantics.size:
        mask = np.unpackbits(mask.reshape(-1), count=semantics.size, bitorder="little")
    return Truth(stamps_ns, semantics != FREE, mask.reshape(semantics.shape).astype(bool))


def compare(truth: Truth, stamp_ns: int, occupied: np.ndarray, overlap: Overlap) -> None:
    """Count a grid (X, Y, Z) if there is truth for its stamp and its shape."""
    index = int(np.argmin(np.abs(truth.stamps_ns - stamp_ns)))
    close = abs(int(truth.stamps_ns[index]) - stamp_ns) < 1_000_000
    if close and occupied.shape == truth.occupied[index].shape:
        overlap.add(occupied, truth.occupied[index], truth.visible[index])
