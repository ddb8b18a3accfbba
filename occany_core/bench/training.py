# SPDX-License-Identifier: Apache-2.0
"""How many views a second training takes, in how much memory, and what bounds a step."""

import dataclasses
import math
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from occany_core.bench.memory import peak_gpu_gb, peak_resident_gb
from occany_core.bench.random_samples import random_pack
from occany_core.errors import ConfigError
from occany_core.training.error_budget import ErrorBudget
from occany_core.training.loop import Training
from occany_core.training.overrides import with_overrides
from occany_core.training.pack import Pack, pack_sample
from occany_core.training.pool import Pool
from occany_core.training.ranks import Ranks
from occany_core.training.recipe import Draw, Recipe, Stage
from occany_core.training.recipes import RECIPES
from occany_core.training.segmentation import chosen_teacher
from occany_core.training.supply import Supply
from occany_core.training.views import SURROUND
from occany_core.training.workers import StreetRenderer

WARM_UP = 2
"""Steps of each stage that are not timed."""
WORLDS = 2
"""Samples to draw from."""


@dataclass(frozen=True, kw_only=True)
class TimedRun:
    """What is to be timed."""

    recipe: str = "tiny"
    """One of `RECIPES`."""
    picture: tuple[int, int]
    """Height and width [px]."""
    views: int
    """Of one batch of one process; longer sequences are cut, and rigs that are larger become
    sequences."""
    steps: int
    """Timed steps of each stage."""
    stage: str | None = None
    """The only one to time; None times all."""
    is_random: bool = False
    """Random numbers take the place of rendered streets."""
    values: tuple[str, ...] = ()
    """Of the recipe, like `network.encoder.depth=3`."""

    def to_recipe(self) -> Recipe:
        """Return the recipe in this size; without a teacher, forcing is left out.

        Raises:
            ConfigError: A number, name or value that cannot be.
        """
        if self.recipe not in RECIPES or min(self.steps, self.views) < 1:
            raise ConfigError(
                f"recipe {self.recipe!r} must be one of {', '.join(RECIPES)}; steps, "
                f"{self.steps}, and views, {self.views}, at least 1"
            )
        recipe = with_overrides(RECIPES[self.recipe](), list(self.values))
        if not recipe.objective.teacher:
            recipe = replace(recipe, objective=replace(recipe.objective, forcing=0.0))
        stages = [one for one in recipe.stages if self.stage in (None, one.name)]
        if not stages:
            names = ", ".join(one.name for one in recipe.stages)
            raise ConfigError(f"--stage {self.stage}: the recipe {self.recipe} has {names}")
        return replace(
            recipe,
            picture=self.picture,
            views_per_step=self.views,
            stages=tuple(self._shortened(stage) for stage in stages),
        )

    def _shortened(self, stage: Stage) -> Stage:
        phases = tuple(
            replace(phase, draws=tuple(map(self._fitted, phase.draws))) for phase in stage.phases
        )
        return replace(stage, steps=self.steps + WARM_UP, phases=phases)

    def _fitted(self, draw: Draw) -> Draw:
        """Return a draw with scenes of no more pictures than a batch has."""
        if draw.kind == "surround" and self.views < len(SURROUND):
            return Draw(kind="sequence", views=(self.views, self.views), weight=draw.weight)
        if draw.kind == "sequence":
            least, most = (min(count, self.views) for count in draw.views)
            return replace(draw, views=(least, most))
        return draw


@dataclass(frozen=True)
class StageTiming:
    """Steps of one stage."""

    views_per_s: float
    """Compared views of all processes."""
    step_s: float
    """Median."""
    data_share: float
    """Part of the time that goes into drawing batches."""
    parameters: int
    """Of the whole network."""
    trained: int
    """Parameters that learn; only these have gradients and a state of the optimiser."""
    peak_resident_gb: float
    """Most memory of one process until the end of this stage."""
    peak_gpu_gb: float | None
    """Most memory of tensors on one GPU in this stage; None on a CPU."""


@dataclass(frozen=True)
class TrainingTiming:
    """What `measure` found."""

    recipe: str
    height: int
    width: int
    device: str
    dtype: str
    threads: int
    processes: int
    spreading: str
    """replicate or shard."""
    views_per_step: int
    """Of one batch of one process."""
    accumulation: int
    """Batches per step."""
    forcing: bool
    """Whether there is a teacher for Segmentation Forcing."""
    rendered_views_per_s: float | None
    """Of one process; pictures only, the depth of novel views comes with them. None where random
    numbers were drawn."""
    stages: dict[str, StageTiming]

    @property
    def renderers_needed(self) -> float | None:
        """Rendering processes that keep up with the first stage, each view used once."""
        if self.rendered_views_per_s is None:
            return None
        return next(iter(self.stages.values())).views_per_s / self.rendered_views_per_s

    def to_dict(self) -> dict:
        """Return plain JSON data."""
        return asdict(self) | {"renderers_needed": self.renderers_needed}


def measure(run: TimedRun, ranks: Ranks) -> TrainingTiming:
    """Make a few samples, then take steps of every stage on them; every process must call this.

    Args:
        run: What is to be timed.
        ranks: The processes that take part; samples are made on the CPU.

    Raises:
        ConfigError: A number, name or value that cannot be.
    """
    recipe = run.to_recipe()
    if run.is_random:
        worlds, rendered = random_pack(recipe, WORLDS), None
    else:
        worlds, rendered = _render(recipe, WORLDS)
    on_gpu = ranks.device.type == "cuda"
    return TrainingTiming(
        recipe=recipe.name,
        height=run.picture[0],
        width=run.picture[1],
        device=ranks.device.type,
        dtype={"auto": "bfloat16" if on_gpu else "float32"}.get(recipe.dtype, recipe.dtype),
        threads=torch.get_num_threads(),
        processes=ranks.count,
        spreading=ranks.spreading,
        views_per_step=run.views,
        accumulation=recipe.optimiser.accumulation,
        forcing=recipe.objective.forcing > 0,
        rendered_views_per_s=rendered,
        stages={
            stage.name: _timed(replace(recipe, stages=(stage,)), worlds, ranks)
            for stage in recipe.stages
        },
    )


def _render(recipe: Recipe, count: int) -> tuple[Pack, float]:
    """Return some worlds, and the pictures that were rendered per second."""
    render = StreetRenderer.for_picture(*recipe.picture)
    packs: list[Pack] = []
    started, seed = time.perf_counter(), 0
    while len(packs) < count:
        sample = render(seed)
        if sample is not None:
            labels = recipe.needs_labels
            packs.append(pack_sample(sample, *recipe.picture, recipe.block, with_labels=labels))
        seed += 1
    pack = Pack.joined(packs)
    return pack, len(pack) * pack.rgb.shape[1] / (time.perf_counter() - started)


def _timed(recipe: Recipe, worlds: Pack, ranks: Ranks) -> StageTiming:
    """Take the steps of a recipe with one stage."""
    on_gpu = ranks.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats(ranks.device)
    with tempfile.TemporaryDirectory() as folder:
        supply = Supply(*(_pool(recipe, worlds, ranks) for _ in range(2)), Path(folder))
        teacher = chosen_teacher(recipe, ranks.device)
        training = Training(recipe, supply, Path(folder), ranks, teacher)
        for _ in range(WARM_UP):
            training.step()
        before, seconds = dataclasses.replace(training.progress), []
        while training.passed < 1:
            started = time.perf_counter()
            training.step()
            seconds.append(time.perf_counter() - started)
    done, parameters = training.progress, list(training.network.parameters())
    return StageTiming(
        views_per_s=(done.views - before.views) / sum(seconds),
        step_s=statistics.median(seconds),
        data_share=(done.data_seconds - before.data_seconds) / sum(seconds),
        parameters=_count(parameters),
        trained=_count([one for one in parameters if one.requires_grad]),
        peak_resident_gb=ranks.largest(peak_resident_gb()),
        peak_gpu_gb=ranks.largest(peak_gpu_gb(ranks.device)) if on_gpu else None,
    )


def _pool(recipe: Recipe, worlds: Pack, ranks: Ranks) -> Pool:
    pool = Pool(len(worlds), ranks.device, ErrorBudget(0), with_labels=recipe.needs_labels)
    pool.add(worlds)
    return pool


def _count(parameters: list[torch.nn.Parameter]) -> int:
    return sum(math.prod(one.shape) for one in parameters)
