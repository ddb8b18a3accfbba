# SPDX-License-Identifier: Apache-2.0
"""The colours in which a user wants to see classes. Without ROS."""

import re
from dataclasses import dataclass, replace

from occany_core.datasets.class_tables import SemanticClass
from occany_core.errors import ConfigError

COLOUR = re.compile(r"#[0-9a-fA-F]{6}")


@dataclass(frozen=True, slots=True)
class LabelColours:
    """`#rrggbb` for each of `labels.classes`; empty: the usual ones."""

    colours: tuple[str, ...] = ()

    def applied(self, classes: tuple[SemanticClass, ...]) -> tuple[SemanticClass, ...]:
        """Return classes, in the order of `labels.classes`, in their colours.

        Args:
            classes: All that are labelled, or none, as where labels are not used.
        """
        if not self.colours or not classes:
            return classes
        return tuple(
            replace(one, colour=tuple(bytes.fromhex(colour[1:])))
            for one, colour in zip(classes, self.colours, strict=True)
        )


def hexadecimal(rgb: tuple[float, float, float]) -> str:
    """Write a colour with channels from 0 to 1 as `#rrggbb`.

    Raises:
        ConfigError: A channel is out of range.
    """
    if not all(0 <= channel <= 1 for channel in rgb):
        raise ConfigError(f"the colour {rgb} must have red, green and blue between 0 and 1")
    return "#" + "".join(f"{round(255 * channel):02x}" for channel in rgb)


def check_colours(names: tuple[str, ...], colours: tuple) -> LabelColours:
    """Return the colours.

    Args:
        names: Classes that are labelled, each once.
        colours: As given.

    Raises:
        ConfigError: Not one for each class, or one that is no colour.
    """
    if colours and len(colours) != len(names):
        raise ConfigError(
            f"parameter labels.colours holds {len(colours)} colours for the {len(names)} classes "
            "of labels.classes; give one for each, or none"
        )
    for colour in colours:
        if not (isinstance(colour, str) and COLOUR.fullmatch(colour)):
            raise ConfigError(
                f"parameter labels.colours holds {str(colour)[:80]!r}; write red, green and blue "
                "like '#ff8000'"
            )
    return LabelColours(colours)
