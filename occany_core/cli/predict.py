# SPDX-License-Identifier: Apache-2.0
"""`occany predict`: pictures on disk -> a folder with grid, points, poses and a picture."""

import argparse
import sys
from pathlib import Path

import numpy as np
import torch

from occany_core.checkpoints import load_model
from occany_core.cli import settings_arguments
from occany_core.cli.calibration_file import NO_CALIBRATION, CameraCalibration, load_calibration
from occany_core.cli.picture_files import RIGS, PictureFile, read_masks, read_picture, view_sets
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
        "pictures",
        metavar="PICTURES",
        nargs="+",
        type=Path,
        help="a folder of pictures, a folder with one subfolder per camera, or picture files",
    )
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder for the result")
    parser.add_argument(
        "--rig",
        choices=RIGS,
        default="auto",
        help="how the pictures belong together: one after the other (sequence), all at once "
        "(surround), a single one (monocular); auto takes subfolders for a surround rig and "
        "several pictures for a sequence",
    )
    parser.add_argument(
        "--model", default="default", help="weights: a .safetensors file, or 'default'"
    )
    parser.add_argument(
        "--calibration",
        metavar="FILE",
        type=Path,
        help="JSON with K and rig_from_cam per camera (docs/conventions.md)",
    )
    parser.add_argument(
        "--masks",
        metavar="FOLDER",
        type=Path,
        help="one picture per camera, CAMERA.png: pixels that are not black show the vehicle "
        "itself and are ignored",
    )
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
    files = view_sets(arguments.pictures, arguments.rig)
    cameras = list(dict.fromkeys(file.camera for one in files for file in one))
    calibration = {}
    if arguments.calibration is not None:
        calibration = load_calibration(arguments.calibration, cameras)
    masks = {} if arguments.masks is None else read_masks(arguments.masks, cameras)
    sets = _read(files, calibration, masks)
    model = load_model(arguments.model, config.runtime.device)
    labeller = Labeller(model, config.labels)
    _say(
        f"{sum(map(len, sets))} pictures, {len(cameras)} camera(s), {len(sets)} view set(s); "
        f"model {model.name} ({model.card['licence']}) on {model.device}"
    )
    scene = _predict(labeller, sets, config)
    sources = [file.path.name for one in files for file in one]
    title = f"{arguments.pictures[0].resolve().name}  -  model {model.name}"
    save_scene(arguments.output, scene, config, title, sources)
    print(_summary(scene, arguments.output))
    highest = float(scene.observed.confidence.max())
    if highest <= config.voxels.min_confidence:
        _say(
            f"no observed point counts: the highest confidence is {highest:.3f} and "
            f"voxels.min_confidence is {config.voxels.min_confidence}; lower it for these weights"
        )


def _read(
    files: list[list[PictureFile]],
    calibration: dict[str, CameraCalibration],
    masks: dict[str, np.ndarray],
) -> list[list[View]]:
    """Read all pictures; for want of capture times the number of the view set is its stamp."""
    sets = []
    for index, one in enumerate(files):
        views = []
        for file in one:
            known = calibration.get(file.camera, NO_CALIBRATION)
            rgb = read_picture(file.path)
            mask = masks.get(file.camera)
            place = {"K": known.K, "rig_from_cam": known.rig_from_cam}
            views.append(View(rgb, file.camera, float(index), **place, ignored=mask))
        sets.append(views)
    return sets


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
