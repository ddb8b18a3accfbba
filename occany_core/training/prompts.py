# SPDX-License-Identifier: Apache-2.0
"""Instance maps -> prompts and the masks they ask for: boxes as detectors give them, and clicks.

`V` views, `M` prompts of a view, `K` points of a prompt, `a` side of the fine feature level, on
whose cells all of this happens. All randomness comes from the generator that is handed in.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from occany_core.errors import ConfigError
from occany_core.network.prompt_decoder import PointLabel, Prompts
from occany_core.semantics.detections import boxes_of_masks

BOX_POINTS = 2
FARTHEST_JITTER = 2.0
"""In standard deviations."""
SURROUNDINGS = 0.25
"""Clicks outside a mask are this near to its box, of the box's size."""


@dataclass(frozen=True, kw_only=True)
class PromptSettings:
    """How prompts are drawn."""

    number: int = 8
    """Of each view, M."""
    points: int = 3
    """Most clicks of a prompt, K."""
    box_share: float = 0.75
    """Prompts that are boxes; the others are clicks."""
    jitter: float = 0.05
    """Standard deviation of each side of a box, of the box's size."""
    least_cells: int = 8
    """Instances with fewer visible cells are not asked for."""

    def __post_init__(self) -> None:
        if self.number < 1 or self.points < BOX_POINTS or self.least_cells < 1:
            raise ConfigError(
                f"number {self.number}, points {self.points}, least_cells {self.least_cells}: "
                f"draw at least one prompt of {BOX_POINTS} points for instances of one cell"
            )
        if not 0 <= self.box_share <= 1 or self.jitter < 0:
            raise ConfigError(
                f"box_share {self.box_share} must be 0 to 1, and jitter {self.jitter} not negative"
            )


@dataclass(frozen=True)
class PromptTargets:
    """Prompts and what they should give."""

    prompts: Prompts
    masks: Bool[Tensor, "V M a a"]
    valid: Bool[Tensor, "V M"]
    """Views with few instances have fewer prompts; what fills them up does not count."""


def cells_of(ids: Int[Tensor, "V H W"], side: int) -> Int[Tensor, "V a a"]:
    """Squash maps of ids to a square, each cell with the id at its centre."""
    squashed = F.interpolate(ids[:, None].float(), (side, side), mode="nearest-exact")
    return squashed[:, 0].to(ids.dtype)


def sample_prompts(
    instance: Int[Tensor, "V H W"],
    side: int,
    settings: PromptSettings,
    generator: torch.Generator,
) -> PromptTargets:
    """Draw prompts for visible instances, none twice in a view.

    Args:
        instance: Ids; 0 is never asked for.
        side: Of the fine feature level, a.
        settings: How many and of what kind.
        generator: On the device of the map.
    """
    cells = cells_of(instance, side)
    chosen, valid = _chosen_instances(cells, settings, generator)
    masks = (cells[:, None] == chosen[..., None, None]) & valid[..., None, None]
    boxes = boxes_of_masks(masks)
    as_boxes = _padded(Prompts.of_boxes(_jittered(boxes, settings.jitter, generator)), settings)
    clicks = _clicks(masks, boxes, settings, generator)
    is_box = _uniform(valid, generator) < settings.box_share
    prompts = Prompts(
        torch.where(is_box[..., None, None], as_boxes.points, clicks.points),
        torch.where(is_box[..., None], as_boxes.labels, clicks.labels),
    )
    return PromptTargets(prompts, masks, valid)


def _uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(like.shape, generator=generator, device=like.device)


def _chosen_instances(
    cells: Int[Tensor, "V a a"], settings: PromptSettings, generator: torch.Generator
) -> tuple[Int[Tensor, "V M"], Bool[Tensor, "V M"]]:
    """Draw ids of instances that are large enough, and which of the draws are any."""
    views, number = len(cells), max(int(cells.max()) + 1, settings.number)
    first = number * torch.arange(views, device=cells.device)
    counts = torch.bincount((cells + first[:, None, None]).flatten(), minlength=views * number)
    usable = counts.view(views, number) >= settings.least_cells
    usable[:, 0] = False
    order = (_uniform(usable, generator) + 1) * usable
    score, chosen = order.topk(settings.number, dim=1)
    return chosen, score > 0


def _jittered(
    boxes: Float[Tensor, "V M 4"], jitter: float, generator: torch.Generator
) -> Float[Tensor, "V M 4"]:
    """Move each side as a detector might; boxes stay in the square and are not turned over."""
    noise = torch.randn(boxes.shape, generator=generator, device=boxes.device)
    noise = noise.clamp(-FARTHEST_JITTER, FARTHEST_JITTER) * min(jitter, 0.5 / FARTHEST_JITTER)
    size = boxes[..., 2:] - boxes[..., :2]
    return (boxes + noise * size.repeat(1, 1, 2)).clamp(0, 1)


def _padded(boxes: Prompts, settings: PromptSettings) -> Prompts:
    """Fill boxes up to K points."""
    more = settings.points - BOX_POINTS
    return Prompts(
        F.pad(boxes.points, (0, 0, 0, more)),
        F.pad(boxes.labels, (0, more), value=int(PointLabel.NONE)),
    )


def _clicks(
    masks: Bool[Tensor, "V M a a"],
    boxes: Float[Tensor, "V M 4"],
    settings: PromptSettings,
    generator: torch.Generator,
) -> Prompts:
    """One click inside, and more inside, outside or absent with equal chance."""
    side, number = masks.shape[-1], settings.points
    centre = (torch.arange(side, device=masks.device) + 0.5) / side
    margin = (boxes[..., 2:] - boxes[..., :2]) * SURROUNDINGS
    low, high = boxes[..., :2] - margin, boxes[..., 2:] + margin
    near = (centre >= low[..., None]) & (centre <= high[..., None])  # (V, M, 2, a)
    surroundings = near[..., 1, :, None] & near[..., 0, None, :] & ~masks
    noise = _uniform(masks, generator) + 1
    picks = [(noise * region).flatten(2).topk(number) for region in (masks, surroundings)]
    kind = torch.randint(
        3, (*masks.shape[:2], number), generator=generator, device=masks.device
    ) - 1  # fmt: skip
    kind[..., 0] = PointLabel.INSIDE
    is_inside = kind == PointLabel.INSIDE
    cell = torch.where(is_inside, picks[0].indices, picks[1].indices)
    is_there = torch.where(is_inside, picks[0].values, picks[1].values) > 0
    kind = torch.where(is_there, kind, torch.full_like(kind, PointLabel.NONE))
    points = torch.stack((cell % side, cell // side), dim=-1)
    return Prompts((points + 0.5) / side, kind)
