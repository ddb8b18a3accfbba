# SPDX-License-Identifier: Apache-2.0
"""ROS parameters <-> `NodeSettings`: declared, described, changed as a whole or not at all."""

import difflib
from collections.abc import Callable, Iterable

from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter

from occany_core.errors import ConfigError
from occany_ros.declaration import Declaration, Value, checked
from occany_ros.declarations import NODE_DECLARATIONS, camera_declarations, core_declarations
from occany_ros.node_settings import NodeSettings, node_settings

FOREIGN = ("use_sim_time", "start_type_description_service", "qos_overrides")
"""Parameters, or first parts of their names, that rclpy itself declares or reads."""


def descriptor(declaration: Declaration, with_range: bool = True) -> ParameterDescriptor:
    """Describe a parameter to ROS tools.

    Types are checked by `checked`, which also takes whole numbers for floats and empty lists;
    rclpy's own check would refuse both.
    """
    change = "live" if declaration.is_live else "can change only while the node is unconfigured"
    constraints = ["fixed" if declaration.is_fixed else change]
    if declaration.choices:
        constraints.append("one of " + ", ".join(repr(choice) for choice in declaration.choices))
    text = ParameterDescriptor(
        description=declaration.description,
        additional_constraints="; ".join(constraints),
        read_only=declaration.is_fixed,
        dynamic_typing=True,
    )
    if with_range and declaration.least is not None and declaration.most is not None:
        span = {"from_value": declaration.least, "to_value": declaration.most}
        if isinstance(declaration.default, int):
            text.integer_range = [IntegerRange(**span)]
        else:
            text.floating_point_range = [FloatingPointRange(**span)]
    return text


class NodeParameters:
    """The parameters of a running node: declares them, validates changes, reads them."""

    def __init__(self, node: Node, is_configured: Callable[[], bool]) -> None:
        """Declare everything.

        Args:
            node: The node; what the user gave it is known from here on.
            is_configured: Whether only live parameters may change now.
        """
        self._node = node
        self._is_configured = is_configured
        self._on_change: Callable[[NodeSettings], None] = lambda settings: None
        # There is no public way to learn which parameters were given but not declared, except
        # automatic declaration, which fails on the empty lists of a YAML file.
        self._given = {
            name: parameter.value
            for name, parameter in node._parameter_overrides.items()
            if name.split(".")[0] not in FOREIGN
        }
        self._declarations: dict[str, Declaration] = {}
        self._declare((*NODE_DECLARATIONS, *core_declarations()))
        self._declare_cameras()
        node.add_on_set_parameters_callback(self._on_set)

    def on_change(self, call: Callable[[NodeSettings], None]) -> None:
        """Call this with the new settings whenever live parameters change.

        It may refuse them with a `ConfigError`, as long as it has done nothing yet.
        """
        self._on_change = call

    def read(self) -> NodeSettings:
        """Validate all parameters together.

        Raises:
            ConfigError: A value is not allowed, or the user gave a parameter that does not exist.
        """
        self._declare_cameras()
        self._refuse_unknown()
        return node_settings(self._checked_values({}))

    def _declare(self, declarations: Iterable[Declaration]) -> None:
        for declaration in declarations:
            if declaration.name in self._declarations:
                continue
            self._declarations[declaration.name] = declaration
            value = self._given.pop(declaration.name, None)
            value = declaration.default if value is None else value  # None: an empty list
            try:
                value, with_range = checked(declaration, value), True
            except ConfigError:
                with_range = False  # `read` says what is wrong, when the node is configured
            self._node.declare_parameter(
                declaration.name,
                list(value) if isinstance(value, tuple) else value,
                descriptor(declaration, with_range),
                ignore_override=True,
            )

    def _declare_cameras(self) -> None:
        cameras = self._node.get_parameter("cameras").value
        for camera in cameras if isinstance(cameras, list | tuple) else ():
            if isinstance(camera, str) and camera.isidentifier():
                self._declare(camera_declarations(camera))

    def _refuse_unknown(self) -> None:
        if not self._given:
            return
        name = min(self._given)
        close = difflib.get_close_matches(name, self._declarations, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        if name.startswith("camera."):
            cameras = list(self._node.get_parameter("cameras").value)
            hint = f"{hint or ';'} the parameter cameras lists {cameras}"
        others = f" (and {len(self._given) - 1} more)" if len(self._given) > 1 else ""
        raise ConfigError(f"unknown parameter {name!r}{others} was given to the node{hint}")

    def _checked_values(self, changes: dict[str, object]) -> dict[str, Value]:
        return {
            name: checked(
                declaration,
                changes[name] if name in changes else self._node.get_parameter(name).value,
            )
            for name, declaration in self._declarations.items()
        }

    def _on_set(self, parameters: list[Parameter]) -> SetParametersResult:
        """Accept a set of changes or refuse it as a whole."""
        changes = {p.name: p.value for p in parameters if p.name in self._declarations}
        if not changes or not self._is_configured():
            return SetParametersResult(successful=True)
        frozen = [name for name in changes if not self._declarations[name].is_live]
        if frozen:
            reason = (
                f"parameter {frozen[0]} can change only while the node is unconfigured; "
                f"run `ros2 lifecycle set {self._node.get_fully_qualified_name()} cleanup` first"
            )
            return SetParametersResult(successful=False, reason=reason)
        try:
            self._on_change(node_settings(self._checked_values(changes)))
        except ConfigError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)
