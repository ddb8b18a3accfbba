# SPDX-License-Identifier: Apache-2.0
"""A view set -> a Scene: owns the model and the rolling window. Runs in the worker's thread."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np
import torch
from std_msgs.msg import Header

from occany_core import OccAnyConfig, Scene, Stream, View, load_model
from occany_core.errors import DegenerateGeometryError, MemoryShortageError, OccAnyError
from occany_core.observation import EncodedSet
from occany_core.odometry import Odometry
from occany_core.semantics.labelling import Labeller
from occany_ros.background_looks import BackgroundLooks
from occany_ros.budget import LADDER, Budget, Cost, Work, reduced
from occany_ros.memory_use import PeakMemory, give_back_memory, is_out_of_memory
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
    odometry: Odometry | None
    """Path to the newest set since the history began; None for a window of one set."""
    grid_stamp_ns: int
    """Capture time of the view set that the grid is placed at."""
    is_new_history: bool
    """Whether the window was cleared before this cycle: the first one, or the clock jumped."""
    stages_ms: dict[str, float]
    sets: list[EncodedSet]
    """Of the scene, oldest first."""
    headers: dict[str, Header]
    """Stamp and optical frame of the newest set's images, by camera."""
    work: Work
    """What was asked for, before the budget left anything out."""
    memory_mb: float
    """Highest memory use of the cycle."""

    @property
    def rendered(self) -> int:
        """Views that were rendered."""
        return 0 if self.scene.novel_cameras is None else len(self.scene.novel_cameras.K)

    def cost(self) -> Cost:
        """Return what the cycle took, as far as its stages are noted."""
        return Cost(stages_ms=self.stages_ms, rendered=self.rendered, memory_mb=self.memory_mb)


def anchor_stamp_s(scene: Scene, config: OccAnyConfig) -> float:
    """Return the capture time of the first view of the set that the grid is placed at [s]."""
    anchor = max(scene.set_index) if config.window.anchor == "newest" else 0
    return scene.stamps[scene.set_index.index(anchor)]


class Inference:
    """The model with its window, and the budget that says how much of the work is done."""

    def __init__(self, settings: NodeSettings, on_error: Callable[[OccAnyError], None]) -> None:
        """Load the weights.

        Args:
            settings: Everything that the node was told.
            on_error: Told of what cannot be found in pictures.

        Raises:
            CheckpointError: A file is missing, damaged or of another kind.
            ConfigError: The device does not exist, or labels cannot be served.
        """
        runtime = settings.core.runtime
        if runtime.threads:
            torch.set_num_threads(runtime.threads)
        self.model = load_model(settings.checkpoint, device=runtime.device)
        self.budget = Budget()
        self.labeller = Labeller(self.model, settings.core.labels)
        self.looking = None
        if self.labeller.models.look_at_pictures:
            self.looking = BackgroundLooks(self.labeller, settings.core.labels, on_error)
        looks = self.looking.looked if self.looking else None
        self._stream = Stream(self.model, settings.core, self.labeller, looks)
        self._memory = PeakMemory(self.model.device)
        self._epoch: int | None = None
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
        config = replace(config, calibration=uncalibrated)
        # Detectors are not tried: on a CPU a look may take minutes.
        stream = Stream(self.model, config, self.labeller, looks=lambda encoded: encoded)
        try:
            with suppress(DegenerateGeometryError):
                stream.add([View(rgb=noise, camera=camera) for camera in cameras])
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise MemoryShortageError(
                f"out of memory on {self.model.device} with the first {len(cameras)} pictures "
                f"{self.picture_width} px wide; lower images.width, voxels.shape or the number of "
                "cameras, or choose another runtime.device"
            ) from error

    def begin(self) -> None:
        """Begin anew with the next view set, whatever its stamp: the node was activated."""
        self._epoch = None

    def run(self, job: Job, views: ViewMaker) -> Result:
        """Compute one cycle; where memory runs out, once more with less.

        Raises:
            OccAnyError: The pictures or the geometry cannot be used, or memory ran out twice; the
                next set may be fine.
        """
        is_new_history = job.view_set.epoch != self._epoch
        if is_new_history:
            self._epoch = job.view_set.epoch
            self._stream.reset()
            if self.looking:
                self.looking.forget()
        work = self._work(job)
        self._memory.start()
        try:
            return self._cycle(job, views, work, is_new_history)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside the handler, so that the failed cycle's tensors are no longer held by it.
        has_less = self.budget.note_out_of_memory(work, str(self.model.device))
        give_back_memory()
        try:
            if has_less:
                return self._cycle(job, views, work, is_new_history)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        self._stream.reset()
        give_back_memory()
        level = self.budget.step.level
        raise MemoryShortageError(
            f"out of memory on {self.model.device} even at budget level {level}, {LADDER[level]}; "
            "the window is cleared; set budget.memory_mb, or lower images.width, "
            "window.view_sets or voxels.shape"
        )

    def _work(self, job: Job) -> Work:
        config = job.settings.core
        sets = min(self._stream.num_sets + 1, config.window.view_sets)
        own = self.model.network.config.picture_width
        return Work(
            config=config,
            picture_width=config.images.width or own,
            views=sets * len(job.view_set.images),
        )

    def _cycle(self, job: Job, views: ViewMaker, work: Work, is_new_history: bool) -> Result:
        started = time.perf_counter()
        self._stream.config = reduced(work, self.budget.step)  # from this cycle on
        if self.looking:
            self.looking.config = job.settings.core.labels
        prepared = views.make(job.view_set, job.settings)
        decoded = time.perf_counter()
        for image in job.view_set.images:
            self._remember(image.stamp_ns)
        scene = self._stream.add(prepared)
        scene = replace(scene, classes=job.settings.colours.applied(scene.classes))
        stages_ms = {"decode": 1e3 * (decoded - started)}
        stages_ms |= {stage: 1e3 * seconds for stage, seconds in scene.timings.items()}
        return Result(
            scene=scene,
            odometry=self._stream.odometry,
            grid_stamp_ns=self._stamps_ns[anchor_stamp_s(scene, self._stream.config)],
            is_new_history=is_new_history,
            stages_ms=stages_ms,
            work=work,
            memory_mb=self._memory.highest_mb(),
            sets=self._stream.sets,
            headers={image.camera: views.header_of(image) for image in job.view_set.images},
        )

    def _remember(self, stamp_ns: int) -> None:
        """Keep the whole nanoseconds of a stamp that the core carries as a float."""
        self._stamps_ns[stamp_ns * 1e-9] = stamp_ns
        while len(self._stamps_ns) > STAMPS_KEPT * 16:
            del self._stamps_ns[next(iter(self._stamps_ns))]

    def close(self) -> None:
        """Free the memory of model and window."""
        if self.looking:
            self.looking.close()
        self._stream = self.labeller = self.looking = None
        self.model = None
        give_back_memory()
