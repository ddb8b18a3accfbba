# SPDX-License-Identifier: Apache-2.0
"""What happened over the cycles -> OccAnyStatus. Written by the worker's thread, read by both."""

import threading
import time
from dataclasses import dataclass, field

from builtin_interfaces.msg import Time
from std_msgs.msg import Header

from occany_core import Scene
from occany_core.errors import DegenerateGeometryError, OccAnyError
from occany_ros.budget import Cost, Step
from occany_ros.cycle_times import Durations, EventRate
from occany_ros.inference import Result
from occany_ros.msg import OccAnyStatus

IDLE_AFTER_S = 3.0
"""A node without a grid for this long is no longer called running."""


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """Which weights run where."""

    name: str = ""
    sha256: str = ""
    licence: str = ""
    device: str = ""


@dataclass(slots=True)
class History:
    """Counters and durations since the activation."""

    cycles: int = 0
    published: int = 0
    failed: int = 0
    rate: EventRate = field(default_factory=EventRate)
    latency: Durations = field(default_factory=Durations)
    stages_ms: dict[str, float] = field(default_factory=dict)
    views_in_window: int = 0
    novel_views: int = 0
    camera_names: list[str] = field(default_factory=list)
    scale_source: str = ""
    frame_source: str = ""
    cost: Cost | None = None
    last_grid_s: float | None = None


class Status:
    """Thread-safe record of what the node does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._history = History()
        self._is_active = False
        self.last_error = ""
        self.geometry_error = ""
        """Why the last cycle gave no geometry, or empty."""
        self.model = ModelFacts()

    def start(self) -> None:
        """Begin counting: the node was activated."""
        with self._lock:
            self._history = History()
            self._is_active = True
            self.last_error = self.geometry_error = ""

    def stop(self) -> None:
        """The node was deactivated."""
        with self._lock:
            self._is_active = False

    def note_error(self, error: OccAnyError) -> None:
        """Record a failed cycle."""
        with self._lock:
            self._history.cycles += 1
            self._history.failed += 1
            self.last_error = str(error)
            is_geometry = isinstance(error, DegenerateGeometryError)
            self.geometry_error = str(error) if is_geometry else ""

    def note_grid(self, result: Result, latency_ms: float) -> None:
        """Record a cycle whose grid went out."""
        scene: Scene = result.scene
        now_s = time.monotonic()
        with self._lock:
            history = self._history
            history.cycles += 1
            history.published += 1
            history.rate.note(now_s)
            history.last_grid_s = now_s
            history.latency.note(latency_ms)
            history.stages_ms = result.stages_ms
            history.views_in_window = len(scene.camera_names)
            history.novel_views = result.rendered
            history.cost = result.cost()
            history.camera_names = list(scene.camera_names)
            history.scale_source = scene.scale_source
            history.frame_source = scene.frame_source
            self.last_error = self.geometry_error = ""

    @property
    def state(self) -> str:
        """One of the words of OccAnyStatus.msg."""
        if not self._is_active:
            return "stopped"
        if self.last_error:
            return "failing"
        if self._history.last_grid_s is None:
            return "waiting for images"
        is_idle = time.monotonic() - self._history.last_grid_s > IDLE_AFTER_S
        return "no new images" if is_idle else "running"

    @property
    def history(self) -> History:
        """Counters and durations, for reading."""
        return self._history

    def message(
        self, stamp: Time, frame: str, skipped: int, dropped_images: int, budget: Step
    ) -> OccAnyStatus:
        """Make the message.

        Args:
            stamp: Now.
            frame: Of the grid.
            skipped: Sets that newer ones replaced before the network was free.
            dropped_images: Images that never reached a set.
            budget: How far the work is reduced.
        """
        with self._lock:
            history = self._history
            cameras = max(1, len(set(history.camera_names)))
            return OccAnyStatus(
                header=Header(stamp=stamp, frame_id=frame),
                state=self.state,
                last_error=self.last_error,
                model_name=self.model.name,
                model_sha256=self.model.sha256,
                model_licence=self.model.licence,
                device=self.model.device,
                cycles=history.cycles,
                published=history.published,
                skipped=skipped,
                dropped_sets=history.failed + -(-dropped_images // cameras),
                rate_hz=history.rate.hertz(time.monotonic()),
                latency_ms_last=history.latency.last_ms,
                latency_ms_p50=history.latency.percentile_ms(50),
                latency_ms_p95=history.latency.percentile_ms(95),
                stage_names=list(history.stages_ms),
                stage_ms=list(history.stages_ms.values()),
                budget_level=budget.level,
                budget_reason=budget.reason,
                memory_mb=history.cost.memory_mb if history.cost else 0.0,
                views_in_window=history.views_in_window,
                novel_views=history.novel_views,
                camera_names=history.camera_names,
                scale_source=history.scale_source,
                frame_source=history.frame_source,
            )
