# SPDX-License-Identifier: Apache-2.0
"""`occany view features` and `occany view instances`: what the weights see in pictures."""

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image

from occany_core.checkpoints import Model, load_model
from occany_core.checkpoints.store import complete_or_absent
from occany_core.cli import picture_arguments, settings_arguments
from occany_core.cli.view_files import check_picture_place
from occany_core.config import LabelsConfig
from occany_core.datasets.class_tables import load_classes
from occany_core.errors import ConfigError
from occany_core.images import seen_part
from occany_core.observation import encode
from occany_core.picture.features import compose_features_picture
from occany_core.picture.instances import compose_instances_picture
from occany_core.semantics.class_prompts import TABLE, vocabulary
from occany_core.semantics.labelling import Labeller
from occany_core.view_features import check_promptable, promptable_features, see_views

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
    sets = pictures.read()
    seen = see_views(model, sets, settings_arguments.read(arguments))
    levels = dict(zip(("coarse", "middle", "fine"), seen.features.levels, strict=True))
    page = compose_features_picture(
        [seen_part(view.rgb, *seen.size) for one in sets for view in one],
        {
            f"{name}: {level.shape[1]} channels, {level.shape[2]} x {level.shape[3]}": (
                level.cpu().numpy()
            )
            for name, level in levels.items()
        },
        arguments.title or f"Promptable features of {_place(paths)}  -  model {model.name}",
        pictures.names,
    )
    with complete_or_absent(output) as unfinished:
        Image.fromarray(page).save(unfinished)
    print(f"wrote {output}")


def draw_instances(paths: list[Path], arguments: argparse.Namespace) -> None:
    """Write a page of every picture with the things that were found in it."""
    output, pictures, model = _start(paths, arguments, INSTANCES)
    config = settings_arguments.read(arguments)
    labels = labels_config(config.labels, arguments.labels)
    labeller = Labeller(model, labels)
    sets = [encode(model, views, config) for views in pictures.read()]
    size = sets[0].batch.rgb.shape[1:3]
    needs_features = labeller.needs_features(labels)
    levels = promptable_features(model, sets, config).levels if needs_features else ()
    looks = [
        look
        for one in sets
        for look in labeller.look(torch.from_numpy(one.batch.rgb), labels)
        or [None] * len(one.views)
    ]
    things = labeller.things(levels, looks, size, labels)
    page = compose_instances_picture(
        [seen_part(view.rgb, *size) for one in sets for view in one.views],
        [one.cpu() for one in things],
        labeller.classes(labels),
        arguments.title or f"Things found in {_place(paths)}  -  model {model.name}",
        pictures.names,
    )
    with complete_or_absent(output) as unfinished:
        Image.fromarray(page).save(unfinished)
    print(f"wrote {output}: {sum(len(one.masks) for one in things)} found")


def labels_config(labels: LabelsConfig, words: str | None) -> LabelsConfig:
    """Return the settings of a pipeline that finds things: what is countable, or what words say.

    Args:
        labels: As set; the pipeline `classes` finds nothing, and gives way to `distilled`.
        words: Of the option `--labels`, such as "car, traffic cone", or None.

    Raises:
        ConfigError: Words that mean nothing that could be found.
    """
    table = load_classes(TABLE)
    texts = labels.classes or tuple(table.classes[label].name for label in table.countable)
    if words is not None:
        texts = tuple(word.strip() for word in words.split(",") if word.strip())
    special = (table.convention.empty, table.other)
    if not texts or any(one.id in special for one in vocabulary(texts).classes):
        findable = (one.name for one in table.classes if one.id not in special)
        raise ConfigError(
            f"--labels is {words!r}; name what can be found, such as {', '.join(findable)}"
        )
    pipeline = "distilled" if labels.pipeline == "classes" else labels.pipeline
    return replace(labels, use=True, classes=texts, pipeline=pipeline)


def _start(
    paths: list[Path], arguments: argparse.Namespace, what: str
) -> tuple[Path, picture_arguments.Pictures, Model]:
    """Check everything that can be wrong before any work is done."""
    output = arguments.output or Path(f"{what}.png")
    check_picture_place(output)
    config = settings_arguments.read(arguments)
    pictures = picture_arguments.find(paths, arguments)
    return output, pictures, load_model(arguments.model, config.runtime.device)


def _place(paths: list[Path]) -> str:
    return paths[0].resolve().name + (" ..." if len(paths) > 1 else "")
