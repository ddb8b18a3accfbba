# SPDX-License-Identifier: Apache-2.0
"""One job at a time in a thread of its own; the newest job wins. Plain Python, no ROS.

Callbacks that receive images must never wait for the network. They `submit` and return; a job that
is replaced before the worker is free counts as skipped.
"""

import threading
import traceback
from collections.abc import Callable
from typing import Generic, TypeVar

from occany_core.errors import OccAnyError

Job = TypeVar("Job")


class Worker(Generic[Job]):
    """Runs `work(job)` for the newest job submitted, until stopped."""

    def __init__(
        self,
        work: Callable[[Job], None],
        on_error: Callable[[OccAnyError], None],
        on_fatal: Callable[[str], None],
    ) -> None:
        """Start the thread.

        Args:
            work: Called in the thread, one job at a time.
            on_error: Told of an `OccAnyError`; the worker goes on with the next job.
            on_fatal: Told of any other exception, as a traceback; the worker has ended then.
        """
        self._work = work
        self._on_error = on_error
        self._on_fatal = on_fatal
        self._changed = threading.Condition()
        self._waiting: Job | None = None
        self._busy = False
        self._stopping = False
        self._skipped = 0
        self._thread = threading.Thread(target=self._run, name="inference", daemon=True)
        self._thread.start()

    @property
    def skipped(self) -> int:
        """Jobs that were replaced by newer ones before they began."""
        with self._changed:
            return self._skipped

    @property
    def is_busy(self) -> bool:
        """Whether a job runs or waits."""
        with self._changed:
            return self._busy or self._waiting is not None

    def submit(self, job: Job) -> None:
        """Hand over a job; replaces one that still waits. Never blocks on the work."""
        with self._changed:
            if self._waiting is not None:
                self._skipped += 1
            self._waiting = job
            self._changed.notify_all()

    def discard(self) -> None:
        """Forget a job that still waits, as after a jump of the clock; counts as skipped."""
        with self._changed:
            if self._waiting is not None:
                self._skipped += 1
                self._waiting = None

    def stop(self, timeout_s: float | None = None) -> bool:
        """Finish the running job, drop the waiting one, end the thread.

        Returns:
            Whether the thread ended within the time.
        """
        with self._changed:
            self._stopping = True
            self._waiting = None
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _next(self) -> Job | None:
        with self._changed:
            self._busy = False
            while self._waiting is None and not self._stopping:
                self._changed.wait()
            job, self._waiting = self._waiting, None
            self._busy = job is not None
            return job

    def _run(self) -> None:
        while (job := self._next()) is not None:
            try:
                self._work(job)
            except OccAnyError as error:
                self._on_error(error)
            except Exception:  # the thread is the last one who can report it
                self._on_fatal(traceback.format_exc())
                return
