# SPDX-License-Identifier: Apache-2.0
"""Files that verbs write for people to view: whether one can be written, before any work."""

import os
from pathlib import Path

from occany_core.errors import InputError
from occany_core.picture.page import check_format


def check_place(file: Path | None) -> None:
    """See that a file can be written, if there is to be one.

    Raises:
        InputError: Its folder is missing, or it or the folder cannot be written to.
    """
    if file is None:
        return
    if not file.parent.is_dir():
        raise InputError(f"cannot write {file}: there is no folder {file.parent}; make it first")
    if file.is_dir():
        raise InputError(f"cannot write {file}: it is a folder; name a file")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise InputError(f"cannot write {file}: you may not; name another place")


def check_picture_place(file: Path | None) -> None:
    """See the same of a picture, whose name says its format.

    Raises:
        InputError: As `check_place` and `check_format` do.
    """
    if file is not None:
        check_format(file)
        check_place(file)
