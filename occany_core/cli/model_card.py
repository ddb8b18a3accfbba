# SPDX-License-Identifier: Apache-2.0
"""The card of a checkpoint as Markdown: facts, training, scores.

In a page with the two marks, only what stands between them is replaced; the rest is written by
people.
"""

from collections.abc import Iterable
from pathlib import Path

from occany_core.checkpoints import Model
from occany_core.errors import InputError
from occany_core.evaluation import score_table
from occany_core.evaluation.score_table import GEOMETRY, OCCUPANCY, Column, markdown

BEGIN, END = "<!-- Card: begin -->", "<!-- Card: end -->"


def write_card_page(model: Model, path: Path) -> None:
    """Put the card into a page, or make a page of it.

    Raises:
        InputError: The page has no marks, or they are in the wrong order.
        OSError: The file cannot be read or written.
    """
    block = f"{BEGIN}\n{card_as_markdown(model)}\n{END}"
    if not path.exists():
        path.write_text(f"# Model card: {model.name}\n\n{block}\n", encoding="utf-8")
        return
    before, begin, rest = path.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise InputError(
            f"{path} has no place for the card: it needs the lines {BEGIN} and {END}, in this "
            "order; add them, or name a file that does not exist"
        )
    path.write_text(f"{before}{block}{after}", encoding="utf-8")


def card_as_markdown(model: Model) -> str:
    """Return facts, stages and scores, as far as the card has them."""
    training, metrics = model.card.get("training", {}), model.card.get("metrics", {})
    parts = [_facts(model, training)]
    if stages := training.get("recipe", {}).get("stages"):
        parts.append(_table(["Stage", "Length", "Rate", "Batches"], map(_stage, stages)))
    if notes := training.get("notes"):
        parts.append("\n".join(f"* {note}" for note in notes))
    if "synthocc" in metrics:
        parts.append(_synthocc(metrics["synthocc"]))
    if "masks" in metrics:
        parts.append(_masks(metrics["masks"]))
    if "ttva" in metrics:
        heading = "Surround IoU with other rendered views (`occany evaluate ttva`):"
        parts.append(f"{heading}\n\n{markdown(metrics['ttva'], OCCUPANCY)}")
    return "\n\n".join(parts)


def _facts(model: Model, training: dict) -> str:
    config = model.network.config
    parameters = sum(parameter.numel() for parameter in model.network.parameters())
    rows = [
        ("Name", model.name),
        ("Licence", model.card["licence"]),
        ("Use", model.card.get("use")),
        ("Parameters", f"{parameters / 1e6:.1f} million"),
        ("Pictures", f"{config.picture_width} px wide"),
        ("Rendered views", "yes" if model.network.renders_novel_views else "no"),
        ("Promptable features", "yes" if config.segmentation_dims else "no"),
        ("Classes", config.prompt_classes or "none"),
        ("Data", training.get("data")),
        ("Started from", training.get("start")),
        ("Seeds", training.get("training_seeds")),
        ("Steps", training.get("steps")),
        ("Compared views", training.get("views")),
        ("Hours", f"{training['seconds'] / 3600:.2f}" if "seconds" in training else None),
        ("Hardware", training.get("hardware")),
        ("sha256", ", ".join(f"`{file['sha256'][:16]}...`" for file in model.card["files"])),
    ]
    return _table(["", ""], ([name, _grouped(value)] for name, value in rows if value is not None))


def _grouped(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value)


def _stage(stage: dict) -> list[str]:
    kinds = dict.fromkeys(draw["kind"] for phase in stage["phases"] for draw in phase["draws"])
    length = f"{stage['steps']} steps" if stage.get("steps") else f"{stage['minutes']:g} min"
    return [stage["name"], length, f"{stage['peak_rate']:g}", ", ".join(kinds)]


def _synthocc(scores: dict) -> str:
    rows = {name: row for name, row in scores.items() if isinstance(row, dict) and "iou" in row}
    columns: list[Column] = [*OCCUPANCY, *GEOMETRY]
    lines = [
        f"SynthOcc, {scores['scenes']} scenes for each setting (`occany evaluate synthocc --limit "
        f"{scores['scenes']}`). Cells in percent; depth of the input views as shares, without "
        "scaling; poses on average over the views.",
        markdown(rows, columns),
        *scores.get("left_out", {}).values(),
    ]
    return "\n\n".join(lines)


def _masks(scores: dict) -> str:
    settings = {name: row for name, row in scores.items() if isinstance(row, dict)}
    parts = [
        f"Pictures of the same streets, {scores['scenes']} scenes for each setting "
        f"(`occany evaluate masks --limit {scores['scenes']}`), percent."
    ]
    for heading, table in score_table.of_segmentation(settings).items():
        parts.append(f"{heading}:\n\n{markdown(table, score_table.SEGMENTATION)}")
    return "\n\n".join(parts)


def _table(heading: list[str], rows: Iterable[list[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
