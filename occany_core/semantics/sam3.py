# SPDX-License-Identifier: Apache-2.0
"""SAM3: texts -> masks, on features that the network predicts or on pictures (spec 11.2).

The network is `transformers.Sam3Model`; what it leaves out of the released program, one token of
an empty geometric prompt, is added here. Needs the extra `[semantics]`.

`V` views, `P` prompts, `N` tokens of a text, `C` channels, `s` side of the coarse level, `M` masks
of a view, `H W` pixels.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from occany_core.errors import ConfigError, InputError
from occany_core.images import SIGNED, segmentation_tensor
from occany_core.semantics.class_prompts import PromptTable
from occany_core.semantics.local_models import LocalModel
from occany_core.semantics.painting import LabelledMasks
from occany_core.semantics.pictures import check_pictures
from occany_core.voxels import ClassTable

MIN_SCORE = 0.15
"""What a query has to exceed (evaluation page 11.2)."""
TEXT_TOKENS = 32
"""Length to which SAM3's texts are padded."""
CHUNK = 8
"""Prompts that are asked of a view together; each needs about 0.1 GB where the
coarse level has side 37, and 0.2 to 0.6 GB at 72."""


@dataclass(frozen=True)
class Sam3Features:
    """Three levels of views that were squashed to a square; SAM3's own have 256 channels.

    Sides are 148, 74 and 37 where OccAny+ predicts them, 288, 144 and 72 for pictures at 1008 px.
    """

    fine: Float[Tensor, "V C s4 s4"]
    middle: Float[Tensor, "V C s2 s2"]
    coarse: Float[Tensor, "V C s s"]

    def __post_init__(self) -> None:
        """Check that the levels belong together."""
        side = self.coarse.shape[-1]
        shapes = [tuple(level.shape) for level in self.levels]
        views = self.coarse.shape[:2]
        if shapes != [(*views, factor * side, factor * side) for factor in (4, 2, 1)]:
            raise InputError(
                f"levels have shapes {shapes}; give (views, channels, side, side) of the same "
                "views and channels, fine first, each half as large as the one before"
            )

    @property
    def levels(self) -> tuple[Tensor, Tensor, Tensor]:
        """Fine, middle and coarse."""
        return self.fine, self.middle, self.coarse

    def __len__(self) -> int:
        """Return the number of views."""
        return len(self.coarse)

    def views(self, chosen: slice | Tensor) -> "Sam3Features":
        """Return some of the views."""
        return Sam3Features(*(level[chosen] for level in self.levels))


@dataclass(frozen=True)
class TextPrompts:
    """What SAM3 made of the texts of a prompt table; serves any number of views."""

    features: Float[Tensor, "P N C"]
    is_token: Bool[Tensor, "P N"]
    """False where the text was filled up."""
    labels: Int[Tensor, " P"]
    """Class ids."""

    def prompts(self, chosen: slice) -> "TextPrompts":
        """Return some of the prompts."""
        return TextPrompts(self.features[chosen], self.is_token[chosen], self.labels[chosen])


class Sam3Segmenter:
    """The network, its tokenizer, settings that never change, and the last texts it has read."""

    def __init__(
        self, model: Any, tokenizer: Any, min_score: float = MIN_SCORE, chunk: int = CHUNK
    ) -> None:
        """Wrap a model that is loaded already.

        Args:
            model: `transformers.Sam3Model`.
            tokenizer: The CLIP tokenizer that belongs to it.
            min_score: What a query has to exceed, 0 to 1.
            chunk: Prompts that are asked of a view together; bounds the memory.

        Raises:
            ConfigError: A setting is out of range.
        """
        if chunk < 1 or not 0 <= min_score < 1:
            raise ConfigError(
                f"chunk is {chunk}, min_score {min_score}; give a chunk of 1 or more and a score "
                "of 0 or more and below 1"
            )
        self.model, self.tokenizer = model, tokenizer
        self.min_score, self.chunk = min_score, chunk
        self._read: tuple[PromptTable, TextPrompts] | None = None

    def text_prompts(self, prompts: PromptTable, classes: ClassTable) -> TextPrompts:
        """Read the texts of a prompt table once, to ask them of any number of views.

        Prompts of `empty` and `other`, which are never painted, are left out. The last table is
        remembered, so that asking for it again costs nothing.

        Raises:
            InputError: No prompt is left, or one is too long.
        """
        prompts = prompts.without(classes)
        read = self._read
        if read is None or read[0] != prompts:
            read = self._read = prompts, self._text_prompts(prompts)
        return read[1]

    @torch.no_grad()
    def _text_prompts(self, prompts: PromptTable) -> TextPrompts:
        if not prompts.texts:
            raise InputError("there are no prompts to look for; give at least one")
        lengths = [len(ids) for ids in self.tokenizer(list(prompts.texts))["input_ids"]]
        if max(lengths) > TEXT_TOKENS:
            longest = prompts.texts[lengths.index(max(lengths))]
            raise InputError(
                f"prompt {longest!r} has {max(lengths)} tokens and SAM3 reads {TEXT_TOKENS}; "
                "shorten it"
            )
        read = self.tokenizer(
            list(prompts.texts),
            padding="max_length",
            max_length=TEXT_TOKENS,
            return_tensors="pt",
        ).to(self.model.device)
        ids, is_token = read["input_ids"], read["attention_mask"]
        parts = zip(ids.split(self.chunk), is_token.split(self.chunk), strict=True)
        features = [
            self.model.get_text_features(input_ids=i, attention_mask=m).pooler_output
            for i, m in parts
        ]
        labels = torch.tensor(prompts.labels, device=ids.device)
        return TextPrompts(torch.cat(features), is_token.bool(), labels)

    def features_of_pictures(self, rgb: UInt8[Tensor, "V H W 3"]) -> Iterator[Sam3Features]:
        """Look at pictures, one after the other, and yield the features of each.

        Raises:
            InputError: The pictures are not 8-bit colours.
        """
        check_pictures(rgb)
        size = self.model.config.image_size
        for one in rgb.split(1):
            with torch.no_grad():
                picture = segmentation_tensor(one.to(self.model.device), size, SIGNED)
                seen = self.model.get_vision_features(picture.to(self.model.dtype))
            yield Sam3Features(*seen.fpn_hidden_states[:3])

    def masks_in_pictures(
        self, rgb: UInt8[Tensor, "V H W 3"], texts: TextPrompts
    ) -> Iterator[LabelledMasks]:
        """Yield, view by view, what the texts name in pictures; see `masks_in_features`."""
        for features in self.features_of_pictures(rgb):
            yield from self.masks_in_features(features, texts, tuple(rgb.shape[1:3]))

    def masks_in_features(
        self, features: Sam3Features, texts: TextPrompts, size: tuple[int, int]
    ) -> Iterator[LabelledMasks]:
        """Yield, view by view, what the texts name, in the order of prompts and queries.

        Masks of one view at a time are held, so paint them before you take the next.

        Args:
            features: Of V views.
            texts: As made by `text_prompts`.
            size: (height, width) of the masks [px]: the whole of what was squashed.
        """
        for index in range(len(features)):
            yield self._masks_in_view(features.views(slice(index, index + 1)), texts, size)

    @torch.no_grad()
    def _masks_in_view(
        self, features: Sam3Features, texts: TextPrompts, size: tuple[int, int]
    ) -> LabelledMasks:
        """Ask all prompts of one view, some at a time."""
        weight = next(self.model.parameters())
        levels = tuple(level.to(weight.device, weight.dtype) for level in features.levels)
        encode = self.model.vision_encoder.neck.position_encoding
        codes = tuple(encode(level.shape, level.device, level.dtype) for level in levels)
        view = _View(levels, codes, empty_geometry_token(self.model, levels[2], codes[2]))
        parts = [
            self._masks_of_prompts(view, texts.prompts(slice(start, start + self.chunk)), size)
            for start in range(0, len(texts.labels), self.chunk)
        ]
        return LabelledMasks(
            torch.cat([part.masks for part in parts]),
            torch.cat([part.scores for part in parts]),
            torch.cat([part.labels for part in parts]),
        )

    def _masks_of_prompts(
        self, view: "_View", texts: TextPrompts, size: tuple[int, int]
    ) -> LabelledMasks:
        number = len(texts.labels)
        prompts = torch.cat((texts.features, view.empty_geometry.expand(number, -1, -1)), dim=1)
        answer = self.model(
            vision_embeds=view.repeated(number),
            text_embeds=_TextEmbeds(prompts),
            attention_mask=F.pad(texts.is_token, (0, 1), value=True).long(),
        )
        scores = answer.pred_logits.float().sigmoid() * answer.presence_logits.float().sigmoid()
        task, query = (scores > self.min_score).nonzero(as_tuple=True)
        parts = answer.pred_masks[task, query].split(self.chunk)
        masks = torch.cat([resized_masks(part, size) for part in parts])
        return LabelledMasks(masks, scores[task, query], texts.labels[task])


def load_sam3(
    folder: str | Path,
    device: str | torch.device = "cpu",
    min_score: float = MIN_SCORE,
    chunk: int = CHUNK,
) -> Sam3Segmenter:
    """Load SAM3 from a folder of this machine; the network is never asked.

    Args:
        folder: With a `transformers.Sam3Model` and its tokenizer, such as
            `occany download sam3` fetches.
        device: Where to run.
        min_score: What a query has to exceed, 0 to 1.
        chunk: Prompts that are asked of a view together.

    Raises:
        ConfigError: transformers is not installed.
        CheckpointError: There is no such folder, or it does not hold the whole model.
    """
    local = LocalModel("Sam3Model", "sam3", Path(folder))
    return Sam3Segmenter(local.load(device), local.tokenizer(), min_score, chunk)


def resized_masks(logits: Float[Tensor, "M h w"], size: tuple[int, int]) -> Bool[Tensor, "M H W"]:
    """Resize logits to pictures and say where they mean more than one half."""
    if not len(logits):
        return torch.zeros(0, *size, dtype=torch.bool, device=logits.device)
    return F.interpolate(logits[None].float(), size, mode="bilinear")[0].sigmoid() > 0.5


def empty_geometry_token(
    model: Any, coarse: Float[Tensor, "V C s s"], code: Float[Tensor, "V C s s"]
) -> Float[Tensor, "V 1 C"]:
    """Return the token that SAM3's own program makes of a geometric prompt without any box.

    It is a learned token that has looked at the picture. The library makes it only where boxes are
    given; there it is the same for one box that is marked as padding (label -10), but that way
    needs torchvision, for a box that is then ignored.

    Args:
        model: `transformers.Sam3Model`.
        coarse: Features of V views.
        code: Their positions, as the neck of the model encodes them.
    """
    encoder = model.geometry_encoder
    token = encoder.prompt_layer_norm(encoder.final_proj(encoder.cls_embed.weight[None]))
    token = token.expand(len(coarse), -1, -1)
    seen, where = (level.flatten(2).transpose(1, 2) for level in (coarse, code))
    for layer in encoder.layers:
        token = layer(
            prompt_feats=token, vision_feats=seen, vision_pos_encoding=where, prompt_mask=None
        )
    return encoder.output_layer_norm(token)


@dataclass(frozen=True)
class _TextEmbeds:
    """As much of the library's text output as its model reads."""

    pooler_output: Float[Tensor, "P N C"]


@dataclass(frozen=True)
class _View:
    """What the model is given of one view."""

    levels: tuple[Tensor, Tensor, Tensor]
    """Fine, middle and coarse."""
    codes: tuple[Tensor, Tensor, Tensor]
    """Positions in each level."""
    empty_geometry: Float[Tensor, "1 1 C"]

    def repeated(self, times: int) -> Any:
        """Return the view once for each of some prompts, as the model takes features.

        The model drops the last entry, whatever it is, so that a fourth one is needed: of three it
        would silently take the wrong levels.
        """
        from transformers.models.sam3.modeling_sam3 import Sam3VisionEncoderOutput

        levels = tuple(level.expand(times, -1, -1, -1) for level in self.levels)
        codes = tuple(code.expand(times, -1, -1, -1) for code in self.codes)
        return Sam3VisionEncoderOutput(
            fpn_hidden_states=(*levels, levels[2][..., :1, :1]),
            fpn_position_encoding=(*codes, codes[2][..., :1, :1]),
        )
