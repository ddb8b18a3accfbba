# SPDX-License-Identifier: Apache-2.0
"""A folder belongs to one run: what may differ when it goes on, what may not, and what its card
says of where it came from."""

import dataclasses

import pytest
import torch
from tiny_networks import tiny_config
from training_worlds import HEIGHT, WIDTH, recipe, rendering, stage, supply, write_folder

from occany_core.checkpoints import load_model, save_model, write_metrics
from occany_core.cli.main import main
from occany_core.errors import ConfigError
from occany_core.network import OccAnyNetwork
from occany_core.training.loop import Training
from occany_core.training.overrides import with_overrides
from occany_core.training.start import Start

BOTH = recipe(stage(4), rendering(3))


def open_run(folder, what=BOTH, start=None, shards=None) -> Training:
    return Training(what, supply(shards or folder), folder, start=start)


def begun(folder, steps: int, start=None) -> Training:
    """A run that stopped after so many steps."""
    training = open_run(folder, start=start)
    for _ in range(steps):
        training.step()
        if training.passed >= 1:
            training._finish_stage()
    training.save()
    return training


def as_before(folder) -> None:
    """Turn the state into one of the version that knew only the recipe's name."""
    values = torch.load(folder / "state.pt", weights_only=True)
    del values["recipe_values"], values["origin"]
    torch.save(values, folder / "state.pt")


# --- recipes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [2, 5, 7], ids=["first stage", "second stage", "finished"])
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["views_per_step=8"], "views_per_step 6, not 8;"),
        (["seed=3", "views_per_step=8"], "views_per_step 6, not 8;"),
        (["stages.1.peak_rate=0.5"], r"stages\.1\.peak_rate 0\.001, not 0\.5;"),
        (["objective.alpha=9"], r"objective\.alpha 0\.4, not 9\.0;"),
        (["optimiser.betas=[0.5, 0.6]"], r"optimiser\.betas \(0\.9, 0\.95\), not \(0\.5, 0\.6\);"),
        (["network.decoder.depth=3"], r"network\.decoder\.depth \d, not 3;"),
        (["network.novel_view_encoder=null"], r"network\.novel_view_encoder \{.*\}, not None;"),
    ],
)
def test_a_folder_keeps_its_recipe(changes, message, steps, tmp_path):
    begun(tmp_path, steps)
    with pytest.raises(ConfigError, match=f"holds a run with {message} choose another folder, or"):
        open_run(tmp_path, with_overrides(BOTH, changes))
    assert open_run(tmp_path).progress.steps == steps


def test_a_folder_keeps_its_stages(tmp_path):
    begun(tmp_path, 7)
    message = r"stages \(reconstruction, rendering\), not \(rendering\);"
    with pytest.raises(ConfigError, match=message):
        open_run(tmp_path, dataclasses.replace(BOTH, stages=BOTH.stages[1:]))


def test_only_stages_that_are_not_over_get_another_length(tmp_path):
    begun(tmp_path, 2)
    for change in ("stages.0.steps=1", "stages.0.steps=2"):
        with pytest.raises(ConfigError, match=r"stages\.0\.steps 4, not [12]"):
            open_run(tmp_path, with_overrides(BOTH, [change]))
    longer = with_overrides(BOTH, ["stages.0.steps=6", "stages.1.steps=1", "stages.1.minutes=9"])
    training = open_run(tmp_path, longer)
    assert training.passed == pytest.approx(2 / 6)
    training.run()
    assert training.progress.steps == 7
    for over in ("stages.0.steps=4", "stages.1.steps=2", "stages.1.minutes=0"):
        with pytest.raises(ConfigError, match=r"stages\.\d\.\w+ [\d.]+, not"):
            open_run(tmp_path, with_overrides(longer, [over]))
    assert open_run(tmp_path, longer).is_finished


def test_a_run_that_gave_up_goes_on_with_more_errors_allowed(tmp_path):
    begun(tmp_path, 2)
    assert open_run(tmp_path, with_overrides(BOTH, ["most_errors=99"])).progress.steps == 2


def test_states_of_the_version_before_go_on_by_name_alone(tmp_path):
    begun(tmp_path, 2, Start(name="a.safetensors", sha256="a" * 64))
    as_before(tmp_path)
    training = open_run(tmp_path, with_overrides(BOTH, ["objective.alpha=9"]))
    assert training.progress.steps == 2
    assert training.summary()["start"] == "weights that were not recorded"
    named = open_run(tmp_path, start=Start(name="b.safetensors", sha256="b" * 64))
    assert named.summary()["start"] == "b.safetensors (sha256 bbbbbbbbbbbb)"
    with pytest.raises(ConfigError, match="run of the recipe test, not other"):
        open_run(tmp_path, dataclasses.replace(BOTH, name="other"))
    training.save()
    with pytest.raises(ConfigError, match=r"objective\.alpha 9\.0, not 0\.4"):
        open_run(tmp_path)


def test_values_that_a_later_version_added_are_not_compared(tmp_path):
    begun(tmp_path, 1)
    values = torch.load(tmp_path / "state.pt", weights_only=True)
    del values["recipe_values"]["objective"]["ground"]
    torch.save(values, tmp_path / "state.pt")
    assert open_run(tmp_path).progress.steps == 1


# --- what it was made from ----------------------------------------------------------------------


def test_a_folder_keeps_the_weights_it_started_from(tmp_path):
    weights = OccAnyNetwork(tiny_config("convolutional")).state_dict()
    one, other = (Start(weights, f"{c}.safetensors", c * 64) for c in "ab")
    begun(tmp_path / "one", 2, one)
    with pytest.raises(
        ConfigError,
        match=r"started from a\.safetensors \(sha256 a{12}\), not from b\.safetensors "
        r"\(sha256 b{12}\); choose another folder, or give the old weights or none",
    ):
        open_run(tmp_path / "one", start=other)
    renamed = dataclasses.replace(one, name="c.safetensors")
    for start in (one, renamed, None):
        training = open_run(tmp_path / "one", start=start)
        assert training.summary()["start"] == "a.safetensors (sha256 aaaaaaaaaaaa)"
    begun(tmp_path / "random", 2)
    with pytest.raises(ConfigError, match=r"started from random weights, not from a\.safetens"):
        open_run(tmp_path / "random", start=one)


def test_a_card_says_where_samples_came_from(tmp_path):
    streets, shards = Start(is_rendered=True), tmp_path / "lean"
    training = begun(tmp_path / "run", 2, streets)
    only = "procedural streets only; no real picture was seen in this run"
    assert training.summary()["data"] == only
    assert training.summary()["start"] == "random weights"
    assert open_run(tmp_path / "run", start=streets).summary()["data"] == only
    mixed = open_run(tmp_path / "run", shards=shards)
    assert mixed.summary()["data"] == "procedural streets and shards of lean"
    mixed.run()
    later = open_run(tmp_path / "run", shards=tmp_path / "never_used")
    assert later.is_finished and later.summary()["data"] == mixed.summary()["data"]


# --- the command --------------------------------------------------------------------------------


@pytest.fixture
def command(tmp_path):
    """`occany train tiny` of few small steps, with more words."""
    write_folder(tmp_path / "lean")
    sizes = [f"picture=[{HEIGHT}, {WIDTH}]", "views_per_step=4", "network.encoder.depth=1"]
    sizes += ["objective.forcing=0"]
    words = ["train", "tiny", "-o", str(tmp_path / "run"), "--data", str(tmp_path / "lean")]
    words += [*(word for size in sizes for word in ("--set", size)), "--device", "cpu"]
    words += ["--stages", "reconstruction"]
    return lambda *more: main([*words, *more])


def test_the_command_again_leaves_a_finished_run_alone(command, tmp_path, capsys):
    assert command("--steps", "2") == 0
    weights = tmp_path / "run" / "tiny.safetensors"
    training = load_model(weights, "cpu").card["training"]
    assert training["data"] == "shards of lean"
    assert training["start"] == "random weights"
    assert training["recipe"]["views_per_step"] == 4
    write_metrics(weights, "synthocc", {"scenes": 1})
    card = weights.with_suffix(".json").read_text()
    capsys.readouterr()
    assert command("--steps", "2") == 0
    said = capsys.readouterr().out
    assert "run holds this run, finished after 2 steps; nothing was trained" in said
    assert "wrote" not in said
    for words, fault in (
        (("--steps", "2", "--set", "views_per_step=8"), "views_per_step 4, not 8"),
        (("--steps", "500"), "stages.0.steps 2, not 500"),
        (("--steps", "2", "--stages", "rendering"), "'reconstruction', not 'rendering'"),
        (("--steps", "2", "--set", "network.decoder.depth=3"), "network.decoder.depth 2, not 3"),
        (("--steps", "2", "--init", "default"), "random weights, not from default.safetensors"),
    ):
        assert command(*words) == 1
        assert fault in capsys.readouterr().err
    assert weights.with_suffix(".json").read_text() == card
    weights.unlink()
    assert command("--steps", "2") == 0
    assert load_model(weights, "cpu").card["training"] == training


def test_the_command_writes_down_what_it_started_from(command, tmp_path):
    assert command("--steps", "1") == 0
    first = load_model(tmp_path / "run" / "tiny.safetensors", "cpu")
    save_model(first.network, first.card, tmp_path / "mid.safetensors")
    mid = load_model(tmp_path / "mid.safetensors", "cpu").sha256
    words = ("-o", str(tmp_path / "next"), "--init", str(tmp_path / "mid.safetensors"))
    assert command("--steps", "1", *words) == 0
    text = (tmp_path / "next" / "tiny.json").read_text()
    assert f'"start": "mid.safetensors (sha256 {mid[:12]})"' in text
    assert str(tmp_path) not in text


def test_options_that_cannot_be_are_one_sentence(command, tmp_path, capsys):
    (tmp_path / "file").write_text("kept")
    for words, message in (
        (("--threads", "-1"), "--threads is -1; give a number of CPU threads, or 0"),
        (("-o", str(tmp_path / "file")), "file cannot be the folder of a run (File exists); name"),
        (("-o", str(tmp_path / "file" / "x")), "run (Not a directory); name another"),
    ):
        assert command("--steps", "1", *words) == 1
        assert message in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "kept"
