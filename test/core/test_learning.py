# SPDX-License-Identifier: Apache-2.0
"""A minute of training from scratch teaches something about streets that were never seen.

`OCCANY_BROKEN_LOSSES=1` trains with the broken losses below as well, and expects that each fails;
half a minute each. Measured with 500 steps, on one core of an x86 machine (2026-11-22):

                intact, seeds 0 1 2   must be   the broken loss that comes closest
    camera      0.77  0.79  0.80      < 0.89    1.00 no camera error
    world       0.60  0.61  0.61      < 0.80    1.00 no reference error
    picture     0.88  0.89  0.91      < 0.96    1.00 targets of another sample
    motion      1.14  1.12  1.13      < 1.19    1.25 targets without poses
    told_apart  0.93  0.94  0.91      > 0.86    0.81 no sky (0.92 sign of the confidence term)
    surfaces    1.50  1.52  1.50      > 1.25    1.00 sign of the confidence term

This is little: most of what 500 steps find is a better mean scene than the one they start from,
and a network that sees the pictures of other streets has that as well (camera 0.81, world 0.62).
Only `picture` shows that pictures are read, and by about a tenth of the error.
"""

import dataclasses
import os
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from training_worlds import CPU, FROM_SCRATCH, RECONSTRUCTION, Draw, pool

from occany_core.network import TransformerDims
from occany_core.network import tiny as tiny_network
from occany_core.training import learner, losses
from occany_core.training.batches import Batch, BatchSampler
from occany_core.training.loop import Training
from occany_core.training.pack import Pack, pack_sample
from occany_core.training.recipe import Optimiser, Phase, Recipe, Stage
from occany_core.training.supply import HELD_BACK_SEED, Supply
from occany_core.training.workers import StreetRenderer

HEIGHT, WIDTH = 48, 64
BLOCK = 4
STREETS, HELD_BACK_STREETS = 24, 12
STEPS, VIEWS = 500, 6
COMPARED_VIEWS = 120
SINGLE, PAIR = Draw(kind="single"), Draw(kind="sequence", views=(2, 2))


# --- the run ------------------------------------------------------------------------------------


def streets(first_seed: int, count: int) -> Pack:
    """Render so many usable streets."""
    render = StreetRenderer.for_picture(HEIGHT, WIDTH)
    packs, seed = [], first_seed
    while len(packs) < count:
        if (sample := render(seed)) is not None:
            packs.append(pack_sample(sample, HEIGHT, WIDTH, BLOCK))
        seed += 1
    return Pack.joined(packs)


@pytest.fixture(scope="module")
def worlds() -> tuple[Pack, Pack]:
    """Streets to learn, and others to be asked about."""
    return streets(0, STREETS), streets(HELD_BACK_SEED, HELD_BACK_STREETS)


def small_recipe() -> Recipe:
    """The shipped weights' losses and architecture, a third as wide, told no cameras."""
    network = dataclasses.replace(
        tiny_network(),
        encoder=TransformerDims(width=64, depth=2, heads=2),
        decoder=TransformerDims(width=64, depth=1, heads=2),
        novel_view_encoder=None,
        segmentation_dims=None,
        prompt_classes=None,
        conditioning_levels=(),
        calibration=False,
        picture_width=WIDTH,
    )
    stage = Stage(
        name="reconstruction",
        steps=STEPS,
        peak_rate=2e-3,
        phases=(Phase(draws=(SINGLE, PAIR)),),
        trained=RECONSTRUCTION,
    )
    return Recipe(
        name="learning",
        network=network,
        picture=(HEIGHT, WIDTH),
        views_per_step=VIEWS,
        stages=(stage,),
        objective=FROM_SCRATCH,
        optimiser=Optimiser(clip=1.0, average=0.98),
    )


def held_back(training: Training) -> dict[str, Batch]:
    """One large batch of every kind."""
    recipe = dataclasses.replace(training.recipe, views_per_step=COMPARED_VIEWS)
    sampler = BatchSampler(training.supply.held_back, recipe, CPU)
    return {
        draw.kind: sampler.draw_kind(draw, training.stage, np.random.default_rng(1))
        for draw in (SINGLE, PAIR)
    }


@torch.no_grad()
def confidence(training: Training, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Confidence of surfaces, and of the sky."""
    network = training.network
    tokens = network.encode(batch.images)
    maps = network.render(tokens, network.update_memory(tokens)).confidence
    maps = maps[..., BLOCK // 2 :: BLOCK, BLOCK // 2 :: BLOCK]
    return maps[batch.observed.valid], maps[batch.observed.sky]


@torch.no_grad()
def asked(training: Training) -> SimpleNamespace:
    """Ask the averaged weights about the held-back streets.

    Errors are `L_loc` and `L_glo` [log-metres] of single views, of the same views with the
    pictures of others, and of pairs of the front camera; surfaces is their mean confidence, and
    told_apart the probability that a surface has a higher one than the sky.
    """
    batches = held_back(training)
    with training.average.in_use():
        training.wrapped.eval()
        single, pair = (training.wrapped(batches[draw.kind]) for draw in (SINGLE, PAIR))
        of_others = dataclasses.replace(
            batches["single"], images=batches["single"].images.roll(1, 0)
        )
        surfaces, sky = confidence(training, batches["single"])
        return SimpleNamespace(
            single_camera=float(single.camera_error),
            single_camera_of_other_pictures=float(training.wrapped(of_others).camera_error),
            pair_camera=float(pair.camera_error),
            pair_world=float(pair.world_error),
            surfaces=float(surfaces.mean()),
            told_apart=float((surfaces[::7, None] > sky[None, ::7]).float().mean()),
        )


def findings(before: SimpleNamespace, after: SimpleNamespace) -> dict[str, tuple[float, bool]]:
    """What was measured, and whether it shows that something was learnt."""
    camera = after.single_camera / before.single_camera
    world = after.pair_world / before.pair_world
    picture = after.single_camera / after.single_camera_of_other_pictures
    motion = after.pair_world / after.pair_camera
    return {
        "camera": (camera, camera < 0.89),
        "world": (world, world < 0.80),
        "picture": (picture, picture < 0.96),
        "motion": (motion, motion < 1.19),
        "told_apart": (after.told_apart, after.told_apart > 0.86),
        "surfaces": (after.surfaces, after.surfaces > 1.25),
    }


# --- broken losses ------------------------------------------------------------------------------


def changed_targets(change):
    """Let training see other targets; validation draws its batches differently."""
    draw = BatchSampler.draw

    def drawn(self, turn):
        batch = draw(self, turn)
        return dataclasses.replace(batch, observed=change(batch.observed))

    return BatchSampler, "draw", drawn


def changed_total(factor: float):
    forward = learner.Learner.forward

    def changed(self, batch):
        terms = forward(self, batch)
        return terms._replace(total=terms.total * factor) if self.training else terms

    return learner.Learner, "forward", changed


def changed_objective(**values):
    def changed(predicted, targets, objective, *, is_rig):
        objective = dataclasses.replace(objective, **values)
        return losses.point_loss(predicted, targets, objective, is_rig=is_rig)

    return learner, "point_loss", changed


def of_another_sample(targets):
    names = ("points_world", "points_cam", "valid", "sky")
    rolled = {name: getattr(targets, name).roll(1, 0) for name in names}
    return dataclasses.replace(targets, **rolled)


def without_poses(targets):
    return dataclasses.replace(targets, points_world=targets.points_cam)


def inverted_confidence(error, confidence, alpha):
    return confidence * error + alpha * confidence.log()


BROKEN = {
    "sign of the loss": lambda: changed_total(-1.0),
    "gradient to nothing": lambda: changed_total(0.0),
    "sign of the confidence term": lambda: (losses, "with_confidence", inverted_confidence),
    "no camera error": lambda: changed_objective(local=0.0),
    "no reference error": lambda: changed_objective(reference=0.0),
    "no sky": lambda: changed_objective(sky=0.0),
    "targets of another sample": lambda: changed_targets(of_another_sample),
    "targets without poses": lambda: changed_targets(without_poses),
}
WANTED = [None, *(BROKEN if os.environ.get("OCCANY_BROKEN_LOSSES") else ())]


@pytest.mark.slow
@pytest.mark.parametrize("broken", WANTED)
def test_a_minute_of_training_teaches_streets(broken, worlds, tmp_path, monkeypatch):
    if broken is not None:
        monkeypatch.setattr(*BROKEN[broken]())
    supply = Supply(*map(pool, worlds), tmp_path)
    training = Training(small_recipe(), supply, tmp_path)
    before = asked(training)
    while training.passed < 1:
        training.step()
    found = findings(before, asked(training))
    assert all(is_good for _, is_good in found.values()) is (broken is None), found
