# SPDX-License-Identifier: Apache-2.0
"""Scores as text: aligned columns for a terminal, or Markdown for a report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Scores = Mapping[str, Mapping[str, float]]
"""Name of a row -> key of a column -> value."""


@dataclass(frozen=True)
class Column:
    """One figure of every row."""

    key: str
    title: str
    decimals: int = 2


OCCUPANCY = (
    Column("precision", "precision"),
    Column("recall", "recall"),
    Column("iou", "IoU"),
    Column("iou_above_ground", "above ground"),
    Column("mean_iou", "mIoU"),
    Column("superclass_iou", "mIoU of superclasses"),
)
"""Percent."""
GEOMETRY = (
    Column("abs_rel", "abs-rel", 3),
    Column("within_1.25", "< 1.25", 3),
    Column("translation_m", "moved [m]"),
    Column("rotation_deg", "turned [deg]"),
)

SEGMENTATION = (
    Column("instances", "instances", 0),
    Column("mean_iou", "mean IoU"),
    Column("above_half", "IoU > 0.5"),
    Column("countable", "countable", 0),
    Column("mean_iou_countable", "mean IoU of these"),
    Column("found", "found"),
    Column("boxes", "boxes", 0),
    Column("right", "right"),
    Column("accuracy", "accuracy"),
    Column("share", "share of pixels"),
    Column("iou", "IoU"),
)
"""Percent, and numbers of things and boxes; each table has some of these."""


def of_segmentation(scores: Mapping[str, Mapping[str, Any]]) -> dict[str, Scores]:
    """Return tables by heading, of what `evaluate_masks` says of some settings."""
    tables: dict[str, dict[str, Mapping[str, float]]] = {}
    for setting, found in scores.items():
        for heading, part in (("Masks from prompts", "masks"), ("Countable things", "boxes")):
            rows = {f"{setting}, {_words(name)}": row for name, row in found[part].items()}
            tables.setdefault(heading, {}).update(rows)
        pixels = {key: found["pixels"][key] for key in ("mean_iou", "accuracy")}
        tables.setdefault("Classes of pixels", {})[setting] = pixels
    for setting, found in scores.items():
        by_class = {_words(name): dict(row) for name, row in found["pixels"]["classes"].items()}
        for name, row in found["boxes"]["class_probe"]["classes"].items():
            by_class.setdefault(_words(name), {}).update(row)
        tables[f"Classes, {setting}"] = by_class
    return tables


def _words(name: str) -> str:
    return name.replace("_", " ")


def cells(scores: Scores, columns: Sequence[Column]) -> list[list[str]]:
    """Return the heading and one line per row; columns that no row has are left out."""
    shown = [one for one in columns if any(one.key in row for row in scores.values())]
    lines = [["", *(one.title for one in shown)]]
    for name, row in scores.items():
        figures = [f"{row[one.key]:.{one.decimals}f}" if one.key in row else "" for one in shown]
        lines.append([name, *figures])
    return lines


def plain(scores: Scores, columns: Sequence[Column]) -> str:
    """Return aligned columns."""
    lines = cells(scores, columns)
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip()
        for line in lines
    )


def markdown(scores: Scores, columns: Sequence[Column]) -> str:
    """Return a Markdown table."""
    heading, *lines = cells(scores, columns)
    rule = ["---", *["---:"] * (len(heading) - 1)]
    return "\n".join("| " + " | ".join(line) + " |" for line in (heading, rule, *lines))
