# SPDX-License-Identifier: Apache-2.0
"""The tree of settings as dotted paths: read from and written to YAML, overridden one by one."""

import dataclasses
import difflib
import math
import re
import typing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from occany_core.config.groups import OccAnyConfig, Scalar
from occany_core.errors import ConfigError

_EXPONENT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)e[+-]?\d+", re.IGNORECASE)
"""Numbers like 4e-4 or 1.5e3, which YAML takes for texts for want of a point or a sign."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """One leaf of the tree."""

    path: str
    """Dotted path, for example `voxels.resolution`."""
    type: type
    """Plain Python type of the value: bool, int, float, str or tuple."""
    default: Scalar
    description: str
    choices: tuple[str, ...] = ()
    """Allowed texts, or empty."""
    item_type: type = float
    """Type of a tuple's items."""
    is_list: bool = False
    """Whether a tuple may have any number of items."""


def settings() -> list[Setting]:
    """List every leaf of `OccAnyConfig` in declaration order."""
    found = []
    for group in dataclasses.fields(OccAnyConfig):
        hints = typing.get_type_hints(group.type, include_extras=True)
        for leaf in dataclasses.fields(group.type):
            annotated, description = typing.get_args(hints[leaf.name])
            choices = typing.get_args(annotated) if typing.get_origin(annotated) is Literal else ()
            is_tuple = typing.get_origin(annotated) is tuple
            found.append(
                Setting(
                    path=f"{group.name}.{leaf.name}",
                    type=tuple if is_tuple else str if choices else annotated,
                    default=leaf.default,
                    description=description,
                    choices=choices,
                    item_type=typing.get_args(annotated)[0] if is_tuple else float,
                    is_list=is_tuple and typing.get_args(annotated)[-1] is ...,
                )
            )
    return found


def as_float(value: object) -> object:
    """Return whole numbers, and texts like 4e-4, as fractions; anything else as it is."""
    is_whole = type(value) is int and abs(value) < 2**53
    is_text = isinstance(value, str) and _EXPONENT.fullmatch(value)
    return float(value) if is_whole or is_text else value


def _coerce(setting: Setting, value: object, place: str) -> Scalar:
    """Accept exact types, whole numbers for floats, and lists for tuples; refuse the rest."""
    where = f"{setting.path} in {place}" if place else setting.path
    wanted = setting.type
    if wanted is tuple:
        is_list = isinstance(value, list | tuple)
        if not is_list or not (setting.is_list or len(value) == len(setting.default)):
            wanted = "texts" if setting.is_list else f"{len(setting.default)} numbers"
            raise ConfigError(f"{where} is {value!r}; it must be a list of {wanted}")
        item = dataclasses.replace(setting, type=setting.item_type)
        return tuple(_coerce(item, part, place) for part in value)
    if wanted is float:
        value = as_float(value)
    if type(value) is not wanted:
        raise ConfigError(f"{where} is {value!r}; it must be of type {wanted.__name__}")
    if wanted is float and not math.isfinite(value):
        raise ConfigError(f"{where} is {value!r}; it must be a finite number")
    return value


def from_flat(
    values: dict[str, object], base: OccAnyConfig | None = None, place: str = ""
) -> OccAnyConfig:
    """Build a config from dotted paths.

    Args:
        values: For example `{"voxels.resolution": 0.2}`.
        base: Values for everything not named; the defaults if None.
        place: Named in error messages, for example a file name.

    Raises:
        ConfigError: Unknown path (the closest known one is named), wrong type, value out of range.
    """
    base = OccAnyConfig() if base is None else base
    known = {setting.path: setting for setting in settings()}
    changes: dict[str, dict[str, Scalar]] = {}
    for path, value in values.items():
        if path not in known:
            close = difflib.get_close_matches(path, known, n=1)
            hint = (
                f"; did you mean {close[0]}?" if close else "; `occany config` lists all settings"
            )
            raise ConfigError(f"unknown setting {path!r}{f' in {place}' if place else ''}{hint}")
        group, leaf = path.split(".")
        changes.setdefault(group, {})[leaf] = _coerce(known[path], value, place)
    groups = {
        group: dataclasses.replace(getattr(base, group), **leaves)
        for group, leaves in changes.items()
    }
    return dataclasses.replace(base, **groups)


def to_flat(config: OccAnyConfig) -> dict[str, Scalar]:
    """Return `{dotted path: value}` of every setting."""
    flat = {}
    for setting in settings():
        group, leaf = setting.path.split(".")
        flat[setting.path] = getattr(getattr(config, group), leaf)
    return flat


def _flatten(tree: object, place: str) -> dict[str, object]:
    if not isinstance(tree, dict):
        raise ConfigError(f"{place} must hold a mapping of groups, not {type(tree).__name__}")
    flat = {}
    for group, leaves in tree.items():
        if not isinstance(leaves, dict):
            raise ConfigError(f"{group!r} in {place} must be a group of settings, not {leaves!r}")
        flat |= {f"{group}.{leaf}": value for leaf, value in leaves.items()}
    return flat


def load_config(path: str | Path, base: OccAnyConfig | None = None) -> OccAnyConfig:
    """Read a YAML file of nested groups; an empty file gives `base`.

    Raises:
        ConfigError: The file is missing, not YAML, or holds something `from_flat` refuses.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read the config file {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not a YAML file: it is not UTF-8 text") from error
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    return from_flat(_flatten(tree, str(path)) if tree is not None else {}, base, str(path))


def with_overrides(config: OccAnyConfig, assignments: list[str]) -> OccAnyConfig:
    """Apply `path=value` texts, values read as YAML (for example `voxels.resolution=0.2`).

    Raises:
        ConfigError: No `=`, or something `from_flat` refuses.
    """
    example = "voxels.resolution=0.2"
    values = dict(read_assignment(assignment, example) for assignment in assignments)
    return from_flat(values, config, "--set")


def read_assignment(assignment: str, example: str) -> tuple[str, object]:
    """Split a `path=value` text and read the value as YAML.

    Args:
        assignment: As given on the command line.
        example: A right one, for the message.

    Raises:
        ConfigError: No `=`, or a value that is not YAML.
    """
    path, separator, text = assignment.partition("=")
    if not separator:
        raise ConfigError(f"--set {assignment!r} has no '='; write for example {example}")
    try:
        return path.strip(), yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {assignment!r} is not valid YAML: {error}") from error


def dump_config(config: OccAnyConfig) -> str:
    """Return YAML text that `load_config` reads back, each setting with its description."""
    lines: list[str] = []
    flat = to_flat(config)
    for setting in settings():
        group, leaf = setting.path.split(".")
        if f"{group}:" not in lines:
            lines.append(f"{group}:")
        value = flat[setting.path]
        text = yaml.safe_dump(
            list(value) if isinstance(value, tuple) else value, default_flow_style=True
        )
        text = text.removesuffix("\n").removesuffix("\n...")
        choices = f" ({' | '.join(setting.choices)})" if setting.choices else ""
        lines += [f"  # {setting.description}{choices}", f"  {leaf}: {text}"]
    return "\n".join(lines) + "\n"
