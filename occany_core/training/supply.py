# SPDX-License-Identifier: Apache-2.0
"""The data of a run: a pool that follows a folder of shards, and samples held back from it.

Streets are rendered before training, or by other processes while it runs; a folder of shards that
somebody else fills serves as well.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from occany_core.errors import InputError
from occany_core.training.error_budget import ErrorBudget
from occany_core.training.pack import LABEL_BLOCK, shard_folders
from occany_core.training.pool import Pool, retire
from occany_core.training.ranks import Ranks, starts_renderers
from occany_core.training.recipe import Recipe
from occany_core.training.workers import (
    WORLDS_PER_SHARD,
    RenderWorkers,
    ShardJob,
    StreetRenderer,
    render_all,
)

LOOK_SECONDS = 0.5
"""How often the folder is looked at."""
HELD_BACK = "held_back"
"""Folder of the samples to validate on, inside that of the others."""
HELD_BACK_SEED = 800_000
"""Worlds to validate on; training uses smaller seeds, the evaluation set larger ones."""
HELD_BACK_SHARDS = 3
FIRST_SHARDS = 4
"""Training begins as soon as there are so many."""
DEVICE_SHARE = 0.4
"""Of the free memory of a GPU, for the pool; a larger pool stays in host memory."""


@dataclass
class Supply:
    """Where training takes its samples from."""

    pool: Pool
    held_back: Pool
    """Samples of other worlds, to validate on."""
    folder: Path
    """Shards of the pool."""
    most_shards: int = 0
    """A folder with so many makes room as soon as its samples were used often enough; 0 keeps
    all, for data that does not change."""
    retires: bool = True
    """Whether this process deletes shards; one on each machine does."""
    workers: RenderWorkers | None = None
    """Processes of this one that render."""
    looked: float = 0.0

    def refresh(self, reuse: float) -> None:
        """Take in at most one new shard, and make room for others.

        Args:
            reuse: How often views are to be used before they are deleted.

        Raises:
            InputError: Too many bad samples, or a rendering process failed.
        """
        now = time.monotonic()
        if self.most_shards == 0 or now - self.looked < LOOK_SECONDS:
            return
        if self.pool.read_folder(self.folder, most=1) == 0:
            self.looked = now
        if self.workers is not None:
            self.workers.check()
        is_full = len(shard_folders(self.folder)) >= self.most_shards
        if self.retires and is_full and self.pool.reuse >= reuse:
            retire(self.folder, self.most_shards - 1)


@dataclass(frozen=True, kw_only=True)
class SupplyPlan:
    """What data a run is to have."""

    folder: Path
    """Of shards."""
    renders: bool = True
    """Whether streets are rendered into the folder; otherwise it is used as it is."""
    worlds: int = 2400
    """Streets that are held ready."""
    workers: int = 0
    """Processes that render while training runs; 0 renders all streets before."""
    helpers: int = 0
    """Processes that render before training; 0 does so in this one."""


@contextmanager
def supplied(
    plan: SupplyPlan, recipe: Recipe, ranks: Ranks, tell: Callable[[str], None]
) -> Iterator[Supply]:
    """Have samples ready for the length of a with statement.

    Args:
        plan: Where they come from.
        recipe: Says their size.
        ranks: The processes of the run; the first one on each machine renders.
        tell: Takes lines about the progress.

    Raises:
        InputError: The folder holds no shards or some without the labels that are needed, or
            worlds cannot be rendered.
    """
    shards = max(plan.worlds // WORLDS_PER_SHARD, 1)
    streets = ShardJob(
        plan.folder,
        recipe.picture,
        recipe.block,
        StreetRenderer.for_picture(*recipe.picture),
        with_labels=recipe.needs_labels,
    )
    held_back = replace(
        streets,
        folder=plan.folder / HELD_BACK,
        first_seed=HELD_BACK_SEED,
        shards=HELD_BACK_SHARDS,
    )
    renders = plan.renders and starts_renderers()
    if renders:
        _render(held_back, plan, tell, "worlds to validate on")
        if plan.workers == 0:
            _render(replace(streets, shards=shards), plan, tell, "streets")
    ranks.wait()
    endless = replace(streets, most_waiting=shards)
    running = renders and plan.workers > 0
    with RenderWorkers(endless, plan.workers) if running else nullcontext() as workers:
        if plan.workers > 0:
            _await_shards(plan.folder, min(FIRST_SHARDS, shards), workers, tell)
        budget = ErrorBudget(recipe.most_errors)
        supply = Supply(
            pool=_open(plan.folder, recipe, ranks, budget, plan.worlds if plan.workers else 0),
            held_back=_open(held_back.folder, recipe, ranks, budget),
            folder=plan.folder,
            most_shards=shards if plan.workers else 0,
            retires=running,
            workers=workers,
        )
        yield supply


def _render(job: ShardJob, plan: SupplyPlan, tell: Callable[[str], None], what: str) -> None:
    found = -1

    def progress(done: int, total: int) -> None:
        nonlocal found
        if done == found:
            return
        found = done
        tell(f"rendering {what}: {done * WORLDS_PER_SHARD} of {total * WORLDS_PER_SHARD}")

    render_all(job, plan.helpers, progress)


def _await_shards(
    folder: Path, wanted: int, workers: RenderWorkers | None, tell: Callable[[str], None]
) -> None:
    while (found := len(shard_folders(folder))) < wanted:
        tell(f"rendering the first streets: {found * WORLDS_PER_SHARD}")
        if workers is not None:
            workers.check()
        time.sleep(LOOK_SECONDS)


def _open(
    folder: Path, recipe: Recipe, ranks: Ranks, budget: ErrorBudget, worlds: int = 0
) -> Pool:
    """Read a folder into a pool of as many samples as it holds, or of so many worlds."""
    shards = len(shard_folders(folder))
    capacity = max(worlds, shards * WORLDS_PER_SHARD)
    place = _place(recipe, ranks.device, capacity)
    pool = Pool(max(capacity, 1), place, budget, with_labels=recipe.needs_labels)
    pool.read_folder(folder)
    if len(pool) == 0:
        raise InputError(
            f"{folder} holds no training samples; give a folder of shards, or leave --data out to "
            "have streets rendered"
        )
    return pool


def _place(recipe: Recipe, device: torch.device, capacity: int) -> torch.device:
    """Choose the memory for a pool: that of the GPU, unless it is too small."""
    if device.type != "cuda":
        return device
    height, width = recipe.picture
    labels = 5 / LABEL_BLOCK**2 if recipe.needs_labels else 0
    per_view = height * width * (3 + 3 * 6 / recipe.block**2 + labels)
    bytes_ = capacity * 15 * per_view
    free, _ = torch.cuda.mem_get_info(device)
    return device if bytes_ < DEVICE_SHARE * free else torch.device("cpu")
