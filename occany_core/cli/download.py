# SPDX-License-Identifier: Apache-2.0
"""`occany download`: fetch released weights, once their licence is accepted."""

import argparse
import sys
from pathlib import Path

from occany_core.checkpoints.download import RELEASES, Release, fetch, next_step
from occany_core.errors import CheckpointError

NAME = "download"
HELP = "fetch weights that the authors of OccAny released"
EXAMPLE = "occany download occany --to weights"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    parser.add_argument("release", metavar="NAME", choices=RELEASES, help=", ".join(RELEASES))
    parser.add_argument(
        "--to", metavar="FOLDER", type=Path, default=Path(), help="where to put it (default: here)"
    )
    parser.add_argument(
        "--repository", metavar="OWNER/NAME", help="on the hub, if it is not the one we suppose"
    )
    parser.add_argument("--sha256", metavar="HEX", help="what the file must have")
    parser.add_argument(
        "--accept-licence", action="store_true", help="accept the licence without being asked"
    )


def run(arguments: argparse.Namespace) -> None:
    """Show the licence, fetch, and say what comes next."""
    release = RELEASES[arguments.release]
    repository = arguments.repository or release.repository
    print(f"{release.file} ({release.variant}) from {repository}", file=sys.stderr)
    print(f"licence: {release.licence}", file=sys.stderr)
    if not arguments.accept_licence:
        _ask(release)
    path = fetch(release, repository, arguments.to, arguments.sha256)
    print(f"{path}: {path.stat().st_size / 1e9:.2f} GB")
    print(f"next: {next_step(release, path)}")


def _ask(release: Release) -> None:
    """Have the licence accepted.

    Raises:
        CheckpointError: It is not, or there is nobody to ask.
    """
    remedy = "read the licence above; --accept-licence accepts it without being asked"
    if not sys.stdin.isatty():
        raise CheckpointError(
            f"{release.file} is fetched only once its licence is accepted, and there is no "
            f"terminal to ask at: {remedy}"
        )
    print("Do you accept it? Type yes: ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() != "yes":
        raise CheckpointError(f"the licence was not accepted, nothing was fetched: {remedy}")
