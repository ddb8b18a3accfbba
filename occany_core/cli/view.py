# SPDX-License-Identifier: Apache-2.0
"""`occany view`: the picture of a result again, curves of a training run, or what weights see."""

import argparse
from pathlib import Path

from occany_core.checkpoints.store import complete_or_absent
from occany_core.cli import picture_arguments, training_curves, view_segmentation
from occany_core.cli.view_files import check_picture_place
from occany_core.errors import InputError
from occany_core.live_view import LiveView, show_scene
from occany_core.picture import save_scene_picture
from occany_core.results import GRID, PICTURE, load_grid, load_grid_classes, load_scene
from occany_core.training.journal import LOG

NAME = "view"
HELP = "draw a result again, the curves of a training run, or what the weights see in pictures"
EXAMPLE = "occany view out/street -o street.png --title 'Our street'"
SEEN = {
    view_segmentation.FEATURES: view_segmentation.draw_features,
    view_segmentation.INSTANCES: view_segmentation.draw_instances,
}
OF_RESULTS = ("rerun", "colour")
OF_PICTURES = ("rig", "model", "calibration", "masks", "labels", "config", "set")
FOREIGN = {
    view_segmentation.FEATURES: (*OF_RESULTS, "labels"),
    view_segmentation.INSTANCES: OF_RESULTS,
}
"""Options that have no effect there; on a result, those of pictures have none."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    parser.add_argument(
        "what", nargs="+", metavar="WHAT",
        help="a folder of `occany predict` or `occany train`, or a grid.npz; or the word features "
        "(colours of the promptable features, alike in all views) or instances (things that were "
        "detected, with their masks) and " + picture_arguments.PICTURES,
    )  # fmt: skip
    parser.add_argument(
        "-o", "--output", type=Path,
        help=f"picture file (default: {PICTURE} or {training_curves.PICTURE} in the folder; "
        "features.png or instances.png here)",
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
    view_segmentation.add_arguments(parser)
    parser.set_defaults(option_defaults={
        name: parser.get_default(name) for name in OF_RESULTS + OF_PICTURES
    })  # fmt: skip


def show_in_rerun(folder: Path, file: Path | None) -> None:
    """Open the viewer, or write a file for it."""
    scene = load_scene(folder)
    view = LiveView(file)
    show_scene(view, scene)
    view.close()
    if file is not None:
        print(f"wrote {file}")


def run(arguments: argparse.Namespace) -> None:
    """Write the picture and name it.

    Raises:
        InputError: Options that do not belong to it, or paths that cannot be used.
    """
    what, *paths = arguments.what
    refuse_foreign(arguments, FOREIGN.get(what, OF_PICTURES), f"{NAME} {what}")
    if what not in SEEN and paths:
        raise InputError(
            f"{len(arguments.what)} results were named; name one, or put the word "
            f"{' or '.join(SEEN)} before pictures"
        )
    if what in SEEN and not paths:
        raise InputError(f"view {what} needs pictures: name a folder or files after the word")
    if what in SEEN:
        SEEN[what]([Path(path) for path in paths], arguments)
    else:
        draw_result(Path(what), arguments)


def refuse_foreign(arguments: argparse.Namespace, foreign: tuple[str, ...], command: str) -> None:
    """Refuse options that would have no effect.

    Raises:
        InputError: One is not as in `arguments.option_defaults`.
    """
    for name in foreign:
        if getattr(arguments, name) != arguments.option_defaults[name]:
            raise InputError(
                f"--{name.replace('_', '-')} does nothing for {command}; leave it out "
                f"(`occany {command.split()[0]} --help` says what belongs together)"
            )


def draw_result(result: Path, arguments: argparse.Namespace) -> None:
    """Draw what `occany predict` or `occany train` left."""
    if arguments.rerun:
        show_in_rerun(result, arguments.output)
        return
    check_picture_place(arguments.output)
    if (result / LOG).is_file():
        output = arguments.output or result / training_curves.PICTURE
        with complete_or_absent(output) as unfinished:
            title = arguments.title or f"Training: {result}"
            training_curves.save_curves(result, unfinished, title)
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
        classes = load_grid_classes(result if result.is_file() else result / GRID)
    with complete_or_absent(output) as unfinished:
        save_scene_picture(unfinished, pictures, grid, arguments.title or title, captions, classes)
    print(f"wrote {output}")
