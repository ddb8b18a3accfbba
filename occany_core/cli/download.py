# SPDX-License-Identifier: Apache-2.0
"""`occany download`: fetch weights of the authors and of others, once a licence is accepted."""

import argparse
import sys
from pathlib import Path

from occany_core.checkpoints.download import Offer
from occany_core.checkpoints.published_files import RELEASES
from occany_core.checkpoints.published_folders import THIRD_PARTY
from occany_core.errors import CheckpointError

NAME = "download"
HELP = "fetch weights that the authors of OccAny released, or models of others for labels"
EXAMPLE = "occany download occany --to weights"

OFFERS: dict[str, Offer] = {**RELEASES, **THIRD_PARTY}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    parser.add_argument("offer", metavar="NAME", choices=OFFERS, help=", ".join(OFFERS))
    parser.add_argument(
        "--to",
        metavar="FOLDER",
        type=Path,
        default=Path(),
        help="where to put the file, or the folder NAME (default: here)",
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
    offer = OFFERS[arguments.offer]
    repository = arguments.repository or offer.repository
    print(f"{offer.title} ({offer.about}) from {repository}", file=sys.stderr)
    print(f"licence: {offer.licence}", file=sys.stderr)
    if not arguments.accept_licence:
        _ask(offer)
    path = offer.fetch(repository, arguments.to, arguments.sha256)
    print(f"{path}: {_size(path) / 1e9:.2f} GB")
    print(f"next: {offer.next_step(path)}")


def _size(path: Path) -> int:
    """Bytes of a file, or of the files in a folder."""
    files = [path] if path.is_file() else [one for one in path.iterdir() if one.is_file()]
    return sum(file.stat().st_size for file in files)


def _ask(offer: Offer) -> None:
    """Have the licence accepted.

    Raises:
        CheckpointError: It is not, or there is nobody to ask.
    """
    remedy = "read the licence above; --accept-licence accepts it without being asked"
    if not sys.stdin.isatty():
        raise CheckpointError(
            f"{offer.title} is fetched only once its licence is accepted, and there is no "
            f"terminal to ask at: {remedy}"
        )
    print("Do you accept it? Type yes: ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() != "yes":
        raise CheckpointError(f"the licence was not accepted, nothing was fetched: {remedy}")
