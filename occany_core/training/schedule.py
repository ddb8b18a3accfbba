# SPDX-License-Identifier: Apache-2.0
"""Learning rate over the epochs, and which parameters decay (training page 2)."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from occany_core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class RateSchedule:
    """Linear warm-up from 0, then half a cosine down to the lowest rate.

    Behind `epochs` the cosine goes on and rises again, as in the last pass of the released runs.
    """

    highest: float
    lowest: float = 1e-6
    warmup_epochs: float = 3.0
    epochs: float = 100.0

    def __post_init__(self) -> None:
        if not 0 <= self.lowest <= self.highest or not 0 <= self.warmup_epochs < self.epochs:
            raise ConfigError(
                f"rates {self.lowest} to {self.highest} must not be negative, lowest first, and "
                f"the warm-up of {self.warmup_epochs} be shorter than {self.epochs} epochs"
            )

    def rate(self, epoch: float) -> float:
        """Return the learning rate at a fractional epoch (epoch + iteration / iterations)."""
        if epoch < self.warmup_epochs:
            return self.highest * epoch / self.warmup_epochs
        passed = (epoch - self.warmup_epochs) / (self.epochs - self.warmup_epochs)
        half_cosine = 0.5 * (1 + math.cos(math.pi * passed))
        return self.lowest + (self.highest - self.lowest) * half_cosine


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that share decay and rate."""

    names: tuple[str, ...]
    weight_decay: float
    rate_scale: float
    """Factor of the schedule's rate."""


def parameter_groups(
    names: Iterable[str],
    weight_decay: float = 0.05,
    rate_scales: Mapping[str, float] | None = None,
) -> list[ParameterGroup]:
    """Sort parameters by name: biases and everything called a norm do not decay.

    Task tokens, the embedding of the reference view and channel norms that are not called so do
    decay, as in the released runs.

    Args:
        names: Parameters, in the order of the model.
        weight_decay: Of those that decay.
        rate_scales: Factor of the learning rate by the start of a name; others have 1.

    Returns:
        Groups in the order in which their first parameters come.
    """
    rate_scales = rate_scales or {}
    groups: dict[tuple[float, float], list[str]] = {}
    for name in names:
        plain = name.endswith(".bias") or "norm" in name
        scale = next((s for start, s in rate_scales.items() if name.startswith(start)), 1.0)
        groups.setdefault((0.0 if plain else weight_decay, scale), []).append(name)
    return [ParameterGroup(tuple(names), *key) for key, names in groups.items()]
