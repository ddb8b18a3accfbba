# SPDX-License-Identifier: Apache-2.0
"""A view set -> a Scene: owns the model and the rolling window. Runs in the worker's thread."""

import gc
import time
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import torch
from std_msgs.msg import Header

from occany_core import OccAnyConfig, Scene, Stream, View, load_model
from occany_core.errors import DegenerateGeometryError
from occany_core.pipeline import EncodedSet
from occany_ros.node_settings import NodeSettings
from occany_ros.synchroniser import ViewSet
from occany_ros.views import ViewMaker

STAMPS_KEPT = 256
"""View sets whose exact stamps are remembered: more than any window holds."""


@dataclass(frozen=True, slots=True)
class Job:
    """A view set with the settings that were in force when it was complete."""

    view_set: ViewSet
    settings: NodeSettings


@dataclass(frozen=True, slots=True)
class Result:
    """What one cycle gave."""

    scene: Scene
    odom_from_rig: torch.Tensor | None
    """Ego pose of the newest set since the history began (4, 4) [m]; None while unknown."""
    grid_stamp_ns: int
    """Capture time of the view set that the grid is placed at."""
    is_new_history: bool
    """Whether the window was cleared before this cycle because the clock jumped."""
    stages_ms: dict[str, float]
    sets: list[EncodedSet]
    """Of the scene, oldest first."""
    headers: dict[str, Header]
    """Stamp and optical frame of the newest set's images, by camera."""


def anchor_stamp_s(scene: Scene, config: OccAnyConfig) -> float:
    """Return the capture time of the first view of the set that the grid is placed at [s]."""
    anchor = max(scene.set_index) if config.window.anchor == "newest" else 0
    return scene.stamps[scene.set_index.index(anchor)]


class Inference:
    """The model with its window."""

    def __init__(self, settings: NodeSettings) -> None:
        """Load the weights.

        Raises:
            CheckpointError: The file is missing, damaged or of another kind.
            ConfigError: The device does not exist.
        """
        runtime = settings.core.runtime
        if runtime.threads:
            torch.set_num_threads(runtime.threads)
        self.model = load_model(settings.checkpoint, device=runtime.device)
        self._stream = Stream(self.model, settings.core)
        self._epoch = 0
        self._stamps_ns: dict[float, int] = {}

    @property
    def picture_width(self) -> int:
        """Long side of the pictures that the network looks at [px]."""
        return self._stream.config.images.width or self.model.network.config.picture_width

    def warm_up(self, cameras: tuple[str, ...]) -> None:
        """Run one cycle on noise, so that the first real one is not the slowest.

        Noise shows no scene: that it determines no cameras says nothing about the weights.
        """
        size = (self.picture_width * 9 // 16, self.picture_width, 3)
        noise = np.random.default_rng(0).integers(0, 255, size, np.uint8)
        config = self._stream.config
        uncalibrated = replace(config.calibration, use="off")
        stream = Stream(self.model, replace(config, calibration=uncalibrated))
        with suppress(DegenerateGeometryError):
            stream.add([View(rgb=noise, camera=camera) for camera in cameras])

    def run(self, job: Job, views: ViewMaker) -> Result:
        """Compute one cycle.

        Raises:
            OccAnyError: The pictures or the geometry cannot be used; the next set may be fine.
        """
        started = time.perf_counter()
        is_new_history = job.view_set.epoch != self._epoch
        if is_new_history:
            self._epoch = job.view_set.epoch
            self._stream.reset()
        self._take_over(job.settings.core)
        prepared = views.make(job.view_set, job.settings)
        decoded = time.perf_counter()
        for image in job.view_set.images:
            self._remember(image.stamp_ns)
        scene = job.settings.labels.applied(self._stream.add(prepared))
        stages_ms = {"decode": 1e3 * (decoded - started)}
        stages_ms |= {stage: 1e3 * seconds for stage, seconds in scene.timings.items()}
        stamp_ns = self._stamps_ns[anchor_stamp_s(scene, self._stream.config)]
        return Result(
            scene,
            self._stream.odom_from_rig,
            stamp_ns,
            is_new_history,
            stages_ms,
            self._stream.sets,
            {image.camera: views.header_of(image) for image in job.view_set.images},
        )

    def _remember(self, stamp_ns: int) -> None:
        """Keep the whole nanoseconds of a stamp that the core carries as a float."""
        self._stamps_ns[stamp_ns * 1e-9] = stamp_ns
        while len(self._stamps_ns) > STAMPS_KEPT * 16:
            del self._stamps_ns[next(iter(self._stamps_ns))]

    def _take_over(self, config: OccAnyConfig) -> None:
        """Use changed settings from this cycle on; the window stays."""
        self._stream.config = config

    def close(self) -> None:
        """Free the memory of model and window."""
        self._stream = None
        self.model = None
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
