# SPDX-License-Identifier: Apache-2.0
"""Processes that render worlds into a folder of shards, one torch thread each.

A shard holds the usable worlds among `WORLDS_PER_SHARD` consecutive seeds and is named after its
place in the order of seeds, so rendering goes on where it stopped.
"""

import logging
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import TracebackType

import torch

from occany_core.errors import InputError
from occany_core.synthetic.samples import Sample, training_sample
from occany_core.training.error_budget import ErrorBudget
from occany_core.training.pack import Pack, pack_sample, shard_folders, write_shard

logger = logging.getLogger(__name__)

WORLDS_PER_SHARD = 16
MOST_BAD_WORLDS = 20
"""Worlds that may fail to render, per process."""
OVERSAMPLING = 4 / 3
"""Worlds are rendered so much larger than the network's pictures, which smooths their edges."""
WAIT_SECONDS = 0.5


@dataclass(frozen=True)
class StreetRenderer:
    """Seed -> rendered street, or None where a camera stands inside something."""

    height: int
    width: int

    @staticmethod
    def for_picture(height: int, width: int) -> "StreetRenderer":
        """Choose the size at which streets for pictures of a size are rendered [px]."""
        return StreetRenderer(round(height * OVERSAMPLING), round(width * OVERSAMPLING))

    def __call__(self, seed: int) -> Sample | None:
        """Render one street."""
        return training_sample(seed, self.width, self.height)


@dataclass(frozen=True)
class ShardJob:
    """What to render, and where to."""

    folder: Path
    picture: tuple[int, int]
    """Height and width of the network's pictures [px]."""
    block: int
    """Side of the pixel blocks that keep one depth [px]."""
    render: Callable[[int], Sample | None]
    """Must be importable by other processes."""
    with_labels: bool = False
    """Whether segmentation is to be trained."""
    first_seed: int = 0
    shards: int | None = None
    """How many there are to be; None renders for ever."""
    most_waiting: int | None = None
    """Pause while the folder holds so many shards."""

    def next_place(self) -> int:
        """Return the place of the first shard that is not there yet."""
        places = [int(shard.name.removeprefix("shard_")) for shard in shard_folders(self.folder)]
        return max(places, default=-1) + 1

    def path(self, place: int) -> Path:
        """Return the folder of one shard."""
        return self.folder / f"shard_{place:06d}"

    def missing(self) -> list[int]:
        """Return the places that a finite job still has to fill."""
        return [place for place in range(self.shards or 0) if not self.path(place).exists()]


def render_shard(job: ShardJob, place: int, budget: ErrorBudget) -> None:
    """Render the worlds of one shard; those that cannot be rendered are counted and left out.

    Raises:
        InputError: Too many worlds fail.
    """
    packs: list[Pack] = []
    start = job.first_seed + place * WORLDS_PER_SHARD
    for seed in range(start, start + WORLDS_PER_SHARD):
        try:
            sample = job.render(seed)
        except (ArithmeticError, LookupError, RuntimeError, ValueError) as error:
            budget.spend(f"world {seed} cannot be rendered: {error!r}")
            continue
        if sample is not None:
            packs.append(pack_sample(sample, *job.picture, job.block, with_labels=job.with_labels))
    if packs:
        write_shard(Pack.joined(packs), job.path(place))


def _work(job: ShardJob, worker: int, workers: int, parent: int) -> None:
    """Render every `workers`-th shard; ends with the process that started it."""
    torch.set_num_threads(1)
    budget = ErrorBudget(MOST_BAD_WORLDS)
    for place in _places(job, worker, workers):
        while job.most_waiting and len(shard_folders(job.folder)) >= job.most_waiting:
            if os.getppid() != parent:
                return
            time.sleep(WAIT_SECONDS)
        if os.getppid() != parent:
            return
        render_shard(job, place, budget)


def _places(job: ShardJob, worker: int, workers: int) -> Iterator[int]:
    if job.shards is not None:
        yield from job.missing()[worker::workers]
        return
    place = job.next_place() + worker
    while True:
        yield place
        place += workers


class RenderWorkers:
    """Renders in the background for the length of a with statement."""

    def __init__(self, job: ShardJob, workers: int) -> None:
        self.job, self.workers = job, workers
        self.processes: list[BaseProcess] = []

    def __enter__(self) -> "RenderWorkers":
        self.job.folder.mkdir(parents=True, exist_ok=True)
        context = multiprocessing.get_context("spawn")
        for worker in range(self.workers):
            process = context.Process(
                target=_work, args=(self.job, worker, self.workers, os.getpid()), daemon=True
            )
            process.start()
            self.processes.append(process)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for process in self.processes:
            process.terminate()
        for process in self.processes:
            process.join()

    def check(self) -> None:
        """Make sure that no process failed.

        Raises:
            InputError: One of them did.
        """
        failed = [p.exitcode for p in self.processes if p.exitcode not in (None, 0)]
        if failed:
            raise InputError(
                f"{len(failed)} of {len(self.processes)} rendering processes ended with code "
                f"{failed[0]}; what they said stands above. They go on where they stopped when "
                "the command is run again"
            )

    @property
    def is_running(self) -> bool:
        """Whether any process still works."""
        return any(process.is_alive() for process in self.processes)


def render_all(job: ShardJob, workers: int, progress: Callable[[int, int], None]) -> None:
    """Render a finite job, several shards at a time.

    Args:
        job: With a number of shards; those that are there stay.
        workers: Processes; 0 renders in this one.
        progress: Called with the shards that are there and the shards that are to be.

    Raises:
        InputError: Too many worlds fail, or a process ends.
    """
    total = job.shards or 0
    if workers == 0:
        budget = ErrorBudget(MOST_BAD_WORLDS)
        for place in job.missing():
            render_shard(job, place, budget)
            progress(len(shard_folders(job.folder)), total)
        return
    if not job.missing():
        return
    with RenderWorkers(job, min(workers, len(job.missing()))) as running:
        while running.is_running:
            progress(len(shard_folders(job.folder)), total)
            time.sleep(WAIT_SECONDS)
        running.check()
    progress(len(shard_folders(job.folder)), total)
