# SPDX-License-Identifier: Apache-2.0
"""State of the node -> findings in words -> diagnostic_msgs. Each says what, where and what to do.

The functions are pure: they take numbers and give a `Finding`. Durations in seconds, sizes in
pixels.
"""

from dataclasses import dataclass, field

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from std_msgs.msg import Header

from occany_core.config import OccAnyConfig
from occany_ros.background_looks import LookingState
from occany_ros.budget import Cost, Limits, Step

SLOW_RATIO = 3
"""A camera so many times slower than the fastest one is called slow."""

NEAR_LIMIT = 0.9
"""Part of the memory limit above which a warning comes before the work is reduced."""

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of a diagnostics viewer."""

    name: str
    level: bytes
    message: str
    values: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class CameraState:
    """What is known about one camera."""

    name: str
    topic: str
    publishers: int
    silence_s: float | None
    """Seconds since the last image, or None when none ever came."""
    is_left_out: bool
    is_required: bool
    is_enabled: bool
    rate_hz: float
    received: int
    reliability: str
    offers_only_best_effort: bool
    image: str
    """Size and encoding of the last image, or empty."""
    error: str
    """Why the last image could not be used, or empty."""
    warning: str
    """What is wrong with the calibration, or empty."""
    fastest_hz: float = 0.0
    """Rate of the fastest camera that this one must match; 0 where that does not matter."""

    @property
    def is_slow(self) -> bool:
        """Whether most view sets cannot have an image of this camera."""
        return 0 < self.rate_hz < self.fastest_hz / SLOW_RATIO


@dataclass(frozen=True, kw_only=True, slots=True)
class SyncState:
    """What the synchroniser did."""

    sets: int
    partial_sets: int
    dropped: int
    clock_jumps: int
    since_last_set_s: float | None
    received: int
    closest_pair: str
    """Explains why images do not match, or empty."""


def camera_finding(camera: CameraState) -> Finding:
    """Judge one camera."""
    values = {
        "topic": camera.topic,
        "publishers": str(camera.publishers),
        "rate_hz": f"{camera.rate_hz:.2f}",
        "received": str(camera.received),
        "reliability": camera.reliability,
        "image": camera.image,
    }
    name = f"camera {camera.name}"
    if not camera.is_enabled:
        return Finding(name, OK, f"disabled by camera.{camera.name}.enabled", values)
    if camera.error:
        return Finding(name, ERROR, camera.error, values)
    if camera.silence_s is None or camera.is_left_out:
        level = ERROR if camera.is_required or camera.silence_s is None else WARN
        since = "yet" if camera.silence_s is None else f"for {camera.silence_s:.1f} s"
        plural = "" if camera.publishers == 1 else "s"
        message = (
            f"{name}: no image {since}; {camera.topic} has {camera.publishers} publisher{plural}; "
            f"{_silence_remedy(camera)}"
        )
        return Finding(name, level, message, values)
    if camera.warning:
        return Finding(name, WARN, camera.warning, values)
    if camera.is_slow:
        message = (
            f"{name}: {camera.rate_hz:.1f} Hz, and the fastest camera has {camera.fastest_hz:.1f} "
            "Hz: view sets wait for it up to sync.max_wait and then go without; check the driver, "
            "or set sync.policy to latest"
        )
        return Finding(name, WARN, message, values)
    return Finding(name, OK, f"{camera.rate_hz:.1f} Hz, {camera.image}", values)


def _silence_remedy(camera: CameraState) -> str:
    if camera.publishers == 0:
        return "check the remapping or the driver"
    if camera.offers_only_best_effort:
        return (
            "large best-effort images get lost with default middleware settings: publish "
            "reliable, compressed or smaller ones, or use config/fastdds.xml on both sides"
        )
    return "the publisher is there but sends nothing: check the driver or the paused recording"


def sync_finding(state: SyncState) -> Finding:
    """Judge the forming of view sets."""
    values = {
        "sets": str(state.sets),
        "partial_sets": str(state.partial_sets),
        "dropped_images": str(state.dropped),
        "clock_jumps": str(state.clock_jumps),
    }
    name = "synchroniser"
    if state.received == 0:
        return Finding(name, WARN, "no image from any camera yet", values)
    if state.since_last_set_s is None or state.since_last_set_s > 5:
        since = "" if state.since_last_set_s is None else f" for {state.since_last_set_s:.1f} s"
        why = (
            state.closest_pair
            or "see the cameras above, sync.required_cameras and sync.min_cameras"
        )
        return Finding(name, ERROR, f"no complete view set{since}: {why}", values)
    message = f"{state.sets} sets, {state.partial_sets} with cameras missing"
    if state.closest_pair and state.partial_sets > state.sets / 2:
        return Finding(name, WARN, f"{message}: {state.closest_pair}", values)
    return Finding(name, OK, message, values)


def skew_explanation(newest_stamps_s: dict[str, float], tolerance_s: float) -> str:
    """Say why images form no sets, from each camera's newest stamp [s]; empty when they could."""
    if len(newest_stamps_s) < 2:
        return ""
    early = min(newest_stamps_s, key=newest_stamps_s.get)
    late = max(newest_stamps_s, key=newest_stamps_s.get)
    skew = newest_stamps_s[late] - newest_stamps_s[early]
    if skew <= tolerance_s:
        return ""
    if skew > 60:
        return (
            f"the stamps of {early} and {late} are {skew:.0f} s apart, another time base; "
            "set the drivers to one clock, or sync.policy to latest and sync.max_age high enough"
        )
    return (
        f"the stamps of {early} and {late} are {skew:.3f} s apart and "
        f"{tolerance_s:.3f} s are allowed; raise sync.max_skew or set sync.policy to latest"
    )


def pipeline_finding(
    state: str, last_error: str, rate_hz: float, stages_ms: dict[str, float]
) -> Finding:
    """Judge the inference."""
    values = {stage: f"{ms:.1f} ms" for stage, ms in stages_ms.items()}
    if last_error:
        return Finding("pipeline", ERROR, last_error, values)
    if state == "running":
        return Finding("pipeline", OK, f"{rate_hz:.2f} grids per second", values)
    return Finding("pipeline", WARN, state, values)


def budget_finding(step: Step, limits: Limits, cost: Cost | None) -> Finding:
    """Judge time and memory of the last cycle, and how far the work is reduced."""
    values = {"level": str(step.level)}
    if cost is not None:
        values["time_ms"] = f"{cost.total_ms:.0f}"
        values["memory_mb"] = f"{cost.memory_mb:.0f}"
        values["rendered_views"] = str(cost.rendered)
    if step.level:
        return Finding("budget", WARN, step.describe(), values)
    share = cost.memory_mb / limits.memory_mb if cost and limits.memory_mb else 0.0
    if share > NEAR_LIMIT:
        message = f"a cycle takes {share:.0%} of budget.memory_mb, {limits.memory_mb} MB"
        return Finding("budget", WARN, message, values)
    return Finding("budget", OK, step.describe(), values)


def looking_finding(state: LookingState, config: OccAnyConfig) -> Finding:
    """Judge how pictures are looked at, beside the geometry."""
    values = {
        "view_sets": str(state.done),
        "last_ms": f"{state.last_ms:.0f}",
        "left_out": str(state.skipped),
    }
    if not config.labels.use:
        return Finding("labels", OK, "labels.use is off", values)
    if state.error:
        return Finding("labels", ERROR, state.error, values)
    if not state.done:
        return Finding("labels", WARN, "no picture was looked at yet: nothing has labels", values)
    took = f"a view set takes {state.last_ms:.0f} ms to look at"
    if state.comes_late:
        message = f"{took}: nothing has labels, because {_too_late(config)}"
        return Finding("labels", WARN, message, values)
    return Finding("labels", OK, f"{took}; newer ones wait meanwhile", values)


def _too_late(config: OccAnyConfig) -> str:
    """Say why no view set can take what was found, and what to set."""
    window = f"window.view_sets ({config.window.view_sets})"
    if config.window.seconds > 0:
        window += f" and window.seconds ({config.window.seconds:g})"
    why, remedy = "it has left the window by then", window
    if config.labels.pipeline == "distilled":
        why += ", and its boxes are too old for newer ones"
        remedy = f"labels.carry_seconds ({config.labels.carry_seconds:g}) or {window}"
    return f"{why}; raise {remedy}, or look faster: another runtime.device, smaller models"


def geometry_finding(frame_source: str, missing_transform: str, error: str = "") -> Finding:
    """Judge where frames come from, and whether the last cycle gave any geometry."""
    values = {"frame_source": frame_source}
    if error:
        return Finding("geometry", ERROR, error, values)
    if missing_transform:
        return Finding("geometry", WARN, missing_transform, values)
    if frame_source == "assumed level":
        message = (
            "no extrinsics: the reference camera is taken to be level at "
            "calibration.camera_height; publish TF or set camera.NAME.rig_from_cam for its true "
            "mounting"
        )
        return Finding("geometry", WARN, message, values)
    return Finding("geometry", OK, f"frame from {frame_source}", values)


def clock_finding(uses_sim_time: bool, now_s: float) -> Finding:
    """Judge the node's clock; with simulated time it stands at zero until /clock comes."""
    if uses_sim_time and now_s == 0:
        message = (
            "use_sim_time is true and nothing publishes /clock; start the replay with clock, or "
            "set use_sim_time to false"
        )
        return Finding("clock", WARN, message)
    return Finding("clock", OK, "simulated time" if uses_sim_time else "system time")


def model_finding(name: str, sha256: str, licence: str, device: str) -> Finding:
    """Tell which weights run; a licence that restricts use is shown as a warning."""
    values = {"sha256": sha256, "licence": licence, "device": device}
    restricted = any(
        word in licence.lower() for word in ("-nc", "non-commercial", "noncommercial")
    )
    message = f"{name} on {device}, licence {licence}"
    return Finding("model", WARN if restricted else OK, message, values)


def diagnostics_message(findings: list[Finding], node_name: str, stamp: Time) -> DiagnosticArray:
    """Make the message; names are prefixed with the node's, as viewers group by it."""
    return DiagnosticArray(
        header=Header(stamp=stamp),
        status=[
            DiagnosticStatus(
                level=finding.level,
                name=f"{node_name}: {finding.name}",
                message=finding.message,
                hardware_id=node_name,
                values=[KeyValue(key=key, value=value) for key, value in finding.values.items()],
            )
            for finding in findings
        ],
    )
