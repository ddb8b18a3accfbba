# SPDX-License-Identifier: Apache-2.0
"""The worker: newest job wins, expected errors pass, anything else ends it."""

import threading

import pytest

from occany_core.errors import InputError
from occany_ros.worker import Worker


class Bench:
    """A worker whose jobs wait at a gate."""

    def __init__(self):
        self.done, self.errors, self.fatal = [], [], []
        self.started, self.gate, self.noted = (
            threading.Event(),
            threading.Semaphore(0),
            threading.Event(),
        )
        self.worker = Worker(self.work, self.errors.append, self.note_fatal)

    def work(self, job):
        self.started.set()
        assert self.gate.acquire(timeout=10)
        if isinstance(job, Exception):
            raise job
        self.done.append(job)
        self.noted.set()

    def note_fatal(self, text):
        self.fatal.append(text)
        self.noted.set()

    def submit_and_wait_for_start(self, job):
        self.started.clear()
        self.worker.submit(job)
        assert self.started.wait(10)

    def release(self, jobs=1):
        for _ in range(jobs):
            self.gate.release()


@pytest.fixture
def bench():
    bench = Bench()
    yield bench
    bench.release(100)
    assert bench.worker.stop(10)


def test_newest_job_wins_and_the_rest_is_counted(bench):
    bench.submit_and_wait_for_start(0)
    for job in (1, 2, 3):
        bench.worker.submit(job)
    assert bench.worker.is_busy
    bench.release(2)
    while bench.done != [0, 3]:
        assert bench.noted.wait(10)
    assert bench.worker.skipped == 2


def test_an_expected_error_is_reported_and_work_goes_on(bench):
    bench.submit_and_wait_for_start(InputError("no picture; send one"))
    bench.release()
    bench.worker.submit("next")
    bench.release()
    assert bench.noted.wait(10)
    assert bench.done == ["next"]
    assert str(bench.errors[0]) == "no picture; send one"
    assert bench.fatal == []


def test_anything_else_ends_the_worker_with_a_traceback(bench):
    bench.submit_and_wait_for_start(KeyError("bug"))
    bench.release()
    assert bench.noted.wait(10)
    assert "KeyError: 'bug'" in bench.fatal[0]
    assert bench.errors == []


def test_discard_forgets_the_waiting_job(bench):
    bench.submit_and_wait_for_start(0)
    bench.worker.submit(1)
    bench.worker.discard()
    bench.worker.discard()
    assert bench.worker.skipped == 1


def test_stop_finishes_the_running_job_and_drops_the_waiting_one(bench):
    bench.submit_and_wait_for_start("running")
    bench.worker.submit("waiting")
    assert not bench.worker.stop(0.05)
    bench.release()
    assert bench.worker.stop(10)
    assert bench.done == ["running"]


# --- calls ------------------------------------------------------------------------------------


def worker(**calls):
    found = {"jobs": [], "errors": [], "bugs": []}
    names = {"work": "jobs", "on_error": "errors", "on_fatal": "bugs"}
    takes = {part: calls.get(part, found[name].append) for part, name in names.items()}
    return Worker(**takes), found


def test_the_worker_answers_calls_between_jobs():
    begun, go_on = threading.Event(), threading.Event()

    def work(job):
        begun.set()
        go_on.wait(60.0)
        order.append(job)

    order = []
    one, _ = worker(work=work)
    one.submit("first")
    assert begun.wait(60.0)
    one.submit("second")
    answer = one.call(lambda: order.append("call") or threading.current_thread().name)
    with pytest.raises(InputError, match="an earlier request still runs"):
        one.call(lambda: None)
    go_on.set()
    assert answer.result(60.0) == "inference"
    assert one.call(lambda: 7).result(60.0) == 7
    assert one.stop(60.0)
    assert order[:2] == ["first", "call"]
    assert one.skipped == 0


def test_errors_of_calls_are_the_callers_and_bugs_end_the_worker():
    one, found = worker()

    def wrong():
        raise InputError("a pose is wrong")

    with pytest.raises(InputError, match="a pose is wrong"):
        one.call(wrong).result(60.0)
    assert found["errors"] == found["bugs"] == []
    with pytest.raises(ZeroDivisionError):
        one.call(lambda: 1 / 0).result(60.0)
    assert one.stop(60.0)
    assert "ZeroDivisionError" in found["bugs"][0]


def test_a_call_that_waits_when_the_worker_stops_is_cancelled():
    begun, go_on = threading.Event(), threading.Event()
    one, _ = worker(work=lambda job: begun.set() or go_on.wait(60.0))
    one.submit("job")
    assert begun.wait(60.0)
    answer = one.call(lambda: 7)
    assert not one.stop(0.0)
    assert answer.cancelled()
    assert one.call(lambda: 8).cancelled()
    go_on.set()
    assert one.stop(60.0)
