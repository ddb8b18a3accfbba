# SPDX-License-Identifier: Apache-2.0
"""Manifests beside the files of a golden set, found by what they hold."""

import json
from pathlib import Path

from occany_core.errors import InputError


def read_manifests(folder: Path) -> dict[Path, dict]:
    """Return every manifest of a folder; other JSON files and broken ones are left out."""
    found = {}
    for path in sorted(folder.glob("*manifest.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if isinstance(content, dict):
            found[path] = content
    return found


def manifest_with(folder: Path, key: str) -> dict:
    """Return the manifest that has an entry of this name.

    Raises:
        InputError: There is none.
    """
    for content in read_manifests(folder).values():
        if key in content:
            return content
    raise InputError(f"no *manifest.json in {folder} has the entry {key!r}; copy it there")
