# SPDX-License-Identifier: Apache-2.0
"""Ablations: variants differ in one thing, a folder is filled once, and the report says what is
known; networks without task tokens; the card as a page; curves of a run."""

import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_networks import tiny_config
from training_worlds import HEIGHT, WIDTH, write_folder

from occany_core.checkpoints import load_model, save_model
from occany_core.cli import ablations
from occany_core.cli.ablation_report import Report, markdown, table
from occany_core.cli.main import main
from occany_core.cli.training_curves import charts_of
from occany_core.errors import InputError
from occany_core.evaluation import score_table
from occany_core.network import NetworkConfig, OccAnyNetwork
from occany_core.picture.charts import BarChart, Line, LineChart, compose_charts
from occany_core.synthetic import synthocc
from occany_core.training.ablations import variants, with_minutes
from occany_core.training.journal import LOG, read_log
from occany_core.training.overrides import with_overrides
from occany_core.training.recipes import RECIPES

SMALL = (
    f"picture=[{HEIGHT}, {WIDTH}]",
    "views_per_step=4",
    "network.encoder.width=32",
    "network.decoder.width=32",
    "network.encoder.depth=1",
    "network.novel_view_encoder.width=32",
    "network.picture_width=48",
)


def by_name(recipe):
    return {one.name: one for one in variants(recipe)}


# --- variants -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", RECIPES)
def test_every_variant_is_a_recipe_that_differs_from_the_one_it_is_compared_with(name):
    recipe = RECIPES[name]()
    found = by_name(recipe)
    for variant in found.values():
        own = with_overrides(recipe, variant.changes)
        reference = with_overrides(recipe, found[variant.against].changes)
        is_run = variant.weights_of is None and not variant.no_difference
        if is_run and variant.name != variant.against:
            assert own != reference, variant.name
        names = list(found)
        assert names.index(variant.against) <= names.index(variant.name)


def test_each_variant_changes_what_it_says():
    recipe = with_overrides(RECIPES["tiny"](), ["objective.forcing=0.5"])
    made = {name: with_overrides(recipe, one.changes) for name, one in by_name(recipe).items()}
    assert made["no_forcing"].objective.forcing == 0
    assert made["no_geometry_weighting"].objective.forcing_weighting == "none"
    assert made["no_geometry_weighting"].objective.forcing == 0.5
    assert not made["no_task_tokens"].network.task_tokens
    assert made["other_seed"].seed == recipe.seed + 1
    with_pictures, without = made["held_out_views"], made["no_distillation"]
    assert with_pictures.objective.distillation > 0 == without.objective.distillation
    assert with_pictures.stages == without.stages
    assert with_pictures.stages[-1].novel == "held_out"
    kinds = {draw.kind for phase in without.stages[-1].phases for draw in phase.draws}
    assert kinds == {"sequence", "surround"}, "no view of a single picture can be held out"


def test_variants_without_an_effect_say_so():
    silent = by_name(with_overrides(RECIPES["tiny"](), ["objective.forcing=0"]))
    for name in ("no_forcing", "no_geometry_weighting"):
        assert "objective.forcing is 0" in silent[name].no_difference
        assert not by_name(RECIPES["released"]())[name].no_difference
    assert by_name(RECIPES["released"]())["no_distillation"].against == "full"


@pytest.mark.parametrize("name", RECIPES)
def test_stages_share_the_minutes_as_before(name):
    recipe = RECIPES[name]()
    shortened = with_overrides(recipe, with_minutes(recipe, 12.0))
    lengths = np.array([stage.steps or stage.minutes for stage in recipe.stages])
    found = np.array([stage.minutes for stage in shortened.stages])
    np.testing.assert_allclose(found, 12 * lengths / lengths.sum(), rtol=1e-3)
    assert all(stage.steps == 0 for stage in shortened.stages)


# --- task tokens --------------------------------------------------------------------------------


@pytest.mark.parametrize("stem", ["patch", "convolutional"])
def test_a_network_without_task_tokens_is_one_whose_tokens_are_zero(stem, tmp_path):
    config = tiny_config(stem)
    torch.manual_seed(0)
    full = OccAnyNetwork(config).eval()
    without = OccAnyNetwork(dataclasses.replace(config, task_tokens=False)).eval()
    tokens = [name for name in full.state_dict() if name.endswith("_token")]
    tokens = [name for name in tokens if "heads." in name]
    assert len(tokens) == (6 if stem == "patch" else 2)
    assert full.state_dict().keys() - without.state_dict().keys() == set(tokens)
    with torch.no_grad():
        for name in tokens:
            full.get_parameter(name).zero_()
    without.load_state_dict({k: v for k, v in full.state_dict().items() if k not in tokens})
    save_model(without, {"name": "plain", "licence": "none"}, tmp_path / "plain.safetensors")
    loaded = load_model(tmp_path / "plain.safetensors", "cpu").network
    images = torch.rand(1, 2, 3, 32, 48) * 2 - 1
    with torch.no_grad():
        maps = []
        for network in (full, loaded):
            seen = network.encode(images)
            maps.append(network.render(seen, network.update_memory(seen)))
    torch.testing.assert_close(maps[0].points_world, maps[1].points_world)
    for one, other in zip(maps[0].segmentation, maps[1].segmentation, strict=True):
        torch.testing.assert_close(one, other)


def test_cards_of_before_mean_a_network_with_task_tokens():
    known = tiny_config("patch").to_dict()
    del known["task_tokens"]
    assert NetworkConfig.from_dict(known).task_tokens


# --- the folder ---------------------------------------------------------------------------------

SOME = ("full", "no_rendered_views", "no_forcing", "no_task_tokens", "held_out_views")


def scored(iou):
    row = {"iou": iou, "iou_above_ground": 0.0, "abs_rel": 0.5}
    return {setting: row for setting in ("surround", "sequence", "monocular")}


def test_the_table_compares_each_row_with_its_own_reference():
    rows = variants(with_overrides(RECIPES["tiny"](), ["objective.forcing=0"]))
    scores = {"full": scored(40.0), "no_task_tokens": scored(39.0)}
    scores |= {"held_out_views": scored(30.0), "no_distillation": scored(32.5)}
    report = Report("a title", 2, rows, {"full": "occany train tiny"}, scores, [])
    table_rows, columns = table(report)
    lines = {line[0]: line[1:] for line in score_table.cells(table_rows, columns)}
    assert lines[""][:2] == ["surround IoU", "+/-"]
    assert lines["full"][:2] == ["40.00", ""]
    assert lines["without task tokens"][:2] == ["39.00", "-1.00"]
    assert lines["held-out views, distilled"][:2] == ["30.00", "-10.00"]
    against = "held-out views, not distilled (against: held-out views, distilled)"
    assert lines[against][:2] == ["32.50", "2.50"]
    silent = "without forcing (no different: objective.forcing is 0 in this recipe)"
    assert set(lines[silent]) == set(lines["full, another seed"]) == {""}
    assert f"| {silent} |  |" in markdown(report) and "occany train tiny" in markdown(report)


@pytest.fixture
def command(tmp_path, monkeypatch):
    """The command on small pictures, and how often it trains and renders scenes to score."""
    write_folder(tmp_path / "data")
    monkeypatch.setattr(ablations, "INGREDIENTS", (3.0, 60.0, 2.0, 1))
    monkeypatch.setattr(
        ablations, "variants", lambda recipe: [o for o in variants(recipe) if o.name in SOME]
    )
    calls = {"train": 0, "evaluate": 0}

    def counted(name, function):
        def call(*arguments, **named):
            calls[name] += 1
            return function(*arguments, **named)

        return call

    scene = next(synthocc.scenes("surround", 1))
    small = {setting: dataclasses.replace(scene, setting=setting) for setting in synthocc.SETTINGS}
    views = {"surround": scene.views, "sequence": scene.views[:2], "monocular": scene.views[:1]}
    for setting, one in small.items():
        small[setting] = dataclasses.replace(one, views=views[setting])
    for module in ("synthocc", "view_augmentation"):
        monkeypatch.setattr(
            f"occany_core.evaluation.{module}.scenes", lambda setting, limit: [small[setting]]
        )
    monkeypatch.setattr(ablations.train, "run", counted("train", ablations.train.run))
    monkeypatch.setattr(ablations, "evaluate", counted("evaluate", ablations.evaluate))
    sets = [word for one in SMALL for word in ("--recipe-set", one)]

    def call(*words):
        words = words or ("--steps", "2")
        places = ("-o", str(tmp_path / "out"), "--data", str(tmp_path / "data"))
        fixed = ("--limit", "1", "--set", "runtime.device=cpu", *sets)
        return main(["evaluate", "ablations", *places, *fixed, *words])

    return call, calls, tmp_path / "out"


@pytest.mark.slow
def test_ablations_from_end_to_end_and_only_once(command, capsys):
    call, calls, out = command
    assert call() == 0
    content = json.loads((out / "ablations.json").read_text())
    rows = {row["name"]: row for row in content["variants"]}
    assert tuple(rows) == SOME
    for row in rows.values():
        assert (row["scores"] is None) == bool(row["no_difference"])
        own = row["weights_of"] is None and not row["no_difference"]
        assert (out / row["name"] / "tiny.safetensors").exists() == own
        assert (row["command"] is not None) == own
    trained = sum(row["command"] is not None for row in rows.values())
    scored = sum(row["scores"] is not None for row in rows.values())
    assert calls == {"train": trained, "evaluate": scored}
    full = rows["full"]["scores"]
    plain = rows["no_rendered_views"]["scores"]
    assert plain["surround"] == full["surround_no_novel_views"]
    tokenless = load_model(out / "no_task_tokens" / "tiny.safetensors", "cpu")
    assert not tokenless.network.config.task_tokens
    assert [one["rendered"] for one in content["ttva"]] == [0, 6, 18, 18]
    text = (out / "ablations.md").read_text()
    for row in rows.values():
        reason = f" (no different: {row['no_difference']}) |  |" if row["no_difference"] else ""
        assert f"| {row['title']}{reason}" in text
    with Image.open(out / "ablations.png") as picture:
        assert picture.width > 1000

    # Again: nothing is trained or scored; what is missing is done, and nothing else.
    assert call() == 0
    assert calls == {"train": trained, "evaluate": scored}
    (out / "no_task_tokens" / "tiny.safetensors").unlink()
    (out / "no_task_tokens" / "state.pt").unlink()
    (out / "no_task_tokens" / "scores.json").unlink()
    assert call() == 0
    assert calls == {"train": trained + 1, "evaluate": scored + 1}
    assert json.loads((out / "ablations.json").read_text()) == content

    # Other settings: scored again, with the weights that are there.
    assert call("--steps", "2", "--set", "voxels.min_confidence=100000") == 0
    assert calls == {"train": trained + 1, "evaluate": 2 * scored + 1}
    again = json.loads((out / "ablations.json").read_text())["variants"][1]["scores"]
    assert again["surround"]["iou"] == 0 < plain["surround"]["iou"]

    capsys.readouterr()
    assert call("--steps", "3") == 1
    assert "other lengths" in capsys.readouterr().err
    assert calls == {"train": trained + 1, "evaluate": 2 * scored + 1}


def test_bad_ablation_options_are_one_sentence(tmp_path, capsys):
    assert main(["evaluate", "ablations", "--limit", "1"]) == 1
    assert "-o DIR" in capsys.readouterr().err
    assert main(["evaluate", "ablations", "-o", str(tmp_path), "--minutes", "0"]) == 1
    assert "above 0" in capsys.readouterr().err
    out = tmp_path / "out"
    words = ["evaluate", "ablations", "-o", str(out), "--set", "voxels.resolution=0.2"]
    assert main(words) == 1
    assert "voxels.resolution is 0.2; SynthOcc is judged with" in capsys.readouterr().err
    assert not out.exists()


# --- the card -----------------------------------------------------------------------------------


def test_the_card_fills_its_place_in_a_page(tmp_path, capsys):
    torch.manual_seed(0)
    weights = tmp_path / "a.safetensors"
    scores = {"surround": {"iou": 12.5, "abs_rel": 0.25}, "constant_scene": {"iou": 7.0}}
    metrics = {"synthocc": {"scenes": 3, "left_out": {"mean_iou": "nobody asked"}} | scores}
    recipe = RECIPES["tiny"]()
    stages = recipe.stages
    training = {"recipe": dataclasses.asdict(recipe), "steps": 12345, "seconds": 7200.0}
    card = {"name": "mine", "licence": "free", "training": training, "metrics": metrics}
    save_model(OccAnyNetwork(tiny_config("convolutional")), card, weights)
    page = tmp_path / "page.md"
    assert main(["inspect", str(weights), "--card", str(page)]) == 0
    text = page.read_text()
    for part in (
        "# Model card: mine",
        "| Steps | 12,345 |",
        "| Hours | 2.00 |",
        *(f"| {one.name} | {one.minutes:g} min | {one.peak_rate:g} |" for one in stages),
        "SynthOcc, 3 scenes",
        "| surround | 12.50 | 0.250 |",
        "| constant_scene | 7.00 |  |",
        "nobody asked",
    ):
        assert part in text, part
    page.write_text(f"by hand\n{text}\nby hand below\n")
    assert main(["inspect", str(weights), "--card", str(page)]) == 0
    assert page.read_text() == f"by hand\n{text}\nby hand below\n"
    page.write_text("no place\n")
    assert main(["inspect", str(weights), "--card", str(page)]) == 1
    assert "no place for the card" in capsys.readouterr().err
    assert page.read_text() == "no place\n"


# --- curves -------------------------------------------------------------------------------------


def write_log(folder, lines):
    text = "\n".join(json.dumps(line) for line in lines)
    (folder / LOG).write_text(text + '\n{"step": 3, "tot')


def report(step, stage, total=1.0, **more):
    return {"step": step, "stage": stage, "total": total, "world_error": 0.5, "pose": 0.0} | more


def validation(step, stage, value):
    return {"step": step, "stage": stage, "validation/single_abs_rel": value}


def test_a_log_is_read_as_the_run_went_on(tmp_path):
    again = [report(10, "a"), report(20, "a"), report(30, "a", 9.0), report(25, "a", 2.0)]
    write_log(tmp_path, again)
    assert [(line["step"], line["total"]) for line in read_log(tmp_path)] == [
        (10, 1.0),
        (20, 1.0),
        (25, 2.0),
    ]
    with pytest.raises(InputError, match="no folder of a training run"):
        read_log(tmp_path / "elsewhere")
    (tmp_path / LOG).write_text("")
    with pytest.raises(InputError, match="empty"):
        read_log(tmp_path)


def test_stages_that_early_logs_number_get_their_names(tmp_path):
    lines = [report(1, 0), validation(1, "first", 0.3), report(2, 1), report(3, 2)]
    write_log(tmp_path, lines)
    stages = [line["stage"] for line in read_log(tmp_path)]
    assert stages == ["first", "first", "stage 1", "stage 2"]


def test_curves_show_what_the_log_has(tmp_path):
    lines = [report(step, "a", total=float(step)) for step in (1, 2)]
    lines += [validation(2, "a", 0.4), report(3, "b", 7.0), validation(3, "b", 0.2)]
    charts = {chart.title: chart for chart in charts_of(lines)}
    assert list(charts) == ["Loss", "Errors in training", "Held-back streets: depth abs-rel"]
    (loss,) = charts["Loss"].lines
    np.testing.assert_array_equal(loss.x, [1, 2, np.nan, 3, np.nan])
    np.testing.assert_array_equal(loss.y, [1, 2, np.nan, 7, np.nan])
    assert charts["Loss"].marks == ((3.0, "b"),)
    (score,) = charts["Held-back streets: depth abs-rel"].lines
    assert score.name == "single" and score.y[0] == 0.4
    write_log(tmp_path, lines)
    assert main(["view", str(tmp_path)]) == 0
    with Image.open(tmp_path / "curves.png") as picture:
        assert picture.height > picture.width / 2


def coloured(page, colour):
    return (np.abs(page.astype(int) - colour).sum(axis=-1) < 150).sum()


def test_charts_draw_every_value_that_can_be_drawn():
    blue = (88, 166, 255)
    level = LineChart("t", "x", (Line("l", (0.0, 10.0), (1.0, 1.0)),))
    gap = LineChart(
        "t", "x", (Line("l", (0.0, 4.0, 5.0, 6.0, 10.0), (1.0, 1.0, np.nan, 1.0, 1.0)),)
    )
    whole, broken = (coloured(compose_charts([one], "page"), blue) for one in (level, gap))
    assert 0.7 * whole < broken < 0.95 * whole
    bars = BarChart("t", ("a", "b"), (("s", (10.0, np.nan)),))
    both = BarChart("t", ("a", "b"), (("s", (10.0, 10.0)),))
    one, two = (coloured(compose_charts([chart], "page"), blue) for chart in (bars, both))
    assert two == pytest.approx(2 * one, rel=0.1)
    nothing = LineChart("t", "x", (Line("l", (0.0, 1.0), (-1.0, 0.0)),), is_log=True)
    assert coloured(compose_charts([nothing], "page"), blue) < 100  # the legend alone
