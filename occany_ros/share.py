# SPDX-License-Identifier: Apache-2.0
"""Where the package's own files are: launch, config, msg, recordings."""

import os
from pathlib import Path

from occany_core.errors import InputError

PACKAGE = "occany_ros"


def share_folder() -> Path:
    """Return the installed share folder, or the source checkout this module runs from.

    Raises:
        InputError: Neither exists.
    """
    checkout = Path(__file__).resolve().parents[1]
    if (checkout / "package.xml").exists() and (checkout / "launch").is_dir():
        return checkout
    for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep):
        share = Path(prefix) / "share" / PACKAGE
        if prefix and (share / "package.xml").exists():
            return share
    raise InputError(
        f"the share folder of {PACKAGE} is in no prefix of AMENT_PREFIX_PATH; source the workspace"
    )
