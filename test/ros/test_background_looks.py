# SPDX-License-Identifier: Apache-2.0
"""Pictures are looked at beside the geometry: nobody waits, and nothing old is taken for new."""

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from occany_core.config import LabelsConfig
from occany_core.errors import InputError
from occany_core.observation import EncodedSet
from occany_core.semantics import Detections, PromptableFeatures
from occany_core.semantics.labelling import Look
from occany_ros.background_looks import BackgroundLooks

PATIENCE_S = 10.0


def boxes_at(x):
    return Detections(torch.tensor([[x, 0.0, 1.0, 1.0]]), torch.ones(1), torch.ones(1).long())


class SlowLabeller:
    """Looks for as long as it is told to; what it finds says in which picture, by its value."""

    def __init__(self):
        self.may_end = threading.Event()
        self.looked_at, self.failure = [], None

    def look(self, rgb, config):
        value = int(rgb.flatten()[0])
        self.looked_at.append(value)
        assert self.may_end.wait(PATIENCE_S)
        if self.failure:
            raise self.failure
        side = [torch.zeros(1, 1, n, n) for n in (1, 2, 4)]
        return tuple(
            Look(boxes_at(value / 100), PromptableFeatures(*side), asked=config.classes)
            for _ in rgb
        )


def encoded(value, stamp, cameras=("front",)):
    views = tuple(SimpleNamespace(camera=camera, stamp=stamp) for camera in cameras)
    batch = SimpleNamespace(rgb=np.full((len(cameras), 4, 6, 3), value, np.uint8))
    return EncodedSet(views, batch, tokens=None)


def found(one):
    """The picture in which the boxes of a view set were found."""
    return None if one.looks is None else round(float(one.looks[0].detections.boxes[0, 0]) * 100)


@pytest.fixture
def slow():
    labeller, errors = SlowLabeller(), []
    looking = BackgroundLooks(labeller, LabelsConfig(carry_seconds=1.0), errors.append)
    yield SimpleNamespace(labeller=labeller, looking=looking, errors=errors)
    labeller.may_end.set()
    looking.close()


def wait_until(holds):
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.005)


def let_it_end(slow, done=1):
    slow.labeller.may_end.set()
    wait_until(lambda: slow.looking.state.done >= done)
    slow.labeller.may_end.clear()


def test_nobody_waits_and_a_set_keeps_its_own_answer(slow):
    first = encoded(1, 10.0)
    assert found(slow.looking.looked(first)) is None
    assert slow.looking.state.done == 0
    let_it_end(slow)
    assert found(slow.looking.looked(first)) == 1
    assert slow.looking.looked(first).looks[0].features is not None
    assert slow.looking.state.last_ms > 0
    assert slow.labeller.looked_at == [1]  # once


def test_a_set_keeps_its_answer_however_many_sets_are_looked_at_after_it(slow):
    slow.looking.looked(encoded(1, 10.0))
    let_it_end(slow)
    first = slow.looking.looked(encoded(1, 10.0))
    for number in range(2, 9):
        slow.looking.looked(encoded(number, 8.0 + 2 * number))
        let_it_end(slow, done=number)
    assert found(slow.looking.looked(first)) == 1
    assert len(slow.looking._answers) < 8


def test_boxes_that_were_carried_give_way_to_its_own(slow):
    slow.looking.looked(encoded(1, 10.0))
    let_it_end(slow)
    newer = slow.looking.looked(encoded(2, 10.5))
    assert found(newer) == 1 and newer.looks[0].is_carried
    let_it_end(slow, done=2)
    assert found(slow.looking.looked(newer)) == 2


def test_newer_pictures_are_asked_for_the_last_boxes_if_these_are_young(slow):
    slow.looking.looked(encoded(1, 10.0))
    let_it_end(slow)
    young, old = slow.looking.looked(encoded(2, 10.9)), slow.looking.looked(encoded(3, 11.1))
    assert found(young) == 1
    assert young.looks[0].features is None  # those were of another picture
    assert found(old) is None
    assert found(slow.looking.looked(encoded(4, 10.5, ("left",)))) is None
    assert found(slow.looking.looked(encoded(5, 9.9))) is None  # nothing comes from the future


def test_the_newest_set_is_looked_at_next_and_older_ones_never(slow):
    for value, stamp in ((1, 10.0), (2, 11.0), (3, 12.0)):
        slow.looking.looked(encoded(value, stamp))
        wait_until(lambda: slow.labeller.looked_at)
    slow.looking.looked(encoded(1, 10.0))  # stays in the window, and was overtaken
    let_it_end(slow)
    let_it_end(slow, done=2)
    assert slow.labeller.looked_at == [1, 3]
    assert slow.looking.state.skipped == 1


def test_other_texts_are_asked_anew_and_old_answers_do_not_count(slow):
    one = encoded(1, 10.0)
    slow.looking.looked(one)
    let_it_end(slow)
    slow.looking.config = LabelsConfig(classes=("bus",))
    assert found(slow.looking.looked(one)) is None
    let_it_end(slow, done=2)
    assert slow.looking.looked(one).looks[0].asked == ("bus",)


def test_after_a_jump_of_the_clock_earlier_stamps_are_new(slow):
    slow.looking.looked(encoded(1, 10.0))
    let_it_end(slow)
    slow.looking.forget()
    assert found(slow.looking.looked(encoded(2, 1.0))) is None
    let_it_end(slow, done=2)
    assert found(slow.looking.looked(encoded(2, 1.0))) == 2


def test_a_picture_that_cannot_be_used_is_reported_and_the_next_is_looked_at(slow):
    slow.labeller.failure = InputError("no good")
    slow.looking.looked(encoded(1, 10.0))
    slow.labeller.may_end.set()
    wait_until(lambda: slow.errors)
    assert str(slow.errors[0]) == "no good"
    slow.labeller.failure = None
    slow.looking.looked(encoded(2, 11.0))
    let_it_end(slow)
    assert found(slow.looking.looked(encoded(2, 11.0))) == 2


def test_a_bug_in_the_thread_ends_the_next_cycle_with_its_traceback(slow):
    slow.labeller.failure = ValueError("a slip")
    slow.looking.looked(encoded(1, 10.0))
    slow.labeller.may_end.set()
    slow.looking._worker._thread.join(PATIENCE_S)
    with pytest.raises(RuntimeError, match=r"(?s)looks at pictures.*SlowLabeller|a slip"):
        slow.looking.looked(encoded(2, 11.0))
