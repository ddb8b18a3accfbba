# SPDX-License-Identifier: Apache-2.0
"""`occany train`: weights from scratch on synthetic streets, resumable."""

import argparse
import logging
from collections.abc import Iterator
from pathlib import Path

import torch

from occany_core.checkpoints import save_model
from occany_core.network import tiny
from occany_core.synthetic.samples import Sample, training_sample
from occany_core.training import recipe
from occany_core.training.loop import Training
from occany_core.training.pack import (
    RENDER_HEIGHT,
    RENDER_WIDTH,
    load_pack,
    pack_samples,
    shard_folders,
)

NAME = "train"
HELP = "train the tiny network on synthetic streets"
EXAMPLE = "occany train tiny -o runs/tiny --worlds 2400 --minutes 79 20"

PICTURE_HEIGHT, PICTURE_WIDTH = 80, 144


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    parser.add_argument("recipe", choices=["tiny"], help="what to train")
    parser.add_argument(
        "-o",
        "--out",
        type=Path,
        required=True,
        help="folder of the run; an interrupted run goes on",
    )
    parser.add_argument("--worlds", type=int, default=2400, help="synthetic worlds to render")
    parser.add_argument(
        "--minutes",
        type=float,
        nargs=2,
        default=(79.0, 20.0),
        metavar=("RECONSTRUCTION", "RENDERING"),
        help="time of the two stages",
    )
    parser.add_argument(
        "--threads", type=int, default=0, help="CPU threads; 0 leaves PyTorch's choice"
    )


def run(arguments: argparse.Namespace) -> None:
    """Render missing worlds, train to the end, write the weights with their card."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    streets = arguments.out / "streets"
    if not any(shard_folders(streets)):
        print(f"rendering {arguments.worlds} worlds into {streets} ...", flush=True)
        pack_samples(_samples(arguments.worlds), PICTURE_HEIGHT, PICTURE_WIDTH, streets)
    plan = recipe.tiny(*arguments.minutes)
    training = Training(tiny(), plan, load_pack(streets), arguments.out)
    network = training.run()
    path = arguments.out / "tiny.safetensors"
    card = {"name": "tiny", "licence": "Apache-2.0", "training": training.summary()}
    save_model(network, card, path, half=True)
    print(f"wrote {path}; try `occany evaluate synthocc --model {path}`")


def _samples(worlds: int) -> Iterator[Sample]:
    """Render worlds one after the other, with a progress line; blocked rigs are left out."""
    for seed in range(worlds):
        sample = training_sample(seed, RENDER_WIDTH, RENDER_HEIGHT)
        if sample is not None:
            yield sample
        if seed % 20 == 19:
            print(f"\r{seed + 1} of {worlds} worlds", end="", flush=True)
    print()
