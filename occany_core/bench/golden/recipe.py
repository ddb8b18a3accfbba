# SPDX-License-Identifier: Apache-2.0
"""Weights and inputs that a golden set does not store, because a short program generates them.

The program stands beside the set (`golden_weights.py`), documents itself, and is run: trust the
folder, or read it first.
"""

import importlib.util
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from occany_core.bench.golden.checklist import Stage
from occany_core.errors import InputError

PROGRAM = "golden_weights.py"
FUNCTIONS = ("weight", "signed_uniform", "checksum")
CHECKSUM_NOISE = 1e-9
"""Relative difference that the order of a float64 sum may cost."""


class Recipe:
    """The generator that belongs to one folder.

    Args:
        folder: Folder of the golden set.

    Raises:
        InputError: The folder has no such program, or it lacks a function.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / PROGRAM
        spec = importlib.util.spec_from_file_location("golden_weights", path)
        self._program = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(self._program)
        except OSError as error:
            raise InputError(
                f"{folder} holds a network set, but the generator of its weights, {PROGRAM}, "
                f"cannot be read ({error.strerror}); copy it there"
            ) from error
        missing = [name for name in FUNCTIONS if not hasattr(self._program, name)]
        if missing:
            raise InputError(f"{path} has no function {', '.join(missing)}; it is another program")

    def weight(self, tag: str, key: str, shape: tuple[int, ...]) -> Tensor:
        """Return one entry of a released state dict."""
        return torch.from_numpy(np.ascontiguousarray(self._program.weight(tag, key, shape)))

    def input(self, tag: str, key: str, shape: tuple[int, ...]) -> Tensor:
        """Return values in [-1, 1)."""
        uniform = self._program.signed_uniform(tag, key, shape)
        return torch.from_numpy(np.ascontiguousarray(uniform))

    def part(self, tag: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
        """Return all weights of one part of a released checkpoint."""
        return {key: self.weight(tag, key, shape) for key, shape in shapes.items()}

    def checksums(
        self,
        tag: str,
        shapes: Mapping[str, tuple[int, ...]],
        expected: Mapping[str, Mapping[str, float]],
    ) -> Stage:
        """Hold checksums of a manifest against what the program generates, one at a time.

        Args:
            tag: Of the part, for example `A/raymap_encoder`.
            shapes: Of the part's weights.
            expected: Checksums by key.
        """
        worst, unknown = 0.0, []
        for key, sums in expected.items():
            if key not in shapes:
                unknown.append(key)
                continue
            ours = self._program.checksum(self.weight(tag, key, shapes[key]).numpy())
            scale = max(abs(sums["abs"]), 1.0)
            worst = max(worst, *(abs(ours[kind] - sums[kind]) / scale for kind in sums))
        reason = f"no known weight is named {', '.join(unknown[:3])}" if unknown else ""
        error = float("inf") if unknown else worst
        return Stage(PROGRAM, f"checksums of {tag}", error, CHECKSUM_NOISE, reason)
