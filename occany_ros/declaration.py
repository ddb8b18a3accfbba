# SPDX-License-Identifier: Apache-2.0
"""What one parameter is, and whether a value fits it. Without ROS."""

import math
from dataclasses import dataclass

from occany_core.errors import ConfigError

Value = bool | int | float | str | tuple


@dataclass(frozen=True, kw_only=True, slots=True)
class Declaration:
    """One parameter."""

    name: str
    default: Value
    description: str
    is_live: bool = False
    """Takes effect at the next cycle; otherwise it can change only while unconfigured."""
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None
    is_fixed: bool = False
    """Read once at the start."""


def checked(declaration: Declaration, value: object) -> Value:
    """Return the value in the declared type; whole numbers pass for floats, lists become tuples.

    Raises:
        ConfigError: Wrong type, outside the range, or not one of the choices.
    """
    name, default = declaration.name, declaration.default
    if isinstance(default, tuple):
        if isinstance(value, str | bytes) or not hasattr(value, "__iter__"):
            raise ConfigError(f"parameter {name} is {value!r}; it must be a list")
        return tuple(item for item in value if item != "")
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    if value is False and "off" in declaration.choices:
        value = "off"  # YAML 1.1 reads the word as a boolean
    if type(value) is not type(default):
        raise ConfigError(
            f"parameter {name} is {value!r}; it must be of type {type(default).__name__}"
        )
    if declaration.choices and value not in declaration.choices:
        allowed = ", ".join(repr(choice) for choice in declaration.choices)
        raise ConfigError(f"parameter {name} is {value!r}; it must be one of {allowed}")
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"parameter {name} is {value!r}; it must be finite")
    if declaration.least is not None and value < declaration.least:
        raise ConfigError(
            f"parameter {name} is {value!r}; it must be at least {declaration.least}"
        )
    if declaration.most is not None and value > declaration.most:
        raise ConfigError(f"parameter {name} is {value!r}; it must be at most {declaration.most}")
    return value
