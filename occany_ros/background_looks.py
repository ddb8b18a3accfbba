# SPDX-License-Identifier: Apache-2.0
"""Pictures are looked at beside the geometry, at the detector's own rate. Without ROS.

A cycle never waits: it takes what is known. A view set whose pictures were looked at keeps its
answers as long as it stays in the window; a newer one is asked for the boxes that were last found
in each of its cameras, if they are young enough.
"""

import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from occany_core.config import LabelsConfig
from occany_core.errors import MemoryShortageError, OccAnyError
from occany_core.observation import EncodedSet
from occany_core.semantics.labelling import Labeller, Look
from occany_ros.memory_use import give_back_memory, is_out_of_memory
from occany_ros.worker import STOP_TIMEOUT_S, Worker

logger = logging.getLogger(__name__)

SETS_KEPT = 4
"""View sets whose answers are remembered until these sets come along again."""


class LookingBugError(Exception):
    """A bug ended the thread; no `RuntimeError`, whose text may seem to tell of memory."""


@dataclass(frozen=True, slots=True)
class _Job:
    """Pictures to look at."""

    encoded: EncodedSet
    config: LabelsConfig
    history: int
    """In which they were taken; nobody wants to know of one that has ended."""


@dataclass(eq=False, slots=True)
class _Answer:
    """What was found in the pictures of a view set."""

    stamp: float
    """Of its first picture [s]."""
    cameras: tuple[str, ...]
    looks: tuple[Look, ...]
    is_taken: bool = False
    """Whether any view set was given any of it."""

    @property
    def asked(self) -> tuple[str, ...]:
        """`labels.classes` when they were looked at."""
        return self.looks[0].asked

    def is_for(self, encoded: EncodedSet, asked: tuple[str, ...]) -> bool:
        """Whether these are the pictures, and this was asked."""
        is_here = self.stamp == encoded.views[0].stamp and self.cameras == _cameras(encoded)
        return is_here and self.asked == asked


def _cameras(encoded: EncodedSet) -> tuple[str, ...]:
    return tuple(view.camera for view in encoded.views)


@dataclass(frozen=True, slots=True)
class LookingState:
    """For the diagnostics."""

    done: int
    """View sets looked at."""
    last_ms: float
    """What the last one took."""
    skipped: int
    """View sets that were not looked at because newer ones came."""
    comes_late: bool
    """Whether the last one was done when no view set could take what was found any more."""
    error: str
    """Why the last one could not be looked at, or empty."""


class BackgroundLooks:
    """A thread that looks at the newest view set, and what it has found.

    Args:
        labeller: Does the work.
        config: Settings of the next look; may be replaced.
        on_error: Told of an `OccAnyError`; the thread goes on.
    """

    def __init__(
        self, labeller: Labeller, config: LabelsConfig, on_error: Callable[[OccAnyError], None]
    ) -> None:
        self.config = config
        self._labeller = labeller
        self._lock = threading.Lock()
        self._history = 0
        self._answers: list[_Answer] = []
        self._offered: list[_Answer] = []
        self._newest_asked: tuple[float, tuple[str, ...]] | None = None
        self._done, self._last_ms, self._comes_late = 0, 0.0, False
        self._error, self._bug = "", ""
        self._worker = Worker(self._look, on_error, self._note_bug)

    @property
    def state(self) -> LookingState:
        """What was done so far."""
        return LookingState(
            self._done, self._last_ms, self._worker.skipped, self._comes_late, self._error
        )

    def looked(self, encoded: EncodedSet) -> EncodedSet:
        """Give a view set what is known of its pictures, and have them looked at if they are new.

        Raises:
            LookingBugError: A bug ended the thread; with its traceback.
        """
        if self._bug:
            raise LookingBugError(f"a bug ended the thread that looks at pictures:\n{self._bug}")
        asked = self.config.classes
        looks = encoded.looks
        if looks and looks[0].asked == asked and not looks[0].is_carried:
            return encoded
        with self._lock:
            answers = list(self._answers)
        own = next((one for one in answers if one.is_for(encoded, asked)), None)
        if own is not None:
            own.is_taken = True
            return replace(encoded, looks=own.looks)
        stamp = encoded.views[0].stamp
        last_stamp, last_asked = self._newest_asked or (-math.inf, asked)
        if stamp > last_stamp or asked != last_asked:
            self._newest_asked = (stamp, asked)
            self._judge(answers, asked)
            self._worker.submit(_Job(encoded, self.config, self._history))
        return replace(encoded, looks=self._carried(encoded, answers, asked))

    def _judge(self, answers: list[_Answer], asked: tuple[str, ...]) -> None:
        """Note, as a cycle begins, whether what the last one could take came too late."""
        offered = [one for one in self._offered if one.asked == asked]
        if offered:
            self._comes_late = not offered[-1].is_taken
        self._offered = answers

    def _carried(
        self, encoded: EncodedSet, answers: list[_Answer], asked: tuple[str, ...]
    ) -> tuple[Look, ...] | None:
        """Return the youngest boxes of each camera, to be asked of its newer picture."""
        if self.config.pipeline == "pretrained":
            return None  # which asks SAM2's features of the picture itself
        stamp = encoded.views[0].stamp
        usable = [
            one
            for one in sorted(answers, key=lambda one: one.stamp)
            if one.asked == asked
            and one.looks[0].detections is not None
            and 0 <= stamp - one.stamp <= self.config.carry_seconds
        ]
        youngest = {camera: one for one in usable for camera in one.cameras}
        if youngest.keys().isdisjoint(_cameras(encoded)):
            return None
        looks = []
        for camera in _cameras(encoded):
            boxes, answer = None, youngest.get(camera)
            if answer is not None:
                answer.is_taken = True
                boxes = answer.looks[answer.cameras.index(camera)].detections
            looks.append(Look(detections=boxes, asked=asked, is_carried=True))
        return tuple(looks)

    def forget(self) -> None:
        """Begin anew, as after a jump of the clock; what a running look finds is not kept."""
        self._worker.discard()
        self._newest_asked = None
        self._offered, self._comes_late = [], False
        with self._lock:
            self._history += 1
            self._answers = []

    # --- the thread ----------------------------------------------------------------------------
    def _look(self, job: _Job) -> None:
        began = time.perf_counter()
        try:
            looks = self._looks(job)
        except OccAnyError as error:
            if job.history != self._history:
                return
            self._error = str(error)
            raise
        with self._lock:
            if not looks or job.history != self._history:
                return
            answer = _Answer(job.encoded.views[0].stamp, _cameras(job.encoded), looks)
            self._answers = [*self._answers, answer][-SETS_KEPT:]
            self._done += 1
            self._last_ms = 1e3 * (time.perf_counter() - began)
            self._error = ""

    def _looks(self, job: _Job) -> tuple[Look, ...]:
        """Look at one picture after the other, so that it can be given up between two.

        Raises:
            OccAnyError: As `Labeller.look`.
            MemoryShortageError: Memory ran out.
        """
        looks: list[Look] = []
        try:
            for picture in torch.from_numpy(job.encoded.batch.rgb).split(1):
                if job.history != self._history:
                    return ()
                looks += self._labeller.look(picture, job.config) or ()
            return tuple(looks)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Outside the handler, so that the failed look's tensors are no longer held by it.
        looks.clear()
        give_back_memory()
        raise MemoryShortageError(
            "out of memory while a picture was looked at: its view set gets no labels; choose "
            "smaller models (labels.detector, labels.sam2, labels.sam3) or another "
            "runtime.device, or leave them more room: lower window.view_sets or voxels.shape"
        )

    def _note_bug(self, traceback_text: str) -> None:
        self._error = "a bug ended the thread that looks at pictures; the next cycle tells more"
        self._bug = traceback_text

    def close(self) -> None:
        """End the thread after the picture that it looks at, however little of the set is done."""
        with self._lock:
            self._history += 1
        if not self._worker.stop(STOP_TIMEOUT_S):
            logger.warning("a look at a picture takes longer than %g s", STOP_TIMEOUT_S)
