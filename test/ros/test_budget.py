# SPDX-License-Identifier: Apache-2.0
"""The ladder: down where time or memory is short, up again slowly, never to and fro."""

from dataclasses import replace
from itertools import pairwise

import pytest

from occany_core.config import OccAnyConfig
from occany_core.config.groups import NovelViewsConfig, WindowConfig
from occany_ros.budget import (
    AS_SET,
    EVERY_OTHER,
    FEWER_VIEWS,
    MOST_PATIENCE,
    NARROWER,
    NO_VIEWS,
    PATIENCE,
    SHORTER_WINDOW,
    SMALLER_BATCHES,
    Budget,
    Cost,
    Limits,
    Step,
    Work,
    reduced,
)

CONFIG = OccAnyConfig(
    novel_views=NovelViewsConfig(steps=2, yaw_deg=30.0, chunk=12), window=WindowConfig(view_sets=4)
)
WORK = Work(config=CONFIG, picture_width=256, views=6)
FREE = Limits(latency_ms=0.0, memory_mb=0)


class Machine:
    """Takes 40 ms for the observed views at full width and 5 ms for each rendered one."""

    def __init__(self, budget, limits, work=WORK, slowness=1.0):
        self.budget, self.limits, self.work, self.slowness = budget, limits, work, slowness
        self.memory_mb = lambda config: 100.0

    def cycle(self):
        config = reduced(self.work, self.budget.step)
        width = (config.images.width or 256) / 256
        rendered = replace(self.work, config=config).rendered
        sets = config.window.view_sets / self.work.config.window.view_sets
        scale = self.slowness * width
        stages = {"render": 40 * scale * sets, "render_novel": 5 * scale * rendered}
        cost = Cost(stages_ms=stages, rendered=rendered, memory_mb=self.memory_mb(config))
        self.budget.note(self.work, cost, self.limits)
        return cost

    def cycles(self, count):
        return [self.cycle() for _ in range(count)]


def test_the_work_asked_for():
    assert WORK.rendered == 6 * 2 * 3
    assert reduced(WORK, Step()) == CONFIG


def test_each_rung_comes_on_top_of_those_before():
    configs = [reduced(WORK, Step(level=level, rendered=9)) for level in range(EVERY_OTHER + 1)]
    assert configs[FEWER_VIEWS].novel_views.max_views == 9
    assert configs[SMALLER_BATCHES].novel_views.chunk == 3
    assert configs[NARROWER].images.width == 160
    assert configs[SHORTER_WINDOW].window.view_sets == 2
    assert configs[NO_VIEWS].novel_views.steps == 0
    assert configs[NO_VIEWS].images.width == 160
    assert configs[EVERY_OTHER] == configs[NO_VIEWS]


@pytest.mark.parametrize(("asked", "left"), [(1, 1), (2, 2), (3, 2), (5, 3)])
def test_a_shorter_window_still_gives_odometry(asked, left):
    work = replace(WORK, config=replace(CONFIG, window=WindowConfig(view_sets=asked)))
    step = Step(level=SHORTER_WINDOW, rendered=1)
    assert reduced(work, step).window.view_sets == left


def test_without_limits_nothing_changes():
    budget = Budget()
    Machine(budget, FREE, slowness=100).cycles(50)
    assert budget.step == Step()
    assert budget.step.describe() == "the work is as set"


def test_the_number_of_rendered_views_is_chosen_from_measured_times():
    budget = Budget()
    machine = Machine(budget, replace(FREE, latency_ms=120.0))
    assert machine.cycle().total_ms == 220
    machine.cycles(2)
    # 0.95 * 120 ms leave 74 ms for views of 5 ms
    assert budget.step.level == FEWER_VIEWS
    assert budget.step.rendered == 14
    assert all(cost.total_ms <= 120 for cost in machine.cycles(200))
    assert budget.step.describe() == (
        "budget level 1 of 6, fewer rendered views: "
        "cycles took 220 ms and budget.latency_ms is 120"
    )


def test_one_slow_cycle_is_no_trend():
    budget = Budget()
    machine = Machine(budget, replace(FREE, latency_ms=250.0))
    machine.cycles(5)
    machine.slowness = 3
    machine.cycle()
    machine.slowness = 1
    machine.cycles(5)
    assert budget.step.level == AS_SET


@pytest.mark.parametrize(
    ("slowness", "level"), [(2.5, NARROWER), (4.0, SHORTER_WINDOW), (6.0, NO_VIEWS)]
)
def test_the_slower_the_machine_the_lower_the_rung(slowness, level):
    budget = Budget()
    machine = Machine(budget, replace(FREE, latency_ms=80.0), slowness=slowness)
    last = machine.cycles(19)[-1]
    assert budget.step.level == level
    assert last.total_ms <= 1.1 * 80


def test_the_lowest_rung_leaves_out_every_other_view_set():
    budget = Budget()
    assert [budget.take() for _ in range(4)] == [True] * 4
    Machine(budget, replace(FREE, latency_ms=5.0), slowness=10).cycles(30)
    assert budget.step.level == EVERY_OTHER
    assert [budget.take() for _ in range(4)] == [True, False, True, False]
    assert budget.left_out == 2


def test_the_work_grows_back_when_the_machine_is_fast_again():
    budget = Budget()
    machine = Machine(budget, replace(FREE, latency_ms=250.0), slowness=20)
    machine.cycles(15)
    assert budget.step.level > NARROWER
    machine.slowness = 0.5
    levels = []
    for _ in range(10 * PATIENCE):
        machine.cycle()
        levels.append(budget.step.level)
    assert levels[0] > NARROWER
    assert levels == sorted(levels, reverse=True)
    assert levels[-1] == AS_SET
    assert budget.step.reason == ""


def test_growth_that_proves_too_much_is_tried_less_and_less_often():
    budget = Budget()
    work = replace(WORK, config=replace(CONFIG, novel_views=NovelViewsConfig(steps=0)))
    machine = Machine(budget, replace(FREE, latency_ms=35.0), work)
    changes, last, cycles = [], budget.step, 4000
    for number in range(cycles):
        machine.cycle()
        if budget.step != last:
            changes.append(number)
            last = budget.step
    # Each growth is taken back after three cycles; the pauses between them double.
    pauses = [b - a for a, b in pairwise(changes)][::2]
    assert pauses[0] == PATIENCE
    assert all(later in (2 * before, MOST_PATIENCE) for before, later in pairwise(pauses))
    assert len(changes) < 20


def test_memory_above_the_limit_goes_down_at_once():
    budget = Budget()
    machine = Machine(budget, replace(FREE, memory_mb=500))
    machine.memory_mb = lambda config: 200.0 + 100 * (config.novel_views.max_views or 36)
    machine.cycle()
    assert budget.step.level == FEWER_VIEWS
    assert budget.step.reason == "a cycle took 3800 MB and budget.memory_mb is 500"
    machine.memory_mb = lambda config: 600.0
    machine.cycles(20)
    assert budget.step.level == NO_VIEWS  # leaving out view sets saves no memory


def test_out_of_memory_goes_down_and_grows_back():
    budget = Budget()
    machine = Machine(budget, FREE)
    assert budget.note_out_of_memory(WORK, "cuda:0")
    assert budget.step == Step(level=FEWER_VIEWS, rendered=9, reason="out of memory on cuda:0")
    assert budget.note_out_of_memory(WORK, "cuda:0")
    assert budget.step.level == SMALLER_BATCHES
    machine.cycles(6 * PATIENCE)
    assert budget.step.level == AS_SET


def test_rungs_that_change_nothing_are_passed_over():
    config = OccAnyConfig(novel_views=NovelViewsConfig(steps=0, chunk=1))
    work = Work(config=config, picture_width=32, views=1)
    budget = Budget()
    assert not budget.note_out_of_memory(work, "cpu")
    assert budget.step.level == AS_SET
    assert budget.note_out_of_memory(replace(work, picture_width=64), "cpu")
    assert budget.step.level == NARROWER
