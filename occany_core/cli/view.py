# SPDX-License-Identifier: Apache-2.0
"""`occany view`: draw the picture of a result again, or the curves of a training run."""

import argparse
from pathlib import Path

from occany_core.cli import training_curves
from occany_core.datasets.class_tables import load_classes
from occany_core.errors import InputError
from occany_core.live_view import LiveView, show_scene
from occany_core.picture import save_scene_picture
from occany_core.results import GRID, PICTURE, load_grid, load_scene
from occany_core.semantics.class_prompts import TABLE
from occany_core.training.journal import LOG

NAME = "view"
HELP = "draw the picture of a result folder or grid file again, or the curves of a training run"
EXAMPLE = "occany view out/street -o street.png --title 'Our street'"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    parser.add_argument(
        "result", type=Path, help="folder of `occany predict` or `occany train`, or a grid.npz"
    )
    parser.add_argument(
        "-o", "--output", type=Path,
        help=f"picture file (default: {PICTURE} or {training_curves.PICTURE} in the folder)",
    )  # fmt: skip
    parser.add_argument(
        "--rerun", action="store_true",
        help="show a result folder in Rerun instead (needs rerun-sdk), or write it to -o FILE.rrd",
    )  # fmt: skip
    parser.add_argument("--title", help="line over the picture")
    parser.add_argument(
        "--colour", choices=("height", "class"), default="height",
        help="what the colours of cells show (default: height)",
    )  # fmt: skip


def show_in_rerun(folder: Path, file: Path | None) -> None:
    """Open the viewer, or write a file for it."""
    scene = load_scene(folder)
    view = LiveView(file)
    show_scene(view, scene)
    view.close()
    if file is not None:
        print(f"wrote {file}")


def run(arguments: argparse.Namespace) -> None:
    """Write the picture and name it."""
    result = arguments.result
    if arguments.rerun:
        show_in_rerun(result, arguments.output)
        return
    if (result / LOG).is_file():
        output = arguments.output or result / training_curves.PICTURE
        training_curves.save_curves(result, output, arguments.title or f"Training: {result}")
        print(f"wrote {output}")
        return
    if result.suffix == Path(GRID).suffix:
        grid, pictures, captions, title = load_grid(result), (), (), str(result)
    else:
        scene = load_scene(result)
        grid, pictures, captions, title = scene.grid, scene.pictures, scene.captions, scene.title
    folder = result.parent if result.is_file() else result
    output = arguments.output or folder / PICTURE
    classes = ()
    if arguments.colour == "class":
        if grid.labels is None:
            raise InputError(
                f"{result} has no classes; predict again with weights that know some and "
                "--set labels.use=true, or draw it with --colour height"
            )
        classes = load_classes(TABLE).classes
    save_scene_picture(output, pictures, grid, arguments.title or title, captions, classes)
    print(f"wrote {output}")
