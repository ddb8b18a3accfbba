# SPDX-License-Identifier: Apache-2.0
"""How many views a second training takes and the renderer gives, and what bounds a step."""

import dataclasses
import statistics
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from occany_core.errors import ConfigError
from occany_core.training.error_budget import ErrorBudget
from occany_core.training.loop import Training
from occany_core.training.pack import Pack, pack_sample
from occany_core.training.pool import Pool
from occany_core.training.ranks import Ranks
from occany_core.training.recipe import STREETS, Recipe
from occany_core.training.recipes import RECIPES
from occany_core.training.segmentation import chosen_teacher
from occany_core.training.supply import Supply
from occany_core.training.workers import StreetRenderer

WARM_UP = 2
"""Steps of each stage that are not timed."""


@dataclass(frozen=True)
class StageTiming:
    """Steps of one stage."""

    views_per_s: float
    """Compared views."""
    step_s: float
    """Median."""
    data_share: float
    """Part of the time that goes into drawing batches."""


@dataclass(frozen=True)
class TrainingTiming:
    """What `measure` found."""

    recipe: str
    height: int
    width: int
    device: str
    dtype: str
    threads: int
    views_per_step: int
    rendered_views_per_s: float
    """Of one process; pictures only, the depth of novel views comes with them."""
    stages: dict[str, StageTiming]

    @property
    def renderers_needed(self) -> float:
        """Rendering processes that keep up with reconstruction, each view used once."""
        return next(iter(self.stages.values())).views_per_s / self.rendered_views_per_s

    def to_dict(self) -> dict:
        """Return plain JSON data."""
        return asdict(self) | {"renderers_needed": self.renderers_needed}


def measure(
    recipe_name: str,
    height_width: tuple[int, int],
    views_per_step: int,
    steps: int,
    device: torch.device,
) -> TrainingTiming:
    """Render a few worlds, then take steps of every stage on them.

    Args:
        recipe_name: One of `RECIPES`.
        height_width: Of the pictures [px].
        views_per_step: Views of a batch.
        steps: Timed steps of each stage.
        device: Where to train; worlds are rendered on the CPU.

    Raises:
        ConfigError: A number or recipe that cannot be.
    """
    if recipe_name not in RECIPES or steps < 1:
        raise ConfigError(
            f"recipe {recipe_name!r} must be one of {', '.join(RECIPES)} and steps, {steps}, at "
            "least 1"
        )
    recipe = RECIPES[recipe_name]()
    objective = recipe.objective
    if objective.teacher != STREETS:
        objective = dataclasses.replace(objective, forcing=0.0)
    stages = tuple(dataclasses.replace(one, steps=steps + WARM_UP) for one in recipe.stages)
    recipe = dataclasses.replace(
        recipe,
        picture=height_width,
        views_per_step=views_per_step,
        objective=objective,
        stages=stages,
    )
    worlds, rendered = _render(recipe, count=2)
    timings = _steps(recipe, worlds, device)
    return TrainingTiming(
        recipe=recipe.name,
        height=height_width[0],
        width=height_width[1],
        device=device.type,
        dtype="bfloat16" if device.type == "cuda" else "float32",
        threads=torch.get_num_threads(),
        views_per_step=views_per_step,
        rendered_views_per_s=rendered,
        stages=timings,
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


def _steps(recipe: Recipe, worlds: Pack, device: torch.device) -> dict[str, StageTiming]:
    labels = recipe.needs_labels
    pools = [Pool(len(worlds), device, ErrorBudget(0), with_labels=labels) for _ in range(2)]
    for pool in pools:
        pool.add(worlds)
    timings = {}
    for stage in recipe.stages:
        with tempfile.TemporaryDirectory() as folder:
            alone = dataclasses.replace(recipe, stages=(stage,))
            supply, teacher = Supply(*pools, Path(folder)), chosen_teacher(alone, device)
            training = Training(alone, supply, Path(folder), Ranks(device), teacher)
            for _ in range(WARM_UP):
                training.step()
            before, seconds = dataclasses.replace(training.progress), []
            while training.passed < 1:
                started = time.perf_counter()
                training.step()
                seconds.append(time.perf_counter() - started)
        done = training.progress
        timings[stage.name] = StageTiming(
            views_per_s=(done.views - before.views) / sum(seconds),
            step_s=statistics.median(seconds),
            data_share=(done.data_seconds - before.data_seconds) / sum(seconds),
        )
    return timings
