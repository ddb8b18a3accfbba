# SPDX-License-Identifier: Apache-2.0
"""Where released weights are, and how they are fetched: with `huggingface_hub`, if installed."""

from dataclasses import dataclass
from pathlib import Path

from occany_core.checkpoints.checksum import check_sha256
from occany_core.checkpoints.conversion import LICENCE
from occany_core.errors import CheckpointError

AUTHORS = "https://github.com/valeoai/OccAny"
REPOSITORY = "valeoai/OccAny"
"""The authors' name on GitHub, taken for the hub as well; nobody here could look it up."""
PLUS_LICENCE = (
    "set by the OccAny authors; the weights start from third-party weights (Depth Anything 3, "
    "SAM3) with terms of their own: check all of them before you use the file"
)


@dataclass(frozen=True)
class Release:
    """One released weights file."""

    name: str
    variant: str
    is_base: bool
    """Whether it is of the variant that `occany convert` reads."""
    repository: str = REPOSITORY

    @property
    def file(self) -> str:
        """Name of the file."""
        return f"{self.name}.pth"

    @property
    def licence(self) -> str:
        """What is known of its terms."""
        return LICENCE if self.is_base else PLUS_LICENCE


RELEASES = {
    release.name: release
    for release in (
        Release("occany", "base, with rendering", True),
        Release("occany_recon", "base, reconstruction", True),
        Release("occany_plus_recon", "plus, reconstruction", False),
        Release("occany_plus_gen", "plus, rendering", False),
        Release("occany_plus_recon_1B", "plus of 1.1 B, reconstruction", False),
    )
}


def next_step(release: Release, path: Path) -> str:
    """Say what to do with a fetched file."""
    if release.is_base:
        return f"occany convert {path}"
    return "this version converts base files only; keep it for a later one"


def fetch(release: Release, repository: str, folder: Path, sha256: str | None = None) -> Path:
    """Download a released file, or finish an earlier download of it.

    `huggingface_hub` shows the progress and goes on where it was interrupted.

    Args:
        release: Which file.
        repository: On the hub, `OWNER/NAME`.
        folder: Where to put it; is made if need be.
        sha256: What the file must have, if it is known.

    Returns:
        The file.

    Raises:
        CheckpointError: `huggingface_hub` is not installed, the file cannot be fetched, or it has
            another checksum.
    """
    by_hand = (
        f"to do it by hand, get {release.file} from {repository} on the Hugging Face hub or from "
        f"{AUTHORS}, put it into {folder} and go on with: "
        f"{next_step(release, folder / release.file)}"
    )
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise CheckpointError(
            "downloads need huggingface_hub: pip install 'occany_ros[download]'; " + by_hand
        ) from error
    folder.mkdir(parents=True, exist_ok=True)
    try:
        fetched = hf_hub_download(repo_id=repository, filename=release.file, local_dir=str(folder))
    except Exception as error:  # of the hub, of its HTTP library, or of the disk
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise CheckpointError(
            f"{release.file} could not be fetched from {repository} ({reason}); {by_hand}"
        ) from error
    path = Path(fetched)
    if sha256:
        check_sha256(path, sha256)
    return path
