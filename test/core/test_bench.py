# SPDX-License-Identifier: Apache-2.0
"""Benchmarks measure what they say; how fast this machine is, no test judges."""

import dataclasses
import json
import subprocess
import sys

import pytest
import torch
from training_worlds import HEIGHT, WIDTH, pack

from occany_core.bench import precision, tracking, training
from occany_core.bench.model import count_gflop, measure
from occany_core.bench.random_samples import random_pack
from occany_core.checkpoints import load_model
from occany_core.cli.main import main
from occany_core.config import from_flat
from occany_core.errors import ConfigError
from occany_core.network import NetworkConfig
from occany_core.training.pack import bad_samples
from occany_core.training.ranks import Ranks
from occany_core.training.recipes import RECIPES

STAGES = "encode memory render labels cameras project tokenize render_novel voxels".split()
SMALL = from_flat({"runtime.device": "cpu", "voxels.shape": [20, 20, 8]})


def test_a_reconstruction_is_timed_stage_by_stage():
    timing = measure("tiny", (2, 3), (48, 80), SMALL)
    assert list(timing.stages) == STAGES
    parts = sum(stage.seconds for stage in timing.stages.values())
    assert 0 < parts <= timing.total_s
    assert timing.peak_gb > 0.05
    network = ("encode", "memory", "render", "tokenize", "render_novel")
    assert all(timing.stages[name].gflop > 0 for name in network)
    assert timing.stages["voxels"].gflop == 0


def test_arithmetic_of_the_released_network():
    """Against the numbers of multiply-adds written out by hand, without attention and biases."""
    config, size = NetworkConfig(), (160, 512)
    tokens, views = 320, 2
    encoder = 24 * 12 * 1024**2 + 3 * 16 * 16 * 1024
    counted = count_gflop(config, views, 1, size)["encode"]
    products = 2 * views * tokens * encoder / 1e9
    attention = 24 * views * 4 * tokens**2 * 1024 / 1e9
    assert counted == pytest.approx(products + attention, rel=1e-6)


def test_arithmetic_grows_with_the_views():
    one, two = (count_gflop(NetworkConfig(), views, views, (32, 48)) for views in (1, 2))
    assert two["encode"] == pytest.approx(2 * one["encode"])
    assert two["tokenize"] == pytest.approx(2 * one["tokenize"])
    assert two["render"] > 2 * one["render"]  # each view also attends to the other


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("huge", (1, 1)), "'huge'"),
        (("tiny", (0, 1)), "frames 0"),
        (("tiny", (1, 1), (50, 80)), "80x50"),
    ],
)
def test_what_cannot_be_measured(arguments, named):
    with pytest.raises(ConfigError, match=named):
        measure(*arguments)


def test_bfloat16_stays_close_to_float32_with_the_bundled_weights():
    """Twice to four times what 20 streets showed (docs/parity.md)."""
    found = precision.measure(load_model("default", "cpu"), 1)
    assert set(found.iou) == {"float32", "bfloat16"}
    for name, stage in found.stages.items():
        limit = 0.04 if name == "rendered log confidence" else 0.02
        assert 0 < stage.rms < limit, name
    assert abs(found.iou["float32"] - found.iou["bfloat16"]) < 0.5
    assert 97 < found.agreement < 100


@pytest.mark.parametrize(
    ("command", "keys"),
    [
        ("model --frames 1 --views 1 --picture 80 48 --set runtime.device=cpu", {"total_s"}),
        ("voxels --points 1000 --repeats 1", {"seconds_per_million_points"}),
        ("streets --worlds 1 --device cpu", {"rates", "build_s"}),
    ],
)
def test_last_line_is_one_json_object(command, keys, capsys):
    threads = torch.get_num_threads()
    assert main(["bench", *command.split(), "--json"]) == 0
    torch.set_num_threads(threads)
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert keys <= last.keys()


def test_tracking_is_timed_beside_the_library(capsys):
    pytest.importorskip(
        "transformers", reason="transformers, the extra [semantics], is not installed"
    )
    command = "bench tracking --objects 3 --views 2 --size 64 --library-objects 2 --json"
    assert main(command.split()) == 0
    printed = capsys.readouterr()
    found = json.loads(printed.out.splitlines()[-1])
    assert found["is_extrapolated"] and "extrapolated from 2" in printed.out
    assert found["library_all_s"] == pytest.approx(1.5 * found["library_s"])
    assert found["ratio"] == pytest.approx(found["library_all_s"] / found["ours_s"])
    assert found["equal_pixels"] == 1
    assert 0 < found["largest_difference"] < 1e-4 < found["rms_logit"]
    assert "transformers: 3 of 3" in printed.err


@pytest.mark.parametrize(
    ("numbers", "named"), [({"views": 0}, "views 0"), ({"library_objects": 61}, "is 61")]
)
def test_what_cannot_be_tracked(numbers, named):
    with pytest.raises(ConfigError, match=named):
        tracking.Workload(**numbers)


SMALL_TRAINING = "training --picture 48 32 --views 4 --steps 1 --device cpu --json".split()
SMALL_RELEASED = [
    *"--recipe released --random --set network.segmentation_size=64".split(),
    *"--set network.encoder.depth=1 --set network.encoder.heads=2".split(),
    *"--set network.encoder.width=32 --set network.modality_width=8".split(),
    *"--set network.decoder.depth=1 --set network.decoder.heads=2".split(),
    *"--set network.decoder.width=32 --set network.novel_view_encoder.heads=2".split(),
    *"--set network.novel_view_encoder.width=32 --set network.segmentation_dims=[16,8,4]".split(),
]
"""The recipe of the released weights with a network of 0.2 M parameters."""


@pytest.mark.slow
def test_training_is_timed_by_stage(capsys):
    main(["bench", *SMALL_TRAINING])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(found["stages"]) == ["reconstruction", "segmentation", "rendering"]
    for stage in found["stages"].values():
        assert stage["views_per_s"] > 0
        assert 0 < stage["data_share"] < 1
        assert 0 < stage["trained"] < stage["parameters"]
        assert stage["peak_resident_gb"] > 0.05 and stage["peak_gpu_gb"] is None
    assert found["rendered_views_per_s"] > 0 and found["forcing"]
    expected = found["stages"]["reconstruction"]["views_per_s"] / found["rendered_views_per_s"]
    assert found["renderers_needed"] == pytest.approx(expected)


def test_one_stage_is_timed_on_random_numbers(capsys):
    main(["bench", *SMALL_TRAINING, "--random", "--stage", "segmentation"])
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert list(found["stages"]) == ["segmentation"]
    assert found["rendered_views_per_s"] is found["renderers_needed"] is None


@pytest.mark.parametrize("has_teacher", [False, True])
def test_without_a_teacher_forcing_is_left_out_and_said_so(has_teacher, capsys):
    teacher = ["--set", "objective.teacher=streets"] if has_teacher else []
    main(["bench", *SMALL_TRAINING, *SMALL_RELEASED, *teacher])
    out = capsys.readouterr().out
    found = json.loads(out.splitlines()[-1])
    assert list(found["stages"]) == ["reconstruction", "rendering"]
    assert found["forcing"] is has_teacher
    assert ("Segmentation Forcing is left out" in out) is not has_teacher
    assert found["accumulation"] == 2


@pytest.mark.slow
def test_training_is_timed_in_two_processes_that_share_the_weights():
    words = ["bench", *SMALL_TRAINING, *SMALL_RELEASED, "--stage", "reconstruction", "--shard"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    launch += ["--standalone", "-m", "occany_core.cli.main"]
    done = subprocess.run([*launch, *words], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("{"))
    found = json.loads(line)
    assert found["processes"] == 2 and found["spreading"] == "shard"
    assert found["stages"]["reconstruction"]["trained"] > 0


def test_scenes_are_cut_to_the_views_of_a_batch():
    run = training.TimedRun(recipe="released", picture=(32, 48), views=3, steps=1)
    for stage in run.to_recipe().stages:
        kinds = [(draw.kind, draw.views) for draw in stage.phases[0].draws]
        assert kinds == [("sequence", (3, 3)), ("sequence", (3, 3))]
    whole = dataclasses.replace(run, views=16).to_recipe()
    assert whole.stages[0].phases == RECIPES["released"]().stages[0].phases


def test_random_samples_are_packed_like_streets():
    recipe = RECIPES["tiny"]()
    drawn = random_pack(dataclasses.replace(recipe, picture=(HEIGHT, WIDTH)), 2)
    like = pack(recipe.block, with_labels=True)
    for name, array in drawn.parts().items():
        of_streets = like.parts()[name]
        assert array.dtype == of_streets.dtype, name
        if name == "centres":  # streets have as many as there are
            continue
        assert array.shape[1:] == of_streets.shape[1:], name
    assert not bad_samples(drawn).any()
    assert 0.05 < (drawn.depth == 0).mean() < 0.15
    assert drawn.depth.max() <= 60


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": "huge"}, "must be one of tiny, released, paper"),
        ({"steps": 0}, "at least 1"),
        ({"views": 0}, "at least 1"),
        ({"stage": "painting"}, "has reconstruction, segmentation, rendering"),
    ],
)
def test_training_that_cannot_be_timed(changes, message):
    run = training.TimedRun(**{"picture": (32, 48), "views": 4, "steps": 1} | changes)
    with pytest.raises(ConfigError, match=message):
        training.measure(run, Ranks(torch.device("cpu")))
