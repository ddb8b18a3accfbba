# SPDX-License-Identifier: Apache-2.0
"""Training of promptable features: labels follow the pictures, the teacher agrees between views,
masks and classes are learnt without moving the trunk, and existing weights can be built on."""

import dataclasses
import functools
import json

import numpy as np
import pytest
import torch
from test_training import assert_same
from tiny_networks import tiny_config
from training_worlds import (
    CPU,
    FROM_SCRATCH,
    MIXED,
    pack,
    pool,
    recipe,
    rendering,
    samples,
    stage,
    supply,
    write_folder,
)

from occany_core import rigid
from occany_core.errors import ConfigError, InputError
from occany_core.network import NetworkConfig, OccAnyNetwork
from occany_core.synthetic.teacher import SeenViews, field
from occany_core.training.batches import BatchSampler
from occany_core.training.learner import Learner
from occany_core.training.loop import Training
from occany_core.training.mask_losses import MaskLossSettings
from occany_core.training.pack import read_shard, write_shard
from occany_core.training.prompts import PromptSettings
from occany_core.training.recipe import Draw, Recipe
from occany_core.training.recipes import RECIPES, SEGMENTATION_PARTS
from occany_core.training.segmentation import StreetFeatures, chosen_teacher
from occany_core.training.start import Start, has_prior, learns, set_prior, start_from

PAIR = Draw(kind="sequence", views=(2, 2))
PROMPTS = PromptSettings(number=4, least_cells=4)
JOINT = ("encoder.", "decoder.", "heads.", "prompt_decoder.", "class_probe.")


def network_config() -> NetworkConfig:
    return dataclasses.replace(
        tiny_config("convolutional"),
        segmentation_dims=(32, 16, 8),
        segmentation_size=64,
        prompt_classes=18,
    )


def segmentation_stage(steps: int, draws=MIXED, trained=SEGMENTATION_PARTS):
    return stage(steps, draws, name="segmentation", trained=trained)


def forcing_recipe(*stages, forcing: float = 0.1, **changes) -> Recipe:
    objective = dataclasses.replace(
        FROM_SCRATCH, forcing=forcing, teacher="streets", prompts=PROMPTS
    )
    values = {"network": network_config(), "objective": objective, "views_per_step": 4}
    return recipe(*stages, **(values | changes))


@functools.cache
def labelled():
    return pack(with_labels=True)


def a_batch(draw: Draw = PAIR, seed: int = 0, scenes: int = 2):
    one = segmentation_stage(1, (draw,))
    views = scenes * (6 if draw.kind == "surround" else draw.views[1])
    sampler = BatchSampler(pool(labelled()), forcing_recipe(one, views_per_step=views), CPU)
    return sampler.draw_kind(draw, one, np.random.default_rng(seed))


def a_learner(trained, **changes) -> Learner:
    torch.manual_seed(0)
    one = segmentation_stage(1, (PAIR,), trained)
    what = forcing_recipe(one, **changes)
    network = OccAnyNetwork(what.network)
    if has_prior(network):
        set_prior(network, pool())
    return Learner(network, what, one, chosen_teacher(what, CPU))


# --- labels -------------------------------------------------------------------------------------


def test_packed_labels_are_those_of_the_rendered_pixels():
    """Instances have other numbers, and still the same outlines, centres and neighbours."""
    for index, sample in enumerate(samples()):
        part = {name: array[index] for name, array in labelled().parts().items()}
        rows, columns = part["semantics"].shape[1:]
        step = sample.semantics.shape[1] // rows
        near = [
            sample.instance[:, row::step, column::step][:, :rows, :columns]
            for row in range(step)
            for column in range(step)
        ]
        # The one pixel of each block that the labels were taken from.
        picked = max(near, key=lambda one: np.mean((one > 0) == (part["instance"] > 0)))
        seen = part["instance"] > 0
        assert (picked[seen] > 0).all()
        pairs = np.unique(np.stack((picked[seen], part["instance"][seen])), axis=1)
        assert len(set(pairs[0])) == len(set(pairs[1])) == pairs.shape[1]
        np.testing.assert_allclose(
            part["centres"][:, pairs[1]], sample.centres[:, pairs[0]], rtol=1e-3, atol=1e-3
        )
        cells = np.bincount(part["instance"].ravel(), minlength=256)[1:]
        assert (np.diff(cells) <= 0).all(), "most seen first"
        length = np.linalg.norm(part["normal"].astype(float), axis=-1) / 127
        assert ((length < 0.01) | (np.abs(length - 1) < 0.02)).all()
        assert ((length < 0.01) == (part["semantics"] == 17)).all(), "only the sky has none"


def test_more_instances_than_there_is_room_for_become_ground(monkeypatch):
    from occany_core.training import pack as packing

    monkeypatch.setattr(packing, "MOST_INSTANCES", 3)
    few = packing.pack_sample(samples()[0], 32, 48, 4, with_labels=True)
    assert few.instance.max() == 3 and few.centres.shape[2] == 4
    kept = labelled().instance[0].copy()
    kept[kept > 3] = 0
    np.testing.assert_array_equal(few.instance[0], kept)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_labels_follow_the_pictures_also_when_mirrored(seed):
    """Centres and normals are in the frame of the first observed view."""
    batch, mirrored = a_batch(PAIR, seed, scenes=6), set()
    labels = batch.observed.labels
    poses = torch.from_numpy(labelled().reference_from_cam)
    for scene, sample in enumerate(batch.samples):
        ids = torch.from_numpy(labelled().instance[sample]).long()
        candidates = [
            (first, flip)
            for first in range(14)
            for flip in (False, True)
            if torch.equal(ids[first].flip(-1) if flip else ids[first], labels.instance[scene, 0])
        ]
        assert len(candidates) == 1
        view, flip = candidates[0]
        mirrored.add(flip)
        sign = torch.tensor([-1.0 if flip else 1.0, 1.0, 1.0])
        first_from_sample = torch.linalg.inv(poses[sample, view])
        centres = torch.from_numpy(labelled().centres[sample, view]).float()
        torch.testing.assert_close(
            labels.centres[scene, 0], rigid.apply(first_from_sample, centres) * sign
        )
        normal = torch.from_numpy(labelled().normal[sample, view]).float() / 127
        normal = (normal @ first_from_sample[:3, :3].T) * sign
        semantics = torch.from_numpy(labelled().semantics[sample, view]).long()
        if flip:
            normal, semantics = normal.flip(-2), semantics.flip(-1)
        torch.testing.assert_close(labels.normal[scene, 0], normal)
        assert torch.equal(labels.semantics[scene, 0], semantics)
    assert mirrored == {False, True}


def test_surfaces_are_where_their_labels_say():
    """Points of an instance lie around its centre, and the ground's normal points up."""
    batch = a_batch(Draw(kind="surround"))
    targets, labels = batch.observed, batch.observed.labels
    points = targets.points_world
    instance = labels.instance[..., ::2, ::2]
    scene, view = torch.meshgrid(*map(torch.arange, instance.shape[:2]), indexing="ij")
    centre = labels.centres[scene[..., None, None], view[..., None, None], instance]
    inside = (instance > 0) & targets.valid
    away = (points - centre).norm(dim=-1)[inside] / points.norm(dim=-1)[inside]
    assert away.median() < 0.5
    is_road = (labels.semantics == 11)[..., ::2, ::2] & targets.valid
    normals = labels.normal[..., ::2, ::2, :][is_road]
    assert (normals[:, 1] < -0.8).float().mean() > 0.95, "y of the first camera points down"


def test_the_teacher_says_the_same_of_an_instance_in_all_views():
    batch = a_batch(Draw(kind="surround"))
    labels = batch.observed.labels
    flat = {name: values.flatten(0, 1) for name, values in vars(labels).items()}
    rgb = torch.zeros(*flat["semantics"].shape, 3)
    codes = field(SeenViews(rgb=rgb, **flat))[:, 15:27].unflatten(0, labels.instance.shape[:2])
    shared = 0
    for instance in labels.instance[0].unique().tolist()[1:]:
        where = labels.instance[0] == instance
        values = codes[0].movedim(1, -1)[where]
        torch.testing.assert_close(values, values[:1].expand_as(values))
        shared += int(where.flatten(1).any(dim=1).sum() > 1)
    assert shared > 0


def test_shards_without_labels_serve_where_none_are_needed(tmp_path):
    write_shard(pack(), tmp_path / "shard_000000")
    assert not read_shard(tmp_path / "shard_000000").has_labels
    assert len(pool(read_shard(tmp_path / "shard_000000"))) == 4
    needing = pool(labelled())
    with pytest.raises(InputError, match=r"old has no labels.*another folder.*forcing=0"):
        needing.add(pack(), "old")
    write_shard(labelled(), tmp_path / "shard_000001")
    (tmp_path / "shard_000001" / "normal.npy").unlink()
    with pytest.raises(InputError, match="shard_000001 cannot be read"):
        read_shard(tmp_path / "shard_000001")


# --- learning -----------------------------------------------------------------------------------


def test_features_masks_and_classes_are_learnt_by_heart():
    """On a frozen trunk, as the confidence that weighs the features would rise meanwhile."""
    learner, batch = a_learner(SEGMENTATION_PARTS), a_batch()
    trained = [
        p for n, p in learner.network.named_parameters() if n.startswith(SEGMENTATION_PARTS)
    ]
    learner.requires_grad_(False)
    for parameter in trained:
        parameter.requires_grad_(True)
    optimizer = torch.optim.Adam(trained, lr=1e-2)
    before = validated(learner, batch)
    for step in range(40):
        terms = learner.train()(dataclasses.replace(batch, seed=step))
        optimizer.zero_grad()
        terms.total.backward()
        optimizer.step()
    after = validated(learner, batch)
    assert after.forcing < 0.75 * before.forcing
    assert after.prompting < 0.87 * before.prompting
    assert after.class_accuracy > before.class_accuracy + 0.2
    assert after.camera_error == before.camera_error


@torch.no_grad()
def validated(learner: Learner, batch):
    return learner.eval()(batch)


def test_masks_and_classes_do_not_move_the_features_they_are_asked_of():
    prompts_alone = a_learner(JOINT, forcing=0.0)
    without = a_learner(("encoder.", "decoder.", "heads."), forcing=0.0)
    without.network.load_state_dict(prompts_alone.network.state_dict())
    batch, gradients = a_batch(), []
    for learner in (prompts_alone, without):
        terms = learner.train()(batch)
        terms.total.backward()
        gradients.append({n: p.grad for n, p in learner.network.named_parameters()})
    assert terms.prompting == 0
    asked, plain = gradients
    for name, gradient in plain.items():
        if name.startswith(("prompt_decoder.", "class_probe.")):
            assert gradient is None and asked[name].abs().sum() >= 0
        elif gradient is None:
            assert asked[name] is None, name
        else:
            assert torch.equal(asked[name], gradient), name
    assert asked["class_probe.fine.weight"].abs().sum() > 0
    assert asked["prompt_decoder.mask.fc2.weight"].abs().sum() > 0


def test_without_forcing_features_learn_only_where_masks_shape_them():
    stage = segmentation_stage(2, (PAIR,))
    for shaped in (False, True):
        recipe = forcing_recipe(stage)
        masks = MaskLossSettings(shapes_features=shaped)
        objective = dataclasses.replace(recipe.objective, forcing=0.0, masks=masks)
        recipe = dataclasses.replace(recipe, objective=objective)
        assert learns("heads.segmentation.proj.fc1.weight", stage, recipe) is shaped
        assert learns("prompt_decoder.mask.fc2.weight", stage, recipe)


def test_prompts_depend_on_the_batch_alone_and_validation_asks_the_student_only():
    learner, batch = a_learner(JOINT), a_batch()
    with torch.no_grad():
        one, again = (learner.train()(batch) for _ in range(2))
        other = learner(dataclasses.replace(batch, seed=batch.seed + 1))
        assert torch.equal(one.prompting, again.prompting)
        assert not torch.equal(one.prompting, other.prompting)
        learner.eval()
        before = learner(batch).prompting
        learner.teacher = lambda images, targets: tuple(
            torch.full_like(level, 9.0) for level in teacher(images, targets)
        )
        teacher = StreetFeatures(network_config(), CPU)
        assert torch.equal(learner(batch).prompting, before)


def test_terms_without_weight_are_left_out(tmp_path):
    for off, silent in (
        ({"focal": 0.0, "dice": 0.0, "quality": 0.0}, "prompt_decoder."),
        ({"classes": 0.0}, "class_probe."),
    ):
        one = segmentation_stage(2, (PAIR,))
        what = forcing_recipe(one)
        objective = dataclasses.replace(what.objective, masks=MaskLossSettings(**off))
        what = dataclasses.replace(what, objective=objective)
        training = Training(
            what,
            supply(tmp_path, labelled()),
            tmp_path / silent,
            teacher=chosen_teacher(what, CPU),
        )
        trained = [n for n, p in training.network.named_parameters() if p.requires_grad]
        assert trained and not any(name.startswith(silent) for name in trained)
        training.wrapped(training._next_batch(0)).total.backward()
        idle = [
            n for n, p in training.network.named_parameters() if p.requires_grad and p.grad is None
        ]
        assert idle == []
    nothing = dataclasses.replace(
        what.objective, forcing=0.0, masks=MaskLossSettings(focal=0, dice=0, quality=0, classes=0)
    )
    assert not dataclasses.replace(what, objective=nothing).needs_labels
    assert chosen_teacher(dataclasses.replace(what, objective=nothing), CPU) is None


def test_a_stage_without_anything_to_learn_is_refused_at_once(tmp_path):
    what = forcing_recipe(stage(1), segmentation_stage(1), forcing=0.0)
    what = dataclasses.replace(what, network=tiny_config("convolutional"))
    with pytest.raises(ConfigError, match=r"stage segmentation trains nothing.*--stages"):
        Training(what, supply(tmp_path), tmp_path)


def test_teachers_are_chosen_by_name():
    what = forcing_recipe(segmentation_stage(1))
    assert isinstance(chosen_teacher(what, CPU), StreetFeatures)
    released = RECIPES["released"]()
    with pytest.raises(ConfigError, match=r"stage reconstruction needs.*teacher=streets.*SAM2"):
        chosen_teacher(released, CPU)
    assert chosen_teacher(dataclasses.replace(released, stages=(rendering(1),)), CPU) is None, (
        "nearby views have no pictures"
    )


# --- runs ---------------------------------------------------------------------------------------


def finished(folder, what: Recipe, stops: tuple[int, ...] = (), weights=None) -> Training:
    teacher = chosen_teacher(what, CPU)

    def training() -> Training:
        start = Start(weights)
        return Training(what, supply(folder, labelled()), folder, None, teacher, start)

    for steps in stops:
        part = training()
        while part.progress.steps < steps:
            part.step()
        assert part.validate()["sequence_mask_iou"] > 0
        part.save()
    whole = training()
    whole.run()
    return whole


def test_an_interrupted_run_equals_an_uninterrupted_one(tmp_path):
    what = forcing_recipe(segmentation_stage(3, (PAIR,), JOINT), rendering(1, (PAIR,)))
    once = finished(tmp_path / "once", what)
    often = finished(tmp_path / "often", what, stops=(2,))
    assert_same(often.network.state_dict(), once.network.state_dict())


def test_heads_learn_on_a_frozen_trunk_from_weights_without_them(tmp_path):
    """What the weights could do stays as it was; what is new is named."""
    torch.manual_seed(1)
    old = OccAnyNetwork(tiny_config("convolutional"))
    what = forcing_recipe(segmentation_stage(2))
    training = finished(tmp_path, what, weights=old.state_dict())
    levels = [f"novel_view_encoder.tokenizers.{name}" for name in ("coarse", "fine", "middle")]
    heads = [
        f"{which}.{part}"
        for which in ("heads", "novel_view_heads")
        for part in ("segmentation", "segmentation_token")
    ]
    assert sorted(training.new_parts) == sorted(["class_probe", *heads, *levels, "prompt_decoder"])
    new, known = training.network.state_dict(), old.state_dict()
    merge = "novel_view_encoder.merge.weight"
    for name in known:
        if name != merge:
            assert torch.equal(new[name], known[name]), name
    width = known[merge].shape[1]
    assert torch.equal(new[merge][:, :width], known[merge])
    assert not new[merge][:, width:].any()
    projected, features = torch.rand(1, 1, 10, 32, 48), torch.randn(1, 1, 56, 32, 48)
    with torch.no_grad():
        plain = old.tokenize(projected)
        wider = training.network.tokenize(torch.cat((projected, features), dim=2))
    torch.testing.assert_close(plain, wider)


def test_conditioning_on_some_levels_only():
    config = dataclasses.replace(network_config(), conditioning_levels=("coarse", "fine"))
    assert NetworkConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    network = OccAnyNetwork(config)
    assert list(network.novel_view_encoder.tokenizers)[-2:] == ["coarse", "fine"]
    coarse, middle, fine = (torch.zeros(1, 1, n, 1, 1) for n in (32, 16, 8))
    assert [one.shape[2] for one in network.conditioning((coarse, middle, fine))] == [32, 8]
    assert network.conditioning(()) == ()
    with pytest.raises(ConfigError, match="in this order"):
        dataclasses.replace(config, conditioning_levels=("fine", "coarse"))


def test_weights_that_have_no_place_are_refused_and_other_shapes_start_anew():
    network = OccAnyNetwork(tiny_config("convolutional"))
    weights = OccAnyNetwork(network_config()).state_dict()
    with pytest.raises(ConfigError, match=r"no place for \d+ of the weights.*class_probe"):
        start_from(network, weights)
    own = {name: value.clone() for name, value in network.state_dict().items()}
    odd = {name: value + 1 for name, value in own.items()}
    odd["heads.pose.fc2.weight"] = torch.zeros(3, 3)
    assert start_from(network, odd) == ("heads.pose.fc2.weight",)
    assert torch.equal(network.state_dict()["heads.pose.fc2.weight"], own["heads.pose.fc2.weight"])
    assert torch.equal(network.state_dict()["heads.pose.fc2.bias"], odd["heads.pose.fc2.bias"])


def test_the_command_adds_heads_to_weights_and_predict_uses_them(tmp_path, capsys):
    from small_model import SMALL, save_small_model, write_pictures

    from occany_core.checkpoints import load_model
    from occany_core.cli.main import main

    start = save_small_model(tmp_path)
    write_folder(tmp_path / "data")
    values = [
        "picture=[32, 48]", "views_per_step=2", "network.modality_width=8",
        "network.segmentation_dims=[16, 8, 4]", "network.segmentation_size=64",
        "network.picture_width=48", "network.calibration=false", "objective.forcing=0.5",
        "objective.prompts.number=2",
    ]  # fmt: skip
    for part in ("encoder", "decoder", "novel_view_encoder"):
        values += [
            f"network.{part}.width=32",
            f"network.{part}.depth=1",
            f"network.{part}.heads=2",
        ]
    words = ["train", "tiny", "-o", str(tmp_path / "run"), "--data", str(tmp_path / "data")]
    words += ["--init", str(start), "--steps", "2", "--device", "cpu"]
    words += [word for value in values for word in ("--set", value)]
    assert main([*words, "--stages", "segmentation"]) in (0, None)
    said = capsys.readouterr().out
    assert "random.safetensors, so new: class_probe, heads.segmentation," in said
    weights = tmp_path / "run" / "tiny.safetensors"
    model = load_model(weights, "cpu")
    assert model.network.config.prompt_classes == 18
    assert model.card["training"]["steps"] == 2
    pictures = write_pictures(tmp_path / "pictures", 2)
    words = ["predict", str(pictures), "-o", str(tmp_path / "out"), "--model", str(weights)]
    assert main([*words, *(w for s in SMALL for w in ("--set", s))]) in (0, None)
    assert main(["train", "tiny", "-o", str(tmp_path / "x"), "--stages", "rest"]) == 1
    assert "has reconstruction, segmentation, rendering" in capsys.readouterr().err
