# SPDX-License-Identifier: Apache-2.0
"""Names and texts that a user gives -> classes, their ids, and what detectors are asked for."""

import colorsys
import zlib
from dataclasses import dataclass

from occany_core.datasets.class_tables import SemanticClass, load_classes
from occany_core.errors import ConfigError
from occany_core.voxels import ClassTable

TABLE = "occ3d_nuscenes"
"""The class table whose ids labels have; other texts get ids beyond, each always the same."""
UNLABELLED = 255
"""Class id of what has none."""
GOLDEN_RATIO = 0.618034


@dataclass(frozen=True)
class PromptTable:
    """Texts to look for, and the class each stands for."""

    texts: tuple[str, ...]
    labels: tuple[int, ...]

    def without(self, classes: ClassTable) -> "PromptTable":
        """Leave out the prompts of `empty` and `other`, which are never painted."""
        kept = [
            (text, label)
            for text, label in zip(self.texts, self.labels, strict=True)
            if label not in (classes.empty, classes.other)
        ]
        return PromptTable(tuple(text for text, _ in kept), tuple(label for _, label in kept))


@dataclass(frozen=True)
class Vocabulary:
    """What is labelled."""

    classes: tuple[SemanticClass, ...]
    """In the order in which they were asked for."""
    prompts: PromptTable
    """What a detector is asked for."""
    foreign: tuple[str, ...] = ()
    """Texts that the table does not know; only detectors that read texts can find them."""

    @property
    def convention(self) -> ClassTable:
        """Which ids there are, and what is special among them."""
        table = load_classes(TABLE)
        highest = max([len(table.classes) - 1, *(one.id for one in self.classes)])
        return ClassTable(highest + 1, table.other, table.convention.empty)


def vocabulary(texts: tuple[str, ...] = ()) -> Vocabulary:
    """Find out what texts stand for.

    A class of the table is asked for by its name, and then all its prompts are looked for, or by
    one of its prompts, which is then looked for alone. Any other text is a class of its own. Upper
    case, `-` and `_` make no difference.

    Args:
        texts: As in `labels.classes`; none: all classes of the table, but for `other` as in the
            published captions.

    Raises:
        ConfigError: Two texts mean the same, or there are too many.
    """
    table = load_classes(TABLE)
    if not texts:
        asked = [(one, one.prompts) for one in table.classes if one.id != table.other]
        return Vocabulary(table.classes, _prompts(asked))
    if len(texts) > UNLABELLED - len(table.classes):
        raise ConfigError(
            f"labels.classes holds {len(texts)} texts; ids allow for "
            f"{UNLABELLED - len(table.classes)}"
        )
    asked, foreign = [], []
    for text in texts:
        known = _known(text, table.classes)
        if known is None:
            known = _own_class(text, len(table.classes), [one.id for one, _ in asked])
            foreign.append(text)
            asked.append((known, (text,)))
        else:
            asked.append(
                (known, known.prompts if plain_text(text) == plain_text(known.name) else (text,))
            )
    plain = [plain_text(text) for text in texts]
    if len(set(plain)) < len(plain):
        raise ConfigError(f"labels.classes is {list(texts)}; every text must stand there once")
    classes = {one.id: one for one, _ in asked}
    return Vocabulary(tuple(classes.values()), _prompts(asked), tuple(foreign))


def plain_text(prompt: str) -> str:
    """Write a prompt as captions do: lower case, blanks for hyphens and underscores."""
    return " ".join(prompt.lower().replace("-", " ").replace("_", " ").split())


def _known(text: str, classes: tuple[SemanticClass, ...]) -> SemanticClass | None:
    """Return the class with this name, or else with this prompt."""
    wanted = plain_text(text)
    by_name = (one for one in classes if plain_text(one.name) == wanted)
    by_prompt = (one for one in classes if wanted in map(plain_text, one.prompts))
    return next(by_name, None) or next(by_prompt, None)


def _own_class(text: str, first: int, taken: list[int]) -> SemanticClass:
    """Make a class that the table does not have, with an id that follows from the text.

    Two texts may come to the same id; the later one then takes the next that is free.
    """
    label = first + zlib.crc32(plain_text(text).encode()) % (UNLABELLED - first)
    while label in taken:
        label = label + 1 if label + 1 < UNLABELLED else first
    colour = colorsys.hsv_to_rgb(label * GOLDEN_RATIO % 1, 0.75, 0.95)
    red, green, blue = (round(255 * channel) for channel in colour)
    return SemanticClass(label, " ".join(text.split()), 0, (red, green, blue), (text,))


def _prompts(asked: list[tuple[SemanticClass, tuple[str, ...]]]) -> PromptTable:
    pairs = [(prompt, one.id) for one, prompts in asked for prompt in prompts]
    return PromptTable(tuple(text for text, _ in pairs), tuple(label for _, label in pairs))
