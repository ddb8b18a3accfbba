# SPDX-License-Identifier: Apache-2.0
"""The classes of launch and launch_ros that dev/minilaunch.py offers to launch files.

To use another one in our launch files, add it here under its real name and signature, and to
`MODULES` at the end.
"""

import os
import runpy
import subprocess
import sys
import threading
import types
from pathlib import Path

import yaml


class LaunchError(Exception):
    """The launch file or its arguments are wrong."""


def prefix_of(package):
    """The installation prefix that holds a ROS package."""
    for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        marker = Path(prefix, "share/ament_index/resource_index/packages", package)
        if prefix and marker.exists():
            return Path(prefix)
    raise LaunchError(f"package '{package}' is in no prefix of AMENT_PREFIX_PATH; is it built?")


class Context:
    """Launch configurations, environment, pushed namespaces, and the processes started."""

    def __init__(self, arguments, folder):
        self.launch_configurations = dict(arguments)
        self.environment = dict(os.environ)
        self.namespaces = []
        self.processes = []
        self.folder = Path(folder)

    def text(self, value):
        """A string, a substitution, or a list of them, as text."""
        if isinstance(value, (list, tuple)):
            return "".join(self.text(part) for part in value)
        return value.perform(self) if hasattr(value, "perform") else str(value)


# --- substitutions ------------------------------------------------------------------------------


class TextSubstitution:
    def __init__(self, *, text):
        self.content = text

    def perform(self, context):
        return self.content


class LaunchConfiguration:
    def __init__(self, variable_name, *, default=None):
        self.name, self.default = variable_name, default

    def perform(self, context):
        value = context.launch_configurations.get(context.text(self.name), self.default)
        if value is None:
            raise LaunchError(f"launch configuration '{self.name}' does not exist")
        return context.text(value)


class EnvironmentVariable:
    def __init__(self, name, *, default_value=None):
        self.name, self.default = name, default_value

    def perform(self, context):
        value = context.environment.get(context.text(self.name), self.default)
        if value is None:
            raise LaunchError(f"environment variable '{context.text(self.name)}' does not exist")
        return context.text(value)


class PathJoinSubstitution:
    def __init__(self, substitutions):
        self.parts = substitutions

    def perform(self, context):
        return os.path.join(*(context.text(part) for part in self.parts))


class EqualsSubstitution:
    wanted = True

    def __init__(self, left, right):
        self.sides = left, right

    def perform(self, context):
        left, right = (context.text(side) for side in self.sides)
        return str((left == right) == self.wanted).lower()


class NotEqualsSubstitution(EqualsSubstitution):
    wanted = False


class FindPackageShare:
    def __init__(self, package):
        self.package = package

    def perform(self, context):
        package = context.text(self.package)
        return str(prefix_of(package) / "share" / package)


# --- conditions ---------------------------------------------------------------------------------


class IfCondition:
    wanted = True

    def __init__(self, predicate_expression):
        self.predicate = predicate_expression

    def holds(self, context):
        text = context.text(self.predicate).strip().lower()
        if text not in ("true", "1", "false", "0"):
            raise LaunchError(f"a condition is neither true nor false: '{text}'")
        return (text in ("true", "1")) == self.wanted


class UnlessCondition(IfCondition):
    wanted = False


# --- actions ------------------------------------------------------------------------------------


class Action:
    def __init__(self, *, condition=None):
        self.condition = condition

    def visit(self, context):
        if self.condition is None or self.condition.holds(context):
            self.execute(context)

    def described(self, context):
        """The entities below this one whose arguments `--show-args` lists."""
        return []


class LaunchDescription:
    def __init__(self, initial_entities=()):
        self.entities = list(initial_entities or ())

    def add_action(self, action):
        self.entities.append(action)

    def visit(self, context):
        for entity in self.entities:
            entity.visit(context)

    def described(self, context):
        return self.entities


class DeclareLaunchArgument(Action):
    def __init__(self, name, *, default_value=None, description="", choices=None, **kwargs):
        super().__init__(**kwargs)
        self.name, self.default, self.choices = name, default_value, choices
        self.description = description

    def execute(self, context):
        values = context.launch_configurations
        if self.name not in values:
            if self.default is None:
                raise LaunchError(f"launch argument '{self.name}' is required; add {self.name}:=")
            values[self.name] = context.text(self.default)
        if self.choices and values[self.name] not in self.choices:
            allowed = ", ".join(self.choices)
            raise LaunchError(f"'{self.name}' is '{values[self.name]}'; it may be: {allowed}")

    def show(self, context):
        default = "required"
        if self.default is not None:
            default = f"default: '{context.text(self.default)}'"
            context.launch_configurations.setdefault(self.name, context.text(self.default))
        choices = f" one of: {', '.join(self.choices)};" if self.choices else ""
        print(f"    '{self.name}':\n        {self.description}\n       {choices} ({default})\n")


class SetEnvironmentVariable(Action):
    def __init__(self, name, value, **kwargs):
        super().__init__(**kwargs)
        self.name, self.value = name, value

    def execute(self, context):
        context.environment[context.text(self.name)] = context.text(self.value)


class PythonLaunchDescriptionSource:
    def __init__(self, launch_file_path):
        self.location = launch_file_path


class IncludeLaunchDescription(Action):
    def __init__(self, launch_description_source, *, launch_arguments=(), **kwargs):
        super().__init__(**kwargs)
        self.source, self.arguments = launch_description_source, launch_arguments or ()

    def execute(self, context):
        for name, value in self.arguments:
            context.launch_configurations[context.text(name)] = context.text(value)
        load(context.text(self.source.location)).visit(context)

    def described(self, context):
        return [load(context.text(self.source.location))]


class GroupAction(Action):
    def __init__(self, actions, **kwargs):
        super().__init__(**kwargs)
        self.actions = actions

    def execute(self, context):
        outside = context.launch_configurations, context.environment, context.namespaces
        context.launch_configurations = dict(outside[0])
        context.environment = dict(outside[1])
        context.namespaces = list(outside[2])
        for action in self.actions:
            action.visit(context)
        context.launch_configurations, context.environment, context.namespaces = outside

    def described(self, context):
        return self.actions


class PushRosNamespace(Action):
    def __init__(self, namespace, **kwargs):
        super().__init__(**kwargs)
        self.namespace = namespace

    def execute(self, context):
        name = context.text(self.namespace)
        if name.startswith("/"):
            context.namespaces.clear()
        if name.strip("/"):
            context.namespaces.append(name.strip("/"))


class ParameterValue:
    """A parameter whose text is not to be read as YAML when `value_type` is str."""

    def __init__(self, value, *, value_type=None):
        self.value, self.type = value, value_type

    def evaluate(self, context):
        text = context.text(self.value)
        return text if self.type is str else yaml_value(text)


class ParameterFile:
    """A parameter file whose path may be put together of several parts."""

    def __init__(self, param_file):
        self.path = param_file

    def perform(self, context):
        return context.text(self.path)


def yaml_value(text):
    """What launch_ros makes of the text of a parameter: numbers, booleans, lists, else itself."""
    value = yaml.safe_load(text)
    return value if isinstance(value, (bool, int, float, str, list)) else text


def parameter_value(context, value):
    """The value of one entry of a parameter dictionary."""
    if isinstance(value, ParameterValue):
        return value.evaluate(context)
    parts = value if isinstance(value, (list, tuple)) else [value]
    if any(hasattr(part, "perform") for part in parts):
        return yaml_value(context.text(value))
    return list(value) if isinstance(value, tuple) else value


class Node(Action):
    def __init__(
        self, *, package, executable, name=None, namespace=None, parameters=(), remappings=(),
        arguments=(), ros_arguments=(), additional_env=None, output=None, emulate_tty=False,
        condition=None,
    ):  # fmt: skip
        super().__init__(condition=condition)
        self.package, self.executable = package, executable
        self.name, self.namespace = name, namespace
        self.parameters, self.remappings = parameters or (), remappings or ()
        self.arguments, self.ros_arguments = arguments or (), ros_arguments or ()
        self.env = additional_env or {}

    def command(self, context):
        """The program and the arguments that launch_ros would start."""
        package, executable = context.text(self.package), context.text(self.executable)
        path = prefix_of(package) / "lib" / package / executable
        if not os.access(path, os.X_OK):
            raise LaunchError(f"executable '{executable}' not found in {path.parent}")
        command = [str(path), *(context.text(a) for a in self.arguments), "--ros-args"]
        command += [context.text(a) for a in self.ros_arguments]
        if self.name:
            command += ["-r", f"__node:={context.text(self.name)}"]
        namespace = list(context.namespaces)
        if self.namespace:
            own = context.text(self.namespace)
            namespace = [*([] if own.startswith("/") else namespace), own.strip("/")]
        if any(namespace):
            command += ["-r", f"__ns:=/{'/'.join(part for part in namespace if part)}"]
        for index, entry in enumerate(self.parameters):
            file = self.parameter_file(context, index, entry)
            command += ["--params-file", str(file)]
        for source, target in self.remappings:
            command += ["-r", f"{context.text(source)}:={context.text(target)}"]
        return command

    def parameter_file(self, context, index, entry):
        if not isinstance(entry, dict):
            return context.text(entry)
        values = {key: parameter_value(context, value) for key, value in entry.items()}
        file = context.folder / f"{len(context.processes)}_{index}.yaml"
        file.write_text(yaml.safe_dump({"/**": {"ros__parameters": values}}))
        return file

    def execute(self, context):
        label = f"{context.text(self.executable)}-{len(context.processes) + 1}"
        own = {context.text(name): context.text(value) for name, value in self.env.items()}
        process = subprocess.Popen(  # a session of its own: Ctrl-C reaches it once, through us
            self.command(context), env=context.environment | own, text=True, errors="replace",
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        print(f"[{label}]: process started with pid [{process.pid}]", flush=True)
        forward = threading.Thread(target=copy_lines, args=(process.stdout, label), daemon=True)
        forward.start()
        context.processes.append((label, process, forward))


def copy_lines(source, label):
    """Print what a process says, with its name before each line."""
    for line in source:
        print(f"[{label}] {line}", end="", flush=True)


def load(path):
    """The launch description of a file."""
    return runpy.run_path(str(path))["generate_launch_description"]()


MODULES = {
    "launch": [LaunchDescription],
    "launch.actions": [
        DeclareLaunchArgument, GroupAction, IncludeLaunchDescription, SetEnvironmentVariable,
    ],
    "launch.conditions": [IfCondition, UnlessCondition],
    "launch.launch_description_sources": [PythonLaunchDescriptionSource],
    "launch.substitutions": [
        EnvironmentVariable, EqualsSubstitution, LaunchConfiguration, NotEqualsSubstitution,
        PathJoinSubstitution, TextSubstitution,
    ],
    "launch_ros": [],
    "launch_ros.actions": [Node, PushRosNamespace],
    "launch_ros.parameter_descriptions": [ParameterFile, ParameterValue],
    "launch_ros.substitutions": [FindPackageShare],
}  # fmt: skip


def install_modules():
    """Make the classes above importable under the names of the real packages."""
    for name, classes in MODULES.items():
        module = sys.modules[name] = types.ModuleType(name)
        module.__path__ = []
        module.__getattr__ = refuse(name)
        for cls in classes:
            setattr(module, cls.__name__, cls)
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)


def refuse(module):
    """What happens when a launch file asks for a class that is not here."""

    def missing(name):
        if name.startswith("__"):
            raise AttributeError(name)
        raise LaunchError(
            f"dev/minilaunch.py does not know {module}.{name}; add it to dev/minilaunch_classes.py"
        )

    return missing
