# SPDX-License-Identifier: Apache-2.0
"""Training: losses are right and masked, batches are learnt by heart, killed runs go on to the
same weights, rendering leaves the reconstruction alone, recipes are configuration."""

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_networks import tiny_config
from training_worlds import (
    CPU,
    FROM_SCRATCH,
    HEIGHT,
    WIDTH,
    pack,
    pool,
    recipe,
    released_like,
    rendering,
    stage,
    supply,
    write_folder,
)

from occany_core.errors import CheckpointError, ConfigError, InputError
from occany_core.network import OccAnyNetwork
from occany_core.training import loop
from occany_core.training.batches import BatchSampler, Targets
from occany_core.training.journal import depth_sheet
from occany_core.training.learner import Learner
from occany_core.training.loop import Training
from occany_core.training.losses import depth_scores, ground_loss, point_loss
from occany_core.training.objectives.pointmaps import PointmapPrediction
from occany_core.training.overrides import with_overrides
from occany_core.training.recipe import Draw, Objective, Optimiser, Phase
from occany_core.training.recipes import NOVEL_PARTS, RECIPES
from occany_core.training.start import has_prior, set_prior

PAIR = Draw(kind="sequence", views=(2, 2))


def a_batch(novel: str = "none", draw: Draw = PAIR, scenes: int = 2, block: int = 4):
    one = stage(1, (draw,)) if novel == "none" else rendering(1, (draw,), novel)
    per_scene = draw.views[1] + (2 if novel == "nearby" else 0)
    what = recipe(one, views_per_step=scenes * per_scene)
    return BatchSampler(pool(pack(block)), what, CPU).draw_kind(
        draw, one, np.random.default_rng(0)
    )


# --- losses -------------------------------------------------------------------------------------

LOG = dataclasses.replace(FROM_SCRATCH, sky=0.0, plain=0.0)
METRIC = Objective(forcing=0.0)


def perfect(targets: Targets, confidence: float = 2.0) -> PointmapPrediction:
    return PointmapPrediction(
        targets.points_world.clone(),
        targets.points_cam.clone(),
        torch.full(targets.valid.shape, confidence),
    )


def moved(predicted: PointmapPrediction, **shift: float) -> PointmapPrediction:
    return dataclasses.replace(
        predicted, **{name: getattr(predicted, name) + metres for name, metres in shift.items()}
    )


@pytest.mark.parametrize("objective", [LOG, METRIC], ids=["log", "metric"])
def test_a_perfect_prediction_has_no_error(objective):
    targets = a_batch().observed
    loss = point_loss(perfect(targets), targets, objective, is_rig=False)
    assert loss.world_error < 1e-5 and loss.camera_error < 1e-5
    relative, close = depth_scores(targets.points_cam[..., 2], targets)
    assert relative < 1e-6 and close == 1


@pytest.mark.parametrize("objective", [LOG, METRIC], ids=["log", "metric"])
def test_sparse_supervision_gives_the_gradient_of_dense_supervision_where_masks_agree(objective):
    """What stands in pixels without truth, even NaN, must not matter; pixels count equally."""
    targets = a_batch().observed
    kept = targets.valid & (torch.rand(targets.valid.shape) < 0.3)
    hole = ~kept[..., None]
    sparse = dataclasses.replace(
        targets,
        valid=kept,
        points_world=targets.points_world.masked_fill(hole, torch.nan),
        points_cam=targets.points_cam.masked_fill(hole, torch.nan),
    )
    dense = dataclasses.replace(targets, valid=kept)
    gradients = []
    for truth in (sparse, dense):
        off = moved(perfect(targets), points_reference=0.4, points_cam=-0.3)
        for leaf in vars(off).values():
            leaf.requires_grad_()
        point_loss(off, truth, objective, is_rig=False).total.backward()
        gradients.append([leaf.grad for leaf in vars(off).values()])
    scale = 1.0 if objective is LOG else None
    for one, other in zip(*gradients):
        assert one.isfinite().all() and one.abs().sum() > 0
        assert (one[~kept] == 0).all()
        if scale:
            torch.testing.assert_close(one, other)
    if objective is METRIC:  # the scale of a scene is the mean over its valid pixels
        for one, other in zip(*gradients):
            torch.testing.assert_close(one, other)


def test_confidence_pays_where_the_error_is_small_and_costs_where_it_is_large():
    targets = a_batch().observed

    def total(metres: float, confidence: float) -> float:
        off = moved(perfect(targets, confidence), points_reference=metres, points_cam=metres)
        return point_loss(off, targets, LOG, is_rig=False).total.item()

    assert total(0.01, 8.0) < total(0.01, 1.1)
    assert total(20.0, 8.0) > total(20.0, 1.1)


def test_the_sky_pushes_confidence_down():
    targets = a_batch().observed
    only_sky = dataclasses.replace(
        targets, valid=torch.zeros_like(targets.valid), sky=torch.ones_like(targets.sky)
    )
    predicted = perfect(targets)
    predicted.confidence.requires_grad_()
    objective = dataclasses.replace(LOG, sky=1.0)
    point_loss(predicted, only_sky, objective, is_rig=False).total.backward()
    assert (predicted.confidence.grad > 0).all()


def seen_steeper(batch, slope: torch.Tensor) -> torch.Tensor:
    """True points (B, V, h, w, 3) moved on their rays: height over range grows by `slope`."""
    points = batch.observed.points_cam
    height = batch.cameras.rig_from_cam[:, :, None, None, 2, 3]
    range_ = points.norm(dim=-1).clamp_min(0.3)
    return points * (1 / (1 + slope * range_ / height))[..., None]


def test_a_tilt_of_all_ground_costs_more_than_errors_that_pixels_do_not_share():
    batch = a_batch(draw=Draw(kind="surround"), scenes=2)
    in_rig = batch.observed.points_cam @ batch.cameras.rig_from_cam[:, :, None, :3, :3].transpose(
        -1, -2
    )
    aside = torch.nn.functional.normalize(in_rig[..., :2], dim=-1)[..., 1]
    assert batch.observed.ground.sum() > 200
    tilted = 0.002 * aside
    alone = tilted * torch.randint(
        0, 2, tilted.shape, generator=torch.Generator().manual_seed(0)
    ).mul(2).sub(1)
    costs = [
        float(ground_loss(seen_steeper(batch, slope), batch.observed, batch.cameras))
        for slope in (torch.zeros_like(tilted), alone, tilted, 2 * tilted)
    ]
    assert costs[0] < 1e-6
    assert costs[1] * 4 < costs[2] < costs[3] / 2
    other = torch.where(batch.observed.ground, 0.0, 0.01)
    assert ground_loss(seen_steeper(batch, other), batch.observed, batch.cameras) < 1e-6


def test_ground_of_cameras_that_nobody_knows_costs_nothing():
    batch = a_batch()
    unknown = dataclasses.replace(batch.cameras, is_known=torch.zeros_like(batch.cameras.is_known))
    points = batch.observed.points_cam * 2
    points.requires_grad_()
    loss = ground_loss(points, batch.observed, unknown)
    loss.backward()
    assert loss == 0 and (points.grad == 0).all()


def test_the_reference_frame_of_rigs_has_a_weight_of_its_own():
    targets = a_batch().observed
    for rig_weight, is_ignored in ((0.0, True), (0.5, False)):
        objective = dataclasses.replace(LOG, rig_reference=rig_weight)
        good, bad = (
            point_loss(
                moved(perfect(targets), points_reference=m), targets, objective, is_rig=True
            )
            for m in (0.0, 3.0)
        )
        assert torch.equal(good.total, bad.total) is is_ignored
        assert bad.world_error > good.world_error


# --- network and losses together ----------------------------------------------------------------

CASES = [
    ("convolutional", "none", 4),
    ("convolutional", "nearby", 4),
    ("patch", "none", 1),
    ("patch", "none", 4),
    ("patch", "held_out", 1),
]


def a_learner(kind: str, novel: str, teacher=None, **weights) -> Learner:
    torch.manual_seed(0)
    one = stage(1) if novel == "none" else rendering(1, (PAIR,), novel)
    if kind == "patch":
        what = released_like(one, forcing=1.0 if teacher else 0.0)
    else:
        what = recipe(one, objective=dataclasses.replace(FROM_SCRATCH, **weights))
    network = OccAnyNetwork(what.network)
    if has_prior(network):
        set_prior(network, pool())
    return Learner(network, what, one, teacher)


@pytest.mark.parametrize(("kind", "novel", "block"), CASES)
def test_a_small_network_learns_a_batch_by_heart(kind, novel, block):
    """Both point heads, both stages, depth once per pixel and once per block."""
    learner = a_learner(kind, novel)
    batch = a_batch(novel, scenes=1, block=block)
    optimizer = torch.optim.Adam(learner.parameters(), lr=4e-3, betas=(0.9, 0.98))
    errors = []
    for _ in range(240 if kind == "patch" else 50):  # it has no mean scene to start from
        terms = learner(batch)
        optimizer.zero_grad()
        terms.total.backward()
        optimizer.step()
        errors.append(float(terms.camera_error + terms.world_error))
    assert np.mean(errors[-5:]) < 0.6 * errors[0], errors


def colours(images, targets):
    """A teacher that every picture determines: its colours, in three sizes."""
    del targets
    flat = images.flatten(0, 1).mean(dim=1, keepdim=True)
    sizes = ((16, 4), (8, 8), (4, 16))
    return tuple(
        torch.nn.functional.interpolate(flat, (s, s))
        .expand(-1, c, -1, -1)
        .unflatten(0, images.shape[:2])
        for c, s in sizes
    )


def test_segmentation_forcing_reaches_the_head_and_never_the_confidence():
    batch = a_batch(block=1)
    with_teacher, without = a_learner("patch", "none", colours), a_learner("patch", "none")
    for learner in (with_teacher, without):
        learner.network.load_state_dict(without.network.state_dict())
    terms, plain = with_teacher(batch), without(batch)
    torch.testing.assert_close(terms.total, plain.total + terms.forcing)
    assert terms.forcing > 0 == plain.forcing
    gradients = []
    for learner, found in ((with_teacher, terms), (without, plain)):
        found.total.backward()
        gradients.append(learner.network.heads.points.proj.bias.grad.view(7, -1)[6])
    torch.testing.assert_close(*gradients)
    assert with_teacher.network.heads.segmentation.proj.fc1.weight.grad.abs().sum() > 0
    assert without.network.heads.segmentation.proj.fc1.weight.grad is None


def test_the_recipe_says_how_geometry_weighs_forcing():
    """Unweighted, forcing does not see the confidence, here 8 times as high everywhere."""
    batch = a_batch(block=1)
    found = {}
    for weighting in ("plain", "none"):
        for logit in (0.0, math.log(15.0)):
            learner = a_learner("patch", "none", colours)
            learner.objective = dataclasses.replace(learner.objective, forcing_weighting=weighting)
            last = learner.network.heads.points.proj
            with torch.no_grad():
                last.weight.view(7, -1, last.in_features)[6] = 0
                last.bias.view(7, -1)[6] = logit  # confidence 2 and 16
            found[weighting, logit > 0] = learner(batch).forcing
    torch.testing.assert_close(found["none", True], found["none", False])
    torch.testing.assert_close(found["plain", False], 2 * found["none", False])
    torch.testing.assert_close(found["plain", True], 8 * found["plain", False])


def test_forcing_without_a_teacher_or_a_head_is_refused():
    with pytest.raises(ConfigError, match=r"needs a segmentation teacher.*objective\.forcing=0"):
        Learner(
            OccAnyNetwork(tiny_config("patch")), released_like(stage(1), forcing=1.0), stage(1)
        )
    with pytest.raises(ConfigError, match=r"needs network\.segmentation_dims"):
        a_learner("convolutional", "none", colours, forcing=1.0)


def test_distillation_compares_held_out_pictures_and_leaves_the_encoder_alone():
    learner = a_learner("patch", "held_out")
    terms = learner(a_batch("held_out", block=1))
    assert terms.distillation > 0
    learner.zero_grad()
    learner(a_batch("held_out", block=1)).total.backward()
    assert learner.network.encoder.stem.proj.weight.grad is None
    assert learner.network.novel_view_encoder.merge.weight.grad.abs().sum() > 0


def test_both_passes_are_compared_where_the_recipe_says_so():
    batch = a_batch()
    gradients = []
    for both in (False, True):
        learner = a_learner("convolutional", "none", both_passes=both)
        learner(batch).total.backward()
        gradients.append(learner.network.heads.points.out.weight.grad)
    assert not torch.allclose(*gradients)


def test_bfloat16_is_close_and_losses_stay_float32():
    batch, totals = a_batch(), []
    for dtype in ("float32", "bfloat16"):
        learner = a_learner("convolutional", "none")
        learner.dtype = dtype
        terms = learner(batch)
        assert terms.total.dtype == terms.depth.dtype == torch.float32
        totals.append(terms.total.item())
    assert totals[0] != totals[1]
    assert totals[1] == pytest.approx(totals[0], rel=0.02)


def test_the_prior_is_the_mean_of_the_scenes():
    network = OccAnyNetwork(tiny_config("convolutional"))
    set_prior(network, pool())
    prior = network.heads.points.prior_for(HEIGHT // 4, WIDTH // 4)[0]
    depth = prior[2].numpy()
    assert depth[-1].mean() < depth[HEIGHT // 8].mean(), "the ground is near below"
    assert (prior[0, :, 0] < 0).all() and (prior[0, :, -1] > 0).all()
    assert torch.equal(network.novel_view_heads.points.prior, network.heads.points.prior)


# --- runs ---------------------------------------------------------------------------------------


def assert_same(one, other, where: str = "state") -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_same(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), where
        for index, pair in enumerate(zip(one, other)):
            assert_same(*pair, f"{where}.{index}")
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    else:
        assert one == other, where


BOTH = recipe(stage(4), rendering(3))


def finished(folder, what=BOTH, stops: tuple[int, ...] = ()) -> Training:
    """Run to the end, as often interrupted as there are stops (steps in all)."""
    for steps in stops:
        training = Training(what, supply(folder), folder)
        while training.progress.steps < steps:
            training.step()
            if training.passed >= 1:
                training._finish_stage()
        training.save()
    training = Training(what, supply(folder), folder)
    training.run()
    return training


def test_an_interrupted_run_equals_an_uninterrupted_one_bit_by_bit(tmp_path):
    once = finished(tmp_path / "once")
    often = finished(tmp_path / "often", stops=(1, 3, 4, 5))
    assert often.progress.steps == once.progress.steps == 7
    assert often.progress.views == once.progress.views
    assert_same(often.network.state_dict(), once.network.state_dict())
    again = Training(BOTH, supply(tmp_path), tmp_path / "once")
    assert again.is_finished
    assert_same(again.network.state_dict(), once.network.state_dict())


def test_a_state_holds_optimiser_and_average(tmp_path):
    training = Training(BOTH, supply(tmp_path), tmp_path)
    for _ in range(3):
        training.step()
    training.save()
    resumed = Training(BOTH, supply(tmp_path), tmp_path)
    assert_same(resumed.optimizer.state_dict(), training.optimizer.state_dict())
    assert len(training.optimizer.state_dict()["state"]) > 0
    assert_same(resumed.average.values, training.average.values)
    for name, value in training.average.values.items():
        now = training.network.get_parameter(name)
        assert not torch.equal(value, now) or now.abs().max() == 0, name


def test_frozen_parts_have_no_gradient_no_average_and_no_state_of_the_optimiser(tmp_path):
    frozen = stage(1, (PAIR,), trained=("decoder.", "heads."))
    what = dataclasses.replace(released_like(frozen), optimiser=Optimiser(average=0.9))
    training = Training(what, supply(tmp_path, pack(1)), tmp_path)
    names = {name for name, one in training.network.named_parameters() if one.requires_grad}
    assert names and all(name.startswith(("decoder.", "heads.")) for name in names)
    training.wrapped(training._next_batch(0)).total.backward()
    having = {n for n, one in training.network.named_parameters() if one.grad is not None}
    training.step()
    assert having == names == training.average.values.keys()
    states = training.optimizer.state.keys()
    assert {id(one) for one in states} == {id(training.network.get_parameter(n)) for n in names}


PROGRAM = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from occany_core.training import loop
from training_worlds import recipe, stage, supply
loop.CHECKPOINT_SECONDS = 0.0
folder = Path(sys.argv[1])
loop.Training(recipe(stage(200)), supply(folder), folder).run()
"""


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_weights(tmp_path):
    def start(folder):
        path = os.pathsep.join(sys.path)
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(folder)], env=os.environ | {"PYTHONPATH": path}
        )

    killed = start(tmp_path / "killed")
    state = tmp_path / "killed" / "state.pt"
    deadline = time.monotonic() + 120
    while not state.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1.0)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    steps = torch.load(state, weights_only=True)["progress"]["steps"]
    assert 0 < steps < 200, "it must be killed in the middle"
    assert start(tmp_path / "killed").wait() == 0
    assert start(tmp_path / "whole").wait() == 0
    one, other = (
        torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("killed", "whole")
    )
    assert one["progress"]["steps"] == 200
    assert_same(one["weights"], other["weights"])


@pytest.mark.parametrize("kind", ["tiny", "released"])
def test_rendering_starts_from_the_reconstruction_and_leaves_it_alone(kind, tmp_path):
    pair = (PAIR,)
    if kind == "tiny":
        what = recipe(stage(2, pair), rendering(3, pair))
    else:
        frozen = stage(2, pair, trained=("decoder.", "heads."))
        what = released_like(frozen, rendering(3, pair, "held_out"))
    training = Training(what, supply(tmp_path), tmp_path)
    before = training.network.state_dict()
    encoder = {n: v.clone() for n, v in before.items() if n.startswith("encoder.")}
    for _ in range(2):
        training.step()
    changed = not all(torch.equal(training.network.state_dict()[n], v) for n, v in encoder.items())
    assert changed is (kind == "tiny")
    training._finish_stage()
    start = {name: value.clone() for name, value in training.network.state_dict().items()}
    for name, value in training.network.decoder.state_dict().items():
        copied = start.get(f"novel_view_decoder.{name}")
        assert copied is None or torch.equal(copied, value), name
    training.run()
    result = training.network.state_dict()
    changed = {name for name in start if not torch.equal(start[name], result[name])}
    assert changed and all(name.startswith(NOVEL_PARTS) for name in changed)
    assert not any(name.startswith("novel_view_heads.pose.") for name in changed)


def test_every_parameter_that_learns_gets_a_gradient(tmp_path):
    """Otherwise several processes would wait for each other's missing gradients."""
    pair = (PAIR,)
    runs = {
        "tiny": recipe(stage(9, pair)),
        "tiny rendering": recipe(rendering(9, pair)),
        "released": released_like(stage(9, pair, trained=("decoder.", "heads."))),
        "released rendering": released_like(rendering(9, pair, "held_out")),
    }
    for name, what in runs.items():
        training = Training(what, supply(tmp_path), tmp_path / name)
        training.wrapped(training._next_batch(0)).total.backward()
        parameters = training.network.named_parameters()
        idle = [n for n, p in parameters if p.requires_grad and p.grad is None]
        assert idle == [], name


def test_accumulated_batches_are_one_step(tmp_path):
    doubled = dataclasses.replace(FROM_SCRATCH, sky=0.0)
    settings = dataclasses.replace(recipe(stage(3)).optimiser, accumulation=2)
    training = Training(
        recipe(stage(3), optimiser=settings, objective=doubled), supply(tmp_path), tmp_path
    )
    drawn = []
    draw = training.sampler.draw
    training.sampler.draw = lambda turn: drawn.append(turn.number) or draw(turn)
    training.run()
    assert drawn == [0, 1, 2, 3, 4, 5]
    assert training.progress.steps == 3


def test_a_step_without_a_finite_gradient_changes_nothing_and_is_counted(tmp_path):
    training = Training(recipe(stage(9)), supply(tmp_path, most_errors=1), tmp_path)
    before = {n: v.clone() for n, v in training.network.state_dict().items()}
    training.network.heads.points.out.register_forward_hook(lambda *_: _[-1] * math.nan)
    training.step()
    assert training.faults.spent == 1
    assert_same(dict(training.network.state_dict()), before)
    with pytest.raises(InputError, match="step 2: gradient nan; samples"):
        training.step()


def test_rates_rise_then_fall(tmp_path):
    settings = dataclasses.replace(recipe(stage(1)).optimiser, warmup=0.25, lowest_rate=1e-5)
    training = Training(recipe(stage(8), optimiser=settings), supply(tmp_path), tmp_path)
    rates = []
    for _ in range(8):
        rates.append(training.rate())
        training.step()
    assert rates[0] == 0 and rates[2] == pytest.approx(1e-3)
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert training.rate() == pytest.approx(1e-5)


def test_a_run_stops_when_told_and_says_what_it_did(tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "REPORT_SECONDS", 0.0)
    monkeypatch.setattr(loop, "VALIDATE_SECONDS", 0.0)
    what = recipe(dataclasses.replace(stage(1), steps=0, minutes=1.0))
    training = Training(what, supply(tmp_path), tmp_path)
    lines = []
    training.run(stop_after=0.0, tell=lines.append)
    assert not training.is_finished
    assert training.progress.steps == 1
    assert "views/s" in lines[0] and "left" in lines[0] and "waiting for data" in lines[0]
    entries = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert entries[0]["total"] > 0 and entries[0]["views"] == training.progress.views
    assert entries[1]["validation/surround_abs_rel"] > 0
    shown = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert shown == {
        f"reconstruction_{kind}_0000001.png" for kind in ("single", "sequence", "surround")
    }
    assert training.summary()["steps"] == 1
    assert Training(what, supply(tmp_path), tmp_path).progress.stage_seconds > 0


def test_phases_follow_each_other(tmp_path):
    first, second = Phase(until=0.5, draws=(Draw(kind="single"),)), Phase(draws=(PAIR,))
    one = dataclasses.replace(stage(4), phases=(first, second))
    training = Training(recipe(one), supply(tmp_path), tmp_path)
    views = []
    for _ in range(4):
        views.append(training._next_batch(0).images.shape[1])
        training.step()
    assert views == [1, 1, 2, 2]


def test_folders_of_other_recipes_and_damaged_states_are_refused(tmp_path):
    finished(tmp_path, recipe(stage(1)))
    with pytest.raises(ConfigError, match="run of the recipe test, not other"):
        Training(recipe(stage(1), name="other"), supply(tmp_path), tmp_path)
    (tmp_path / "state.pt").write_bytes(b"broken")
    with pytest.raises(CheckpointError, match="no state of a run"):
        Training(recipe(stage(1)), supply(tmp_path), tmp_path)


def test_a_depth_sheet_shows_picture_prediction_and_truth():
    batch = a_batch()
    learner = a_learner("convolutional", "none")
    terms = learner(batch)
    truth = terms._replace(depth=batch.observed.points_cam[..., 2])
    sheet = depth_sheet(batch, truth)
    rows, columns = HEIGHT // 4, 2 * WIDTH // 4
    assert sheet.shape == (3 * rows, columns, 3)
    np.testing.assert_array_equal(sheet[rows : 2 * rows], sheet[2 * rows :])
    assert (depth_sheet(batch, terms)[rows : 2 * rows] != sheet[2 * rows :]).any()
    picture = np.asarray(
        Image.fromarray(((batch.images[0, 0] + 1) * 127.5).byte().permute(1, 2, 0).numpy()).resize(
            (columns // 2, rows)
        )
    )
    assert np.abs(sheet[:rows, : columns // 2].astype(int) - picture).mean() < 3


# --- recipes ------------------------------------------------------------------------------------


def test_named_recipes_differ_as_they_should():
    tiny, released, paper = (RECIPES[name]() for name in ("tiny", "released", "paper"))
    for what in (tiny, released, paper):
        assert [one.renders for one in what.stages][-2:] == [False, True]
        assert what.objective.rig_reference > 0
    assert (
        released.network.encoder.width == 1024 and released.network.novel_view_encoder.depth == 0
    )
    assert paper.network.novel_view_encoder.depth == 6
    for what in (released, paper):
        assert not any("encoder.stem.proj.weight".startswith(s.trained) for s in what.stages)
        assert what.network.point_activation == what.network.point_head == "linear"
        assert {s.peak_rate for s in what.stages} == {7e-5}
        assert what.optimiser.lowest_rate == 1e-6
        assert what.objective.distillation == 1
    assert paper.stages[0].phases[0].draws[0].kind == "sequence"
    assert [draw.kind for draw in paper.stages[0].phases[1].draws] == ["sequence", "surround"]
    assert tiny.block == 4 and released.block == 1


def test_single_values_can_be_set():
    what = with_overrides(
        RECIPES["tiny"](),
        [
            "stages.0.minutes=5",
            "objective.pose=0",
            "picture=[144, 256]",
            "network.encoder.depth=3",
        ],
    )
    assert what.stages[0].minutes == 5.0 and what.stages[1] == RECIPES["tiny"]().stages[1]
    assert what.objective.pose == 0.0
    assert what.picture == (144, 256)
    assert what.network.encoder.depth == 3
    assert with_overrides(what, ["network.segmentation_dims=[8, 4, 2]"]).network.segmentation_dims


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("objective.pose", "has no '='"),
        ("objective.poes=1", "did you mean pose"),
        ("stages.7.steps=1", "'7' among 3 entries"),
        ("seed.x=1", "nothing stands below"),
        ("seed=1.5", "must be of type int"),
        ("objective.space=cubic", "one of log, metric"),
        ("picture=[144]", "must be of type"),
        ("picture=[100, 256]", "multiples of 16"),
        ("seed=[", "not valid YAML"),
    ],
)
def test_values_that_cannot_be_are_refused(text, message):
    with pytest.raises(ConfigError, match=message):
        with_overrides(RECIPES["tiny"](), [text])


def test_the_command_trains_from_a_folder_and_writes_weights(tmp_path):
    from occany_core.checkpoints import load_model
    from occany_core.cli.main import main

    write_folder(tmp_path / "data")
    words = ["train", "tiny", "-o", str(tmp_path / "run"), "--data", str(tmp_path / "data")]
    sizes = [f"picture=[{HEIGHT}, {WIDTH}]", "views_per_step=4", "network.encoder.depth=1"]
    words += [word for size in sizes for word in ("--set", size)]
    assert main([*words, "--steps", "2", "--stop-after", "0", "--device", "cpu"]) in (0, None)
    assert not (tmp_path / "run" / "tiny.safetensors").exists()
    assert main([*words, "--steps", "2", "--device", "cpu"]) in (0, None)
    model = load_model(tmp_path / "run" / "tiny.safetensors", "cpu")
    assert model.card["training"]["steps"] == 6
    assert model.network.config.encoder.depth == 1
