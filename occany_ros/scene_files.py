# SPDX-License-Identifier: Apache-2.0
"""Saved scenes in folders below one directory. Names come from the network. Without ROS.

Nothing outside the directory is read or written, nothing that exists is replaced, and a failure
leaves nothing behind.
"""

import os
import re
import shutil
import struct
import time
import zipfile
import zlib
from pathlib import Path

from occany_core import OccAnyConfig, Scene, VoxelGrid
from occany_core.errors import InputError
from occany_core.results import GRID, load_grid, save_scene

NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}")
MEGABYTE = 1_000_000
NAMES_SHOWN = 5
DAMAGED = (
    *(zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, MemoryError),
    *(ValueError, RuntimeError, TypeError, LookupError, ArithmeticError, SyntaxError),
)
"""What reading a file raises that is not what its headers promise."""


def default_directory() -> Path:
    """Return where scenes are kept unless a parameter says otherwise."""
    return Path(os.environ.get("ROS_HOME") or Path.home() / ".ros") / "occany"


def name_of_stamp(stamp_ns: int) -> str:
    """Return a folder name that tells a capture time (UTC)."""
    seconds, rest_ns = divmod(stamp_ns, 1_000_000_000)
    return time.strftime("%Y%m%d_%H%M%S", time.gmtime(seconds)) + f"_{rest_ns // 1_000_000:03d}"


def place(directory: Path, name: str) -> Path:
    """Return the folder of a name.

    Raises:
        InputError: The name could lead out of the directory, or a link stands in its place.
    """
    if not NAME.fullmatch(name):
        raise InputError(
            f"the name {name[:80]!r} is refused: it must be 1 to 64 letters, digits, _, - or ., "
            "not a . or - first; it names a folder below files.directory"
        )
    folder = directory / name
    if folder.is_symlink():
        raise InputError(f"{folder} is a link, and links are not followed; choose another name")
    return folder


def save(
    directory: Path, name: str, scene: Scene, config: OccAnyConfig, least_free_megabytes: int
) -> Path:
    """Write a scene to a new folder and return it.

    Args:
        directory: Made if missing.
        name: Of the folder.
        scene: What to write.
        config: The settings it was made with.
        least_free_megabytes: Refuse when less is free on the disk.

    Raises:
        InputError: A bad name, a folder that exists, or too little space.
        OccAnyError: The disk refuses.
    """
    folder = place(directory, name)
    if folder.exists():
        raise InputError(f"{folder} exists and is kept as it is; choose another name")
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free // MEGABYTE
    if free < least_free_megabytes:
        raise InputError(
            f"only {free} MB are free on the disk of {directory} and "
            f"files.least_free_megabytes is {least_free_megabytes}; free some, or name another "
            "files.directory"
        )
    save_scene(folder, scene, config, title=name)
    return folder


def load(directory: Path, name: str, most_megabytes: int) -> VoxelGrid:
    """Read the grid of a saved scene.

    Raises:
        InputError: A bad name, no such scene, a file that is damaged or would need more memory
            than `most_megabytes`.
    """
    folder = place(directory, name)
    path = folder / GRID
    if not path.is_file() or path.is_symlink():
        raise InputError(f"there is no saved scene {folder}; {_there_are(directory)}")
    try:
        with zipfile.ZipFile(path) as archive:
            megabytes = sum(part.file_size for part in archive.infolist()) / MEGABYTE
        if megabytes > most_megabytes:
            raise InputError(
                f"{path} holds {megabytes:.0f} MB and files.most_megabytes is {most_megabytes}; "
                "raise it if this is your file"
            )
        return load_grid(path)
    except DAMAGED as error:
        raise InputError(
            f"{path} is damaged or cannot be read ({type(error).__name__}: {error}); save it again"
        ) from error


def _there_are(directory: Path) -> str:
    """List the newest scenes for people."""
    try:
        found = [path for path in directory.iterdir() if (path / GRID).is_file()]
    except OSError as error:
        return f"files.directory cannot be read: {error.strerror}"
    names = sorted(path.name for path in found)[-NAMES_SHOWN:]
    return f"the last ones are {', '.join(names)}" if names else "none was saved yet"
