# SPDX-License-Identifier: Apache-2.0
"""`occany VERB ...`: parse, run the verb, turn failures into one sentence and an exit code.

Exit codes: 0 success, 1 a failure the user can do something about, 2 wrong usage.
"""

import argparse
import sys

import occany_core
from occany_core.cli import (
    bench,
    config,
    convert,
    download,
    evaluate,
    inspect,
    predict,
    synth,
    train,
    view,
)
from occany_core.errors import OccAnyError

VERBS = (predict, view, train, evaluate, download, convert, inspect, bench, synth, config)
"""Modules with NAME, HELP, EXAMPLE, add_arguments(parser) and run(arguments)."""
INTERRUPTED = 130
CLOSED_PIPE = 141
"""As a shell reports it for other programs."""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser with every verb."""
    parser = argparse.ArgumentParser(
        prog="occany",
        description="Camera pictures in, metric 3D voxel grids out.",
        epilog="`occany VERB --help` shows the options of a verb with an example.",
    )
    parser.add_argument("--version", action="version", version=f"occany {occany_core.__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True)
    for verb in VERBS:
        one = verbs.add_parser(
            verb.NAME,
            help=verb.HELP,
            description=f"{verb.HELP[0].upper()}{verb.HELP[1:]}.",
            epilog=f"example:\n  {verb.EXAMPLE}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        verb.add_arguments(one)
        one.add_argument("--debug", action="store_true", help="show where a failure comes from")
        one.set_defaults(run=verb.run)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    arguments = build_parser().parse_args(argv)
    try:
        arguments.run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has enough. What is left must not be written at the end either.
        sys.stdout = None
        return CLOSED_PIPE
    except (OccAnyError, OSError) as error:
        if arguments.debug:
            raise
        # One line, even where a parser's own message has several.
        print(f"occany: {' '.join(_sentence(error).split())}", file=sys.stderr)
        return 1
    return 0


def _sentence(error: OccAnyError | OSError) -> str:
    """Say what to do about a file or disk too; our own errors say it already."""
    if isinstance(error, OccAnyError):
        return str(error)
    place, reason = error.filename or "a file", error.strerror or error
    return f"cannot read or write {place}: {reason}; name another place or free space"


if __name__ == "__main__":
    sys.exit(main())
