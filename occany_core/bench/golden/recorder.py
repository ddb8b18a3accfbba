# SPDX-License-Identifier: Apache-2.0
"""Watches the modules of a network while it runs, so that the network needs no code for it."""

from collections.abc import Mapping
from types import TracebackType

from torch import Tensor, nn


class Recorder:
    """Keeps copies of what named modules receive and return, call after call.

    Args:
        modules: Modules to watch, by the name to keep them under.
    """

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        self._modules = modules
        self.inputs: dict[str, list[Tensor]] = {name: [] for name in modules}
        self.outputs: dict[str, list[Tensor]] = {name: [] for name in modules}

    def __enter__(self) -> "Recorder":
        self._handles = [
            module.register_forward_hook(self._keeper(name))
            for name, module in self._modules.items()
        ]
        return self

    def _keeper(self, name: str):  # noqa: ANN202
        def keep(module: nn.Module, given: tuple, returned: Tensor) -> None:
            del module
            self.inputs[name].append(given[0].detach().clone())
            self.outputs[name].append(returned.detach().clone())

        return keep

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for handle in self._handles:
            handle.remove()
