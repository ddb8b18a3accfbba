# SPDX-License-Identifier: Apache-2.0
"""One job at a time in a thread of its own; the newest job wins. Plain Python, no ROS.

Callbacks that receive images must never wait for the network. They `submit` and return; a job that
is replaced before the worker is free counts as skipped.
"""

import threading
import traceback
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial
from typing import Generic, TypeVar

from occany_core.errors import InputError, OccAnyError

STOP_TIMEOUT_S = 20.0
"""How long somebody who stops a worker waits for its running job."""

Job = TypeVar("Job")
Answer = TypeVar("Answer")


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
        self._call: Callable[[], None] | None = None
        self._call_answer: Future | None = None
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

    def call(self, work: Callable[[], Answer]) -> "Future[Answer]":
        """Have something else done in the thread, after the running job and before the next one.

        Returns:
            What the work returns or raises; cancelled when the worker stops before.

        Raises:
            InputError: Another call waits or runs.
        """
        with self._changed:
            if self._call_answer is not None and not self._call_answer.done():
                raise InputError("an earlier request still runs; try again when it has ended")
            answer = self._call_answer = Future()
            self._call = partial(_answer, work, answer)
            if self._stopping:
                answer.cancel()
            self._changed.notify_all()
        return answer

    def stop(self, timeout_s: float | None = None) -> bool:
        """Finish the running job, drop the waiting one, end the thread.

        Returns:
            Whether the thread ended within the time.
        """
        with self._changed:
            self._stopping = True
            self._waiting = None
            if self._call is not None:
                self._call, _ = None, self._call_answer.cancel()
            self._changed.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _next(self) -> Callable[[], None] | None:
        with self._changed:
            self._busy = False
            while self._waiting is None and self._call is None and not self._stopping:
                self._changed.wait()
            self._busy = not self._stopping
            if self._stopping:
                return None
            if self._call is not None:
                call, self._call = self._call, None
                return call
            job, self._waiting = self._waiting, None
            return partial(self._work, job)

    def _run(self) -> None:
        while (work := self._next()) is not None:
            try:
                work()
            except OccAnyError as error:
                self._on_error(error)
            except Exception:  # the thread is the last one who can report it
                self._on_fatal(traceback.format_exc())
                return


def _answer(work: Callable[[], Answer], answer: "Future[Answer]") -> None:
    """Do a call; a bug in it is the caller's and the worker's."""
    if not answer.set_running_or_notify_cancel():
        return
    try:
        answer.set_result(work())
    except OccAnyError as error:
        answer.set_exception(error)
    except Exception as error:
        answer.set_exception(error)
        raise
