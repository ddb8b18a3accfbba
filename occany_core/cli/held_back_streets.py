# SPDX-License-Identifier: Apache-2.0
"""`--limit` of the verbs that work on held-back streets, and their progress line."""

import argparse
import sys

from occany_core.errors import ConfigError
from occany_core.synthetic.synthocc import SCENE_COUNT


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `--limit`."""
    parser.add_argument(
        "--limit", type=int, default=20, help=f"scenes per setting, 1 to {SCENE_COUNT}"
    )


def check(arguments: argparse.Namespace) -> None:
    """See that the limit can be met.

    Raises:
        ConfigError: The limit is out of range.
    """
    if not 1 <= arguments.limit <= SCENE_COUNT:
        raise ConfigError(f"--limit is {arguments.limit}; it must be between 1 and {SCENE_COUNT}")


def show_progress(done: int, total: int, setting: str = "surround") -> None:
    """Say on the error stream how far it is."""
    print(f"\r{setting}: {done} of {total} scenes   ", end="", file=sys.stderr, flush=True)


def show_setting(setting: str, done: int, total: int) -> None:
    """Do the same where settings come one after the other."""
    show_progress(done, total, setting)
