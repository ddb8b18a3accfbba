# SPDX-License-Identifier: Apache-2.0
"""Scores of ablations -> JSON, a Markdown table and a picture."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from occany_core.evaluation import score_table
from occany_core.evaluation.score_table import Column
from occany_core.evaluation.view_augmentation import VariantScore
from occany_core.picture.charts import BarChart, Line, LineChart, save_charts
from occany_core.training.ablations import Variant

SETTINGS = ("surround", "sequence", "monocular")
DATA, TABLE, PLOT = "ablations.json", "ablations.md", "ablations.png"
SWEEP_LINES = {
    "ahead": "straight ahead",
    "turned": "and turned",
    "shifted": "and turned and shifted",
}
ABOUT_TASK_TOKENS = (
    "Task tokens are added in front of affine layers that have a bias: without them the same "
    "functions can be learnt, only in another way."
)
ABOUT_NOISE = (
    "One run for each row. Differences no larger than the one between two seeds mean nothing."
)

Scores = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Report:
    """All that is known so far."""

    title: str
    scenes: int
    variants: list[Variant]
    commands: dict[str, str]
    """How each trained variant is trained by hand."""
    scores: dict[str, Scores]
    """By variant, of those that are done."""
    sweep: list[VariantScore]
    """Empty until it is done."""


def write_report(report: Report, folder: Path) -> None:
    """Write all three files.

    Raises:
        OSError: A file cannot be written.
    """
    rows = [
        asdict(one)
        | {"command": report.commands.get(one.name), "scores": report.scores.get(one.name)}
        for one in report.variants
    ]
    data = {"title": report.title, "scenes": report.scenes, "variants": rows}
    data["ttva"] = [asdict(one) for one in report.sweep]
    (folder / DATA).write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")
    (folder / TABLE).write_text(markdown(report), encoding="utf-8")
    charts = [_bars(report)]
    if report.sweep:
        charts.append(chart_of_sweep(report.sweep))
    save_charts(folder / PLOT, charts, report.title)


def table(report: Report) -> tuple[score_table.Scores, list[Column]]:
    """Return IoU, its difference to the row that a variant is compared with, and more figures."""
    columns = []
    for setting in SETTINGS:
        columns += [Column(setting, f"{setting} IoU"), Column(f"{setting}_gain", "+/-")]
    columns += [
        Column("iou_above_ground", "above ground"),
        Column("abs_rel", "abs-rel", 3),
        Column("mean_iou", "mIoU"),
    ]
    titles = {one.name: one.title for one in report.variants}
    rows = {}
    for variant in report.variants:
        scores, reference = (report.scores.get(n) for n in (variant.name, variant.against))
        title = variant.title
        if variant.no_difference:
            title += f" (no different: {variant.no_difference})"
        elif variant.against != report.variants[0].name:
            title += f" (against: {titles[variant.against]})"
        rows[title] = {} if scores is None else _figures(variant, scores, reference)
    return rows, columns


def _figures(variant: Variant, scores: Scores, reference: Scores | None) -> dict[str, float]:
    row = {setting: scores[setting]["iou"] for setting in SETTINGS}
    if reference is not None and variant.name != variant.against:
        for setting in SETTINGS:
            row[f"{setting}_gain"] = scores[setting]["iou"] - reference[setting]["iou"]
    of_surround = scores["surround"]
    return row | {
        key: of_surround[key]
        for key in ("iou_above_ground", "abs_rel", "mean_iou")
        if key in of_surround
    }


def markdown(report: Report) -> str:
    """Return the page."""
    rows, columns = table(report)
    parts = [
        f"# {report.title}",
        f"SynthOcc, {report.scenes} scenes for each setting; percent, abs-rel as a share. The "
        f"last columns are of surround. {ABOUT_NOISE} {ABOUT_TASK_TOKENS}",
        score_table.markdown(rows, columns),
    ]
    if report.sweep:
        sweep = {
            one.name: {"views": one.rendered, "iou": one.ratios["iou"]} for one in report.sweep
        }
        columns = [Column("views", "rendered views", 0), Column("iou", "surround IoU")]
        parts += [
            "## View augmentation, with the weights of the full run",
            score_table.markdown(sweep, columns),
        ]
    commands = "\n".join(report.commands.values())
    parts += ["## The same by hand", f"```\n{commands}\n```", f"![{report.title}]({PLOT})"]
    return "\n\n".join(parts) + "\n"


def chart_of_sweep(scores: list[VariantScore]) -> LineChart:
    """Return IoU over the number of rendered views."""
    lines = []
    for ending, label in SWEEP_LINES.items():
        chosen = [one for one in scores if one.rendered == 0 or one.name.endswith(ending)]
        views = tuple(float(one.rendered) for one in chosen)
        lines.append(Line(label, views, tuple(one.ratios["iou"] for one in chosen), has_dots=True))
    return LineChart(
        "View augmentation: surround IoU [%]", "rendered views per scene", tuple(lines)
    )


def _bars(report: Report) -> BarChart:
    done = [one for one in report.variants if one.name in report.scores]
    series = tuple(
        (setting, tuple(report.scores[one.name][setting]["iou"] for one in done))
        for setting in SETTINGS
    )
    return BarChart("IoU [%]", tuple(one.title for one in done), series)
