# SPDX-License-Identifier: Apache-2.0
"""A value that somebody gave -> the value of a declared parameter, or why not. Without ROS."""

import math

from occany_core.errors import ConfigError
from occany_ros.declarations import Declaration, Value


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
