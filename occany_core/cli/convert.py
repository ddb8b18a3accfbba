# SPDX-License-Identifier: Apache-2.0
"""`occany convert`: a released .pth file -> a .safetensors file and its card."""

import argparse
import re
import sys
from collections import Counter
from pathlib import Path

from occany_core.checkpoints.architecture import HeadCounts
from occany_core.checkpoints.conversion import LICENCE, ConversionOptions, convert

NAME = "convert"
HELP = "turn a released .pth file into weights that this program loads, once"
EXAMPLE = "occany convert occany.pth"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    parser.add_argument("file", metavar="FILE", type=Path, help="occany.pth or occany_recon.pth")
    parser.add_argument(
        "-o", "--output", type=Path, help=".safetensors file to write (default: beside FILE)"
    )
    precision = parser.add_mutually_exclusive_group()
    precision.add_argument(
        "--float32", action="store_true", help="keep every number (the default)"
    )
    precision.add_argument("--half", action="store_true", help="store float16: half the size")
    parser.add_argument("--sha256", metavar="HEX", help="what FILE must have")
    parser.add_argument("--name", help="name on the card (default: that of FILE)")
    parser.add_argument(
        "--licence", default=LICENCE, help="licence on the card (default: non-commercial)"
    )
    for part in ("encoder", "decoder"):
        parser.add_argument(
            f"--{part}-heads",
            metavar="N",
            type=_positive,
            help=f"attention heads of the {part}, where FILE does not say (published: 64 "
            "channels per head)",
        )
    parser.add_argument(
        "--compare-encoder",
        metavar="FILE",
        type=Path,
        help="weights that training started from; says whether the encoder is still the same",
    )
    parser.add_argument(
        "--initialisation",
        action="store_true",
        help="FILE is a start for training, such as MUSt3R-512: initialise what it lacks",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")


def run(arguments: argparse.Namespace) -> None:
    """Convert, and show what was found."""
    output = arguments.output or arguments.file.with_suffix(".safetensors")
    options = ConversionOptions(
        half=arguments.half,
        sha256=arguments.sha256,
        name=arguments.name,
        licence=arguments.licence,
        heads=HeadCounts(arguments.encoder_heads, arguments.decoder_heads),
        is_initialisation=arguments.initialisation,
        compare_encoder=arguments.compare_encoder,
        overwrite=arguments.overwrite,
    )
    done = convert(arguments.file, output, options, _say)
    for check in done.checks:
        print(f"{check.verdict:14}  {check.statement}: {check.detail}")
    for what, key in (("initialised", "initialised"), ("left out", "left_out")):
        for name, count in _grouped(done.card.get(key, ())):
            print(f"{what:14}  {name}" + (f"  ({count} times)" if count > 1 else ""))
    print(f"licence: {done.card['licence']}")
    print(f"{output}: {done.card['name']}; use it with --model {output}")


def _grouped(names: list[str]) -> list[tuple[str, int]]:
    """Count names that differ only in the number of a block."""
    return list(Counter(re.sub(r"\.\d+\.", ".N.", name) for name in names).items())


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number of heads")
    return value


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
