# SPDX-License-Identifier: Apache-2.0
"""The class tables of the evaluation sets, read from `classes.yaml` beside this file."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jaxtyping import UInt8

from occany_core.errors import InputError

CLASSES_FILE = Path(__file__).with_name("classes.yaml")


@dataclass(frozen=True)
class SemanticClass:
    """One class of a data set."""

    id: int
    name: str
    superclass: int
    colour: tuple[int, int, int]
    """RGB for display."""
    prompts: tuple[str, ...]
    """What an open-vocabulary detector is asked for."""


@dataclass(frozen=True)
class LabelConvention:
    """What the ids of a grid mean when it is judged."""

    names: tuple[str, ...]
    """Names of the counted ids, in order; larger ids are no class."""
    empty: int
    ignore: int
    """Marks cells of the truth that nobody judges."""

    @property
    def averaged(self) -> tuple[int, ...]:
        """Ids that take part in means over classes: all but the empty one."""
        return tuple(index for index in range(len(self.names)) if index != self.empty)


@dataclass(frozen=True)
class GridLayout:
    """Where the cells of the truth are; x forward, y left, z up."""

    origin: tuple[float, float, float]
    """Lower corner [m]."""
    resolution: float
    """Edge of a cell [m]."""
    shape: tuple[int, int, int]


@dataclass(frozen=True)
class DatasetClasses:
    """Everything that `classes.yaml` says about one data set."""

    classes: tuple[SemanticClass, ...]
    other: int
    """Label of occupied cells of unknown class."""
    convention: LabelConvention
    superclasses: LabelConvention
    grid: GridLayout
    raw_to_class: dict[int, int]
    """Ids of label files; empty where files hold class ids."""
    countable: tuple[int, ...]
    """Classes of things that have a number, such as cars; the others are stuff, such as road."""
    raw_unlisted: int
    """Class of ids of label files without an entry."""
    surround_cameras: tuple[str, ...]
    """In the order in which they are fed, the reference first; empty where there are none."""

    @property
    def superclass_lookup(self) -> UInt8[np.ndarray, "256"]:
        """Superclass of every grid value; values that are no class keep themselves."""
        lookup = np.arange(256, dtype=np.uint8)
        for entry in self.classes:
            lookup[entry.id] = entry.superclass
        return lookup


def load_classes(dataset: str) -> DatasetClasses:
    """Return the table of `semantic_kitti` or `occ3d_nuscenes`.

    Raises:
        InputError: There is no table of that name.
    """
    tables = _tables()
    if dataset not in tables:
        raise InputError(f"no class table {dataset!r}; there are {', '.join(sorted(tables))}")
    return _table(tables[dataset])


@cache
def _tables() -> dict[str, Any]:
    return yaml.safe_load(CLASSES_FILE.read_text(encoding="utf-8"))


def _table(entry: dict[str, Any]) -> DatasetClasses:
    classes = tuple(
        SemanticClass(
            id=one["id"],
            name=one["name"],
            superclass=one["superclass"],
            colour=tuple(one["colour"]),
            prompts=tuple(one["prompts"]),
        )
        for one in entry["classes"]
    )
    grid, superclasses, ignore = entry["grid"], entry["superclasses"], entry["ignore"]
    names = tuple(one.name for one in classes)
    return DatasetClasses(
        classes=classes,
        other=entry["other"],
        convention=LabelConvention(names, entry["empty"], ignore),
        superclasses=LabelConvention(tuple(superclasses["names"]), superclasses["empty"], ignore),
        grid=GridLayout(tuple(grid["origin"]), grid["resolution"], tuple(grid["shape"])),
        raw_to_class=entry.get("raw_to_class", {}),
        countable=tuple(entry["countable"]),
        raw_unlisted=entry.get("raw_unlisted", ignore),
        surround_cameras=tuple(entry.get("surround_cameras", ())),
    )
