# SPDX-License-Identifier: Apache-2.0
"""Numbers -> charts for people: lines over an axis, bars beside names, several on a page.

NumPy and Pillow only. Where a value is not finite, a curve is interrupted.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from occany_core.picture.colours import FAINT_TEXT, LINE, PAGE, PANEL, TEXT
from occany_core.picture.page import check_format

SERIES = (
    (88, 166, 255),
    (250, 176, 60),
    (98, 205, 130),
    (236, 106, 120),
    (182, 140, 245),
    (90, 205, 215),
)
"""Colours of lines and bars, in their order."""
CHART_WIDTH, CHART_HEIGHT = 760, 400
MARGIN, HEADER = 20, 50
LEFT, RIGHT, TOP, BOTTOM = 66, 18, 58, 44
"""Room around the field of a chart [px]."""
OVERSAMPLING = 2
TICKS = 5


@dataclass(frozen=True)
class Line:
    """One curve."""

    name: str
    x: tuple[float, ...]
    y: tuple[float, ...]
    has_dots: bool = False
    """Whether the values themselves are marked."""


@dataclass(frozen=True)
class LineChart:
    """Curves over a common axis."""

    title: str
    x_label: str
    lines: tuple[Line, ...]
    marks: tuple[tuple[float, str], ...] = ()
    """Places on the axis with a name each."""
    is_log: bool = False
    """Equal steps of y are equal ratios; only positive values are drawn."""


@dataclass(frozen=True)
class BarChart:
    """Bars beside names, with one bar for each series."""

    title: str
    names: tuple[str, ...]
    series: tuple[tuple[str, tuple[float, ...]], ...]
    """Name of a series, and a value for each name; NaN has no bar."""


def save_charts(path: Path, charts: Sequence[LineChart | BarChart], title: str) -> None:
    """Write the page of `compose_charts` to a file.

    Raises:
        InputError: The file name has another ending than .png, .jpg, .jpeg or .webp.
        OSError: The file cannot be written.
    """
    check_format(path)
    Image.fromarray(compose_charts(charts, title)).save(path)


def compose_charts(
    charts: Sequence[LineChart | BarChart], title: str
) -> UInt8[np.ndarray, "H W 3"]:
    """Put charts on a page, two in a row.

    Args:
        charts: At least one.
        title: One line.
    """
    columns = min(len(charts), 2)
    rows = -(-len(charts) // columns)
    width = 2 * MARGIN + columns * (CHART_WIDTH + MARGIN) - MARGIN
    height = HEADER + rows * (CHART_HEIGHT + MARGIN)
    page = Image.new("RGB", (width, height), PAGE)
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN, 14), title, font=ImageFont.load_default(20), fill=TEXT)
    for index, chart in enumerate(charts):
        canvas = _Canvas()
        (_draw_lines if isinstance(chart, LineChart) else _draw_bars)(canvas, chart)
        column, row = index % columns, index // columns
        at = (MARGIN + column * (CHART_WIDTH + MARGIN), HEADER + row * (CHART_HEIGHT + MARGIN))
        page.paste(canvas.picture(), at)
    return np.asarray(page)


class _Canvas:
    """One chart in its own pixels, drawn larger than it is shown."""

    def __init__(self) -> None:
        size = (CHART_WIDTH * OVERSAMPLING, CHART_HEIGHT * OVERSAMPLING)
        self._image = Image.new("RGB", size, PANEL)
        self._draw = ImageDraw.Draw(self._image)

    def picture(self) -> Image.Image:
        return self._image.resize((CHART_WIDTH, CHART_HEIGHT), Image.Resampling.LANCZOS)

    def line(self, points: list[tuple[float, float]], colour: tuple, width: float) -> None:
        scaled = [(x * OVERSAMPLING, y * OVERSAMPLING) for x, y in points]
        self._draw.line(scaled, fill=colour, width=int(width * OVERSAMPLING), joint="curve")

    def box(self, left: float, top: float, right: float, bottom: float, colour: tuple) -> None:
        corners = [side * OVERSAMPLING for side in (left, top, right, bottom)]
        self._draw.rectangle(corners, fill=colour)

    def dot(self, x: float, y: float, colour: tuple) -> None:
        reach = 3.5
        corners = (x - reach, y - reach, x + reach, y + reach)
        self._draw.ellipse([side * OVERSAMPLING for side in corners], fill=colour)

    def text(
        self, at: tuple[float, float], text: str, colour: tuple = FAINT_TEXT, anchor: str = "la"
    ) -> float:
        """Write, and return the width."""
        font = ImageFont.load_default(13 * OVERSAMPLING)
        place = (at[0] * OVERSAMPLING, at[1] * OVERSAMPLING)
        self._draw.text(place, text, font=font, fill=colour, anchor=anchor)
        return self._draw.textlength(text, font=font) / OVERSAMPLING

    def heading(self, title: str, names: Sequence[str]) -> None:
        """Write the title, and below it what the colours mean."""
        self.text((LEFT, 10), title, TEXT)
        left = float(LEFT)
        for index, name in enumerate(names):
            self.box(left, 36, left + 14, 40, SERIES[index % len(SERIES)])
            left += 20 + self.text((left + 20, 31), name) + 16


@dataclass(frozen=True)
class _Axis:
    """Values -> pixels along one side of a chart."""

    low: float
    high: float
    start: float
    end: float
    """Pixels of both ends."""
    is_log: bool = False

    @classmethod
    def over(cls, values: list[float], start: float, end: float, is_log: bool = False) -> "_Axis":
        low, high = (min(values), max(values)) if values else (1.0, 2.0)
        if is_log:
            return cls(low / 1.1, high * 1.1, start, end, is_log=True)
        room = 0.05 * (high - low) or 0.5
        return cls(low - room if low < 0 or low > room else 0.0, high + room, start, end)

    def pixel(self, value: float) -> float:
        low, high, at = (
            (math.log(v) for v in (self.low, self.high, value))
            if self.is_log
            else (self.low, self.high, value)
        )
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Return round values between the ends."""
        if self.is_log:
            first, last = (math.floor(math.log10(v)) for v in (self.low, self.high))
            many = [d * 10.0**p for p in range(first, last + 1) for d in (1, 2, 5)]
            return [value for value in many if self.low <= value <= self.high]
        rough = (self.high - self.low) / TICKS
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * digit for digit in (1, 2, 5, 10) if power * digit >= rough)
        first = math.ceil(self.low / step)
        return [i * step for i in range(first, math.floor(self.high / step + 1e-9) + 1)]


def _label(value: float) -> str:
    return f"{value / 1000:.6g}k" if abs(value) >= 1000 else f"{value:.6g}"


def _draw_lines(canvas: _Canvas, chart: LineChart) -> None:
    lines = [_runs(line, chart.is_log) for line in chart.lines]
    points = [point for runs in lines for run in runs for point in run]
    right, bottom = CHART_WIDTH - RIGHT, CHART_HEIGHT - BOTTOM
    x_axis = _Axis.over([x for x, _ in points], LEFT, right)
    y_axis = _Axis.over([y for _, y in points], bottom, TOP, chart.is_log)
    canvas.heading(chart.title, [line.name for line in chart.lines])
    for value in y_axis.ticks():
        y = y_axis.pixel(value)
        canvas.line([(LEFT, y), (right, y)], LINE, 1)
        canvas.text((LEFT - 8, y), _label(value), anchor="rm")
    for value in x_axis.ticks():
        canvas.text((x_axis.pixel(value), bottom + 6), _label(value), anchor="ma")
    canvas.text(((LEFT + right) / 2, CHART_HEIGHT - 20), chart.x_label, anchor="ma")
    for value, name in chart.marks:
        if not x_axis.low <= value <= x_axis.high:
            continue
        x = x_axis.pixel(value)
        canvas.line([(x, TOP), (x, bottom)], FAINT_TEXT, 1)
        canvas.text((x + 5, TOP + 2), name)
    for index, (line, runs) in enumerate(zip(chart.lines, lines, strict=True)):
        colour = SERIES[index % len(SERIES)]
        for run in runs:
            pixels = [(x_axis.pixel(x), y_axis.pixel(y)) for x, y in run]
            if len(pixels) > 1:
                canvas.line(pixels, colour, 2)
            if line.has_dots or len(pixels) == 1:
                for x, y in pixels:
                    canvas.dot(x, y, colour)


def _runs(line: Line, is_log: bool) -> list[list[tuple[float, float]]]:
    """Return the stretches of a curve between values that cannot be drawn."""
    runs: list[list[tuple[float, float]]] = [[]]
    for x, y in zip(line.x, line.y, strict=True):
        if math.isfinite(x) and math.isfinite(y) and (y > 0 or not is_log):
            runs[-1].append((x, y))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]


def _draw_bars(canvas: _Canvas, chart: BarChart) -> None:
    canvas.heading(chart.title, [name for name, _ in chart.series])
    left = LEFT + 190
    values = [value for _, row in chart.series for value in row if math.isfinite(value)]
    axis = _Axis.over([0.0, *values], left, CHART_WIDTH - RIGHT - 40)
    pitch = (CHART_HEIGHT - TOP - 14) / max(len(chart.names), 1)
    thick = 0.8 * pitch / max(len(chart.series), 1)
    for row, name in enumerate(chart.names):
        top = TOP + row * pitch
        canvas.text((left - 10, top + 0.4 * pitch), name, TEXT, anchor="rm")
        for index, (_, figures) in enumerate(chart.series):
            if not math.isfinite(figures[row]):
                continue
            y, x = top + index * thick, axis.pixel(figures[row])
            canvas.box(axis.pixel(0), y, x, y + thick - 1, SERIES[index % len(SERIES)])
            canvas.text((x + 6, y + thick / 2), f"{figures[row]:.1f}", anchor="lm")
