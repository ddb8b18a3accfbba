# SPDX-License-Identifier: Apache-2.0
"""`occany train`: weights from scratch or from others, resumable, on one device or many."""

import argparse
import dataclasses
import logging
import math
import os
from pathlib import Path

import torch

from occany_core.checkpoints import load_model, save_model
from occany_core.checkpoints.store import choose_device, weights_path
from occany_core.errors import ConfigError
from occany_core.network import OccAnyNetwork
from occany_core.training.loop import Training
from occany_core.training.overrides import with_overrides
from occany_core.training.ranks import joined, whole_weights
from occany_core.training.recipe import Recipe
from occany_core.training.recipes import RECIPES
from occany_core.training.segmentation import chosen_teacher
from occany_core.training.start import Start
from occany_core.training.supply import SupplyPlan, supplied

NAME = "train"
HELP = "train a network; the same command again goes on"
EXAMPLE = "occany train tiny -o runs/tiny"

SPARE_CORES = 2
"""Left to training while streets are rendered beside it."""
WORLDS_READY, WORLDS_RENDERED = 6000, 2400
"""Streets held ready where rendering goes on, and rendered before where it does not."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    parser.add_argument("recipe", choices=list(RECIPES), help="what to train")
    parser.add_argument(
        "-o", "--out", type=Path, required=True, metavar="DIR",
        help="folder of the run; an interrupted run goes on",
    )  # fmt: skip
    parser.add_argument(
        "--data", default="synth", metavar="synth|DIR",
        help="synth renders streets; a folder of shards with held_back/ is used as it is",
    )  # fmt: skip
    parser.add_argument(
        "--set", metavar="KEY=VALUE", action="append", default=[],
        help="one value of the recipe; may be repeated (--set stages.0.minutes=5)",
    )  # fmt: skip
    parser.add_argument("--init", help="weights to start from: 'default' or a .safetensors file")
    parser.add_argument(
        "--stages", nargs="+", metavar="NAME",
        help="only these stages of the recipe, in its order",
    )  # fmt: skip
    parser.add_argument("--steps", type=int, help="optimiser steps of every stage, for short runs")
    parser.add_argument(
        "--stop-after", type=float, default=math.inf, metavar="MINUTES",
        help="save and stop; the same command goes on",
    )  # fmt: skip
    _add_machine_arguments(parser)


def _add_machine_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--render-workers", type=int, metavar="N",
        help="processes that render during training; by default all cores but "
        f"{SPARE_CORES} beside a GPU, and none beside a CPU, where streets are rendered first",
    )  # fmt: skip
    parser.add_argument(
        "--worlds", type=int,
        help=f"streets held ready; by default {WORLDS_READY} where rendering goes on, and "
        f"{WORLDS_RENDERED} where it does not",
    )  # fmt: skip
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument(
        "--shard", action="store_true",
        help="with torchrun: spread the weights over the processes (FSDP2)",
    )  # fmt: skip
    parser.add_argument(
        "--threads", type=int, default=0, help="CPU threads; 0 leaves PyTorch's choice"
    )


def run(arguments: argparse.Namespace) -> None:
    """Render what is missing, train, and write the weights with their card at the end.

    Raises:
        ConfigError: A value of the recipe or an option that cannot be.
        InputError: Data that cannot be used, or too many faults.
    """
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    _set_threads(arguments.threads)
    torch.set_float32_matmul_precision("high")
    recipe = _recipe(arguments)
    device = choose_device(arguments.device)
    start = _start(arguments)
    _make_folder(arguments.out)
    with joined(device, "shard" if arguments.shard else "replicate") as ranks:
        say = _say if ranks.is_first else _keep_quiet
        teacher = chosen_teacher(recipe, ranks.device)
        with supplied(_plan(arguments, device), recipe, ranks, say) as supply:
            training = Training(recipe, supply, arguments.out, ranks, teacher, start)
            was_finished = training.is_finished
            if training.new_parts and ranks.is_first:
                print(f"\nnot in {arguments.init}, so new: {', '.join(training.new_parts)}")
            training.run(60 * arguments.stop_after, say)
        final = whole_weights(training.network)
        if ranks.is_first and was_finished:
            print(
                f"\n{arguments.out} holds this run, finished after {training.progress.steps} "
                "steps; nothing was trained"
            )
        if ranks.is_first and training.is_finished:
            path = arguments.out / f"{recipe.name}.safetensors"
            if not (was_finished and path.exists() and path.with_suffix(".json").exists()):
                _write(final, training, path)
        elif ranks.is_first:
            print(f"\nstopped at step {training.progress.steps}; the same command goes on")


def _set_threads(threads: int) -> None:
    if threads < 0:
        raise ConfigError(
            f"--threads is {threads}; give a number of CPU threads, or 0 for PyTorch's choice"
        )
    if threads:
        torch.set_num_threads(threads)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"-o {folder} cannot be the folder of a run ({error.strerror}); name another"
        ) from error


def _start(arguments: argparse.Namespace) -> Start:
    is_rendered = arguments.data == "synth"
    if not arguments.init:
        return Start(is_rendered=is_rendered)
    model, name = load_model(arguments.init, "cpu"), weights_path(arguments.init).name
    return Start(model.network.state_dict(), name, model.sha256, is_rendered)


def _recipe(arguments: argparse.Namespace) -> Recipe:
    recipe = with_overrides(RECIPES[arguments.recipe](), arguments.set)
    stages = recipe.stages
    if arguments.stages is not None:
        names = [stage.name for stage in stages]
        if unknown := set(arguments.stages) - set(names):
            raise ConfigError(
                f"--stages {' '.join(sorted(unknown))}: the recipe {recipe.name} has "
                f"{', '.join(names)}"
            )
        stages = tuple(stage for stage in stages if stage.name in arguments.stages)
    if arguments.steps is not None:
        stages = tuple(dataclasses.replace(stage, steps=arguments.steps) for stage in stages)
    return dataclasses.replace(recipe, stages=stages)


def _plan(arguments: argparse.Namespace, device: torch.device) -> SupplyPlan:
    """Say where samples come from.

    Raises:
        ConfigError: A number that cannot be.
    """
    if arguments.data != "synth":
        return SupplyPlan(folder=Path(arguments.data), renders=False)
    cores = os.cpu_count() or 1
    workers = arguments.render_workers
    if workers is None:
        workers = max(cores - SPARE_CORES, 1) if device.type == "cuda" else 0
    worlds = arguments.worlds or (WORLDS_READY if workers else WORLDS_RENDERED)
    if workers < 0 or worlds < 1:
        raise ConfigError(
            f"--render-workers is {workers} and --worlds {worlds}; the first must not be "
            "negative, the second at least 1"
        )
    return SupplyPlan(
        folder=arguments.out / "streets",
        worlds=worlds,
        workers=workers,
        helpers=workers or (cores if cores > 1 else 0),
    )


def _write(weights: dict[str, torch.Tensor], training: Training, path: Path) -> None:
    network = OccAnyNetwork(training.recipe.network)
    network.load_state_dict(weights)
    summary = training.summary()
    card = {"name": training.recipe.name, "licence": "Apache-2.0", "training": summary}
    save_model(network, card, path, half=True)
    print(f"\nwrote {path}; try `occany evaluate synthocc --model {path}`")


def _say(line: str) -> None:
    print(f"\r{line:<110}", end="", flush=True)


def _keep_quiet(line: str) -> None:
    del line
