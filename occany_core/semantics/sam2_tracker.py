# SPDX-License-Identifier: Apache-2.0
"""SAM2's video memory carries masks of many objects into other views (semantics page 3.2).

`B` objects, `R` views beside the observed one, `C` channels of the coarse level, `s` its side;
masks have side 4s, the model's picture side 16s.
"""

from collections import deque
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from occany_core.errors import ConfigError, InputError
from occany_core.semantics.features import PromptableFeatures
from occany_core.semantics.sam2_memory import (
    LookedView,
    MemoryAttention,
    Pointers,
    ViewMemory,
)
from occany_core.semantics.sam2_prompter import fitting

FIRST_MEMORIES = ("logits", "mask")
OBJECTS_AT_ONCE = {"cpu": 8}
"""Objects that are tracked together by kind of device; each takes about 60 MB."""
OBJECTS_AT_ONCE_ELSEWHERE = 64
INSIDE, OUTSIDE = 10.0, -10.0
"""Logits of a given mask."""
ABSENT = -1024.0
"""Logit of objects that are not seen."""
TEMPERATURE = 10000
"""Of the code of distances in time."""


@dataclass(frozen=True)
class _View:
    """What all objects share of one view."""

    picture: Float[Tensor, "1 C s s"]
    """Coarse level without the embedding of pictures without a past."""
    finer: list[Tensor]
    """Fine and middle level."""
    looked: LookedView | None
    """Absent of the observed view."""


@dataclass(frozen=True)
class _Answer:
    """Of the mask decoder."""

    logits: Float[Tensor, "B s4 s4"]
    pointer: Float[Tensor, "B C"]
    is_seen: Bool[Tensor, " B"]


class Sam2Tracker:
    """Mask decoder, memory encoder and memory attention of SAM2; implements `Tracker`."""

    def __init__(
        self,
        model: Any,
        first_memory: Literal["logits", "mask"] = "logits",
        objects_at_once: int | None = None,
    ) -> None:
        """Wrap a model that is loaded already.

        Args:
            model: `transformers.Sam2VideoModel` of `load_video_model`.
            first_memory: What the observed view is remembered by: the mask's logits at a quarter
                of the picture, enlarged again, as the released program does; or the mask itself,
                as transformers does.
            objects_at_once: Objects that are tracked together; by default as the device likes it.

        Raises:
            ConfigError: There is no such first memory, or no object at once.
        """
        if first_memory not in FIRST_MEMORIES:
            raise ConfigError(
                f"first_memory is {first_memory!r}; it must be one of {', '.join(FIRST_MEMORIES)}"
            )
        if objects_at_once is not None and objects_at_once < 1:
            raise ConfigError(f"objects_at_once is {objects_at_once}; it must be 1 or more")
        self.model = model.eval().requires_grad_(False)
        self.first_memory = first_memory
        device = model.no_memory_embedding.device
        self.objects_at_once = objects_at_once or OBJECTS_AT_ONCE.get(
            device.type, OBJECTS_AT_ONCE_ELSEWHERE
        )
        config = model.config
        self.multimask = (
            config.multimask_output_in_sam
            and config.multimask_output_for_tracking
            and config.multimask_min_pt_num == 0
        )
        self.attention = MemoryAttention(model)
        self.places = model.get_image_wide_positional_embeddings()

    @torch.no_grad()
    def propagate(
        self,
        observed: PromptableFeatures,
        masks: Bool[Tensor, "M H W"],
        others: PromptableFeatures,
    ) -> Float[Tensor, "R1 M s4 s4"]:
        """As `Tracker.propagate`.

        Also the masks of the observed view are slightly resampled: they are logits of a quarter of
        the picture's side. Objects without a pixel stay without one there.

        Raises:
            InputError: Not exactly one observed view, features of another size than the model's,
                or masks that are none.
        """
        if len(observed) != 1:
            raise InputError(f"{len(observed)} observed views were given; track from exactly one")
        if masks.ndim != 3 or masks.dtype != torch.bool:
            raise InputError(
                f"masks are {masks.dtype} of shape {tuple(masks.shape)}; give bool (objects, "
                "height, width)"
            )
        features = PromptableFeatures.joined([observed, others])
        views = self._views(fitting(features, self.model.image_size, self.places.dtype))
        if not len(masks):
            return self.places.new_empty(len(views), 0, *observed.fine.shape[2:])
        parts = [self._track(views, some) for some in masks.split(self.objects_at_once)]
        return torch.cat(parts, dim=1)

    def _views(self, features: PromptableFeatures) -> list[_View]:
        """Do what is the same for all objects."""
        pictures = features.coarse - self.model.no_memory_embedding[0][..., None, None]
        views = []
        for index, picture in enumerate(pictures.split(1)):
            one = slice(index, index + 1)
            finer = [features.fine[one], features.middle[one]]
            views.append(_View(picture, finer, self.attention.look(picture) if index else None))
        return views

    def _track(
        self, views: list[_View], masks: Bool[Tensor, "B H W"]
    ) -> Float[Tensor, "R1 B s4 s4"]:
        square = self._squared(masks)
        answer = self._given(views[0], square)
        answers = [answer]
        if len(views) == 1:
            return answer.logits[None]
        first = self._first_memory(views[0], square, answer)
        slots = self.model.num_maskmem - 1
        recent: deque[ViewMemory] = deque(maxlen=slots)
        for time, view in enumerate(views[1:], 1):
            ages = range(len(recent), 0, -1)
            memories = [(slots, first)]
            memories += [(age - 1, memory) for age, memory in zip(ages, recent, strict=True)]
            pointers = self._pointers(answers, len(views))
            cells = self.attention.recall(view.looked, memories, pointers)
            conditioned = cells.transpose(1, 2).unflatten(2, view.picture.shape[2:])
            answer = self._decode(view, conditioned, None)
            answers.append(answer)
            if time < len(views) - 1:  # nobody asks about the last view
                enlarged = self._enlarged(answer.logits)
                recent.append(self._memory(view, enlarged.sigmoid_(), answer.is_seen))
        return torch.stack([answer.logits for answer in answers])

    def _squared(self, masks: Bool[Tensor, "B H W"]) -> Float[Tensor, "B 1 s16 s16"]:
        """Squash masks to the model's picture; 0 or 1."""
        size = (self.model.image_size,) * 2
        masks = F.interpolate(masks[:, None].float(), size, mode="bilinear", antialias=True)
        return (masks >= 0.5).to(self.places.dtype)

    def _given(self, view: _View, square: Float[Tensor, "B 1 s16 s16"]) -> _Answer:
        """Turn given masks into logits; only their pointers are asked of the mask decoder."""
        decoded = self._decode(view, view.picture, self.model.mask_downsample(square))
        is_there = (square > 0).flatten(1).any(dim=1)
        pointer = torch.where(is_there[:, None], decoded.pointer, self.model.no_object_pointer)
        logits = square * (INSIDE - OUTSIDE) + OUTSIDE
        size = self.model.prompt_encoder.mask_input_size
        logits = F.interpolate(logits, size, mode="bilinear", antialias=True)
        return _Answer(logits[:, 0], pointer, is_there)

    def _decode(
        self,
        view: _View,
        conditioned: Float[Tensor, "_ C s s"],
        drawn: Float[Tensor, "B 1 s4 s4"] | None,
    ) -> _Answer:
        """Ask for one mask of each object, without points.

        Args:
            view: Its finer levels are used.
            conditioned: Coarse level of each object, or one for all.
            drawn: Masks as prompts.
        """
        model = self.model
        number = len(conditioned if drawn is None else drawn)
        nowhere = conditioned.new_zeros(number, 1, 1, 2)
        no_point = torch.full((number, 1, 1), -1, device=conditioned.device, dtype=torch.int32)
        sparse, dense = model.prompt_encoder(nowhere, no_point, None, drawn)
        masks, quality, tokens, score = model.mask_decoder(
            image_embeddings=conditioned.expand(number, -1, -1, -1),
            image_positional_embeddings=self.places,
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=drawn is not None or self.multimask,
            high_resolution_features=view.finer,
        )
        each = torch.arange(number, device=masks.device)
        best = quality[:, 0].argmax(dim=-1)
        is_seen = score[:, 0, 0] > 0
        logits = torch.where(is_seen[:, None, None], masks[each, 0, best], ABSENT)
        pointer = model.object_pointer_proj(tokens[each, 0, best])
        pointer = torch.where(is_seen[:, None], pointer, model.no_object_pointer)
        return _Answer(logits, pointer, is_seen)

    def _first_memory(
        self, view: _View, square: Float[Tensor, "B 1 s16 s16"], answer: _Answer
    ) -> ViewMemory:
        if self.first_memory == "logits":
            square = (self._enlarged(answer.logits) > 0).to(square.dtype)
        return self._memory(view, square, answer.is_seen)

    def _enlarged(self, logits: Float[Tensor, "B s4 s4"]) -> Float[Tensor, "B 1 s16 s16"]:
        size = (self.model.image_size,) * 2
        return F.interpolate(logits[:, None], size, mode="bilinear")

    def _memory(
        self,
        view: _View,
        shares: Float[Tensor, "B 1 s16 s16"],
        is_seen: Bool[Tensor, " B"],
    ) -> ViewMemory:
        """Remember where objects are.

        Args:
            view: What is seen.
            shares: Of each pixel that belong to each object.
            is_seen: Whether the object is.
        """
        config = self.model.config
        drawn = shares * config.sigmoid_scale_for_mem_enc + config.sigmoid_bias_for_mem_enc
        features, _ = self.model.memory_encoder(view.picture, drawn)
        values = features.flatten(2).transpose(1, 2)
        hidden = self.model.occlusion_spatial_embedding_parameter
        if hidden is not None:
            values = values + (~is_seen)[:, None, None] * hidden
        values = values.bfloat16().to(values.dtype)  # rounded as the original does
        return self.attention.memory(values)

    def _pointers(self, answers: list[_Answer], num_views: int) -> Pointers:
        """Gather the pointers of the observed view and of those just before."""
        most = min(num_views, self.model.config.max_object_pointers_in_encoder)
        now = len(answers)
        distances = [now, *range(1, min(most, now))]
        pointers = torch.stack([answers[now - distance].pointer for distance in distances], dim=1)
        width, split = self.model.mem_dim, pointers.shape[2] // self.model.mem_dim
        code = _time_code(pointers.new_tensor(distances) / (most - 1), pointers.shape[2])
        ages = self.model.temporal_positional_encoding_projection_layer(code)
        values = pointers.unflatten(2, (split, width)).flatten(1, 2)
        return Pointers(values, ages.repeat_interleave(split, dim=0))


def _time_code(distances: Float[Tensor, " N"], width: int) -> Float[Tensor, "N width"]:
    """Sines, then cosines, of wave lengths in pairs."""
    steps = torch.arange(width // 2, device=distances.device, dtype=torch.float32)
    phases = distances[:, None] / TEMPERATURE ** (2 * (steps // 2) / (width // 2))
    return torch.cat((phases.sin(), phases.cos()), dim=-1)
