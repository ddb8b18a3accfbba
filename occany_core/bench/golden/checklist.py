# SPDX-License-Identifier: Apache-2.0
"""One file of a golden set: its arrays, what was compared, and what nobody looked at."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from occany_core.errors import InputError

ROUNDING = 2e-6
"""Part of the largest value that any order of float32 sums may cost (golden/README)."""
UNKNOWN_NOISE = 1e-5
"""Part of the largest value allowed where the set lists no noise."""
POSE_NOISE = 5e-5
"""The same for poses and focal lengths."""
POSE_NAME = re.compile(r"(^|[._])(c2w\w*|focal|\w*poses|\w*pose_absT_quaR)$")
"""How sets name poses and focal lengths."""


@dataclass(frozen=True)
class Stage:
    """One compared array."""

    file: str
    name: str
    error: float | None
    """Largest difference (for exact stages, the number of different entries); None where the stage
    was not checked."""
    tolerance: float
    reason: str = ""
    """Why the stage failed or was not checked, where numbers do not say it."""

    @property
    def verdict(self) -> str:
        """Return `ok`, `FAIL` or `not checked`; an error that is not a number fails."""
        if self.error is None:
            return "not checked"
        return "ok" if self.error <= self.tolerance else "FAIL"


class Checklist:
    """Compares our arrays with those of one golden file.

    Args:
        file: Name for the report.
        arrays: What the file holds.
        noise: Largest difference between the released code in float32 and in float64, by name.
    """

    def __init__(
        self, file: str, arrays: Mapping[str, Tensor], noise: Mapping[str, list[float]]
    ) -> None:
        self.file = file
        self.arrays = arrays
        self.noise = noise
        self.stages: list[Stage] = []
        self._used: set[str] = set()

    @classmethod
    def of(cls, path: Path, noise: Mapping[str, list[float]] | None = None) -> "Checklist":
        """Read a `.safetensors` or `.npz` file.

        Raises:
            InputError: The file cannot be read.
        """
        try:
            return cls(path.name, read_arrays(path), noise or {})
        except (OSError, ValueError, EOFError, BadZipFile, SafetensorError) as error:
            raise InputError(f"the golden file {path} cannot be read: {error}") from error

    def given(self, name: str) -> Tensor:
        """Return an array that is an input (or a description) of the set."""
        self._used.add(name)
        return self.arrays[name]

    def within(self, name: str, ours: Tensor, tolerance: float | None = None) -> None:
        """Compare numbers; ours may have another shape with the same order of values.

        Args:
            name: Array of the file.
            ours: The same, computed here.
            tolerance: Largest difference allowed; None takes the rule of the set, from its noise.
        """
        golden = self.given(name).double()
        largest = _largest(golden)
        if tolerance is None:
            noise = self.noise.get(name)
            tolerance = 4 * noise[0] + ROUNDING * largest if noise else UNKNOWN_NOISE * largest
        ours = torch.as_tensor(ours).detach().double().cpu()
        if ours.numel() != golden.numel():
            self._differs_in_shape(name, ours, golden, tolerance)
            return
        ours = ours.reshape(golden.shape)
        same = (ours == golden) | (ours.isnan() & golden.isnan())
        difference = torch.where(same, 0.0, (ours - golden).abs())
        error = difference.max().item() if difference.numel() else 0.0
        self.stages.append(Stage(self.file, name, error, tolerance))

    def poses(self, name: str, ours: Tensor) -> None:
        """Compare poses or focal lengths, for which sets allow more."""
        self.within(name, ours, POSE_NOISE * _largest(self.arrays[name]))

    def exact(self, name: str, ours: Tensor | np.ndarray, allowed_share: float = 0.0) -> None:
        """Count different entries; at most the given share of them may differ."""
        golden = self.given(name)
        ours = torch.as_tensor(np.asarray(ours) if isinstance(ours, np.ndarray) else ours).cpu()
        if ours.numel() != golden.numel():
            self._differs_in_shape(name, ours, golden, 0.0)
            return
        different = int((ours.reshape(golden.shape) != golden).sum())
        allowed = math.floor(allowed_share * golden.numel())
        self.stages.append(Stage(self.file, name, float(different), float(allowed)))

    def agree(self, ours: Mapping[str, Tensor]) -> None:
        """Compare every array of the file that has a partner here, by its kind and its noise."""
        for name in [name for name in self.arrays if name in ours]:
            if not self.arrays[name].is_floating_point():
                self.exact(name, ours[name])
            elif name not in self.noise and POSE_NAME.search(name):
                self.poses(name, ours[name])
            else:
                self.within(name, ours[name])

    def holds(self, name: str, wrong: Iterable[object]) -> None:
        """Add a stage about something that is no array: it fails if anything is wrong."""
        found = [str(one) for one in wrong]
        self.stages.append(Stage(self.file, name, float(len(found)), 0.0, ", ".join(found[:3])))

    def listed(self, shapes: Mapping[str, list]) -> None:
        """Check that the file has the arrays, shapes and types that its manifest lists."""
        wrong = []
        for name, (shape, kind) in shapes.items():
            array = self.arrays.get(name)
            if array is None or list(array.shape) != shape or str(array.dtype) != f"torch.{kind}":
                wrong.append(name)
        self.holds("arrays in the manifest", wrong)

    def _differs_in_shape(self, name: str, ours: Tensor, golden: Tensor, tolerance: float) -> None:
        shapes = f"ours {tuple(ours.shape)}, golden {tuple(golden.shape)}"
        self.stages.append(Stage(self.file, name, math.inf, tolerance, shapes))

    def report(self) -> list[Stage]:
        """Return all stages; arrays that nobody looked at count as not checked."""
        left = [name for name in self.arrays if name not in self._used]
        return [*self.stages, *(Stage(self.file, name, None, 0.0) for name in left)]


def _largest(golden: Tensor) -> float:
    """Return the largest finite value, or 0."""
    finite = golden[golden.isfinite()]
    return finite.abs().max().item() if finite.numel() else 0.0


def read_arrays(path: Path) -> dict[str, Tensor]:
    """Read a golden file; texts of an `.npz` stay NumPy arrays."""
    if path.suffix == ".safetensors":
        return load_file(path)
    with np.load(path, allow_pickle=False) as file:
        arrays = {name: file[name] for name in file.files}
    return {name: _as_tensor(array) for name, array in arrays.items()}


def _as_tensor(array: np.ndarray) -> Tensor | np.ndarray:
    if array.dtype.kind in "US":
        return array
    if array.dtype == np.uint16:
        array = array.astype(np.int32)
    return torch.from_numpy(np.ascontiguousarray(array)).reshape(array.shape)
