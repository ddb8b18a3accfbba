# SPDX-License-Identifier: Apache-2.0
"""Texts become classes, boxes become labels, and masks follow into rendered views."""

import dataclasses

import pytest
import torch
from street_views import (
    probed_model,
    sequence,
    small_street_model,
    street_config,
    surround,
)

from occany_core import Stream, load_model, predict
from occany_core.config import LabelsConfig, from_flat
from occany_core.errors import CheckpointError, ConfigError
from occany_core.evaluation.synthocc import view_sets
from occany_core.semantics import Detections, LabelledMasks, PromptableFeatures
from occany_core.semantics.class_prompts import UNLABELLED, vocabulary
from occany_core.semantics.labelling import Labeller, Look, ViewLabels
from occany_core.semantics.rendered_labels import RenderedLabels, TrackingRules, wanted_views
from occany_core.synthetic.classes import SemanticClass
from occany_core.synthetic.synthocc import scenes
from occany_core.voxels import ClassTable, ViewPoints

CAR, ROAD, TREE = SemanticClass.CAR, SemanticClass.DRIVEABLE_SURFACE, SemanticClass.VEGETATION
FREE = SemanticClass.FREE


# --- texts --------------------------------------------------------------------------------------
def test_without_texts_everything_but_other_is_looked_for_in_the_order_of_the_table():
    everything = vocabulary()
    assert [one.id for one in everything.classes] == [int(one) for one in SemanticClass]
    assert everything.prompts.texts[:2] == ("barrier", "concrete barrier")
    assert everything.prompts.labels[-2:] == (FREE, FREE)
    assert SemanticClass.OTHER not in everything.prompts.labels
    assert everything.foreign == ()
    assert everything.convention == ClassTable(18, SemanticClass.OTHER, FREE)


def test_names_ask_for_all_prompts_of_a_class_and_prompts_for_themselves():
    asked = vocabulary(("Driveable-Surface", "tree", "pedestrian"))
    assert [one.name for one in asked.classes] == ["driveable_surface", "vegetation", "pedestrian"]
    assert asked.prompts.texts == ("road", "tree", "pedestrian", "adult", "child")
    assert asked.prompts.labels == (ROAD, TREE, *3 * (SemanticClass.PEDESTRIAN,))


def test_two_prompts_of_one_class_are_one_class():
    asked = vocabulary(("tree", "bush"))
    assert [one.name for one in asked.classes] == ["vegetation"]
    assert asked.prompts.texts == ("tree", "bush")


def test_other_texts_are_classes_of_their_own_with_ids_that_do_not_depend_on_the_rest():
    alone, among = vocabulary(("red lorry",)), vocabulary(("car", "dog", "Red Lorry"))
    (lorry,) = alone.classes
    assert 17 < lorry.id < UNLABELLED
    assert among.classes[-1].id == lorry.id
    assert among.foreign == ("dog", "Red Lorry")
    assert among.classes[1].id != lorry.id
    assert among.classes[1].colour != lorry.colour
    assert alone.convention.num_classes == lorry.id + 1


def test_texts_that_come_to_the_same_id_get_two():
    texts = tuple(f"thing {index}" for index in range(200))
    classes = vocabulary(texts).classes
    assert len({one.id for one in classes}) == 200
    assert all(17 < one.id < UNLABELLED for one in classes)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (("car", "Car"), "every text must stand there once"),
        (tuple(f"thing {index}" for index in range(238)), "238 texts; ids allow for 237"),
    ],
)
def test_texts_that_cannot_be_told_apart_are_refused(texts, words):
    with pytest.raises(ConfigError, match=words):
        vocabulary(texts)


@pytest.mark.parametrize("texts", [("",), ("  ",), ("car", "car"), ("a" * 81,)])
def test_settings_refuse_what_is_no_text(texts):
    with pytest.raises(ConfigError, match=r"labels\.classes .* different texts of 1 to 80"):
        LabelsConfig(classes=texts)


# --- pipelines ----------------------------------------------------------------------------------
def test_classes_that_are_not_asked_for_have_no_label():
    model = probed_model(ROAD)
    asked = predict(model, [surround()], street_config(labels__classes=["road", "car"]))
    assert (asked.labels == ROAD).all()
    assert [one.name for one in asked.classes] == ["driveable_surface", "car"]
    other = predict(model, [surround()], street_config(labels__classes=["car"]))
    assert (other.labels == UNLABELLED).all()
    assert (other.grid.labels == UNLABELLED).all()


class Filling:
    """A mask decoder that answers with the whole box."""

    def masks_from_boxes(self, features, boxes):
        side = features.fine.shape[-1]
        centre = (torch.arange(side) + 0.5) / side
        left, top, right, bottom = boxes[..., None].unbind(dim=2)
        rows, columns = (centre > top) & (centre < bottom), (centre > left) & (centre < right)
        return (rows[..., None] & columns[..., None, :]).float() * 8 - 4


def with_models(labeller, **models):
    labeller.models = dataclasses.replace(labeller.models, **models)
    return labeller


@pytest.mark.parametrize("texts", [("car", "sky"), ("car", "other")])
def test_cells_are_other_only_where_that_was_asked_for(texts):
    """A probe that sees the sky everywhere: its cells are nothing that was asked for."""
    scene = predict(
        probed_model(SemanticClass.FREE), [surround()], street_config(labels__classes=list(texts))
    )
    found = set(scene.grid.labels[scene.grid.occupied].tolist())
    assert found == {UNLABELLED}


def test_the_probe_finds_boxes_and_the_decoder_is_asked_for_what_is_in_them():
    config = street_config(labels__pipeline="distilled")
    model = probed_model(CAR)
    labeller = with_models(Labeller(model, config.labels), prompter=Filling())
    scene = Stream(model, config, labeller).add(surround())
    assert [len(found.scores) for found in scene.objects] == [1, 1, 1]
    assert (scene.labels == CAR).all()
    assert (scene.grid.labels[scene.grid.occupied & ~scene.grid.completed] == CAR).mean() > 0.9


class Seeing:
    """A detector with an answer for every picture, and a count of what it was asked."""

    def __init__(self, *boxes, label=CAR, score=0.9):
        self.boxes, self.label, self.score = torch.tensor(boxes), label, score
        self.asked = []

    def check(self, prompts):
        assert prompts.texts

    def detect(self, rgb, prompts):
        self.asked.append((len(rgb), prompts.texts))
        number = len(self.boxes)
        scores, labels = torch.full((number,), self.score), torch.full((number,), self.label)
        return [Detections(self.boxes, scores, labels) for _ in rgb]


def seeing_stream(detector, **changes):
    config = street_config(labels__pipeline="distilled", **changes)
    model = probed_model(CAR)
    labeller = Labeller(model, config.labels)
    with_models(labeller, probe_detector=None, detector=detector, prompter=Filling())
    return Stream(model, config, labeller)


def test_boxes_of_a_detector_are_where_it_saw_them():
    scene = seeing_stream(Seeing([0.0, 0.5, 0.5, 1.0])).add(surround())
    height, width = scene.labels.shape[1:]
    inside = scene.labels[:, height // 2 + 2 :, : width // 2 - 2]
    assert (inside == CAR).all()
    assert (scene.labels == CAR).mean() == pytest.approx(0.25, abs=0.03)
    assert (scene.labels[:, : height // 2 - 2] == UNLABELLED).all()


def test_weak_boxes_sky_and_other_are_dropped():
    for changes in ({"score": 0.05}, {"label": FREE}, {"label": SemanticClass.OTHER}):
        scene = seeing_stream(Seeing([0.0, 0.0, 1.0, 1.0], **changes)).add(surround())
        assert (scene.labels == UNLABELLED).all()


def test_pictures_are_looked_at_once_and_again_when_something_else_is_asked():
    detector = Seeing([0.0, 0.0, 1.0, 1.0])
    stream = seeing_stream(detector, window__view_sets=3, labels__classes=["car"])
    for views in sequence(3):
        scene = stream.add(views)
    assert detector.asked == [(1, ("car",))] * 3
    assert (scene.labels == CAR).all()
    stream.config = from_flat({"labels.classes": ["bus"]}, stream.config)
    stream.add(sequence(4)[-1])
    assert detector.asked[3:] == [(1, ("bus",))] * 3  # the new set, and the two that stay


def test_a_view_that_was_not_looked_at_stays_without_labels():
    stream = seeing_stream(Seeing([0.0, 0.0, 1.0, 1.0]))
    unseen = Stream(stream.model, stream.config, stream.labeller, looks=lambda encoded: encoded)
    scene = unseen.add(surround())
    assert (scene.labels == UNLABELLED).all()
    assert (scene.grid.labels == UNLABELLED).all()


def test_pictures_without_any_object_are_labelled_as_nothing():
    detector = Seeing()
    detector.boxes = torch.zeros(0, 4)
    assert (seeing_stream(detector).add(surround()).labels == UNLABELLED).all()


def test_boxes_of_one_class_and_score_are_one_object_but_answers_of_sam3_stay_apart():
    masks = torch.zeros(2, 4, 6, dtype=torch.bool)
    masks[0, :, :2], masks[1, :, 4:] = True, True
    pair = LabelledMasks(masks, torch.tensor([0.5, 0.5]), torch.tensor([int(CAR), int(CAR)]))
    plain = LabelsConfig(pipeline="distilled")
    labeller = with_models(Labeller(probed_model(CAR), plain), probe_detector=None)
    counts = []
    for config in (
        plain,
        dataclasses.replace(plain, merge=False),
        dataclasses.replace(plain, pipeline="sam3"),
    ):
        labels = labeller.label([], [Look(objects=pair)], (4, 6), config)
        counts.append(len(labels.objects[0].scores))
        assert labels.pixels[0, 0].tolist() == [CAR, CAR, UNLABELLED, UNLABELLED, CAR, CAR]
    assert counts == [1, 2, 2]


@pytest.mark.parametrize(
    ("model", "changes", "error", "words"),
    [
        (small_street_model, {"pipeline": "distilled"}, ConfigError, "have no class probe"),
        (lambda: probed_model(0), {"pipeline": "sam3"}, ConfigError, r"set labels\.sam3"),
        (lambda: probed_model(0), {"pipeline": "pretrained"}, ConfigError, r"set labels\.sam2"),
        (
            lambda: probed_model(0),
            {"pipeline": "distilled", "detector": "no/such/folder"},
            CheckpointError,
            "no/such/folder.*occany download grounding-dino-base",
        ),
        (
            lambda: probed_model(0),
            {"classes": ["a red lorry"]},
            ConfigError,
            "'a red lorry', which is none of the classes",
        ),
    ],
)
def test_what_cannot_be_served_is_said_in_a_sentence(model, changes, error, words):
    with pytest.raises(error, match=words) as caught:
        Labeller(model(), LabelsConfig(**changes))
    assert "\n" not in str(caught.value)


def test_masks_of_the_bundled_weights_agree_with_their_probe():
    truth = next(scenes("surround", 1))
    model, sets = load_model("default"), view_sets(truth)
    probed, masked = (
        predict(model, sets, from_flat({"runtime.device": "cpu", "labels.pipeline": pipeline}))
        for pipeline in ("classes", "distilled")
    )
    known = (masked.labels != UNLABELLED) & (probed.labels != FREE)
    assert known.mean() > 0.3
    assert (masked.labels == probed.labels)[known].mean() > 0.7
    assert sum(len(found.scores) for found in masked.objects) > 20


# --- tracking into rendered views ---------------------------------------------------------------
class Shifting:
    """A tracker that moves every mask one column to the right with each view."""

    def __init__(self):
        self.calls = []

    def propagate(self, observed, masks, others):
        self.calls.append((observed.coarse.flatten()[0].item(), len(others)))
        moved = [masks.roll(step, dims=-1) for step in range(len(others) + 1)]
        return torch.stack(moved).float() * 8 - 4


def features(values):
    """Levels of as many views, each filled with its value; the fine level has 8 columns."""
    values = torch.tensor(values, dtype=torch.float32)[:, None, None, None]
    return [values.expand(-1, 1, side, side) for side in (2, 4, 8)]


def rendered_labels(owner, wanted, chunk, objects):
    rules = TrackingRules(
        torch.tensor(owner), torch.tensor(wanted), chunk, 0.15, ClassTable(18, 0, 17)
    )
    pixels = torch.full((len(objects), 8, 8), UNLABELLED, dtype=torch.uint8)
    tracker = Shifting()
    views = PromptableFeatures(*features(range(len(objects))))
    return RenderedLabels(tracker, views, ViewLabels(pixels, objects), rules), tracker


def column(index, label, score):
    masks = torch.zeros(1, 8, 8, dtype=torch.bool)
    masks[:, :, index] = True
    return LabelledMasks(masks, torch.tensor([score]), torch.tensor([label]))


def points_of(view):
    return ViewPoints(torch.full((8, 8, 3), float(view)), torch.ones(8, 8), torch.zeros(3))


def test_views_of_one_owner_are_tracked_together_and_anew_in_every_chunk():
    owner, wanted = [0, 0, 0, 1, 1, 1, 0], [True, True, True, True, False, True, True]
    objects = (column(2, CAR, 0.5), column(5, ROAD, 0.5))
    labels, tracker = rendered_labels(owner, wanted, 2, objects)
    done = []
    for start, end in ((0, 3), (3, 6), (6, 7)):
        views = range(start, end)
        done += labels.add(start, [points_of(view) for view in views], features(views))
    assert tracker.calls == [(0.0, 2), (1.0, 2), (0.0, 2)]
    assert [int(one.points.points[0, 0, 0]) for one in done] == [0, 1, 3, 5, 2, 6]
    columns = [int((one.pixels[0] != UNLABELLED).nonzero()[0, 0]) for one in done]
    assert columns == [3, 4, 6, 7, 3, 4]  # one step for each view since the owner
    assert [int(one.pixels.amin()) for one in done] == [CAR, CAR, ROAD, ROAD, CAR, CAR]
    assert (labels.pixels[0, :, 2] == CAR).all()
    assert (labels.pixels[1, :, 5] == ROAD).all()


def test_weak_objects_are_painted_where_they_were_seen_and_not_where_they_are_tracked():
    labels, _ = rendered_labels([0], [True], 4, (column(2, CAR, 0.1),))
    (done,) = labels.add(0, [points_of(0)], features([7]))
    assert (done.pixels == UNLABELLED).all()
    assert (labels.pixels[0, :, 2] == CAR).all()


def test_owners_without_objects_are_not_tracked():
    nothing = column(0, CAR, 0.5)[torch.zeros(0, dtype=torch.long)]
    labels, tracker = rendered_labels([0, 0], [True, True], 4, (nothing,))
    assert list(labels.add(0, [points_of(0), points_of(1)], features([1, 2]))) == []
    assert tracker.calls == []


def test_which_rendered_views_are_wanted():
    unturned = torch.tensor([True, False])
    assert wanted_views("all", unturned).tolist() == [True, True]
    assert wanted_views("unturned", unturned).tolist() == [True, False]
    assert wanted_views("none", unturned).tolist() == [False, False]
