# SPDX-License-Identifier: Apache-2.0
"""sha256 of files that are larger than one wants to hold in memory."""

import hashlib
from pathlib import Path

from occany_core.errors import CheckpointError

CHUNK = 1 << 22


def sha256_of(path: Path) -> str:
    """Return the checksum of a file as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def check_sha256(path: Path, expected: str) -> str:
    """Return the checksum of a file that must have a given one.

    Raises:
        CheckpointError: It has another, or the expected one is no sha256.
    """
    wanted = expected.strip().lower()
    if len(wanted) != 64 or not set(wanted) <= set("0123456789abcdef"):
        raise CheckpointError(
            f"{expected!r} is not a sha256: give the 64 hexadecimal digits that {path.name} "
            "should have"
        )
    found = sha256_of(path)
    if found != wanted:
        raise CheckpointError(
            f"{path} has sha256 {found[:12]}..., expected is {wanted[:12]}...; it is damaged or "
            "another file: download it again"
        )
    return found
