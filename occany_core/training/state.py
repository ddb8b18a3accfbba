# SPDX-License-Identifier: Apache-2.0
"""The state of a run in one file: complete or absent, read without executing anything."""

import os
import pickle
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from occany_core.errors import CheckpointError
from occany_core.training.recipe import Stage

_UNREADABLE = (
    OSError, RuntimeError, EOFError, TypeError, LookupError, ValueError, pickle.UnpicklingError,
)  # fmt: skip


@dataclass
class Progress:
    """Where a run stands."""

    stage: int = 0
    stage_steps: int = 0
    stage_seconds: float = 0.0
    steps: int = 0
    views: int = 0
    """Compared views of all processes."""
    data_seconds: float = 0.0
    """Time spent waiting for batches."""
    seconds: float = 0.0
    """Time of all steps."""


def share_passed(stage: Stage, progress: Progress) -> float:
    """Return the share of the stage in work that is over."""
    if stage.steps:
        return progress.stage_steps / stage.steps
    return progress.stage_seconds / (60 * stage.minutes)


@dataclass(frozen=True, kw_only=True)
class Origin:
    """What a run was made from, besides its recipe."""

    data: tuple[str, ...]
    """Where its samples came from, in the order of use."""
    start: str
    """Name of the weights that it started from."""
    sha256: str = ""
    """Of these weights; empty where they were random or nobody wrote them down."""

    @property
    def start_in_words(self) -> str:
        """The weights, as a card and a message name them."""
        return f"{self.start} (sha256 {self.sha256[:12]})" if self.sha256 else self.start


@dataclass
class RunState:
    """Everything that is needed to go on."""

    recipe: str
    """Name; a folder belongs to one recipe."""
    progress: Progress
    weights: dict[str, Tensor]
    average: dict[str, Tensor]
    optimiser: dict | None
    """None where the stage has not begun."""
    used_views: int
    added_views: int
    faults: int
    torch_random: Tensor
    device_random: Tensor | None
    recipe_values: dict | None = None
    """The whole recipe as plain data; None in states of earlier versions."""
    origin: Origin | None = None
    """None in states of earlier versions."""


def write_state(state: RunState, path: Path) -> None:
    """Write a state; an interruption leaves the previous one."""
    unfinished = path.with_name(f".{path.name}")
    values = vars(state) | {"progress": asdict(state.progress)}
    values["origin"] = state.origin and asdict(state.origin)
    with unfinished.open("wb") as file:
        torch.save(values, file)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def read_state(path: Path) -> RunState:
    """Read what `write_state` wrote.

    Raises:
        CheckpointError: The file is damaged or of another version.
    """
    try:
        values = torch.load(path, map_location="cpu", weights_only=True)
        values["progress"] = Progress(**values["progress"])
        if values.get("origin") is not None:
            values["origin"] = Origin(**values["origin"])
        return RunState(**values)
    except _UNREADABLE as error:
        raise CheckpointError(
            f"{path} is no state of a run of this version ({error}); start in another folder"
        ) from error
