# SPDX-License-Identifier: Apache-2.0
"""How long SAM2's tracking takes, beside the library's own loop over objects.

Random weights of the released sizes, random features: time does not depend on their values, and
both ways have to give the same masks.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from occany_core.bench.memory import peak_resident_gb
from occany_core.errors import ConfigError, ParityError
from occany_core.semantics.features import PromptableFeatures
from occany_core.semantics.sam2_model import sam2_video_config, video_model_without_pictures
from occany_core.semantics.sam2_tracker import Sam2Tracker

GAIN = 0.7
"""Of random weights; much more, and rounding grows from view to view."""
LEAST_EQUAL = 0.9999
"""Share of pixels on the same side of the mask's edge."""
Progress = Callable[[str, int, int], None]
"""Is told what runs, and how many of how many views are done."""


@dataclass(frozen=True)
class TrackingTiming:
    """What `measure` found."""

    objects: int
    views: int
    """Into which they were tracked, without the observed one."""
    size: int
    """Side of the square picture [px]."""
    threads: int
    repeats: int
    ours_s: float
    """Median wall time; so is `library_s`."""
    ours_cpu_s: float
    """Median time of the processor, over all threads; other programs disturb it less."""
    library_objects: int
    """So many objects the library's loop tracked."""
    library_s: float
    library_cpu_s: float
    equal_pixels: float
    """Share, of the objects that both tracked."""
    largest_difference: float
    """Of logits."""
    rms_logit: float
    peak_ours_gb: float
    """Memory of the process, its weights and features included."""
    peak_library_gb: float
    """The same after the library's loop; not below the other."""

    @property
    def is_extrapolated(self) -> bool:
        """Whether the library's time for all objects was not measured."""
        return self.library_objects < self.objects

    @property
    def library_all_s(self) -> float:
        """Time of the library's loop for all objects; it takes them one by one."""
        return self.library_s * self.objects / self.library_objects

    @property
    def ratio(self) -> float:
        """So many times ours is faster."""
        return self.library_all_s / self.ours_s

    @property
    def cpu_ratio(self) -> float:
        """The same in time of the processor."""
        return self.library_cpu_s * self.objects / self.library_objects / self.ours_cpu_s

    def to_dict(self) -> dict:
        """Return plain JSON data."""
        names = ("library_all_s", "ratio", "cpu_ratio", "is_extrapolated")
        return asdict(self) | {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Workload:
    """What is tracked."""

    objects: int = 60
    views: int = 10
    size: int = 512
    library_objects: int | None = None
    """Fewer for the library's loop, whose time is then extrapolated."""
    repeats: int = 1

    def __post_init__(self) -> None:
        """Check the numbers."""
        library = self.library_objects
        if min(self.objects, self.views, self.repeats) < 1:
            raise ConfigError(
                f"objects {self.objects}, views {self.views} and repeats {self.repeats} must all "
                "be at least 1"
            )
        if library is not None and not 1 <= library <= self.objects:
            raise ConfigError(
                f"library-objects is {library}; it must be 1 to objects ({self.objects})"
            )


def measure(work: Workload, progress: Progress) -> TrackingTiming:
    """Track the same objects both ways.

    Raises:
        ConfigError: transformers is not installed.
        ParityError: The masks differ.
    """
    model = video_model_without_pictures(sam2_video_config(), work.size)
    generator = torch.Generator().manual_seed(0)
    enliven(model, generator)
    observed, others = (random_features(n, work.size, generator) for n in (1, work.views))
    masks = random_masks(work.objects, generator)
    some = masks[: work.library_objects or work.objects]
    tracker = Sam2Tracker(model, first_memory="mask")
    progress("ours", 0, work.repeats)
    tracker.propagate(observed, masks[:1], others.views(slice(0, 1)))  # the first call is slower
    ours, ours_s, ours_cpu_s = _timed(
        work.repeats, lambda: tracker.propagate(observed, masks, others)
    )
    peak = peak_resident_gb()
    library, library_s, library_cpu_s = _timed(
        work.repeats, lambda: track_one_by_one(model, observed, some, others, progress)
    )
    ours = ours[:, : len(some)]
    timing = TrackingTiming(
        objects=work.objects,
        views=work.views,
        size=work.size,
        threads=torch.get_num_threads(),
        repeats=work.repeats,
        ours_s=ours_s,
        ours_cpu_s=ours_cpu_s,
        library_objects=len(some),
        library_s=library_s,
        library_cpu_s=library_cpu_s,
        equal_pixels=((ours > 0) == (library > 0)).float().mean().item(),
        largest_difference=(ours - library).abs().amax().item(),
        rms_logit=library[1:][library[1:] > -100].square().mean().sqrt().item(),
        peak_ours_gb=peak,
        peak_library_gb=peak_resident_gb(),
    )
    if timing.equal_pixels < LEAST_EQUAL:
        raise ParityError(
            f"only {100 * timing.equal_pixels:.3f} % of the pixels are on the same side of the "
            f"masks' edges in our tracker and in transformers; logits differ by up to "
            f"{timing.largest_difference:.3g}"
        )
    return timing


def _timed(repeats: int, track: Callable[[], Tensor]) -> tuple[Tensor, float, float]:
    walls, works = [], []
    for _ in range(repeats):
        started, worked = time.perf_counter(), time.process_time()
        masks = track()
        walls.append(time.perf_counter() - started)
        works.append(time.process_time() - worked)
    return masks, statistics.median(walls), statistics.median(works)


def enliven(model: Any, generator: torch.Generator) -> None:
    """Draw weights with which masks depend on everything."""
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if "layer_norm" in name:
                tensor.normal_(0, 0.1, generator=generator).add_(float(name.endswith("weight")))
            elif tensor.dim() > 1 and name.endswith("weight"):
                fan_in = max(tensor[0].numel(), 1)
                tensor.normal_(0, GAIN * fan_in**-0.5, generator=generator)
            else:
                tensor.normal_(0, 0.3, generator=generator)
        model.mask_decoder.pred_obj_score_head.proj_out.bias.fill_(1.0)  # most objects are seen


def random_features(views: int, size: int, generator: torch.Generator) -> PromptableFeatures:
    """Return features with the channels of SAM2."""
    levels = ((256, size // 16), (64, size // 8), (32, size // 4))
    return PromptableFeatures(
        *(torch.randn(views, c, side, side, generator=generator) for c, side in levels)
    )


def random_masks(objects: int, generator: torch.Generator) -> Bool[Tensor, "M 288 512"]:
    """Return filled rectangles in a picture of 512x288."""
    masks = torch.zeros(objects, 288, 512, dtype=torch.bool)
    starts = torch.rand(objects, 2, generator=generator) * 0.7
    ends = starts + 0.05 + 0.25 * torch.rand(objects, 2, generator=generator)
    for mask, (top, left), (bottom, right) in zip(masks, starts, ends, strict=True):
        mask[int(288 * top) : int(288 * bottom), int(512 * left) : int(512 * right)] = True
    return masks


@torch.no_grad()
def track_one_by_one(
    model: Any,
    observed: PromptableFeatures,
    masks: Bool[Tensor, "M H W"],
    others: PromptableFeatures,
    progress: Progress,
) -> Float[Tensor, "R1 M s4 s4"]:
    """Track with the library's session, which takes one object after the other.

    Args:
        model: `transformers.Sam2VideoModel`.
        observed: As in `Tracker.propagate`; so are `masks` and `others`.
        masks: At least one.
        others: The views.
        progress: Is told each view that is done.
    """
    from transformers import Sam2VideoInferenceSession

    views = PromptableFeatures.joined([observed, others])
    session = Sam2VideoInferenceSession(
        video_height=model.image_size,
        video_width=model.image_size,
        dtype=torch.float32,
        max_vision_features_cache_size=len(views) + 1,
    )
    session.processed_frames = dict.fromkeys(range(len(views)))
    encode = model.vision_encoder.neck.position_encoding
    for time_step in range(len(views)):
        one = views.views(slice(time_step, time_step + 1))
        levels = [one.fine, one.middle, one.coarse - model.no_memory_embedding[0][..., None, None]]
        places = [encode(level.shape, level.device, level.dtype) for level in levels]
        cached = {"vision_feats": levels, "vision_pos_embeds": places}
        flat = {k: [v.flatten(2).permute(2, 0, 1) for v in maps] for k, maps in cached.items()}
        session.cache.cache_vision_features(time_step, flat)
    size = (model.image_size,) * 2
    squared = F.interpolate(masks[:, None].float(), size, mode="bilinear", antialias=True) >= 0.5
    for number, mask in enumerate(squared):
        session.add_mask_inputs(session.obj_id_to_idx(number), 0, mask[None].float())
        session.obj_with_new_inputs.append(number)
    answers = []
    for answer in model.propagate_in_video_iterator(session, start_frame_idx=0):
        answers.append(answer.pred_masks[:, 0].clone())
        progress("transformers", len(answers), len(views))
    return torch.stack(answers)
