# SPDX-License-Identifier: Apache-2.0
"""Whether the run in a folder is the one that is asked for."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

from occany_core.errors import ConfigError
from occany_core.training.recipe import Recipe
from occany_core.training.state import Origin, Progress, RunState, share_passed

LENGTHS = ("minutes", "steps")
NOT_RECORDED = "weights that were not recorded"
"""Of runs that an earlier version began."""


def check_same_run(state: RunState, recipe: Recipe, given: Origin, folder: Path) -> None:
    """See that a run goes on as what it was begun.

    What may differ: minutes and steps of stages that are not over, as long as the stage in work
    is not over with the new ones; most_errors; the data, which is written down; and the weights
    to start from may be left out. Values that a later version added are not compared. States of
    earlier versions know only the recipe's name.

    Args:
        state: Of the run.
        recipe: That is asked for.
        given: What the run would start from if it were new.
        folder: To name in the message.

    Raises:
        ConfigError: The folder belongs to another recipe, or to a run from other weights.
    """
    if state.recipe != recipe.name:
        raise ConfigError(
            f"{folder} holds a run of the recipe {state.recipe}, not {recipe.name}; "
            "choose another folder"
        )
    if state.recipe_values is None:
        return
    for path, old, new in _differences(state.recipe_values, asdict(recipe)):
        if not _may_differ(path, recipe, state.progress):
            raise ConfigError(
                f"{folder} holds a run with {path} {_shown(old)}, not {_shown(new)}; choose "
                "another folder, or give the old value"
            )
    known = state.origin
    if known is not None and given.sha256 and given.sha256 != known.sha256:
        raise ConfigError(
            f"{folder} holds a run that started from {known.start_in_words}, not from "
            f"{given.start_in_words}; choose another folder, or give the old weights or none"
        )


def origin_going_on(state: RunState, given: Origin, *, is_finished: bool) -> Origin:
    """Return what a run was made from, once it has gone on with what is given now."""
    known = state.origin
    if known is None:
        return given if given.sha256 else replace(given, start=NOT_RECORDED)
    if is_finished:
        return known
    return replace(known, data=tuple(dict.fromkeys((*known.data, *given.data))))


def _differences(old: object, new: object, path: str = "") -> Iterator[tuple[str, object, object]]:
    """Yield path, old and new value of what differs."""
    if isinstance(old, dict) and isinstance(new, dict):
        for key, value in old.items():
            yield from _differences(value, new.get(key), f"{path}.{key}" if path else key)
    elif isinstance(old, tuple) and isinstance(new, tuple) and _is_nested(old, new):
        for index, pair in enumerate(zip(old, new, strict=True)):
            yield from _differences(*pair, f"{path}.{index}")
    elif old != new:
        yield path, old, new


def _is_nested(old: tuple, new: tuple) -> bool:
    """Whether two lists are compared entry by entry, not as one value."""
    return len(old) == len(new) and all(isinstance(one, dict) for one in old)


def _may_differ(path: str, recipe: Recipe, progress: Progress) -> bool:
    if path == "most_errors":
        return True
    parts = path.split(".")
    if parts[0] != "stages" or parts[-1] not in LENGTHS:
        return False
    index = int(parts[1])
    if index == progress.stage:
        return share_passed(recipe.stages[index], progress) < 1
    return index > progress.stage


def _shown(value: object) -> str:
    """Return a value for a message; of stages only their names."""
    if isinstance(value, tuple) and value and all(isinstance(one, dict) for one in value):
        return "(" + ", ".join(str(one.get("name", "...")) for one in value) + ")"
    return repr(value)
