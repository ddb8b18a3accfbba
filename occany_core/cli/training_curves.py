# SPDX-License-Identifier: Apache-2.0
"""The log of a training run -> charts: losses, their parts, scores on held-back streets."""

from pathlib import Path

import numpy as np

from occany_core.picture.charts import Line, LineChart, save_charts
from occany_core.training.journal import read_log

PICTURE = "curves.png"
ERRORS = ("world_error", "camera_error")
PARTS = ("pose", "forcing", "distillation", "prompting")
SCORES = (
    ("abs_rel", "Held-back streets: depth abs-rel"),
    ("within_1.25", "Held-back streets: share of depth within 1.25"),
    ("world_error", "Held-back streets: error of points in the reference frame"),
)
SMOOTHING = 60
"""Each point of a loss is a mean over the last points, of which a stage has this many."""

Log = list[dict[str, float | int | str]]


def save_curves(folder: Path, path: Path, title: str) -> None:
    """Draw the curves of a run.

    Raises:
        InputError: The folder holds no log, or the picture's name has an unknown ending.
        OSError: The file cannot be written.
    """
    save_charts(path, charts_of(read_log(folder)), title)


def charts_of(log: Log) -> list[LineChart]:
    """Return the charts that the log has figures for."""
    reports = [line for line in log if "total" in line]
    marks = _stage_starts(log)
    drawn = [
        _of_losses("Loss", ("total",), reports, marks),
        _of_losses("Errors in training", ERRORS, reports, marks, is_log=True),
        _of_losses("Other terms, before their weights", PARTS, reports, marks, is_log=True),
    ]
    drawn += [_of_scores(title, score, log, marks) for score, title in SCORES]
    return [chart for chart in drawn if chart.lines]


def _stage_starts(log: Log) -> tuple[tuple[float, str], ...]:
    """Return the step from which each later stage reports."""
    starts, before = [], log[0]["stage"]
    for line in log:
        if line["stage"] != before:
            starts.append((float(line["step"]), str(line["stage"])))
        before = line["stage"]
    return tuple(starts)


def _of_losses(
    title: str, names: tuple[str, ...], reports: Log, marks: tuple, *, is_log: bool = False
) -> LineChart:
    lines = []
    for name in names:
        if any(line.get(name) for line in reports):
            x, y = _by_stage([line for line in reports if name in line], name, is_smooth=True)
            lines.append(Line(name.replace("_", " "), x, y))
    return LineChart(title, "step", tuple(lines), marks, is_log)


def _of_scores(title: str, score: str, log: Log, marks: tuple) -> LineChart:
    ending = f"_{score}"
    keys = {key for line in log for key in line if key.startswith("validation/")}
    lines = []
    for key in sorted(key for key in keys if key.endswith(ending)):
        x, y = _by_stage([line for line in log if key in line], key, is_smooth=False)
        kind = key.removeprefix("validation/").removesuffix(ending)
        lines.append(Line(kind, x, y, has_dots=True))
    return LineChart(title, "step", tuple(lines), marks)


def _by_stage(lines: Log, key: str, *, is_smooth: bool) -> tuple[tuple, tuple]:
    """Return steps and values; NaN stands between stages, so that no line joins them."""
    x: list[float] = []
    y: list[float] = []
    for stage in dict.fromkeys(line["stage"] for line in lines):
        part = [line for line in lines if line["stage"] == stage]
        values = np.array([float(line[key]) for line in part])
        x += [*(float(line["step"]) for line in part), np.nan]
        y += [*(_smooth(values) if is_smooth else values).tolist(), np.nan]
    return tuple(x), tuple(y)


def _smooth(values: np.ndarray) -> np.ndarray:
    length = max(len(values) // SMOOTHING, 1)
    sums = np.cumsum(np.concatenate(([0.0], values)))
    end = np.arange(1, len(values) + 1)
    start = np.maximum(end - length, 0)
    return (sums[end] - sums[start]) / (end - start)
