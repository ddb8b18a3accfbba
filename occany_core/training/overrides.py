# SPDX-License-Identifier: Apache-2.0
"""Single values of a recipe, by dotted path: `stages.0.minutes=5`, `objective.pose=0`."""

import dataclasses
import difflib
import types
import typing
from typing import Any, TypeVar

from occany_core.config import as_float, read_assignment
from occany_core.errors import ConfigError

Tree = TypeVar("Tree")


def with_overrides(recipe: Tree, assignments: list[str]) -> Tree:
    """Apply `path=value` texts; values are read as YAML, places in lists count from 0.

    Raises:
        ConfigError: No `=`, no such place, a value of another type, or one that is refused.
    """
    for assignment in assignments:
        path, value = read_assignment(assignment, "objective.pose=0")
        recipe = _replaced(recipe, path.split("."), value, path)
    return recipe


def _replaced(tree: Any, keys: list[str], value: object, path: str) -> Any:
    key, *rest = keys
    if isinstance(tree, tuple):
        if not key.isdigit() or int(key) >= len(tree):
            raise ConfigError(f"{path}: there is no {key!r} among {len(tree)} entries, from 0 on")
        index = int(key)
        new = _replaced(tree[index], rest, value, path) if rest else value
        return (*tree[:index], new, *tree[index + 1 :])
    if not dataclasses.is_dataclass(tree):
        raise ConfigError(f"{path}: nothing stands below a value; leave {key!r} out")
    hints = typing.get_type_hints(type(tree))
    if key not in hints:
        close = difflib.get_close_matches(key, hints, n=1) or sorted(hints)
        raise ConfigError(f"{path}: unknown {key!r}; did you mean {', '.join(close)}?")
    old = getattr(tree, key)
    new = _replaced(old, rest, value, path) if rest else _checked(hints[key], value, path)
    return dataclasses.replace(tree, **{key: new})


def _checked(wanted: Any, value: object, path: str) -> object:
    """Return a value of the wanted type; whole numbers serve as fractions, lists as tuples."""
    origin, parts = typing.get_origin(wanted), typing.get_args(wanted)
    if origin is typing.Literal:
        if value not in parts:
            raise ConfigError(f"{path} is {value!r}; it must be one of {', '.join(parts)}")
        return value
    if origin in (typing.Union, types.UnionType):
        return None if value is None else _checked(parts[0], value, path)
    if origin is tuple and isinstance(value, list):
        items = [parts[0]] * len(value) if parts[-1] is ... else parts
        if len(items) == len(value):
            return tuple(_checked(t, v, path) for t, v in zip(items, value, strict=True))
    if wanted is float:
        value = as_float(value)
    if origin is None and type(value) is wanted:
        return value
    name = getattr(wanted, "__name__", str(wanted)) if origin is None else str(wanted)
    raise ConfigError(f"{path} is {value!r}; it must be of type {name}")
