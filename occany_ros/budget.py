# SPDX-License-Identifier: Apache-2.0
"""How much a cycle does, so that it keeps within time and memory. Plain Python, no ROS.

Under pressure the work shrinks rung by rung down `LADDER`, each rung on top of those before it;
with room again it grows back, one rung after many good cycles, and later still where a rung proved
too much before. How many views are rendered is taken from measured times. Milliseconds, MB.
"""

from collections import deque
from dataclasses import dataclass, replace
from statistics import median

from occany_core.config import OccAnyConfig

LADDER = (
    "as set",
    "fewer rendered views",
    "smaller batches",
    "narrower pictures",
    "shorter window",
    "no rendered views",
    "every other view set",
)
AS_SET, FEWER_VIEWS, SMALLER_BATCHES, NARROWER, SHORTER_WINDOW, NO_VIEWS, EVERY_OTHER = range(7)

STAGES_OF_RENDERED_VIEWS = ("project", "tokenize", "render_novel")
CYCLES_JUDGED = 3
"""The median of so many cycles says whether cycles take too long: one slow cycle is no trend."""
MARGIN = 0.95
"""Part of the time limit that the number of rendered views is chosen for."""
ROOM = 0.8
"""The work grows only where a cycle takes less than this part of a limit."""
PATIENCE, MOST_PATIENCE = 20, 1280
"""Good cycles before the work grows; twice as many after each growth that proved too much."""
PROBATION = 100
"""Cycles in which a growth may still prove too much."""
LEAST_WIDTH = 32
"""Narrowest picture [px]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What the user allows; 0 sets no limit."""

    latency_ms: float
    memory_mb: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What a cycle was asked to do, before anything was left out."""

    config: OccAnyConfig
    picture_width: int
    """Of the network [px]."""
    views: int
    """Observed views in the window."""

    @property
    def rendered(self) -> int:
        """Views to render."""
        novel = self.config.novel_views
        sides = 3 if novel.yaw_deg > 0 else 1
        proposed = self.views * novel.steps * sides * novel.seeds
        return min(proposed, novel.max_views) if novel.max_views else proposed


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What a cycle took."""

    stages_ms: dict[str, float]
    rendered: int
    """Views that were rendered."""
    memory_mb: float
    """Highest use during the cycle."""

    @property
    def total_ms(self) -> float:
        """Time of all stages."""
        return sum(self.stages_ms.values())

    def views_that_fit(self, latency_ms: float) -> int | None:
        """Return how many rendered views fit into a time; None where none was measured."""
        if not self.rendered:
            return None
        rendering_ms = sum(self.stages_ms.get(stage, 0.0) for stage in STAGES_OF_RENDERED_VIEWS)
        rest_ms = self.total_ms - rendering_ms
        per_view_ms = max(rendering_ms / self.rendered, 1e-6)
        return max(0, int((latency_ms - rest_ms) / per_view_ms))


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """A place on the ladder."""

    level: int = AS_SET
    rendered: int = 0
    """Most rendered views, from the first rung on."""
    reason: str = ""
    """Why the work was reduced; empty at level 0."""

    def describe(self) -> str:
        """Return one sentence for people."""
        if self.level == AS_SET:
            return "the work is as set"
        return f"budget level {self.level} of {EVERY_OTHER}, {LADDER[self.level]}: {self.reason}"


def reduced(work: Work, step: Step) -> OccAnyConfig:
    """Return the settings of a cycle at this place on the ladder."""
    config, level = work.config, step.level
    novel, window, images = config.novel_views, config.window, config.images
    if level >= FEWER_VIEWS and 0 < step.rendered < work.rendered:
        novel = replace(novel, max_views=step.rendered)
    if level >= SMALLER_BATCHES:
        novel = replace(novel, chunk=max(1, novel.chunk // 4))
    if level >= NARROWER:
        narrow = max(LEAST_WIDTH, work.picture_width * 2 // 3 // 16 * 16)
        if narrow < work.picture_width:
            images = replace(images, width=narrow)
    if level >= SHORTER_WINDOW:
        least = min(window.view_sets, 2)  # with one set alone there is no odometry
        window = replace(window, view_sets=max(least, (window.view_sets + 1) // 2))
    if level >= NO_VIEWS:
        novel = replace(novel, steps=0)
    return replace(config, novel_views=novel, window=window, images=images)


class Budget:
    """Where on the ladder the work stands. `take` is for one thread, the rest for another."""

    def __init__(self) -> None:
        self._step = Step()
        self._times_ms: deque[float] = deque(maxlen=CYCLES_JUDGED)
        self._good = 0
        self._patience = PATIENCE
        self._since_growth: int | None = None
        self._offered = 0
        self._left_out = 0

    @property
    def step(self) -> Step:
        """The present place."""
        return self._step

    @property
    def left_out(self) -> int:
        """View sets that `take` refused."""
        return self._left_out

    def take(self) -> bool:
        """Tell whether the next view set is worked on: all of them, but for the lowest rung."""
        self._offered += 1
        if self._step.level < EVERY_OTHER or self._offered % 2:
            return True
        self._left_out += 1
        return False

    def note_out_of_memory(self, work: Work, device: str) -> bool:
        """Go one rung down because memory ran out; tell whether there was one that helps."""
        self._good = 0
        return self._shrink(work, f"out of memory on {device}")

    def note(self, work: Work, cost: Cost, limits: Limits) -> None:
        """Judge a cycle that went well, and go down or up where that is due."""
        self._times_ms.append(cost.total_ms)
        if self._since_growth is not None:
            self._since_growth += 1
            if self._since_growth > PROBATION:
                self._since_growth = None
        if limits.memory_mb and cost.memory_mb > limits.memory_mb:
            reason = (
                f"a cycle took {cost.memory_mb:.0f} MB and budget.memory_mb is {limits.memory_mb}"
            )
            if self._shrink(work, reason):
                return
        if limits.latency_ms and self._are_slow(limits.latency_ms):
            reason = (
                f"cycles took {median(self._times_ms):.0f} ms and budget.latency_ms is "
                f"{limits.latency_ms:.0f}"
            )
            self._shrink_in_time(work, cost, limits, reason)
            return
        has_room = (not limits.latency_ms or cost.total_ms < ROOM * limits.latency_ms) and (
            not limits.memory_mb or cost.memory_mb < ROOM * limits.memory_mb
        )
        self._good = self._good + 1 if has_room else 0
        if self._step.level > AS_SET and self._good >= self._patience:
            self._grow(work, cost, limits)

    def _are_slow(self, latency_ms: float) -> bool:
        times = self._times_ms
        return len(times) == CYCLES_JUDGED and median(times) > latency_ms

    # --- down ----------------------------------------------------------------------------------
    def _shrink_in_time(self, work: Work, cost: Cost, limits: Limits, reason: str) -> None:
        fits = cost.views_that_fit(MARGIN * limits.latency_ms)
        if self._step.level <= FEWER_VIEWS and fits and cost.rendered > 1:
            fewer = Step(level=FEWER_VIEWS, rendered=min(fits, cost.rendered - 1), reason=reason)
            self._move(fewer, is_growth=False)
            return
        # Even one rendered view is too many, and smaller batches save no time.
        first = max(self._step.level + 1, NARROWER)
        self._descend(work, range(first, len(LADDER)), Step(rendered=1, reason=reason))

    def _shrink(self, work: Work, reason: str) -> bool:
        """Go down for the sake of memory, which leaving out view sets does not save."""
        rendered = self._step.rendered or max(1, work.rendered // 4)
        levels = range(self._step.level + 1, EVERY_OTHER)
        return self._descend(work, levels, Step(rendered=rendered, reason=reason))

    def _descend(self, work: Work, levels: range, target: Step) -> bool:
        """Go to the first of these rungs that changes anything."""
        before = reduced(work, self._step)
        for level in levels:
            step = replace(target, level=level)
            if level == EVERY_OTHER or reduced(work, step) != before:
                self._move(step, is_growth=False)
                return True
        return False

    # --- up ------------------------------------------------------------------------------------
    def _grow(self, work: Work, cost: Cost, limits: Limits) -> None:
        step = self._step
        self._good = 0
        if step.level == FEWER_VIEWS:
            rendered = 4 * step.rendered
            fits = cost.views_that_fit(limits.latency_ms) if limits.latency_ms else None
            rendered = rendered if fits is None else min(rendered, fits)
            if rendered >= work.rendered:
                self._move(Step(), is_growth=True)
            elif rendered > step.rendered:
                self._move(replace(step, rendered=rendered), is_growth=True)
            return
        before = reduced(work, step)
        for level in range(step.level - 1, AS_SET, -1):
            higher = replace(step, level=level)
            if step.level == EVERY_OTHER or reduced(work, higher) != before:
                self._move(higher, is_growth=True)
                return
        self._move(Step(), is_growth=True)

    def _move(self, step: Step, is_growth: bool) -> None:
        if is_growth:
            self._since_growth = 0
        elif self._since_growth is not None:
            self._patience = min(2 * self._patience, MOST_PATIENCE)
            self._since_growth = None
        elif self._step.level == AS_SET:
            self._patience = PATIENCE
        self._step = step
        self._good = 0
        self._times_ms.clear()
