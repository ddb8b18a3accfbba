# SPDX-License-Identifier: Apache-2.0
"""`.pth` file -> plain data, without executing anything that stands in it (spec 15).

Only PyTorch's restricted unpickler reads the file, with two additions: `argparse.Namespace`, and
inert stand-ins for the enum that the released files carry. Tensors stay on disk until they are
used, so an optimizer state costs nothing.
"""

import argparse
import warnings
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from occany_core.errors import CheckpointError

ACTIVATION_ENUMS = (
    "occany.model.must3r_blocks.head.ActivationType",
    "occany.must3r_blocks.head.ActivationType",
)
"""Where newer and older released files say their enum lives."""
CHUNK = 1 << 22
_STARTS = {
    b"\x89PNG": "a PNG picture",
    b"\xff\xd8\xff": "a JPEG picture",
    b"\x1f\x8b": "a gzip archive",
    b"version https://git-lfs": "a Git LFS pointer, not the file it points to",
    b"<!DOCTYPE": "a web page",
    b"<html": "a web page",
    b"\x80": "a bare pickle, which could run code",
}


@dataclass
class PickledActivation:
    """Stands in for the enum of the released files; holds the text it was called with."""

    value: object


def read_torch_file(path: Path, *, any_activation_enum: bool = False) -> dict:
    """Read the dictionary that `torch.save` wrote.

    Args:
        path: A zip-format file.
        any_activation_enum: Replace every class called `ActivationType` by the stand-in, whatever
            module the file names. Files of other projects have it elsewhere.

    Returns:
        Its content. Tensors are mapped from the file: do not change it while they are in use.

    Raises:
        CheckpointError: The file is missing, damaged, of another kind, or asks for code.
    """
    _check_container(path)
    enums = list(ACTIVATION_ENUMS)
    try:
        if any_activation_enum:
            foreign = get_unsafe_globals_in_checkpoint(str(path))
            enums += [name for name in foreign if name.endswith(".ActivationType")]
        stand_ins = [(PickledActivation, name) for name in enums]
        allowed = safe_globals([argparse.Namespace, PickledActivation, *stand_ins])
        with allowed, warnings.catch_warnings():  # what is odd about a file is in its error
            warnings.simplefilter("ignore")
            content = torch.load(str(path), map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # damaged content makes PyTorch raise almost anything
        raise CheckpointError(_why_not(path, error)) from error
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path} holds a {type(content).__name__}, not a dictionary of weights; it is not a "
            "released checkpoint"
        )
    return dict(dict.items(content))


def _check_container(path: Path) -> None:
    """See that the file is a whole zip archive of uncompressed entries.

    Raises:
        CheckpointError: It is missing, of another kind, or a part of it is damaged.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no file {path}; name a .pth file")
    if not zipfile.is_zipfile(path):
        raise CheckpointError(_what_instead(path))
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.compress_type != zipfile.ZIP_STORED:
                    raise CheckpointError(
                        f"{path} is a compressed zip archive, not a PyTorch file; unpack it first"
                    )
                if entry.CRC:  # PyTorch can be told not to write checksums
                    _read_through(archive, entry)
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, RuntimeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}): download it again") from error


def _read_through(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> None:
    """Read an entry to its end, where zipfile compares its checksum."""
    with archive.open(entry) as file:
        while file.read(CHUNK):
            pass


def _what_instead(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(64)
    if not start:
        return f"{path} is empty: download it again"
    if start[:2] == b"PK":
        return (
            f"{path} is truncated: it starts as a PyTorch file and has no end; download it again"
        )
    if start[8:9] == b"{":
        return (
            f"{path} looks like a .safetensors file under another name; such files need no "
            "conversion: rename it and put its .json card beside it"
        )
    for magic, what in _STARTS.items():
        if start.startswith(magic):
            return f"{path} is {what}; a released checkpoint is a zip-format PyTorch file"
    return (
        f"{path} is not a zip-format PyTorch file, as released checkpoints are; download it again"
    )


def _why_not(path: Path, error: Exception) -> str:
    """Name the code that a file asks for, or else what PyTorch says about it."""
    try:
        with safe_globals(
            [argparse.Namespace, *((PickledActivation, name) for name in ACTIVATION_ENUMS)]
        ):
            foreign = sorted(get_unsafe_globals_in_checkpoint(str(path)))
    except Exception:  # the same damaged content again
        foreign = []
    if foreign:
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        return (
            f"{path} asks to run or build {', '.join(foreign[:3])}{more}, which weights do not "
            "need; nothing was executed: take the file from its authors"
        )
    # PyTorch's own text advises to load such files without care; only its cause is of use.
    text = str(error).rpartition("WeightsUnpickler error:")[2].strip() or type(error).__name__
    reason = text.splitlines()[0].partition(". ")[0][:200]
    return (
        f"{path} cannot be read as a PyTorch file ({reason}); nothing was executed: download it "
        "again"
    )
