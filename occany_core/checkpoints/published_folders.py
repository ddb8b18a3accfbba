# SPDX-License-Identifier: Apache-2.0
"""Models of other projects that label pictures: folders that `transformers` reads.

The repositories are those that the documentation of transformers names.
"""

from dataclasses import dataclass
from pathlib import Path

from occany_core.checkpoints.download import fetch_folder
from occany_core.errors import CheckpointError

NEEDED = ("*.safetensors", "*.json", "*.txt", "*.model", "LICENSE*")
"""Weights, settings and vocabulary; the same weights lie beside them as pickled files."""


@dataclass(frozen=True)
class ThirdPartyModel:
    """One model of another project; an `Offer`."""

    name: str
    about: str
    repository: str
    licence: str
    pipeline: str
    """Value of `labels.pipeline` with which it is used."""
    setting: str
    """Which setting names its folder."""

    @property
    def title(self) -> str:
        """What is fetched."""
        return f"the folder {self.name}"

    def next_step(self, path: Path) -> str:
        """Say how to use the fetched folder."""
        return (
            f'occany predict PICTURES --labels "car, tree" --set labels.pipeline={self.pipeline} '
            f"--set {self.setting}={path} -o out"
        )

    def fetch(self, repository: str, folder: Path, sha256: str | None = None) -> Path:
        """Download what is needed into a folder of the model's name; see `Offer.fetch`."""
        if sha256:
            raise CheckpointError(
                f"{self.name} is a folder of several files, and --sha256 is for one file; leave "
                "it out"
            )
        inside = folder / self.name
        remedy = (
            f"to do it by hand, get {', '.join(NEEDED[:3])} from "
            f"https://huggingface.co/{repository}, put them into {inside} and go on with: "
            f"{self.next_step(inside)}"
        )
        path = fetch_folder(repository, NEEDED, inside, remedy)
        if not any(path.glob("*.safetensors")) or not (path / "config.json").is_file():
            raise CheckpointError(
                f"{repository} holds no model for transformers: there is no config.json or no "
                "*.safetensors; name another one with --repository"
            )
        return path


SAM2_LICENCE = "Apache-2.0 (Meta, SAM 2.1)"
GROUNDING_DINO_LICENCE = "Apache-2.0 (IDEA Research, Grounding DINO)"
SAM3_LICENCE = (
    "Meta's own licence for SAM 3, with conditions on use and redistribution; access is granted "
    "on https://huggingface.co/facebook/sam3, where it can be read"
)

THIRD_PARTY = {
    model.name: model
    for model in (
        ThirdPartyModel(
            "sam2.1-hiera-large",
            "boxes to masks, and masks from view to view",
            "facebook/sam2.1-hiera-large",
            SAM2_LICENCE,
            "pretrained",
            "labels.sam2",
        ),
        ThirdPartyModel(
            "sam2.1-hiera-tiny",
            "the same, smaller and less exact",
            "facebook/sam2.1-hiera-tiny",
            SAM2_LICENCE,
            "pretrained",
            "labels.sam2",
        ),
        ThirdPartyModel(
            "grounding-dino-base",
            "texts to boxes",
            "IDEA-Research/grounding-dino-base",
            GROUNDING_DINO_LICENCE,
            "distilled",
            "labels.detector",
        ),
        ThirdPartyModel(
            "grounding-dino-tiny",
            "the same, smaller and less exact",
            "IDEA-Research/grounding-dino-tiny",
            GROUNDING_DINO_LICENCE,
            "distilled",
            "labels.detector",
        ),
        ThirdPartyModel(
            "sam3", "texts to masks", "facebook/sam3", SAM3_LICENCE, "sam3", "labels.sam3"
        ),
    )
}
