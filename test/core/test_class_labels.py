# SPDX-License-Identifier: Apache-2.0
"""Classes of pixels and cells: where they come from, where there are none, and that they fit."""

import dataclasses

import numpy as np
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
from occany_core.config import OccAnyConfig, from_flat
from occany_core.errors import ConfigError
from occany_core.evaluation.scene_scores import SceneScores
from occany_core.evaluation.synthocc import judged_labels, view_sets
from occany_core.semantics.cell_labels import CellLabels
from occany_core.semantics.class_probe import classes_of_logits, known_classes
from occany_core.semantics.class_prompts import UNLABELLED, vocabulary
from occany_core.synthetic.classes import SemanticClass
from occany_core.synthetic.synthocc import scenes
from occany_core.voxels import ViewPoints, VoxelGrid, VoxelGridSpec, fuse

SIDEWALK, OTHER, FREE = SemanticClass.SIDEWALK, SemanticClass.OTHER, SemanticClass.FREE


def label_cells(views, pixels, grid, min_confidence):
    config = OccAnyConfig().voxels
    config = dataclasses.replace(
        config,
        origin=grid.spec.origin,
        resolution=grid.spec.resolution,
        shape=grid.spec.shape,
    )
    cells = CellLabels(config, vocabulary().convention)
    cells.add(views, pixels, min_confidence)
    return cells.labelled(grid)


def test_the_classes_of_the_weights_are_those_of_the_streets():
    known = known_classes(probed_model(SIDEWALK))
    assert [one.id for one in known] == [int(one) for one in SemanticClass]
    assert [one.name for one in known] == [one.name.lower() for one in SemanticClass]
    assert len({one.colour for one in known}) == len(known)


@pytest.mark.parametrize("steps", [0, 1])
def test_pixels_and_the_cells_they_see_are_labelled_and_nothing_else(steps):
    config = street_config(novel_views__steps=steps)
    scene = Stream(probed_model(SIDEWALK), config).add(surround())
    assert scene.labels.shape == scene.observed.confidence.shape
    assert (scene.labels == SIDEWALK).all()
    assert scene.classes[SIDEWALK].name == "sidewalk"
    labels, grid = scene.grid.labels, scene.grid
    assert labels.dtype == np.uint8
    assert set(np.unique(labels)) == {SIDEWALK, UNLABELLED}
    assert (labels[~grid.occupied] == UNLABELLED).all()
    assert (labels[grid.occupied & ~grid.completed] == SIDEWALK).mean() > 0.9
    assert scene.timings["labels"] > 0


def test_cells_with_points_of_sky_only_are_other():
    scene = predict(probed_model(FREE), sequence(1), street_config())
    assert (scene.labels == FREE).all()
    assert set(np.unique(scene.grid.labels)) == {OTHER, UNLABELLED}


@pytest.mark.parametrize(
    ("model", "changes"),
    [(small_street_model, {}), (lambda: probed_model(SIDEWALK), {"labels__use": False})],
)
def test_weights_without_a_probe_and_the_setting_give_no_labels(model, changes):
    scene = predict(model(), [surround()], street_config(**changes))
    assert scene.labels is None
    assert scene.grid.labels is None
    assert scene.classes == ()


def test_weights_with_unknown_classes_are_refused_with_the_way_out():
    model = probed_model(0, classes=5)
    with pytest.raises(ConfigError, match=r"name 5 classes.* 18 of .*; set labels\.use to false"):
        predict(model, sequence(1), street_config())
    assert predict(model, sequence(1), street_config(labels__use=False)).labels is None


def test_classes_of_logits_keep_their_place():
    logits = torch.zeros(1, 18, 8, 8)
    logits[0, SemanticClass.CAR, :, :4] = 1
    logits[0, SemanticClass.TERRAIN, :, 4:] = 1
    pixels = classes_of_logits(logits, (16, 32))
    assert (pixels[0, :, :14] == SemanticClass.CAR).all()
    assert (pixels[0, :, 18:] == SemanticClass.TERRAIN).all()


def test_cells_take_the_class_of_their_own_confident_points():
    spec = VoxelGridSpec((0.0, 0.0, 0.0), 1.0, (8, 1, 1))
    x = torch.tensor([[0.5, 2.5, 2.5, 4.5, 6.5]])
    view = ViewPoints(
        torch.stack((x, torch.full_like(x, 0.5), torch.full_like(x, 0.5)), dim=-1),
        torch.tensor([[3.0, 2.0, 4.0, 1.05, 3.0]]),
        torch.zeros(3),
    )
    car, bus = SemanticClass.CAR, SemanticClass.BUS
    pixels = torch.tensor([[[car, car, bus, car, UNLABELLED]]], dtype=torch.uint8)
    probability = np.full(spec.shape, -1, np.int8)
    probability[[0, 2, 4, 6]] = 100
    grid = VoxelGrid(spec, probability, np.zeros(spec.shape, bool))
    labels = label_cells([view], pixels, grid, 1.1).labels[:, 0, 0]
    assert labels.tolist() == [car, 255, bus, 255, 255, 255, 255, 255]


def test_cells_in_filled_gaps_take_the_class_of_the_pixels_beside_them():
    """Far ground skips cells from row to row; what fills them is ground of the same class."""
    road = SemanticClass.DRIVEABLE_SURFACE
    distance = torch.tensor([8.0, 5.0, 3.6])
    points = torch.zeros(3, 3, 3)
    points[..., 0] = distance[:, None]
    points[..., 1] = torch.tensor([-0.2, 0.0, 0.2])
    points[..., 2] = -1.6
    view = ViewPoints(points, torch.full((3, 3), 3.0), torch.tensor([0.0, 0.0, 0.0]))
    config = street_config(voxels__carve_free=False, voxels__ground_tolerance=0.0).voxels
    grid = fuse([view], [], dataclasses.replace(config, origin=(-2.0, -8.0, -2.0)))
    pixels = torch.full((1, 3, 3), road, dtype=torch.uint8)
    labels = label_cells([view], pixels, grid, 1.1).labels
    assert grid.occupied.sum() > 3 * len(distance)
    assert (labels[grid.occupied] == road).all()
    assert (labels[~grid.occupied] == UNLABELLED).all()
    pixels[:] = FREE  # sky beside the gaps votes for nothing
    labels = label_cells([view], pixels, grid, 1.1).labels
    assert (labels[grid.occupied] == OTHER).all()


def test_cells_without_points_take_the_commonest_class_around_them():
    spec = VoxelGridSpec((0.0, 0.0, 0.0), 1.0, (9, 3, 1))
    car, bus = SemanticClass.CAR, SemanticClass.BUS
    places = torch.tensor([[0.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 2.0, 0.0]])[None]
    view = ViewPoints(places, torch.full((1, 3), 3.0), torch.zeros(3))
    probability = np.full(spec.shape, 100, np.int8)
    probability[2, 0] = 0  # free: never labelled
    completed = np.zeros(spec.shape, bool)
    completed[1:] = True
    grid = VoxelGrid(spec, probability, completed)
    pixels = torch.tensor([[[bus, car, car]]], dtype=torch.uint8)
    labels = label_cells([view], pixels, grid, 1.1).labels[:, :, 0]
    assert labels[0].tolist() == [bus, car, car]
    assert labels[1].tolist() == [bus, car, car]  # on a tie the lower id
    assert labels[2].tolist() == [UNLABELLED, car, car]
    assert labels[4, 2] == car
    assert (labels[6:] == UNLABELLED).all()  # too far away to tell


def test_the_bundled_weights_know_more_than_the_commonest_classes():
    truth = next(scenes("surround", 1))
    scene = predict(load_model("default"), view_sets(truth), from_flat({"runtime.device": "cpu"}))
    observed = scene.grid.occupied & ~scene.grid.completed
    assert (scene.grid.labels[observed] != UNLABELLED).mean() > 0.95
    assert (scene.labels[:, :8] == FREE).mean() > 0.5  # what is up there is sky

    def mean_iou(labels):
        scores = SceneScores()
        scores.add_classes(judged_labels(dataclasses.replace(scene.grid, labels=labels)), truth)
        return scores.summary()["mean_iou"]

    constants = [SemanticClass.DRIVEABLE_SURFACE, SemanticClass.TERRAIN, SemanticClass.MANMADE]
    guesses = [mean_iou(np.full_like(scene.grid.labels, one)) for one in constants]
    assert mean_iou(scene.grid.labels) > 1.3 * max(guesses)
