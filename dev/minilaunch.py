#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Run this package's launch files where ROS 2's own `launch` is not installed.

    dev/run exec python dev/minilaunch.py surround.launch.py rate:=0.5
    dev/run exec python dev/minilaunch.py surround.launch.py --show-args

The package index has rclpy but not `launch` and `launch_ros`. For development, the demo and CI
on a machine with nothing but pip, this executes the same launch files, unchanged: it offers the
few classes they use (see minilaunch_classes.py) under the real module names and starts the same
processes with the same arguments. It refuses to run where the real packages are installed; there,
use `ros2 launch`.
"""

import argparse
import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from minilaunch_classes import (
    Context,
    DeclareLaunchArgument,
    LaunchError,
    install_modules,
    load,
    prefix_of,
)


def find_launch_file(name):
    """A path as it is, or the file of that name that occany_ros installs."""
    path = Path(name)
    if path.exists():
        return path
    folder = prefix_of("occany_ros") / "share/occany_ros/launch"
    if not (folder / name).exists():
        known = ", ".join(sorted(file.name for file in folder.glob("*.launch.py")))
        raise LaunchError(f"there is no launch file '{name}'; occany_ros has: {known}")
    return folder / name


def show_arguments(entity, context, shown):
    """Print every declared argument of a description and of what it includes, once."""
    for child in entity.described(context):
        if not isinstance(child, DeclareLaunchArgument):
            show_arguments(child, context, shown)
        elif child.name not in shown:
            child.show(context)
            shown.add(child.name)


def stop(processes, patience=8.0):
    """End processes as a terminal would, more firmly if they do not listen."""
    for how in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        for _, process, _ in processes:
            if process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, how)
        for _, process, _ in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience)
    for _, _, forward in processes:
        forward.join(1.0)


def run(description, context, seconds):
    """Start everything and wait for the end; returns what died by itself, with its exit code."""
    finished = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: finished.set())
    try:
        description.visit(context)
        left = seconds
        while any(process.poll() is None for _, process, _ in context.processes):
            if finished.wait(0.1) or (left is not None and left <= 0):
                break
            left = None if left is None else left - 0.1
        return {label: p.returncode for label, p, _ in context.processes if p.poll()}
    finally:
        stop(context.processes)


def main(argv=None):
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("launch_file", help="name of a launch file of occany_ros, or a path")
    parser.add_argument("arguments", nargs="*", metavar="name:=value")
    parser.add_argument("-s", "--show-args", action="store_true", help="list the arguments")
    parser.add_argument("--seconds", type=float, help="stop after this long")
    options = parser.parse_args(argv)
    if importlib.util.find_spec("launch_ros"):
        parser.error("launch_ros is installed: use `ros2 launch occany_ros ...`")
    wrong = [argument for argument in options.arguments if ":=" not in argument]
    if wrong:
        parser.error(f"malformed launch argument '{wrong[0]}', expected format '<name>:=<value>'")
    install_modules()
    with tempfile.TemporaryDirectory(prefix="minilaunch_") as folder:
        context = Context((a.split(":=", 1) for a in options.arguments), folder)
        try:
            description = load(find_launch_file(options.launch_file))
            if options.show_args:
                print("Arguments (pass arguments as '<name>:=<value>'):\n")
                show_arguments(description, context, set())
                return 0
            died = run(description, context, options.seconds)
        except (LaunchError, OSError) as error:
            print(f"[ERROR] [launch]: {error}", file=sys.stderr)
            return 1
    for label, code in died.items():
        print(f"[{label}]: process has died, exit code {code}", file=sys.stderr)
    return 1 if died else 0


if __name__ == "__main__":
    sys.exit(main())
