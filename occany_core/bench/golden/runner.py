# SPDX-License-Identifier: Apache-2.0
"""Recognises what a folder of golden files holds and runs the checks for it.

A network set is recognised by its manifest and spans several files; other files by their names. A
check stands in a module of this package and is offered in its `CHECKS`.
"""

import importlib
import math
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from occany_core.bench import golden
from occany_core.bench.golden import network_set, released_set
from occany_core.bench.golden.checklist import Stage
from occany_core.bench.golden.manifest import read_manifests
from occany_core.errors import InputError

DATA = (".npz", ".safetensors", ".pth")
"""Kinds of files that hold numbers; others are documents, manifests and programs."""

Check = Callable[[], list[Stage]]
Progress = Callable[[str, int, int], None]
"""Called with what is checked next, how many checks are done, and how many there are."""


@dataclass(frozen=True)
class Job:
    """One check and the files that it covers."""

    name: str
    files: tuple[Path, ...]
    check: Check


def run(folder: Path, progress: Progress = lambda *_: None) -> list[Stage]:
    """Compare our numbers with every golden file of a folder.

    A check that fails to run is a failed stage. A file with numbers that no check knows is a stage
    that is not checked.

    Args:
        folder: Golden set. A network set's generator of weights is run: trust the folder.
        progress: Told about every check before it starts.

    Raises:
        InputError: The folder cannot be read, or nothing in it is recognised.
    """
    jobs = plan(folder)
    stages = []
    for number, job in enumerate(jobs):
        progress(job.name, number, len(jobs))
        stages += _outcome(job)
    covered = {path for job in jobs for path in job.files}
    left = [path for path in _data_files(folder) if path not in covered]
    return stages + [Stage(p.name, "all", None, 0.0, "no check knows this file") for p in left]


def plan(folder: Path) -> list[Job]:
    """Return the checks for the files of a folder.

    Raises:
        InputError: The folder cannot be read, or nothing in it is recognised.
    """
    files = _files(folder)
    jobs = list(_network_jobs(folder))
    covered = {path for job in jobs for path in job.files}
    for path in files:
        checks = [c for pattern, c in _checks().items() if path.match(pattern)]
        if checks and path not in covered:
            jobs.append(Job(path.name, (path,), partial(checks[0], path)))
    if not jobs:
        raise InputError(
            f"nothing in {folder} is a golden file that this version knows; give the folder with "
            f"the set's {', '.join(DATA)} files and manifests"
        )
    return jobs


def _data_files(folder: Path) -> list[Path]:
    return [path for path in _files(folder) if path.suffix in DATA]


def _files(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.is_file())
    except OSError as error:
        raise InputError(f"cannot read the folder {folder}: {error.strerror}") from error


def _network_jobs(folder: Path) -> Iterator[Job]:
    for path, manifest in read_manifests(folder).items():
        for module, kind in (
            (network_set, network_set.NetworkSet),
            (released_set, released_set.ReleasedSet),
        ):
            found = kind.recognised(path, manifest)
            if found is not None:
                files = tuple(found.files())
                yield Job(path.name, files, partial(module.check, found))


def _checks() -> dict[str, Callable[[Path], list[Stage]]]:
    """Collect what the modules of this package offer."""
    found = {}
    for module in pkgutil.iter_modules(golden.__path__):
        name = f"{golden.__name__}.{module.name}"
        found |= getattr(importlib.import_module(name), "CHECKS", {})
    return found


def _outcome(job: Job) -> list[Stage]:
    try:
        return job.check()
    except Exception as error:  # whatever a damaged or foreign set provokes is a failed stage
        lines = str(error).splitlines() or [""]
        reason = f"{type(error).__name__}: {lines[0]}"
        return [Stage(path.name, "check", math.inf, 0.0, reason) for path in job.files or ()] or [
            Stage(job.name, "check", math.inf, 0.0, reason)
        ]
