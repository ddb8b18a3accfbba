# SPDX-License-Identifier: Apache-2.0
"""The training loop: stages of a recipe over a supply of samples, resumable at any moment.

A run is a folder: `state.pt` (everything needed to go on), `log.jsonl` and `pictures/`. Killing
the process loses at most `CHECKPOINT_SECONDS` of work and the time to write the file; starting it
again goes on from there. With lengths in steps and data that does not change, an interrupted run
equals an uninterrupted one.
"""

import dataclasses
import logging
import math
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from occany_core.network import OccAnyNetwork
from occany_core.training import ranks as processes
from occany_core.training.average import AveragedWeights
from occany_core.training.batches import Batch, BatchSampler, Turn
from occany_core.training.error_budget import ErrorBudget
from occany_core.training.journal import Journal, progress_line
from occany_core.training.learner import Learner, Terms
from occany_core.training.ranks import Ranks
from occany_core.training.recipe import Recipe, Stage
from occany_core.training.same_run import check_same_run, origin_going_on
from occany_core.training.schedule import RateSchedule, parameter_groups
from occany_core.training.segmentation import Teacher
from occany_core.training.start import (
    RENDERED,
    Start,
    centre_confidence,
    check_stages,
    compile_blocks,
    copy_reconstruction,
    has_prior,
    learns,
    set_prior,
    start_from,
)
from occany_core.training.state import (
    Progress,
    RunState,
    read_state,
    share_passed,
    write_state,
)
from occany_core.training.supply import Supply
from occany_core.training.validation import held_back_batches, score

logger = logging.getLogger(__name__)

CHECKPOINT_SECONDS = 60.0
REPORT_SECONDS = 10.0
VALIDATE_SECONDS = 120.0


class Training:
    """One run of a recipe.

    Args:
        recipe: What to compute.
        supply: Samples.
        folder: Of the run; one that holds a state goes on from it.
        ranks: The processes that take part; one by default, on the CPU.
        teacher: Features for Segmentation Forcing, and to be prompted on.
        start: Weights to start from instead of random ones, and where the samples come from;
            `new_parts` names what these weights lack.

    Raises:
        ConfigError: The folder belongs to another recipe or to a run from other weights
            (`check_same_run` says what may differ), a stage asks for what is not there, or the
            weights have parts that the network has not.
        CheckpointError: The state in the folder is damaged.
    """

    def __init__(
        self,
        recipe: Recipe,
        supply: Supply,
        folder: Path,
        ranks: Ranks | None = None,
        teacher: Teacher | None = None,
        start: Start | None = None,
    ) -> None:
        self.recipe, self.supply, self.folder, self.teacher = recipe, supply, folder, teacher
        self.ranks = Ranks(torch.device("cpu")) if ranks is None else ranks
        folder.mkdir(parents=True, exist_ok=True)
        self.sampler = BatchSampler(supply.pool, recipe, self.ranks.device)
        self.journal = Journal(folder, is_silent=not self.ranks.is_first)
        self.faults: ErrorBudget = supply.pool.budget
        self.progress = Progress()
        self.new_parts: tuple[str, ...] = ()
        start = Start() if start is None else start
        self.origin = start.origin(supply.folder)
        torch.manual_seed(recipe.seed)
        if (folder / "state.pt").exists():
            self._resume(read_state(folder / "state.pt"))
            return
        network = OccAnyNetwork(recipe.network)
        check_stages(network, recipe)
        if has_prior(network):
            set_prior(network, supply.pool)
        if start.weights is not None:
            self.new_parts = start_from(network, start.weights)
        self._open_stage(network, is_new=True)

    # --- stages ---------------------------------------------------------------------------------

    @property
    def stage(self) -> Stage:
        """The stage that is being trained, or the last one of a finished run."""
        return self.recipe.stages[min(self.progress.stage, len(self.recipe.stages) - 1)]

    @property
    def is_finished(self) -> bool:
        """Whether all stages are over."""
        return self.progress.stage == len(self.recipe.stages)

    @property
    def passed(self) -> float:
        """Share of the stage that is over."""
        return share_passed(self.stage, self.progress)

    def _open_stage(self, network: OccAnyNetwork, *, is_new: bool) -> None:
        """Freeze what the stage leaves alone, spread the rest, and make its optimiser."""
        stage, device = self.stage, self.ranks.device
        network = network.to(device)
        if is_new and stage.renders and not self.is_finished:
            network.eval()
            if has_prior(network):
                seen = replace(stage, novel="none")
                batches = held_back_batches(self.supply.held_back, self.recipe, seen, device)
                centre_confidence(network, [batch for _, batch in batches])
            copy_reconstruction(network)
        processes.agree_on_weights(network, self.ranks)
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(learns(name, stage, self.recipe))
        self.network = network
        learner = Learner(network, self.recipe, stage, self.teacher)
        if self.recipe.compile:
            compile_blocks(network)
        self.wrapped = processes.spread(learner, self.ranks)
        self.average = AveragedWeights(network, self.recipe.optimiser.average)
        self.optimizer = self._optimizer()

    def _optimizer(self) -> torch.optim.Optimizer:
        settings = self.recipe.optimiser
        trained = {n: p for n, p in self.network.named_parameters() if p.requires_grad}
        groups = [
            {"params": [trained[name] for name in group.names], "weight_decay": group.weight_decay}
            for group in parameter_groups(trained, settings.weight_decay)
        ]
        return torch.optim.AdamW(groups, lr=0.0, betas=settings.betas, fused=True)

    def _finish_stage(self) -> None:
        """Go on from the averaged weights of the finished stage."""
        with self.average.in_use():
            weights = processes.whole_weights(self.network)
        done = self.progress
        self.progress = replace(done, stage=done.stage + 1, stage_steps=0, stage_seconds=0.0)
        self._rebuild(weights, is_new=True)

    def _rebuild(self, weights: dict[str, Tensor], *, is_new: bool) -> None:
        network = OccAnyNetwork(self.recipe.network)
        network.load_state_dict(weights)
        self._open_stage(network, is_new=is_new)

    # --- the loop -------------------------------------------------------------------------------

    def run(
        self,
        stop_after: float = math.inf,
        tell: Callable[[str], None] = logger.info,
    ) -> None:
        """Train to the end of the recipe, or for some time; the state is saved either way.

        Args:
            stop_after: Seconds after which to stop and save.
            tell: Takes a line about the progress every few seconds.

        Raises:
            InputError: More faults than the recipe allows.
        """
        started = time.monotonic()
        report, save, validate = map(
            _Alarm, (REPORT_SECONDS, CHECKPOINT_SECONDS, VALIDATE_SECONDS)
        )
        while not self.is_finished:
            terms = self.step()
            now = self.ranks.from_first(time.monotonic() - started)
            is_over = self.passed >= 1
            if report.rings(now) or is_over:
                self._report(tell, terms)
            if validate.rings(now) or is_over:
                self.validate()
            if is_over:
                self._finish_stage()
            if save.rings(now) or is_over:
                self.save()
            if now > stop_after:
                self.save()
                return

    def step(self) -> Terms:
        """Take one optimiser step; one without a finite gradient changes nothing and is counted.

        Raises:
            InputError: More faults than the recipe allows.
        """
        started = time.perf_counter()
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        self.wrapped.train()
        accumulated = self.recipe.optimiser.accumulation
        for part in range(accumulated):
            batch = self._next_batch(part)
            with processes.gradients_shared(self.wrapped, share=part == accumulated - 1):
                terms = self.wrapped(batch)
                (terms.total / accumulated).backward()
            self.progress.views += batch.num_views * self.ranks.count
        norm = self._clip()
        self.progress.steps += 1
        self.progress.stage_steps += 1
        if math.isfinite(norm):
            self.optimizer.step()
            self.average.update(self.progress.stage_steps)
        else:
            where = ", ".join(map(str, batch.samples))
            self.faults.spend(f"step {self.progress.steps}: gradient {norm}; samples {where}")
        self.optimizer.zero_grad(set_to_none=True)
        passed = self.ranks.from_first(time.perf_counter() - started)
        self.progress.seconds += passed
        self.progress.stage_seconds += passed
        return terms

    def _next_batch(self, part: int) -> Batch:
        started = time.perf_counter()
        self.supply.refresh(self.recipe.reuse)
        number = self.progress.stage_steps * self.recipe.optimiser.accumulation + part
        ranks = self.ranks
        turn = Turn(self.progress.stage, number, self.passed, ranks.index, ranks.count)
        batch = self.sampler.draw(turn)
        self.progress.data_seconds += time.perf_counter() - started
        return batch

    def _clip(self) -> float:
        """Limit the gradients and return their norm before."""
        trained = [p for p in self.network.parameters() if p.requires_grad]
        norm = nn.utils.clip_grad_norm_(trained, self.recipe.optimiser.clip or math.inf)
        return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)

    def rate(self) -> float:
        """Return the learning rate of the next step."""
        settings = self.recipe.optimiser
        schedule = RateSchedule(
            highest=self.stage.peak_rate,
            lowest=min(settings.lowest_rate, self.stage.peak_rate),
            warmup_epochs=settings.warmup,
            epochs=1.0,
        )
        return schedule.rate(self.passed)

    # --- what is said about it ------------------------------------------------------------------

    def validate(self) -> dict[str, float]:
        """Score the averaged weights on the held-back samples, and write scores and pictures."""
        batches = held_back_batches(
            self.supply.held_back, self.recipe, self.stage, self.ranks.device
        )
        with self.average.in_use():
            found = score(self.wrapped, batches)
        name, step = self.stage.name, self.progress.steps
        self.journal.scalars(
            step, {"stage": name} | {f"validation/{k}": v for k, v in found.values.items()}
        )
        for kind, sheet in found.sheets.items():
            self.journal.picture(step, f"{name}_{kind}", sheet)
        return found.values

    def _report(self, tell: Callable[[str], None], terms: Terms) -> None:
        pool = self.supply.pool
        losses = {n: round(v.item(), 5) for n, v in terms._asdict().items() if n != "depth"}
        numbers = {"rate": self.rate(), "reuse": pool.reuse, "faults": self.faults.spent}
        self.journal.scalars(
            self.progress.steps,
            {**losses, **vars(self.progress), **numbers, "stage": self.stage.name},
        )
        data = f"{len(pool)} worlds used {pool.reuse:.1f} times"
        tell(f"{progress_line(self.recipe, self.progress)}, loss {losses['total']:.3f}, {data}")

    def summary(self) -> dict:
        """Return what a card says about this run."""
        data = self.origin.data
        only = " only; no real picture was seen in this run" if data == (RENDERED,) else ""
        return {
            "recipe": dataclasses.asdict(self.recipe),
            "data": " and ".join(data) + only,
            "start": self.origin.start_in_words,
            "steps": self.progress.steps,
            "views": self.progress.views,
            "rendered_views": self.supply.pool.added_views,
            "seconds": round(self.progress.seconds, 1),
            "processes": self.ranks.count,
            "faults": self.faults.spent,
        }

    # --- saving and going on --------------------------------------------------------------------

    def save(self) -> None:
        """Write everything needed to go on; the old state survives an interruption."""
        is_cuda = self.ranks.device.type == "cuda"
        begun = self.progress.stage_steps > 0
        state = RunState(
            recipe=self.recipe.name,
            progress=self.progress,
            weights=processes.whole_weights(self.network),
            average=processes.whole(self.average.values) if begun else {},
            optimiser=processes.optimiser_state(self.network, self.optimizer) if begun else None,
            used_views=self.supply.pool.used_views,
            added_views=self.supply.pool.added_views,
            faults=self.faults.spent,
            torch_random=torch.get_rng_state(),
            device_random=torch.cuda.get_rng_state() if is_cuda else None,
            recipe_values=dataclasses.asdict(self.recipe),
            origin=self.origin,
        )
        if self.ranks.is_first:
            write_state(state, self.folder / "state.pt")
        self.ranks.wait()

    def _resume(self, state: RunState) -> None:
        check_same_run(state, self.recipe, self.origin, self.folder)
        self.progress = state.progress
        self.origin = origin_going_on(state, self.origin, is_finished=self.is_finished)
        self._rebuild(state.weights, is_new=False)
        if state.optimiser is not None:
            self.average.restore(state.average)
            processes.restore_optimiser(self.network, self.optimizer, state.optimiser)
        self.supply.pool.used_views = state.used_views
        self.supply.pool.added_views = state.added_views
        self.faults.spent = state.faults
        torch.set_rng_state(state.torch_random)
        if state.device_random is not None and self.ranks.device.type == "cuda":
            torch.cuda.set_rng_state(state.device_random)
        logger.info("resumed at step %d", self.progress.steps)


class _Alarm:
    """Rings every so many seconds."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.rang = 0.0

    def rings(self, now: float) -> bool:
        if now - self.rang < self.seconds:
            return False
        self.rang = now
        return True
