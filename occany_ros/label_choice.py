# SPDX-License-Identifier: Apache-2.0
"""Which of the classes that weights know are labelled, in which order and colour. Without ROS.

Ids stay what the weights make of them, so that what refers to ids goes on to mean the same.
"""

import re
from dataclasses import dataclass, replace

import numpy as np

from occany_core import Scene
from occany_core.datasets.class_tables import SemanticClass, load_classes
from occany_core.errors import ConfigError
from occany_core.semantics.class_prompts import TABLE, UNLABELLED

COLOUR = re.compile(r"#[0-9a-fA-F]{6}")


@dataclass(frozen=True, slots=True)
class LabelChoice:
    """What the user wants to see named."""

    names: tuple[str, ...] = ()
    """In the order in which they are listed; empty: all, as the weights list them."""
    colours: tuple[str, ...] = ()
    """`#rrggbb` for each name; empty: the usual ones."""

    def chosen(self, known: tuple[SemanticClass, ...]) -> tuple[SemanticClass, ...]:
        """Return the chosen among the classes that weights know."""
        if not self.names:
            return known
        by_name = {one.name: one for one in known}
        chosen = [by_name[name] for name in self.names if name in by_name]
        if not self.colours:
            return tuple(chosen)
        colours = dict(zip(self.names, self.colours, strict=True))
        return tuple(
            replace(one, colour=tuple(bytes.fromhex(colours[one.name][1:]))) for one in chosen
        )

    def applied(self, scene: Scene) -> Scene:
        """Take the label away from all pixels and cells of classes that are not chosen."""
        if scene.labels is None or not self.names:
            return scene
        grid = replace(scene.grid, labels=self.kept(scene.grid.labels))
        classes = self.chosen(scene.classes)
        return replace(scene, labels=self.kept(scene.labels), grid=grid, classes=classes)

    def kept(self, labels: np.ndarray) -> np.ndarray:
        """Return class ids (uint8, any shape) without those that are not chosen."""
        if not self.names:
            return labels
        kept = np.full(256, UNLABELLED, np.uint8)
        for one in self.chosen(load_classes(TABLE).classes):
            kept[one.id] = one.id
        return kept[labels]


def hexadecimal(rgb: tuple[float, float, float]) -> str:
    """Write a colour with channels from 0 to 1 as `#rrggbb`.

    Raises:
        ConfigError: A channel is out of range.
    """
    if not all(0 <= channel <= 1 for channel in rgb):
        raise ConfigError(f"the colour {rgb} must have red, green and blue between 0 and 1")
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in rgb)


def check_choice(names: tuple, colours: tuple) -> LabelChoice:
    """Return the choice.

    Raises:
        ConfigError: A name that no weights know or that stands twice, or colours that do not fit.
    """
    known = [one.name for one in load_classes(TABLE).classes]
    for name in names:
        if name not in known:
            raise ConfigError(
                f"parameter labels.classes holds {str(name)[:80]!r}, which is none of the classes "
                f"that weights know ({', '.join(known)}); classes by free text are not there yet"
            )
    if len(set(names)) < len(names):
        raise ConfigError(
            f"parameter labels.classes is {list(names)}; every name must stand there once"
        )
    if colours and len(colours) != len(names):
        raise ConfigError(
            f"parameter labels.colours holds {len(colours)} colours for the {len(names)} names of "
            "labels.classes; give one for each, or none"
        )
    for colour in colours:
        if not (isinstance(colour, str) and COLOUR.fullmatch(colour)):
            raise ConfigError(
                f"parameter labels.colours holds {str(colour)[:80]!r}; write red, green and blue "
                "like '#ff8000'"
            )
    return LabelChoice(names, colours)
