# SPDX-License-Identifier: Apache-2.0
"""The manifest of a training set, and its cases with the scalars that stand there."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from occany_core.bench.golden.checklist import Checklist, Stage, read_arrays
from occany_core.errors import InputError

MANIFEST = "meta.json"

LOSS = 2e-5
GRADIENT = 2e-4
"""Tolerances of golden_training/README, as parts of the largest value."""
LEAST_LOSS = 1e-3
"""Losses nearer to 0 are differences of larger terms."""


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object.

    Raises:
        InputError: The file cannot be read.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} cannot be read: {error}; it belongs to the training fixtures"
        ) from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}; expected an object")
    return content


@dataclass
class Case:
    """One file of a set with its entry in the manifest.

    Scalars of the manifest are compared under names with a `meta.` in front.
    """

    settings: dict[str, Any]
    checklist: Checklist
    loss_tolerance: float

    @classmethod
    def of(cls, path: Path) -> "Case":
        """Read a case.

        Raises:
            InputError: The manifest beside the file has no entry for it.
        """
        cases = read_json(path.with_name(MANIFEST)).get("cases", {})
        entry = cases.get(path.stem)
        if entry is None:
            raise InputError(f"{path.with_name(MANIFEST)} says nothing about {path.stem}")
        scalars = {"loss": entry["loss"]} | entry.get("details", {})
        if "scale" in entry:
            scalars["scale"] = entry["scale"]
        arrays = dict(read_arrays(path)) | {
            f"meta.{name}": torch.tensor(float("nan") if value is None else value)
            for name, value in scalars.items()
        }
        settings = {
            name: value
            for name, value in entry.items()
            if name not in ("loss", "details", "scale", "kw")
        }
        # Components of a loss are as uncertain as their sum; a loss that is not finite has none.
        tolerance = LOSS * max(abs(entry["loss"] or 0.0), LEAST_LOSS)
        return cls(settings | entry.get("kw", {}), Checklist(path.name, arrays, {}), tolerance)

    def inputs(self, *names: str) -> list[Tensor]:
        """Return arrays that the terms are functions of, ready for gradients."""
        arrays = [self.checklist.given(name) for name in names]
        return [a.requires_grad_() if a.is_floating_point() else a for a in arrays]

    def only(self, *known: str) -> None:
        """Refuse settings that nobody here reads.

        Raises:
            InputError: Naming them.
        """
        unknown = sorted(set(self.settings) - set(known))
        if unknown:
            raise InputError(f"{self.checklist.file}: unknown settings {', '.join(unknown)}")

    def scalar(self, name: str, ours: Tensor) -> None:
        """Compare a component that the manifest lists; a case may lack it."""
        name = f"meta.{name}"
        if name in self.checklist.arrays:
            golden = self.checklist.arrays[name]
            if golden.isnan():  # the manifest has one word for all that is not finite
                ours = torch.where(ours.isfinite(), ours, torch.nan)
            tolerance = LOSS * golden.nan_to_num().abs().item()
            self.checklist.within(name, ours, max(tolerance, self.loss_tolerance))

    def total(self, ours: Tensor) -> None:
        """Compare the loss with the file and with the manifest."""
        self.checklist.within("loss", ours, self.loss_tolerance)
        self.scalar("loss", ours)

    def gradients(
        self,
        total: Tensor,
        by_name: Mapping[str, Tensor],
        constant: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Compare the gradients of a loss; a tensor that it does not reach has zeros.

        Args:
            total: The loss.
            by_name: What it is a function of, by the names of the gradients in the file.
            constant: What must not learn from it, by names for the report.
        """
        constant = constant or {}
        tensors = [*by_name.values(), *constant.values()]
        found = torch.autograd.grad(total, tensors, allow_unused=True)
        reached = zip(constant, found[len(by_name) :], strict=True)
        self.checklist.holds(
            "stopped gradients", (name for name, gradient in reached if gradient is not None)
        )
        for (name, tensor), gradient in zip(by_name.items(), found, strict=False):
            ours = torch.zeros_like(tensor) if gradient is None else gradient
            golden = self.checklist.arrays[name].nan_to_num(0.0, 0.0, 0.0)
            self.checklist.within(name, ours, GRADIENT * golden.abs().max().item())

    def report(self) -> list[Stage]:
        """Return all stages of the case."""
        return self.checklist.report()
