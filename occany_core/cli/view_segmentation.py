# SPDX-License-Identifier: Apache-2.0
"""`occany view features` and `occany view instances`: what the weights see in pictures."""

import argparse
from pathlib import Path

from PIL import Image

from occany_core.checkpoints import Model, load_model
from occany_core.cli import picture_arguments, settings_arguments
from occany_core.datasets.class_tables import SemanticClass, load_classes
from occany_core.errors import InputError
from occany_core.images import View, seen_part
from occany_core.picture.features import compose_features_picture
from occany_core.picture.instances import compose_instances_picture
from occany_core.picture.page import check_format
from occany_core.semantics.class_prompts import TABLE, vocabulary
from occany_core.view_features import (
    SeenViews,
    check_promptable,
    check_prompting,
    find_things,
    see_views,
)

FEATURES, INSTANCES = "features", "instances"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of both."""
    group = parser.add_argument_group(
        "features, instances",
        "occany view features recordings/sequence -o features.png\n"
        "occany view instances recordings/sequence --labels 'car, pedestrian' -o instances.png",
    )
    picture_arguments.add_options(group)
    group.add_argument(
        "--labels",
        metavar="TEXTS",
        help="instances: classes to look for, such as 'car, pedestrian' (default: all of things "
        "that have a number)",
    )
    settings_arguments.add_arguments(group)


def draw_features(paths: list[Path], arguments: argparse.Namespace) -> None:
    """Write a page of every picture beside its features, level by level."""
    output, pictures, model = _start(paths, arguments, FEATURES)
    check_promptable(model)
    views, seen = _look(pictures, model, arguments)
    levels = dict(zip(("coarse", "middle", "fine"), seen.features.levels, strict=True))
    page = compose_features_picture(
        [seen_part(view.rgb, *seen.size) for view in views],
        {
            f"{name}: {level.shape[1]} channels, {level.shape[2]} x {level.shape[3]}": (
                level.cpu().numpy()
            )
            for name, level in levels.items()
        },
        arguments.title or f"Promptable features of {_place(paths)}  -  model {model.name}",
        pictures.names,
    )
    Image.fromarray(page).save(output)
    print(f"wrote {output}")


def draw_instances(paths: list[Path], arguments: argparse.Namespace) -> None:
    """Write a page of every picture with the things that were found in it."""
    table = load_classes(TABLE)
    asked = table.countable if arguments.labels is None else asked_classes(arguments.labels)
    output, pictures, model = _start(paths, arguments, INSTANCES)
    check_prompting(model)
    views, seen = _look(pictures, model, arguments)
    least = settings_arguments.read(arguments).labels.min_score
    things = [one.cpu() for one in find_things(model, seen.features, asked)]
    things = [one[one.found.scores > least] for one in things]
    page = compose_instances_picture(
        [seen_part(view.rgb, *seen.size) for view in views],
        things,
        table.classes,
        arguments.title or f"Things found in {_place(paths)}  -  model {model.name}",
        pictures.names,
    )
    Image.fromarray(page).save(output)
    print(f"wrote {output}: {sum(len(one.masks) for one in things)} found")


def asked_classes(words: str) -> tuple[int, ...]:
    """Return the ids of the classes that words mean, such as "car, traffic cone".

    Names of classes, or prompts of them; the probe reads no other texts.

    Raises:
        InputError: A word is neither, or stands for what is never looked for.
        ConfigError: Two words are the same.
    """
    found = vocabulary(tuple(word.strip() for word in words.split(",") if word.strip()))
    names = ", ".join(one.name.replace("_", " ") for one in _findable(vocabulary().classes))
    if (
        found.foreign
        or len(_findable(found.classes)) < len(found.classes)
        or not words.strip(", ")
    ):
        raise InputError(
            f"--labels is {words!r}; name some of these classes, or prompts of them that "
            f"classes.yaml lists: {names}"
        )
    return tuple(one.id for one in found.classes)


def _findable(classes: tuple[SemanticClass, ...]) -> list[SemanticClass]:
    """Leave out what is never looked for."""
    table = load_classes(TABLE)
    return [one for one in classes if one.id not in (table.convention.empty, table.other)]


def _start(
    paths: list[Path], arguments: argparse.Namespace, what: str
) -> tuple[Path, picture_arguments.Pictures, Model]:
    """Check everything that can be wrong before any work is done."""
    output = arguments.output or Path(f"{what}.png")
    check_format(output)
    config = settings_arguments.read(arguments)
    pictures = picture_arguments.find(paths, arguments)
    return output, pictures, load_model(arguments.model, config.runtime.device)


def _look(
    pictures: picture_arguments.Pictures, model: Model, arguments: argparse.Namespace
) -> tuple[list[View], SeenViews]:
    """Let the network see all pictures together."""
    sets = pictures.read()
    views = [view for one in sets for view in one]
    return views, see_views(model, sets, settings_arguments.read(arguments))


def _place(paths: list[Path]) -> str:
    return paths[0].resolve().name + (" ..." if len(paths) > 1 else "")
