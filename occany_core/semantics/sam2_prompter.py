# SPDX-License-Identifier: Apache-2.0
"""Boxes and promptable features -> masks, by SAM2's own mask decoder (evaluation page 11.1).

`V` views, `M` boxes of a view, `s` side of the coarse level; masks have side 4s.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from occany_core.errors import InputError
from occany_core.semantics.features import PromptableFeatures
from occany_core.semantics.sam2_model import STRIDES

PROMPTS_AT_ONCE = 32
"""Boxes, of all views together, that the decoder answers in one call; each takes about 15 MB."""


class Sam2Prompter:
    """Prompt encoder and mask decoder of SAM2; implements `Prompter`."""

    def __init__(self, model: Any) -> None:
        """Wrap a model that is loaded already.

        Args:
            model: `transformers.Sam2VideoModel` of `load_video_model`, or a `Sam2Model`.
        """
        self.model = model.eval().requires_grad_(False)
        self.segmentation_size = model.prompt_encoder.input_image_size

    @torch.no_grad()
    def masks_from_boxes(
        self, features: PromptableFeatures, boxes: Float[Tensor, "V M 4"]
    ) -> Float[Tensor, "V M s4 s4"]:
        """As `Prompter.masks_from_boxes`: one mask for each box.

        Raises:
            InputError: Features of another size than the model's, or not four numbers for each
                box of each view.
        """
        features = fitting(features, self.segmentation_size, self.model.no_memory_embedding.dtype)
        if boxes.ndim != 3 or boxes.shape[0] != len(features) or boxes.shape[2] != 4:
            raise InputError(
                f"boxes of shape {tuple(boxes.shape)} came with {len(features)} views; give "
                "(views, boxes, 4)"
            )
        views, number = boxes.shape[:2]
        boxes = boxes.to(features.fine.dtype)
        logits = features.fine.new_empty(views, number, *features.fine.shape[2:])
        together = max(1, PROMPTS_AT_ONCE // max(1, number))
        for view in range(0, views, together):
            some = slice(view, view + together)
            seen = features.views(some)
            for box in range(0, number, PROMPTS_AT_ONCE):
                asked = slice(box, box + PROMPTS_AT_ONCE)
                logits[some, asked] = self._answer(seen, boxes[some, asked])
        return logits

    def _answer(
        self, features: PromptableFeatures, boxes: Float[Tensor, "V M 4"]
    ) -> Float[Tensor, "V M s4 s4"]:
        sparse, dense = self.model.prompt_encoder(None, None, boxes * self.segmentation_size, None)
        places = self.model.get_image_wide_positional_embeddings()
        masks, *_ = self.model.mask_decoder(
            image_embeddings=features.coarse,
            image_positional_embeddings=places.expand(len(features), -1, -1, -1),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
            high_resolution_features=[features.fine, features.middle],
        )
        return masks[:, :, 0]


def fitting(
    features: PromptableFeatures, segmentation_size: int, dtype: torch.dtype
) -> PromptableFeatures:
    """Return features in the number format of SAM2's weights.

    Raises:
        InputError: They are of another size than SAM2 was loaded for.
    """
    side = features.coarse.shape[-1]
    if side * STRIDES[-1] != segmentation_size:
        raise InputError(
            f"promptable features have a side of {side}, SAM2 was loaded for "
            f"{segmentation_size // STRIDES[-1]}; load it with segmentation_size="
            f"{side * STRIDES[-1]}"
        )
    return PromptableFeatures(*(level.to(dtype) for level in features.levels))
