# SPDX-License-Identifier: Apache-2.0
"""Format probes: small files with the layout of released checkpoints (`format_probe_*.pth`)."""

from pathlib import Path

from occany_core.bench.golden.checklist import Checklist, Stage
from occany_core.bench.golden.recipe import Recipe
from occany_core.checkpoints.conversion import parts_of
from occany_core.checkpoints.torch_file import read_torch_file

TAG = "probe"
"""Seed of the weights in all probes (golden/README)."""


def check_probe(path: Path) -> list[Stage]:
    """Read a probe as a released file, and compare every weight in it with the recipe.

    Raises:
        CheckpointError: The file cannot be read safely.
    """
    recipe = Recipe(path.parent)
    parts = parts_of(read_torch_file(path), path)
    arrays = {f"{part}/{key}": one for part, w in parts.items() for key, one in w.items()}
    checklist = Checklist(path.name, arrays, {})
    for name, tensor in arrays.items():
        part, _, key = name.partition("/")
        checklist.exact(name, recipe.weight(f"{TAG}/{part}", key, tuple(tensor.shape)))
    checklist.holds("weights", [] if arrays else ["none"])
    return checklist.report()


CHECKS = {"format_probe_*.pth": check_probe}
