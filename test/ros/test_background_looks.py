# SPDX-License-Identifier: Apache-2.0
"""Pictures are looked at beside the geometry: nobody waits, and nothing old is taken for new."""

import threading
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from occany_core.config import LabelsConfig
from occany_core.errors import InputError, MemoryShortageError
from occany_core.observation import EncodedSet
from occany_core.semantics import Detections, PromptableFeatures
from occany_core.semantics.labelling import Look
from occany_ros import background_looks
from occany_ros.background_looks import BackgroundLooks, LookingBugError
from occany_ros.memory_use import is_out_of_memory

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


def boxes_of(one):
    """The picture in which the boxes of each view were found."""
    return [
        look.detections and round(float(look.detections.boxes[0, 0]) * 100) for look in one.looks
    ]


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


def test_what_was_looked_at_before_a_jump_of_the_clock_is_not_kept_after_it(slow):
    slow.looking.looked(encoded(1, 10.0))
    wait_until(lambda: slow.labeller.looked_at)
    slow.looking.forget()
    assert found(slow.looking.looked(encoded(2, 10.0))) is None
    let_it_end(slow)
    assert slow.labeller.looked_at == [1, 2]
    assert found(slow.looking.looked(encoded(2, 10.0))) == 2


def test_an_answer_is_for_its_own_cameras_whatever_the_stamp(slow):
    slow.looking.looked(encoded(1, 10.0))
    let_it_end(slow)
    other = slow.looking.looked(encoded(2, 10.0, ("left", "right")))
    assert found(other) is None
    assert found(slow.looking.looked(encoded(1, 10.0))) == 1


def test_each_camera_is_asked_for_its_own_youngest_boxes(slow):
    slow.looking.looked(encoded(1, 10.0, ("front", "left", "right")))
    let_it_end(slow)
    partial = slow.looking.looked(encoded(2, 10.5, ("left", "front")))
    assert boxes_of(partial) == [1, 1]
    let_it_end(slow, done=2)
    newer = slow.looking.looked(encoded(3, 10.9, ("right", "front", "back")))
    assert boxes_of(newer) == [1, 2, None]
    assert all(look.is_carried and look.asked == () for look in newer.looks)
    let_it_end(slow, done=3)
    assert boxes_of(slow.looking.looked(newer)) == [3, 3, 3]  # its own
    late = slow.looking.looked(encoded(4, 11.3, ("right", "left")))
    assert boxes_of(late) == [3, 2]  # the first look is too old by now


def test_boxes_are_not_carried_where_features_of_the_picture_itself_are_asked(slow):
    slow.looking.config = LabelsConfig(pipeline="pretrained", sam2="folder")
    slow.looking.looked(encoded(1, 10.0))
    let_it_end(slow)
    assert slow.looking.looked(encoded(2, 10.5)).looks is None


@pytest.mark.parametrize(
    ("second_s", "older", "comes_late"),
    [
        (10.5, None, False),  # the newer pictures are asked for the boxes
        (12.0, 10.0, False),  # the set is still in the window
        (12.0, None, True),
    ],
)
def test_it_is_known_whether_answers_come_in_time(slow, second_s, older, comes_late):
    def cycle(value, stamp, past=None):
        slow.looking.looked(encoded(value, stamp))
        if past is not None:
            slow.looking.looked(encoded(1, past))

    cycle(1, 10.0)
    let_it_end(slow)
    cycle(2, second_s, older)
    assert not slow.looking.state.comes_late  # the cycle that could take it has not ended
    cycle(3, 14.0)
    assert slow.looking.state.comes_late == comes_late
    slow.looking.forget()
    assert not slow.looking.state.comes_late


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
    with pytest.raises(LookingBugError, match=r"(?s)looks at pictures.*a slip"):
        slow.looking.looked(encoded(2, 11.0))
    assert "a bug ended the thread" in slow.looking.state.error


def test_a_bug_is_not_taken_for_a_shortage_of_memory_whatever_its_words(slow):
    slow.labeller.failure = ValueError("a slip in the sentence 'out of memory'")
    slow.looking.looked(encoded(1, 10.0))
    slow.labeller.may_end.set()
    slow.looking._worker._thread.join(PATIENCE_S)
    with pytest.raises(LookingBugError, match="out of memory") as caught:
        slow.looking.looked(encoded(2, 11.0))
    assert not is_out_of_memory(caught.value)


@pytest.mark.parametrize(
    "failure",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_memory_that_runs_out_is_one_sentence_and_the_next_is_looked_at(slow, failure):
    slow.labeller.failure = failure
    slow.looking.looked(encoded(1, 10.0))
    slow.labeller.may_end.set()
    wait_until(lambda: slow.errors)
    (error,) = slow.errors
    assert isinstance(error, MemoryShortageError)
    assert "labels.detector" in str(error)
    assert slow.looking.state.error == str(error)
    slow.labeller.failure = None
    slow.looking.looked(encoded(2, 11.0))
    let_it_end(slow)
    assert found(slow.looking.looked(encoded(2, 11.0))) == 2
    assert slow.looking.state.error == ""


def test_the_end_waits_neither_for_a_slow_picture_nor_for_the_next_one(slow, monkeypatch, caplog):
    monkeypatch.setattr(background_looks, "STOP_TIMEOUT_S", 0.1)
    slow.looking.looked(encoded(1, 10.0, ("front", "left")))
    wait_until(lambda: slow.labeller.looked_at)
    began = time.monotonic()
    slow.looking.close()
    assert time.monotonic() - began < PATIENCE_S / 2
    assert "longer than 0.1 s" in caplog.text
    slow.labeller.failure = InputError("nobody is there to be told")
    slow.labeller.may_end.set()
    slow.looking._worker._thread.join(PATIENCE_S)
    assert slow.labeller.looked_at == [1]
    assert slow.errors == []


def test_of_a_set_that_is_given_up_no_further_picture_is_looked_at(slow):
    slow.looking.looked(encoded(1, 10.0, ("front", "left")))
    wait_until(lambda: slow.labeller.looked_at)
    slow.looking.forget()
    slow.looking.looked(encoded(2, 1.0))
    let_it_end(slow)
    assert slow.labeller.looked_at == [1, 2]
