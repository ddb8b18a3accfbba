# SPDX-License-Identifier: Apache-2.0
"""Real pictures -> SAM2's promptable features, as targets of Segmentation Forcing (spec 13).

Needs the extra `[semantics]` (transformers); weights are the user's to choose and to fetch.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from occany_core.errors import CheckpointError, ConfigError, InputError

MEAN = (0.485, 0.456, 0.406)
DEVIATION = (0.229, 0.224, 0.225)
CHUNK = 8
"""Pictures that SAM2 sees together (training page 4.4)."""


class Sam2Teacher:
    """SAM2's image encoder with what its mask decoder does to the features before a prompt."""

    def __init__(self, model: Any, segmentation_size: int) -> None:
        """Wrap a model that is loaded already.

        Args:
            model: `transformers.Sam2Model`, set up for pictures of `segmentation_size`.
            segmentation_size: Side of the square into which pictures are squashed [px].

        Raises:
            ConfigError: The model is set up for another size.
        """
        wanted = _level_sizes(segmentation_size)
        if [list(size) for size in model.backbone_feature_sizes] != wanted:
            raise ConfigError(
                f"segmentation_size {segmentation_size} needs feature maps of {wanted}, the SAM2 "
                f"model has {model.backbone_feature_sizes}; use load_sam2"
            )
        self.model = model.eval().requires_grad_(False)
        self.segmentation_size = segmentation_size

    @torch.no_grad()
    def __call__(self, rgb: UInt8[Tensor, "V H W 3"]) -> tuple[Tensor, Tensor, Tensor]:
        """Return (V, 256, s, s), (V, 64, 2s, 2s) and (V, 32, 4s, 4s), s = segmentation_size / 16.

        The coarse level holds SAM2's embedding for pictures without a past, the other two are
        projected as its mask decoder wants them. They describe the whole picture, squashed.

        Raises:
            InputError: Not colour pictures of whole numbers.
        """
        if rgb.dtype != torch.uint8 or rgb.ndim != 4 or rgb.shape[-1] != 3 or not rgb.numel():
            raise InputError(
                f"pictures are {rgb.dtype} of shape {tuple(rgb.shape)}; give uint8 RGB "
                "(views, height, width, 3)"
            )
        parts = [self._levels(chunk) for chunk in rgb.split(CHUNK)]
        coarse, middle, fine = (torch.cat(level) for level in zip(*parts, strict=True))
        return coarse, middle, fine

    def _levels(self, rgb: UInt8[Tensor, "V H W 3"]) -> tuple[Tensor, Tensor, Tensor]:
        weight = next(self.model.parameters())
        pictures = prepared_for_sam2(rgb.to(weight.device), self.segmentation_size)
        fine, middle, coarse = self.model.get_image_embeddings(pictures.to(weight.dtype))
        return coarse.float(), middle.float(), fine.float()


def prepared_for_sam2(
    rgb: UInt8[Tensor, "V H W 3"], segmentation_size: int
) -> Float[Tensor, "V 3 side side"]:
    """Squash pictures to a square and give them the mean and deviation that SAM2 expects."""
    pictures = rgb.movedim(-1, 1).float() / 255
    size = (segmentation_size, segmentation_size)
    pictures = F.interpolate(pictures, size, mode="bilinear", antialias=True)
    mean, deviation = (pictures.new_tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
    return (pictures - mean) / deviation


def load_sam2(
    source: str | Path, segmentation_size: int, device: str | torch.device = "cpu"
) -> Sam2Teacher:
    """Load SAM2 for pictures of another size than it comes with.

    Args:
        source: A folder, or the name of a repository on the Hugging Face hub, that
            `transformers.Sam2Model` reads.
        segmentation_size: As in `NetworkConfig` [px], a multiple of 32.
        device: Where to run.

    Raises:
        ConfigError: transformers is not installed, or the size is not possible.
        CheckpointError: There are no such weights, or they cannot be fetched.
    """
    try:
        from transformers import Sam2Config, Sam2Model
    except ImportError as error:
        raise ConfigError(
            "SAM2 features need transformers: pip install 'occany_ros[semantics]'"
        ) from error
    if segmentation_size < 32 or segmentation_size % 32:
        raise ConfigError(
            f"segmentation_size is {segmentation_size}; SAM2 needs a multiple of 32 px"
        )
    try:
        config = Sam2Config.from_pretrained(source)
        config.vision_config.backbone_feature_sizes = _level_sizes(segmentation_size)
        config.prompt_encoder_config.image_size = segmentation_size
        model, report = Sam2Model.from_pretrained(source, config=config, output_loading_info=True)
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"cannot load SAM2 from {source}: {str(error)[:300]}; name a folder or a repository "
            "with a transformers.Sam2Model"
        ) from error
    if report["missing_keys"]:
        raise CheckpointError(
            f"{source} lacks {sorted(report['missing_keys'])[:3]} and would get random numbers "
            "for them; name a folder or a repository with a transformers.Sam2Model"
        )
    return Sam2Teacher(model.to(device), segmentation_size)


def _level_sizes(segmentation_size: int) -> list[list[int]]:
    """Rows and columns of the fine, middle and coarse level."""
    return [[segmentation_size // step] * 2 for step in (4, 8, 16)]
