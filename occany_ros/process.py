# SPDX-License-Identifier: Apache-2.0
"""The process of a lifecycle node: begins, spins, ends with a signal and an exit code."""

import signal
import sys
from collections.abc import Callable
from typing import Protocol

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor


class NodeOfProcess(Protocol):
    """What the process needs of its node, besides being one."""

    fatal: str
    """Traceback of a bug that ended the node's work, or empty."""
    autostart: bool

    def start(self) -> None:
        """Configure and activate."""

    def close(self) -> None:
        """Stop and free everything."""

    def destroy_node(self) -> None:
        """Leave the graph."""


def run_until_signal(make_node: Callable[[], NodeOfProcess], args: list[str] | None) -> int:
    """Run the node until a signal; returns 0 after a signal, 1 after a bug or wrong arguments."""
    try:
        rclpy.init(args=args)
    except RuntimeError as error:
        sys.stderr.write(f"occany: cannot start: {error}\n")
        return 1
    node = None
    try:
        node = make_node()
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        if node.autostart:
            node.start()
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except RuntimeError as error:  # of rcl, for example about a parameter file
        # After a signal rcl refuses whatever is going on, and there is nothing to tell.
        if rclpy.ok() and node is not None:
            raise
        if rclpy.ok():
            sys.stderr.write(f"occany: cannot start: {error}\n")
            rclpy.try_shutdown()
            return 1
    # Ctrl-C reaches a launched node twice, from the terminal and from launch.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if node is not None:
        node.close()
        node.destroy_node()
    rclpy.try_shutdown()
    return 1 if node is not None and node.fatal else 0
