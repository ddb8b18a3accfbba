# SPDX-License-Identifier: Apache-2.0
"""The weights files that the authors of OccAny released: names, terms, and what comes next."""

from dataclasses import dataclass
from pathlib import Path

from occany_core.checkpoints.checksum import check_sha256
from occany_core.checkpoints.conversion import LICENCE
from occany_core.checkpoints.download import fetch_file

AUTHORS = "https://github.com/valeoai/OccAny"
REPOSITORY = "valeoai/OccAny"
"""The authors' name on GitHub, taken for the hub as well; nobody here could look it up."""
PLUS_LICENCE = (
    "set by the OccAny authors; the weights start from third-party weights (Depth Anything 3, "
    "SAM3) with terms of their own: check all of them before you use the file"
)


@dataclass(frozen=True)
class Release:
    """One released weights file; an `Offer`."""

    name: str
    about: str
    is_base: bool
    """Whether it is of the variant that `occany convert` reads."""
    repository: str = REPOSITORY

    @property
    def title(self) -> str:
        """Name of the file."""
        return f"{self.name}.pth"

    @property
    def licence(self) -> str:
        """What is known of its terms."""
        return LICENCE if self.is_base else PLUS_LICENCE

    def next_step(self, path: Path) -> str:
        """Say what to do with the fetched file."""
        if self.is_base:
            return f"occany convert {path}"
        return "this version converts base files only; keep it for a later one"

    def fetch(self, repository: str, folder: Path, sha256: str | None = None) -> Path:
        """Download the file into the folder; see `Offer.fetch`."""
        remedy = (
            f"to do it by hand, get {self.title} from {repository} on the Hugging Face hub or "
            f"from {AUTHORS}, put it into {folder} and go on with: "
            f"{self.next_step(folder / self.title)}"
        )
        path = fetch_file(repository, self.title, folder, remedy)
        if sha256:
            check_sha256(path, sha256)
        return path


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
