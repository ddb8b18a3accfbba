# SPDX-License-Identifier: Apache-2.0
"""Says what is missing and why nothing comes out: `ros2 run occany_ros doctor`.

Looks at the ROS graph and listens to the node for some seconds, prints one line per finding and
ends with 0, or with 1 when a line is an error. Changes nothing.
"""

import argparse
import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import suppress

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from lifecycle_msgs.srv import GetState
from rcl_interfaces.srv import GetParameters
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.topic_endpoint_info import TopicEndpointInfo

from occany_ros.diagnostics import ERROR, OK, WARN, Finding
from occany_ros.msg import OccAnyStatus, VoxelGrid
from occany_ros.symptoms import (
    IMAGE_TYPES,
    MEGABYTE,
    End,
    ImageTopic,
    Surroundings,
    life_finding,
    memory_finding,
    output_finding,
    presence_finding,
    topic_finding,
    weights_finding,
)

STATUS_TYPE = "occany_ros/msg/OccAnyStatus"
DISCOVERY_S = 5.0
NOT_YET_KNOWN = "_NODE_NAME_UNKNOWN_"
"""Name that rmw gives the node of an end whose participant it has not discovered yet."""
WORDS = {OK: "ok", WARN: "warn", ERROR: "ERROR"}


def surroundings() -> Surroundings:
    """Look at this process's environment."""
    names = ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE")
    free = None
    with suppress(OSError):
        free = shutil.disk_usage("/dev/shm").free // MEGABYTE
    return Surroundings(
        domain=os.environ.get("ROS_DOMAIN_ID", "0"),
        profile=next((os.environ[name] for name in names if os.environ.get(name)), ""),
        middleware=os.environ.get("RMW_IMPLEMENTATION", ""),
        shared_megabytes=free,
    )


def _full_name(info: TopicEndpointInfo) -> str:
    return f"{info.node_namespace.rstrip('/')}/{info.node_name}"


def _end(info: TopicEndpointInfo) -> End:
    is_reliable = info.qos_profile.reliability != ReliabilityPolicy.BEST_EFFORT
    return End(_full_name(info), info.topic_type, is_reliable)


class Doctor(Node):
    """Looks and listens."""

    def __init__(self, executor: SingleThreadedExecutor | None = None, **options: object) -> None:
        """Join the graph.

        Args:
            executor: What to spin while waiting; an own one if None.
            options: Of the node.
        """
        super().__init__("occany_doctor", **options)
        self._spun = executor or SingleThreadedExecutor(context=self.context)
        self._spun.add_node(self)

    def examine(self, asked: str, seconds: float) -> list[Finding]:
        """Look at one node, or at the only one there is.

        Args:
            asked: Full name of the node, or empty.
            seconds: How long to wait for what it sends.
        """
        around = surroundings()
        found = self._wait_for(lambda: self._occany_nodes(asked), DISCOVERY_S) or []
        if not found:
            found = self._occany_nodes("")
        others = len(self.get_node_names()) - len(found) - 1
        findings = [presence_finding(found, others, asked, around.domain)]
        if findings[0].level != OK:
            return [*findings, weights_finding("default"), memory_finding(around)]
        node = asked or found[0]
        findings += self._listen(node, seconds)
        return [*findings, *self._settled_topic_findings(node), memory_finding(around)]

    def _occany_nodes(self, asked: str) -> list[str]:
        """List the nodes that publish a status; none while `asked` is not among them."""
        topics = [name for name, types in self.get_topic_names_and_types() if STATUS_TYPE in types]
        names = {
            _full_name(info)
            for topic in topics
            for info in self.get_publishers_info_by_topic(topic)
            if info.node_name != NOT_YET_KNOWN
        }
        return sorted(names) if not asked or asked in names else []

    def _wait_for(self, look: Callable[[], object], seconds: float) -> object:
        """Spin until something is seen; returns it, or the last look when time is over."""
        deadline = time.monotonic() + seconds
        while not (seen := look()) and time.monotonic() < deadline:
            self._spun.spin_once(timeout_sec=0.05)
        return seen

    def _ask(self, kind: type, service: str, request: object, seconds: float) -> object | None:
        client = self.create_client(kind, service)
        if not self._wait_for(client.service_is_ready, seconds):
            return None
        future = client.call_async(request)
        self._wait_for(future.done, seconds)
        return future.result() if future.done() else None

    def _listen(self, node: str, seconds: float) -> list[Finding]:
        """Collect what the node says of itself."""
        grids: list[VoxelGrid] = []
        statuses: list[OccAnyStatus] = []
        reports: dict[str, Finding] = {}

        def on_report(message: DiagnosticArray) -> None:
            for one in message.status:
                if one.hardware_id == node:
                    name = one.name.removeprefix(f"{node}: ")
                    reports[name] = Finding(name, one.level, one.message)

        newest = QoSProfile(depth=1)
        self.create_subscription(VoxelGrid, f"{node}/output/voxel_grid", grids.append, newest)
        self.create_subscription(OccAnyStatus, f"{node}/status", statuses.append, newest)
        self.create_subscription(DiagnosticArray, "/diagnostics", on_report, 10)
        answer = self._ask(GetState, f"{node}/get_state", GetState.Request(), DISCOVERY_S)
        state = answer.current_state.label if answer else None
        findings = [life_finding(node, state)]
        if state == "unconfigured":
            findings.append(weights_finding(self._checkpoint_of(node)))
        deadline = time.monotonic() + seconds
        self._wait_for(
            lambda: (grids and reports) or time.monotonic() > deadline, seconds + DISCOVERY_S
        )
        said = statuses[-1].state if statuses else None
        findings.append(output_finding(node, said, len(grids), seconds))
        return [*findings, *reports.values()]

    def _checkpoint_of(self, node: str) -> str:
        request = GetParameters.Request(names=["model.checkpoint"])
        answer = self._ask(GetParameters, f"{node}/get_parameters", request, DISCOVERY_S)
        return answer.values[0].string_value if answer and answer.values else "default"

    def _settled_topic_findings(self, node: str) -> list[Finding]:
        """Judge the topics once the publishers were discovered, or long enough looked for."""
        deadline = time.monotonic() + DISCOVERY_S
        while True:
            findings = self._topic_findings(node)
            is_well = bool(findings) and all(finding.level == OK for finding in findings)
            if is_well or time.monotonic() > deadline:
                return findings
            self._spun.spin_once(timeout_sec=0.05)

    def _topic_findings(self, node: str) -> list[Finding]:
        """Judge every topic that the node wants images from."""
        elsewhere = {
            name: kind
            for name, kinds in self.get_topic_names_and_types()
            for kind in kinds
            if kind in IMAGE_TYPES and self._is_published_by_others(name, node)
        }
        findings = []
        for name, _ in self.get_topic_names_and_types():
            wanted = [
                _end(info)
                for info in self.get_subscriptions_info_by_topic(name)
                if _full_name(info) == node and info.topic_type in IMAGE_TYPES
            ]
            if wanted and not self._is_mask(name, node):
                offers = tuple(_end(info) for info in self.get_publishers_info_by_topic(name))
                findings.append(topic_finding(ImageTopic(name, wanted[0], offers), elsewhere))
        return findings

    def _is_published_by_others(self, topic: str, node: str) -> bool:
        return any(_full_name(info) != node for info in self.get_publishers_info_by_topic(topic))

    def _is_mask(self, topic: str, node: str) -> bool:
        """Whether the node would also take an image that was sent before: nobody has to send."""
        return any(
            info.qos_profile.durability == DurabilityPolicy.TRANSIENT_LOCAL
            for info in self.get_subscriptions_info_by_topic(topic)
            if _full_name(info) == node
        )


def report(findings: list[Finding], as_json: bool) -> str:
    """Make the text: the worst first, one line each, then a verdict."""
    if as_json:
        lines = [{"level": WORDS[f.level], "name": f.name, "message": f.message} for f in findings]
        return json.dumps(lines, indent=1)
    ordered = sorted(findings, key=lambda finding: -finding.level[0])
    lines = [f"{WORDS[one.level]:>5}  {one.name}: {one.message}" for one in ordered]
    errors = sum(one.level == ERROR for one in findings)
    verdict = (
        f"{errors} errors; docs/nothing_comes_out.md goes by symptom" if errors else "no errors"
    )
    return "\n".join([*lines, verdict])


def main(args: list[str] | None = None) -> int:
    """Examine; 0 when nothing is an error, else 1."""
    parser = argparse.ArgumentParser(prog="doctor", description=__doc__.split("\n\n")[0])
    parser.add_argument(
        "--node", default="", help="full name of the node; empty: the one there is"
    )
    parser.add_argument("--seconds", type=float, default=6.0, help="how long to listen")
    parser.add_argument("--json", action="store_true", help="print findings as JSON")
    options = parser.parse_args(rclpy.utilities.remove_ros_args(args or sys.argv)[1:])
    rclpy.init(args=args)
    findings: list[Finding] = []
    try:
        doctor = Doctor()
        findings = doctor.examine(options.node, options.seconds)
        doctor.destroy_node()
    except (KeyboardInterrupt, ExternalShutdownException):
        return 1
    finally:
        rclpy.try_shutdown()
    sys.stdout.write(report(findings, options.json) + "\n")
    return int(any(finding.level == ERROR for finding in findings))


if __name__ == "__main__":
    raise SystemExit(main())
