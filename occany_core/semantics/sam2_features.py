# SPDX-License-Identifier: Apache-2.0
"""Real pictures -> SAM2's promptable features.

"Pretrained" semantics is asked of them (spec 11); Segmentation Forcing aims at them (spec 13).
Needs the extra `[semantics]` (transformers); weights are the user's to choose and to fetch.
"""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from occany_core.errors import ConfigError
from occany_core.images import segmentation_tensor
from occany_core.semantics.features import PromptableFeatures
from occany_core.semantics.pictures import check_pictures
from occany_core.semantics.sam2_model import level_sizes, load_image_model

CHUNK = 8
"""Pictures that SAM2 sees together (training page 4.4)."""


class Sam2Encoder:
    """SAM2's image encoder with what its mask decoder does to the features before a prompt."""

    def __init__(self, model: Any, segmentation_size: int) -> None:
        """Wrap a model that is loaded already.

        Args:
            model: `transformers.Sam2Model`, set up for pictures of `segmentation_size`.
            segmentation_size: Side of the square into which pictures are squashed [px].

        Raises:
            ConfigError: The model is set up for another size.
        """
        wanted = level_sizes(segmentation_size)
        if [list(size) for size in model.backbone_feature_sizes] != wanted:
            raise ConfigError(
                f"segmentation_size {segmentation_size} needs feature maps of {wanted}, the SAM2 "
                f"model has {model.backbone_feature_sizes}; use load_sam2"
            )
        self.model = model.eval().requires_grad_(False)
        self.segmentation_size = segmentation_size

    @torch.no_grad()
    def __call__(self, rgb: UInt8[Tensor, "V H W 3"]) -> PromptableFeatures:
        """Return levels of 256, 64 and 32 channels, the coarse one of side segmentation_size / 16.

        The coarse level holds SAM2's embedding for pictures without a past, the other two are
        projected as its mask decoder wants them. They describe the whole picture, squashed.

        Raises:
            InputError: Not colour pictures of whole numbers, or none.
        """
        check_pictures(rgb)
        chunks = [chunk for chunk in rgb.split(CHUNK) if len(chunk)]
        return PromptableFeatures.joined([self._features(chunk) for chunk in chunks])

    def _features(self, rgb: UInt8[Tensor, "V H W 3"]) -> PromptableFeatures:
        weight = next(self.model.parameters())
        pictures = segmentation_tensor(rgb.to(weight.device), self.segmentation_size)
        fine, middle, coarse = self.model.get_image_embeddings(pictures.to(weight.dtype))
        return PromptableFeatures(coarse.float(), middle.float(), fine.float())


def load_sam2(
    source: str | Path, segmentation_size: int, device: str | torch.device = "cpu"
) -> Sam2Encoder:
    """Load SAM2's image encoder for pictures of another size than it comes with.

    Args:
        source: A folder that `transformers.Sam2Model` reads.
        segmentation_size: As in `NetworkConfig` [px], a multiple of 32.
        device: Where to run.

    Raises:
        ConfigError: transformers is not installed, or the size is not possible.
        CheckpointError: There are no such weights.
    """
    return Sam2Encoder(load_image_model(source, segmentation_size, device), segmentation_size)
