# SPDX-License-Identifier: Apache-2.0
"""Collects the findings of a running node once a second; publishes them, logs what changed."""

import time
from dataclasses import dataclass, replace

from diagnostic_msgs.msg import DiagnosticArray
from rclpy.node import Node

from occany_ros.diagnostics import (
    OK,
    WARN,
    CameraState,
    Finding,
    SyncState,
    diagnostics_message,
    geometry_finding,
    model_finding,
    pipeline_finding,
    skew_explanation,
    sync_finding,
)
from occany_ros.status import Status
from occany_ros.subscriptions import CameraInput
from occany_ros.synchroniser import Synchroniser

PATIENCE_S = 3.0
"""A finding must last this long before it is logged: cameras need a moment to start."""

REPEAT_S = 30.0
"""A finding that lasts is logged again after this long."""


def camera_states(
    inputs: dict[str, CameraInput], sync: Synchroniser, now_ns: int
) -> list[CameraState]:
    """Collect what is known about every camera."""
    states = []
    for name, camera in inputs.items():
        silence_ns = sync.silence_ns(name, now_ns)
        state = camera.state(
            silence_s=None if silence_ns is None else silence_ns * 1e-9,
            is_left_out=sync.is_silent(name, now_ns),
            rules=sync.rules,
        )
        states.append(state)
    matters = sync.rules.policy != "latest"
    fastest_hz = max((state.rate_hz for state in states if matters), default=0.0)
    return [replace(state, fastest_hz=fastest_hz) for state in states]


def synchroniser_finding(
    inputs: dict[str, CameraInput],
    sync: Synchroniser,
    states: list[CameraState],
    since_last_set_s: float | None,
) -> Finding:
    """Judge the forming of view sets; cameras that are silent or slow have their own findings."""
    counters = sync.counters
    stamps = {
        state.name: inputs[state.name].reception.newest_stamp_s
        for state in states
        if inputs[state.name].reception.newest_stamp_s is not None
        and state.is_enabled
        and not (state.is_left_out or state.is_slow)
    }
    return sync_finding(
        SyncState(
            sets=counters.sets,
            partial_sets=counters.partial_sets,
            dropped=counters.dropped,
            clock_jumps=counters.clock_jumps,
            since_last_set_s=since_last_set_s,
            received=counters.received,
            closest_pair=skew_explanation(stamps, sync.rules.tolerance_ns() * 1e-9),
        )
    )


def status_findings(status: Status, missing_extrinsics: str) -> list[Finding]:
    """Judge model, inference and geometry."""
    history, model = status.history, status.model
    rate_hz = history.rate.hertz(time.monotonic())
    findings = [pipeline_finding(status.state, status.last_error, rate_hz, history.stages_ms)]
    if model.name:
        findings.append(model_finding(model.name, model.sha256, model.licence, model.device))
    if history.published or status.geometry_error:
        findings.append(
            geometry_finding(
                history.frame_source,
                history.scale_source,
                missing_extrinsics,
                status.geometry_error,
            )
        )
    return findings


@dataclass(slots=True)
class _Logged:
    level: bytes
    since_s: float
    logged_s: float | None = None


class Reports:
    """Publishes findings on /diagnostics and logs each once when it appears and when it goes."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._logged: dict[str, _Logged] = {}
        self._known_texts: set[str] = set()

    def was_logged(self, text: str) -> None:
        """Leave the logging of this finding to whoever did it already."""
        self._known_texts = {text}

    def publish(self, findings: list[Finding]) -> None:
        """Publish and log."""
        stamp = self._node.get_clock().now().to_msg()
        name = self._node.get_fully_qualified_name()
        self._publisher.publish(diagnostics_message(findings, name, stamp))
        for finding in findings:
            self._log(finding, time.monotonic())

    def _log(self, finding: Finding, now_s: float) -> None:
        known = self._logged.get(finding.name)
        if known is None or known.level != finding.level:
            if finding.level == OK and known is not None and known.logged_s is not None:
                self._node.get_logger().info(f"{finding.name}: {finding.message}")
            known = self._logged[finding.name] = _Logged(finding.level, now_s)
        is_due = known.logged_s is None or now_s - known.logged_s > REPEAT_S
        if finding.level == OK or finding.message in self._known_texts:
            return
        if not is_due or now_s - known.since_s < PATIENCE_S:
            return
        known.logged_s = now_s
        if finding.level == WARN:
            self._node.get_logger().warning(finding.message)
        else:
            self._node.get_logger().error(finding.message)
