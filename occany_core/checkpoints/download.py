# SPDX-License-Identifier: Apache-2.0
"""How files and folders are fetched from the Hugging Face hub: with `huggingface_hub`.

What is on offer stands in `published_files` and `published_folders`.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

from occany_core.errors import CheckpointError

REFUSED = (401, 403)
"""Answers of the hub to those who may not have what they ask for."""


class Offer(Protocol):
    """Something that can be fetched once its licence is accepted."""

    name: str
    about: str
    repository: str
    """On the hub, `OWNER/NAME`."""

    @property
    def title(self) -> str:
        """What is fetched."""

    @property
    def licence(self) -> str:
        """What is known of its terms."""

    def next_step(self, path: Path) -> str:
        """Say what to do with what was fetched."""

    def fetch(self, repository: str, folder: Path, sha256: str | None = None) -> Path:
        """Download it, or finish an earlier download of it.

        `huggingface_hub` shows the progress and goes on where it was interrupted.

        Args:
            repository: On the hub, `OWNER/NAME`.
            folder: Where to put it; is made if need be.
            sha256: What a file must have, if it is known.

        Returns:
            The file or folder.

        Raises:
            CheckpointError: `huggingface_hub` is not installed, something cannot be fetched or is
                not what was expected.
        """


def fetch_file(repository: str, file: str, folder: Path, remedy: str) -> Path:
    """Download one file into a folder; `remedy` ends the sentence if that fails."""

    def call(hub: Any) -> str:
        return hub.hf_hub_download(repo_id=repository, filename=file, local_dir=str(folder))

    return _fetched(call, f"{file} could not be fetched from {repository}", folder, remedy)


def fetch_folder(repository: str, patterns: Sequence[str], folder: Path, remedy: str) -> Path:
    """Download the files of a repository that match; `remedy` ends the sentence on failure."""

    def call(hub: Any) -> str:
        return hub.snapshot_download(
            repo_id=repository, allow_patterns=list(patterns), local_dir=str(folder)
        )

    return _fetched(call, f"{repository} could not be fetched", folder, remedy)


def _fetched(call: Callable[[Any], str], failure: str, folder: Path, remedy: str) -> Path:
    """Call the hub and turn what it raises into one sentence."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise CheckpointError(
            "downloads need huggingface_hub: pip install 'occany_ros[download]'; " + remedy
        ) from error
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return Path(call(huggingface_hub))
    except Exception as error:  # of the hub, of its HTTP library, or of the disk
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        if _is_refusal(error):
            remedy = (
                "access was refused: ask for it on the repository's page of the Hugging Face "
                f"hub, log in with `hf auth login`, and run this again; {remedy}"
            )
        raise CheckpointError(f"{failure} ({reason}); {remedy}") from error


def _is_refusal(error: BaseException | None) -> bool:
    """Whether the hub, or what lies behind its error, says that the caller may not."""
    if error is None:
        return False
    status = getattr(getattr(error, "response", None), "status_code", None)
    is_gated = type(error).__name__ == "GatedRepoError"
    return is_gated or status in REFUSED or _is_refusal(error.__cause__)
