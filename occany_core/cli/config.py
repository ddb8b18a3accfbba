# SPDX-License-Identifier: Apache-2.0
"""`occany config`: settings as a YAML file or as a list."""

import argparse

from occany_core.cli import settings_arguments
from occany_core.config import dump_config, settings, to_flat

NAME = "config"
HELP = "print all settings as YAML"
EXAMPLE = "occany config --set voxels.resolution=0.2 > fine.yaml"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    settings_arguments.add_arguments(parser)
    parser.add_argument("--list", action="store_true", help="one line per setting instead of YAML")


def run(arguments: argparse.Namespace) -> None:
    """Print the settings that the other options lead to; without options, the defaults."""
    config = settings_arguments.read(arguments)
    if not arguments.list:
        print(dump_config(config), end="")
        return
    values = to_flat(config)
    width = max(len(path) for path in values)
    for setting in settings():
        value = values[setting.path]
        shown = list(value) if isinstance(value, tuple) else value
        choices = f" ({' | '.join(setting.choices)})" if setting.choices else ""
        print(f"{setting.path:{width}}  {shown!s:<20}  {setting.description}{choices}")
