# SPDX-License-Identifier: Apache-2.0
"""Texts over real DDS, with real detectors of random weights: asked live, answered in time."""

import threading
import time

import numpy as np
import pytest
import torch

pytest.importorskip("rclpy")
pytest.importorskip("transformers", reason="transformers, the extra [semantics], is not installed")

from sensor_msgs.msg import Image
from test_labels import PATIENCE_S, Labeller
from test_node import SUCCESS
from tiny_detectors import save_grounding_dino, save_sam3

from occany_core.semantics.class_prompts import vocabulary
from occany_core.synthetic.classes import SemanticClass
from occany_ros.msg import LabelInfo, OccAnyStatus
from occany_ros.srv import SetLabels

CAR = int(SemanticClass.CAR)


@pytest.fixture
def prompted(ros):
    return Labeller(ros)


@pytest.fixture(scope="module")
def detector(tmp_path_factory):
    """Random weights that see large things: small boxes have no mask in such small pictures."""
    from transformers import GroundingDinoForObjectDetection

    folder = save_grounding_dino(tmp_path_factory.mktemp("grounding_dino"))
    model = GroundingDinoForObjectDetection.from_pretrained(folder)
    for head in model.bbox_embed:
        head.layers[-1].bias.data[2:] += 6.0
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def sam3(tmp_path_factory):
    return save_sam3(tmp_path_factory.mktemp("sam3"))


def start(prompted, **settings):
    """Run the node; return it and the masks that come."""
    node = prompted.running(transport="compressed", voxels__min_confidence=1.0, **settings)
    detector = node._inference.labeller.models.detector
    if detector is not None:
        detector.short_side = 64  # of 800: no test should wait for so many pixels
    return node, prompted.listen(Image, "/occany/output/camera/mask")


def start_detecting_cars(prompted, detector, **settings):
    return start(
        prompted,
        labels__pipeline="distilled",
        labels__detector=str(detector),
        labels__min_score=0.0,
        labels__classes=["car"],
        **settings,
    )


def labels_in(mask):
    return set(np.frombuffer(mask.data, np.uint8).tolist())


def send_until(prompted, holds, first_s, what):
    """Send pictures, a second apart, until what they bring about is there."""
    second, end = first_s, time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end, f"no {what} after {second - first_s} view sets"
        prompted.send_until_grid(["camera"], second * 10**9)
        prompted.ros.spin_for(0.1)
        second += 1
    return second


def test_texts_are_asked_of_a_detector_and_become_masks_and_cells(prompted, detector):
    # With a threshold of 0 every query of the random network names something.
    _, masks = start(
        prompted,
        labels__pipeline="distilled",
        labels__detector=str(detector),
        labels__min_score=0.0,
        labels__classes=["car", "concrete barrier car"],
        labels__carry_seconds=5.0,
    )
    own = vocabulary(("car", "concrete barrier car")).classes[1]
    assert own.id > SemanticClass.FREE
    second = send_until(
        prompted, lambda: masks and labels_in(masks[-1]) - {LabelInfo.UNLABELLED}, 1000, "label"
    )
    assert labels_in(masks[-1]) <= {CAR, own.id, LabelInfo.UNLABELLED}
    (info,) = prompted.infos()
    assert [(one.id, one.name) for one in info.classes] == [(CAR, "car"), (own.id, own.name)]
    assert info.source.startswith(f"boxes of GroundingDINO, {detector}, asked of features of the")
    named = np.unique(np.frombuffer(bytes(prompted.grids[-1].labels), np.uint8))
    assert set(named) & {CAR, own.id}

    answer = prompted.call(SetLabels, "set_labels", names=["tree"])
    assert answer.success, answer.message
    tree = int(SemanticClass.VEGETATION)
    send_until(prompted, lambda: tree in labels_in(masks[-1]), second + 10, "new labels")
    assert labels_in(masks[-1]) <= {tree, LabelInfo.UNLABELLED}


def test_geometry_does_not_wait_for_the_detector(prompted, detector):
    node, masks = start_detecting_cars(prompted, detector, labels__carry_seconds=60.0)
    may_end, labeller = threading.Event(), node._inference.labeller
    look = labeller.look

    def slow_look(rgb, config):
        assert may_end.wait(PATIENCE_S)
        return look(rgb, config)

    labeller.look = slow_look
    try:
        for second in range(1000, 1004):
            prompted.send_until_grid(["camera"], second * 10**9)
        prompted.ros.spin_until(lambda: len(masks) >= 4, PATIENCE_S, "masks meanwhile")
        assert all(labels_in(mask) == {LabelInfo.UNLABELLED} for mask in masks)
        assert len(prompted.grids) >= 4
    finally:
        may_end.set()
    send_until(prompted, lambda: CAR in labels_in(masks[-1]), 1004, "label")


def test_an_activation_begins_anew_also_with_earlier_pictures(prompted, detector):
    node, masks = start_detecting_cars(
        prompted,
        detector,
        window__view_sets=3,
        window__seconds=0.0,
        window__max_speed=0.0,
    )
    send_until(prompted, lambda: masks and CAR in labels_in(masks[-1]), 2000, "label")
    prompted.send_until_grid(["camera"], 3000 * 10**9, count=3)
    assert node.trigger_deactivate() == SUCCESS
    prompted.ros.spin_for(0.5)  # for what is on its way
    assert node.trigger_activate() == SUCCESS
    masks.clear()
    statuses = prompted.listen(OccAnyStatus, "/occany/status")
    looks = node._inference.looking.state.done
    prompted.send_until_grid(["camera"], 1000 * 10**9)
    prompted.ros.spin_until(lambda: any(one.views_in_window for one in statuses), PATIENCE_S)
    assert next(one.views_in_window for one in statuses if one.views_in_window) == 1
    send_until(prompted, lambda: masks and CAR in labels_in(masks[-1]), 1010, "label")
    assert node._inference.looking.state.done > looks


def test_memory_that_runs_out_in_the_detector_costs_labels_and_nothing_else(prompted, detector):
    node, masks = start_detecting_cars(prompted, detector, labels__carry_seconds=60.0)
    labeller, failures = node._inference.labeller, []
    look = labeller.look

    def greedy_look(rgb, config):
        failures.append("CUDA out of memory. Tried to allocate 1.70 GiB")
        raise torch.OutOfMemoryError(failures[-1])

    labeller.look = greedy_look
    send_until(prompted, lambda: len(failures) > 1, 1000, "second look")
    finding = prompted.finding("labels", "out of memory while a picture was looked at")
    assert finding.level == b"\x02"
    assert node._inference.budget.step.level == 0  # that of the geometry
    labeller.look = look
    send_until(prompted, lambda: masks and CAR in labels_in(masks[-1]), 2000, "label")
    prompted.finding("labels", "ms to look at")
    assert node.fatal == ""


def test_looks_that_take_too_long_are_told_with_what_to_set(prompted, sam3):
    node, _ = start(
        prompted,
        labels__pipeline="sam3",
        labels__sam3=str(sam3),
        labels__classes=["car"],
    )
    looking = node._inference.looking
    send_until(prompted, lambda: looking.state.comes_late, 1000, "late look")
    finding = prompted.finding("labels", "nothing has labels, because it has left the window")
    assert finding.level == b"\x01"
    assert "raise window.view_sets (1)" in finding.message


def test_sam3_answers_texts_and_its_answers_stay_with_their_pictures(prompted, sam3):
    node, _ = start(
        prompted,
        labels__pipeline="sam3",
        labels__sam3=str(sam3),
        labels__classes=["red lorry", "car"],
        window__view_sets=3,
        window__seconds=0.0,
    )
    node._inference.labeller.models.segmenter.min_score = 0.0  # random weights believe nothing
    infos = prompted.infos()
    assert [one.name for one in infos[-1].classes] == ["red lorry", "car"]
    assert infos[-1].source == f"texts asked of SAM3, {sam3}"

    def cells():
        if not prompted.grids:
            return set()
        labels = np.frombuffer(bytes(prompted.grids[-1].labels), np.uint8)
        return set(labels.tolist()) - {LabelInfo.UNLABELLED, int(SemanticClass.OTHER)}

    # The newest set waits for its answer, while those before it in the window have theirs.
    send_until(prompted, cells, 1000, "labelled cell")
    assert cells() <= {one.id for one in infos[-1].classes}


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"labels__pipeline": "sam3"}, "set labels.sam3 to their folder"),
        (
            {"labels__pipeline": "distilled", "labels__detector": "/nowhere"},
            "occany download grounding-dino-base",
        ),
    ],
)
def test_missing_weights_are_one_sentence_and_no_guess(prompted, settings, words):
    node = prompted.make(transport="compressed", **settings)
    node.trigger_configure()
    assert words in node._status.last_error
    assert "\n" not in node._status.last_error
