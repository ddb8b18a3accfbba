# SPDX-License-Identifier: Apache-2.0
"""Service callbacks that await other threads for a limited time, and what they answer."""

from collections.abc import Awaitable
from concurrent.futures import Future as Running
from typing import TypeVar

from rclpy.callback_groups import CallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.task import Future

from occany_core.errors import OccAnyError

Response = TypeVar("Response")


async def answered(response: Response, work: Awaitable[str]) -> Response:
    """Fill in `success` and `message` from what the work returns or raises."""
    try:
        response.message = await work
        response.success = True
    except OccAnyError as error:
        response.success, response.message = False, str(error)
    return response


async def ended_within(node: Node, group: CallbackGroup, running: Running, limit_s: float) -> bool:
    """Await the end of something while the executor goes on.

    Args:
        node: Its executor runs the callback that awaits.
        group: For the timer; one that runs callbacks side by side.
        running: What is awaited; it is not interrupted.
        limit_s: Longest wait, by a steady clock [s].

    Returns:
        Whether it ended in time.
    """
    awaited = Future(executor=node.executor)

    def wake(_: object = None) -> None:
        if not awaited.done():
            awaited.set_result(None)

    running.add_done_callback(wake)
    steady = Clock(clock_type=ClockType.STEADY_TIME)
    timer = node.create_timer(limit_s, wake, callback_group=group, clock=steady)
    await awaited
    node.destroy_timer(timer)
    return running.done()
