# SPDX-License-Identifier: Apache-2.0
"""Pictures are looked at beside the geometry, at the detector's own rate. Without ROS.

A cycle never waits: it takes what is known. A view set whose pictures were looked at keeps its
answers as long as it stays in the window; a newer one is asked for the boxes that were last found
in its cameras, if they are young enough.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from occany_core.config import LabelsConfig
from occany_core.errors import OccAnyError
from occany_core.observation import EncodedSet
from occany_core.semantics.labelling import Labeller, Look
from occany_ros.worker import Worker

SETS_KEPT = 4
"""View sets whose answers are remembered until these sets come along again."""


@dataclass(frozen=True, slots=True)
class _Answer:
    """What was found in the pictures of a view set."""

    stamp: float
    """Of its first picture [s]."""
    cameras: tuple[str, ...]
    looks: tuple[Look, ...]

    def is_for(self, encoded: EncodedSet, asked: tuple[str, ...]) -> bool:
        """Whether these are the pictures, and this was asked."""
        return self.stamp == encoded.views[0].stamp and self.looks[0].asked == asked


@dataclass(frozen=True, slots=True)
class LookingState:
    """For the diagnostics."""

    done: int
    """View sets looked at."""
    last_ms: float
    """What the last one took."""
    skipped: int
    """View sets that were not looked at because newer ones came."""


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
        self._answers: list[_Answer] = []
        self._newest_asked: tuple[float, tuple[str, ...]] | None = None
        self._done, self._last_ms, self._bug = 0, 0.0, ""
        self._worker = Worker(self._look, on_error, self._note_bug)

    @property
    def state(self) -> LookingState:
        """What was done so far.

        Raises:
            RuntimeError: A bug ended the thread; with its traceback.
        """
        self._raise_bug()
        return LookingState(self._done, self._last_ms, self._worker.skipped)

    def looked(self, encoded: EncodedSet) -> EncodedSet:
        """Give a view set what is known of its pictures, and have them looked at if they are new.

        Raises:
            RuntimeError: A bug ended the thread; with its traceback.
        """
        self._raise_bug()
        asked = self.config.classes
        looks = encoded.looks
        if looks and looks[0].asked == asked and not looks[0].is_carried:
            return encoded
        with self._lock:
            answers = list(self._answers)
        own = next((one for one in answers if one.is_for(encoded, asked)), None)
        if own is not None:
            return replace(encoded, looks=own.looks)
        stamp = encoded.views[0].stamp
        if self._newest_asked is None or (stamp, asked) != self._newest_asked:
            last_stamp, last_asked = self._newest_asked or (stamp, asked)
            if stamp >= last_stamp or asked != last_asked:
                self._newest_asked = (stamp, asked)
                self._worker.submit((encoded, self.config))
        return replace(encoded, looks=self._carried(encoded, answers, asked))

    def _carried(
        self, encoded: EncodedSet, answers: list[_Answer], asked: tuple[str, ...]
    ) -> tuple[Look, ...] | None:
        """Return the youngest boxes of the same cameras, to be asked of newer pictures."""
        stamp = encoded.views[0].stamp
        cameras = tuple(view.camera for view in encoded.views)
        usable = [
            one
            for one in answers
            if one.cameras == cameras
            and one.looks[0].asked == asked
            and one.looks[0].detections is not None
            and 0 <= stamp - one.stamp <= self.config.carry_seconds
        ]
        if not usable:
            return None
        youngest = max(usable, key=lambda one: one.stamp)
        return tuple(
            Look(detections=look.detections, asked=asked, is_carried=True)
            for look in youngest.looks
        )

    def forget(self) -> None:
        """Begin anew, as after a jump of the clock."""
        self._worker.discard()
        self._newest_asked = None
        with self._lock:
            self._answers = []

    # --- the thread ----------------------------------------------------------------------------
    def _look(self, job: tuple[EncodedSet, LabelsConfig]) -> None:
        encoded, config = job
        began = time.perf_counter()
        looks = self._labeller.look(torch.from_numpy(encoded.batch.rgb), config)
        if not looks:
            return
        cameras = tuple(view.camera for view in encoded.views)
        answer = _Answer(encoded.views[0].stamp, cameras, looks)
        with self._lock:
            self._answers = [*self._answers, answer][-SETS_KEPT:]
            self._done += 1
            self._last_ms = 1e3 * (time.perf_counter() - began)

    def _note_bug(self, traceback_text: str) -> None:
        self._bug = traceback_text

    def _raise_bug(self) -> None:
        if self._bug:
            raise RuntimeError(f"a bug ended the thread that looks at pictures:\n{self._bug}")

    def close(self) -> None:
        """End the thread after the look that runs."""
        self._worker.stop()
