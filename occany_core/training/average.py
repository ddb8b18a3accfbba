# SPDX-License-Identifier: Apache-2.0
"""The running average of the trained weights, which is better than any single step's."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from occany_core.training.ranks import spread_like


class AveragedWeights:
    """Exponential average of the parameters that learn; each process averages what it holds."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.decay = decay
        self.network = network
        self.values: dict[str, Tensor] = {}
        if decay > 0:
            self.values = {name: p.detach().clone() for name, p in self._trained().items()}

    def _trained(self) -> dict[str, nn.Parameter]:
        return {name: p for name, p in self.network.named_parameters() if p.requires_grad}

    def _pairs(self) -> tuple[list[Tensor], list[Tensor]]:
        """Return averages and weights, in the parts that this process holds."""
        trained = self._trained()
        return (
            [_held(self.values[name]) for name in self.values],
            [_held(trained[name].detach()) for name in self.values],
        )

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take the weights after a step into account; early ones fade faster."""
        if self.values:
            slow, fast = self._pairs()
            torch._foreach_lerp_(slow, fast, 1 - min(self.decay, (1 + step) / (10 + step)))

    @torch.no_grad()
    def _exchange(self) -> None:
        for slow, fast in zip(*self._pairs(), strict=True):
            kept = slow.clone()
            slow.copy_(fast)
            fast.copy_(kept)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Let the network have the averaged weights for the length of a with statement."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    def restore(self, values: dict[str, Tensor]) -> None:
        """Go on from saved averages."""
        trained = self._trained()
        self.values = {name: spread_like(v, trained[name].detach()) for name, v in values.items()}


def _held(value: Tensor) -> Tensor:
    return value.to_local() if isinstance(value, DTensor) else value
