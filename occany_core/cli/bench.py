# SPDX-License-Identifier: Apache-2.0
"""`occany bench`: measure and compare, one sub-verb each."""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from occany_core.bench.golden import report
from occany_core.bench.golden.runner import run as run_golden
from occany_core.errors import ParityError

NAME = "bench"
HELP = "measure this machine, and compare our numbers with golden ones"
EXAMPLE = "occany bench golden path/to/golden --verbose"


@dataclass(frozen=True)
class SubVerb:
    """One measurement."""

    help: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the sub-verbs; each has its own options."""
    subverbs = parser.add_subparsers(metavar="WHAT", required=True)
    for name, subverb in SUB_VERBS.items():
        one = subverbs.add_parser(
            name, help=subverb.help, description=f"{subverb.help[0].upper()}{subverb.help[1:]}."
        )
        subverb.add_arguments(one)
        one.add_argument(
            "--debug",
            action="store_true",
            default=argparse.SUPPRESS,  # it may also stand before WHAT
            help="show where a failure comes from",
        )
        one.set_defaults(measure=subverb.run)


def run(arguments: argparse.Namespace) -> None:
    """Run the chosen sub-verb.

    Raises:
        OccAnyError: Its input is wrong, or what it compares differs.
    """
    arguments.measure(arguments)


def _golden_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="golden set; its generator of weights is run"
    )
    parser.add_argument(
        "--verbose", action="store_true", help="show every stage, not only one line per file"
    )
    parser.add_argument(
        "--json", action="store_true", help="print one JSON object as the last line"
    )


def _golden(arguments: argparse.Namespace) -> None:
    """Compare with a golden set and print a table.

    Raises:
        InputError: The folder holds no golden set.
        ParityError: A stage differs by more than its tolerance.
    """
    stages = run_golden(arguments.folder, _progress)
    print(file=sys.stderr)
    print(report.table(stages) if arguments.verbose else report.overview(stages))
    print(report.summary(stages))
    if arguments.json:
        print(json.dumps(report.as_json(stages)))
    failed = report.counts(stages)["FAIL"]
    if failed:
        raise ParityError(
            f"{failed} of {len(stages)} stages differ from {arguments.folder} by more than their "
            "tolerance; they are marked FAIL above"
        )


def _progress(name: str, done: int, total: int) -> None:
    print(f"\r{done} of {total} checks done, now {name:40}", end="", file=sys.stderr, flush=True)


SUB_VERBS = {
    "golden": SubVerb(
        "compare every stage with golden numbers of the released code", _golden_arguments, _golden
    ),
}
"""What can be measured, by name."""
