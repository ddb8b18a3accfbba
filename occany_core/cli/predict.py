# SPDX-License-Identifier: Apache-2.0
"""`occany predict`: pictures on disk -> a folder with grid, points, poses and a picture."""

import argparse
import sys
from pathlib import Path

import torch

from occany_core.checkpoints import load_model
from occany_core.cli import picture_arguments, settings_arguments
from occany_core.config import OccAnyConfig, from_flat
from occany_core.images import View
from occany_core.observation import encode
from occany_core.pipeline import Scene, look, reconstruct
from occany_core.results import check_folder, save_scene
from occany_core.semantics.labelling import Labeller
from occany_core.stopwatch import Stopwatch

NAME = "predict"
HELP = "turn pictures into a voxel grid, points and camera poses"
EXAMPLE = "occany predict recordings/sequence -o out/street"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    parser.add_argument(
        "pictures", metavar="PICTURES", nargs="+", type=Path, help=picture_arguments.PICTURES
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the result")
    picture_arguments.add_options(parser)
    parser.add_argument(
        "--labels",
        metavar="TEXTS",
        help="what to label, separated by commas, for example 'car, pedestrian'; short for "
        "--set labels.classes=[...] (default: every class that the weights know)",
    )
    settings_arguments.add_arguments(parser)


def run(arguments: argparse.Namespace) -> None:
    """Check everything that can be wrong, then predict and write."""
    config = settings_arguments.read(arguments)
    if arguments.labels is not None:
        texts = [text.strip() for text in arguments.labels.split(",")]
        config = from_flat({"labels.classes": texts}, config, "--labels")
    check_folder(arguments.output)
    pictures = picture_arguments.find(arguments.pictures, arguments)
    sets = pictures.read()
    model = load_model(arguments.model, config.runtime.device)
    labeller = Labeller(model, config.labels)
    _say(
        f"{len(pictures.names)} pictures, {len(pictures.cameras)} camera(s), {len(sets)} view "
        f"set(s); model {model.name} ({model.card['licence']}) on {model.device}"
    )
    scene = _predict(labeller, sets, config)
    title = f"{arguments.pictures[0].resolve().name}  -  model {model.name}"
    save_scene(arguments.output, scene, config, title, pictures.names)
    print(_summary(scene, arguments.output))
    highest = float(scene.observed.confidence.max())
    if highest <= config.voxels.min_confidence:
        _say(
            f"no observed point is above voxels.min_confidence, {config.voxels.min_confidence}: "
            f"the highest confidence is {highest:.3f}, and only voxels.min_confidence_ground and "
            "voxels.keep_most_confident let points count; lower it for these weights"
        )


def _predict(labeller: Labeller, sets: list[list[View]], config: OccAnyConfig) -> Scene:
    """Do what `occany_core.predict` does, and say how far it is."""
    if config.runtime.threads:
        torch.set_num_threads(config.runtime.threads)
    watch, model = Stopwatch(), labeller.model
    encoded = []
    for index, views in enumerate(sets):
        _say(f"encoding view set {index + 1} of {len(sets)}")
        with watch.stage("encode"):
            encoded.append(encode(model, views, config))
        if labeller.models.look_at_pictures:
            _say(f"looking for things in view set {index + 1} of {len(sets)}")
            with watch.stage("look"):
                encoded[-1] = look(labeller, encoded[-1], config)
    _say("reconstructing")
    return reconstruct(model, encoded, config, watch.seconds, labeller)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _summary(scene: Scene, output: Path) -> str:
    grid = scene.grid
    seconds = sum(scene.timings.values())
    return (
        f"{output}: {int(grid.occupied.sum())} occupied cells "
        f"({int((grid.occupied & grid.completed).sum())} completed), {int(grid.free.sum())} free, "
        f"frame from {scene.frame_source}, {seconds:.1f} s"
    )
