# SPDX-License-Identifier: Apache-2.0
"""Requests for lifecycle transitions that the node's present state does not offer are refused.

rclpy lets them end the process: its callback raises what nobody catches.
"""

from lifecycle_msgs.srv import ChangeState
from rclpy.lifecycle import LifecycleNode


def refuse_impossible(node: LifecycleNode) -> None:
    """Check every request before rclpy's own callback sees it."""
    service = node._service_change_state
    answer = service.callback

    def check(
        request: ChangeState.Request, response: ChangeState.Response
    ) -> ChangeState.Response:
        offered = {
            number: label for number, label, *_ in node._state_machine.available_transitions
        }
        wanted = request.transition
        if wanted.id in offered or wanted.label in offered.values():
            return answer(request, response)
        _, state = node._state_machine.current_state
        node.get_logger().warning(
            f"transition {wanted.label or wanted.id} is not possible while the node is {state}; "
            f"possible are {', '.join(offered.values()) or 'none'}"
        )
        response.success = False
        return response

    service.callback = check
