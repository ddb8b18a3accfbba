# SPDX-License-Identifier: Apache-2.0
"""The outcome of golden checks as text and as JSON data."""

import math
from collections import Counter
from itertools import groupby

from occany_core.bench.golden.checklist import Stage

VERDICTS = ("ok", "FAIL", "not checked")
HEADER = f"{'stage':58}{'max error':>12}{'tolerance':>12}  verdict"


def counts(stages: list[Stage]) -> dict[str, int]:
    """Count the stages of each verdict."""
    found = Counter(stage.verdict for stage in stages)
    return {verdict: found[verdict] for verdict in VERDICTS}


def table(stages: list[Stage]) -> str:
    """Return one line per stage."""
    return "\n".join([HEADER, *(_line(stage) for stage in stages)])


def overview(stages: list[Stage]) -> str:
    """Return one line per file with its worst stage, and below it everything that is not ok."""
    lines = [f"{'file':34}{'stages':>7}{'worst error / tolerance':>25}  of stage"]
    for file, group in groupby(sorted(stages, key=lambda s: s.file), key=lambda s: s.file):
        of_file = list(group)
        compared = [stage for stage in of_file if stage.error is not None]
        line = f"{file:34}{len(of_file):7}"
        if compared:
            worst = max(compared, key=_ratio)
            line += f"{_ratio(worst):25.3f}  {worst.name}"
        lines.append(line)
        lines += [f"  {_line(stage)}" for stage in of_file if stage.verdict != "ok"]
    return "\n".join(lines)


def summary(stages: list[Stage]) -> str:
    """Return the counts as one line."""
    return ", ".join(f"{number} {verdict}" for verdict, number in counts(stages).items())


def as_json(stages: list[Stage]) -> dict:
    """Return counts and stages as plain data; an error that is no finite number becomes text."""
    return counts(stages) | {
        "stages": [
            {
                "file": stage.file,
                "name": stage.name,
                "error": stage.error if _is_plain(stage.error) else str(stage.error),
                "tolerance": stage.tolerance,
                "verdict": stage.verdict,
                "reason": stage.reason,
            }
            for stage in stages
        ]
    }


def _is_plain(error: float | None) -> bool:
    return error is None or math.isfinite(error)


def _ratio(stage: Stage) -> float:
    """Return the part of the tolerance that is used up; 0 for an exact match."""
    if not stage.error:
        return 0.0
    if math.isnan(stage.error):
        return math.inf
    return stage.error / stage.tolerance if stage.tolerance else math.inf


def _line(stage: Stage) -> str:
    error = "-" if stage.error is None else f"{stage.error:.3g}"
    tolerance = "-" if stage.error is None else f"{stage.tolerance:.3g}"
    reason = f"  {stage.reason}" if stage.reason else ""
    return (
        f"{stage.file + ': ' + stage.name:58}{error:>12}{tolerance:>12}  {stage.verdict}{reason}"
    )
