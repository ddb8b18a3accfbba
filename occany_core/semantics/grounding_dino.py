# SPDX-License-Identifier: Apache-2.0
"""GroundingDINO as a detector: pictures and prompts -> labelled boxes (evaluation page 11.1).

The network is `transformers.GroundingDinoForObjectDetection`; what it means is read by the phrase
rule of `phrases`, not by the library's own post-processing. Needs the extra `[semantics]`.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor

from occany_core.errors import ConfigError, InputError
from occany_core.images import IMAGENET
from occany_core.semantics.class_prompts import PromptTable
from occany_core.semantics.detections import Detections, corners_of
from occany_core.semantics.local_models import LocalModel
from occany_core.semantics.phrases import (
    EVALUATION,
    PhraseThresholds,
    caption_of,
    labelled_queries,
    plain_text,
)
from occany_core.semantics.pictures import check_pictures, normalised

SHORT_SIDE = 800
LONGEST_SIDE = 1333
"""What pictures are resized to: the shorter side, unless the longer one got longer than this."""
CHUNK = 2
"""Views that go through the network together; it needs about 1.7 GB for each (base)."""


class GroundingDinoDetector:
    """A `Detector`: the network, its tokenizer, and settings that never change."""

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        thresholds: PhraseThresholds = EVALUATION,
        chunk: int = CHUNK,
        short_side: int = SHORT_SIDE,
    ) -> None:
        """Wrap a model that is loaded already.

        Args:
            model: `transformers.GroundingDinoForObjectDetection`.
            tokenizer: The BERT tokenizer that belongs to it.
            thresholds: Scores that boxes and tokens have to exceed.
            chunk: Views that go through the network together; bounds the memory.
            short_side: Of the pictures that the network sees [px]; the longer side stays within
                5/3 of it (800 and 1333 as published).

        Raises:
            ConfigError: `chunk` or `short_side` is not positive.
        """
        if chunk < 1 or short_side < 1:
            raise ConfigError(f"chunk is {chunk}, short_side {short_side}; give 1 or more")
        self.model, self.tokenizer = model, tokenizer
        self.thresholds, self.chunk, self.short_side = thresholds, chunk, short_side

    @torch.no_grad()
    def detect(self, rgb: UInt8[Tensor, "V H W 3"], prompts: PromptTable) -> list[Detections]:
        """Return what each picture shows; no box is suppressed for lying on another.

        Raises:
            InputError: The pictures are not 8-bit colours, or the prompts cannot be asked for
                together because their caption is too long for the network.
        """
        check_pictures(rgb)
        ids, prompts = self._tokens(prompts), self._as_decoded(prompts)
        parts = rgb.split(self.chunk) if len(rgb) else ()
        return [found for part in parts for found in self._chunk(part, ids, prompts)]

    def check(self, prompts: PromptTable) -> None:
        """Refuse prompts that cannot be asked for.

        Raises:
            InputError: As `detect`.
        """
        self._tokens(prompts)
        self._as_decoded(prompts)

    def _tokens(self, prompts: PromptTable) -> Int[Tensor, " T"]:
        """Turn the caption into ids, all of which the network must be able to read."""
        ids = self.tokenizer(caption_of(prompts))["input_ids"]
        most = self.model.config.max_text_len
        if len(ids) > most:
            raise InputError(
                f"the caption of {len(prompts.texts)} prompts has {len(ids)} tokens and the "
                f"detector reads {most}; ask for fewer prompts"
            )
        return torch.tensor(ids, device=self.model.device)

    def _as_decoded(self, prompts: PromptTable) -> PromptTable:
        """Write prompts as they come back from the tokenizer: "cafés" as "cafes", for example."""
        texts = []
        for text in prompts.texts:
            ids = self.tokenizer(plain_text(text), add_special_tokens=False)["input_ids"]
            if self.tokenizer.unk_token_id in ids:
                raise InputError(
                    f"prompt {text!r} has letters that the detector does not know; use others"
                )
            texts.append(self.tokenizer.decode(ids))
        return PromptTable(tuple(texts), prompts.labels)

    def _chunk(
        self, rgb: UInt8[Tensor, "V H W 3"], ids: Int[Tensor, " T"], prompts: PromptTable
    ) -> list[Detections]:
        pictures = prepared_for_detector(rgb, self.short_side)
        caption = ids.expand(len(rgb), -1)
        answer = self.model(
            pixel_values=pictures.to(self.model.device, self.model.dtype),
            pixel_mask=torch.ones_like(pictures[:, 0], dtype=torch.long, device=ids.device),
            input_ids=caption,
            attention_mask=torch.ones_like(caption),
            token_type_ids=torch.zeros_like(caption),
        )
        detections = []
        for logits, boxes in zip(answer.logits.float(), answer.pred_boxes.float(), strict=True):
            found = labelled_queries(logits, ids, self.tokenizer.decode, prompts, self.thresholds)
            corners = corners_of(boxes[found.queries])
            detections.append(Detections(corners, found.scores, found.labels))
        return detections


def load_grounding_dino(
    folder: str | Path,
    device: str | torch.device = "cpu",
    thresholds: PhraseThresholds = EVALUATION,
    chunk: int = CHUNK,
) -> GroundingDinoDetector:
    """Load a detector from a folder of this machine; the network is never asked.

    Args:
        folder: With a `transformers.GroundingDinoForObjectDetection` and its tokenizer, such as
            `occany download grounding-dino-base` fetches.
        device: Where to run.
        thresholds: Scores that boxes and tokens have to exceed.
        chunk: Views that go through the network together.

    Raises:
        ConfigError: transformers is not installed.
        CheckpointError: There is no such folder, or it does not hold the whole model.
    """
    local = LocalModel("GroundingDinoForObjectDetection", "grounding-dino-base", Path(folder))
    return GroundingDinoDetector(local.load(device), local.tokenizer(), thresholds, chunk)


def detector_size(height: int, width: int, short_side: int = SHORT_SIDE) -> tuple[int, int]:
    """Return the (height, width) at which a picture is looked at [px] (evaluation page 2.4).

    The rounding is that of `transformers.image_transforms.get_size_with_aspect_ratio`, which the
    processor of this network uses.
    """
    low, high = min(height, width), max(height, width)
    short = float(short_side)
    longest = short_side * LONGEST_SIDE // SHORT_SIDE
    if high / low * short_side > longest:
        short = longest * float(low) / high
    rounded = round(short)
    if low == rounded:
        return height, width
    long = int(short * high / low)
    return (rounded, long) if height <= width else (long, rounded)


def prepared_for_detector(
    rgb: UInt8[Tensor, "V H W 3"], short_side: int = SHORT_SIDE
) -> Float[Tensor, "V 3 h w"]:
    """Resize pictures with PIL's bilinear filter and normalise them with ImageNet's statistics.

    All views have one size, so none has to be padded.
    """
    height, width = detector_size(*rgb.shape[1:3], short_side)
    resized = [
        np.array(Image.fromarray(one).resize((width, height), Image.Resampling.BILINEAR))
        for one in rgb.cpu().numpy()
    ]
    return normalised(torch.from_numpy(np.stack(resized)), IMAGENET)
