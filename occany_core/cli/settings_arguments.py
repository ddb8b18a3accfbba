# SPDX-License-Identifier: Apache-2.0
"""--config FILE and --set PATH=VALUE -> OccAnyConfig, for every verb that has settings."""

import argparse

from occany_core.config import OccAnyConfig, load_config, with_overrides


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add both options."""
    parser.add_argument(
        "--config", metavar="FILE", help="YAML file of settings, as `occany config` prints"
    )
    parser.add_argument(
        "--set",
        metavar="PATH=VALUE",
        action="append",
        default=[],
        help="one setting, after --config; may be repeated (--set novel_views.steps=0)",
    )


def read(arguments: argparse.Namespace) -> OccAnyConfig:
    """Return the defaults with the file and then the single settings applied.

    Raises:
        ConfigError: A file that cannot be read, an unknown setting, or a wrong value.
    """
    config = OccAnyConfig() if arguments.config is None else load_config(arguments.config)
    return with_overrides(config, arguments.set)
