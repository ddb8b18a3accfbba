# SPDX-License-Identifier: Apache-2.0
"""Masks, classes and boxes of the weights on the held-back streets of SynthOcc.

The network predicts its features from the pictures; its own mask decoder and class probe answer.
"""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Shaped, UInt8
from torch import Tensor

from occany_core.checkpoints import Model
from occany_core.config import OccAnyConfig
from occany_core.datasets.class_tables import load_classes
from occany_core.evaluation.scene_scores import at_network_size
from occany_core.evaluation.segmentation_scores import (
    LEAST_PIXELS,
    SegmentationScores,
    filled_boxes,
    visible_things,
)
from occany_core.evaluation.synthocc import view_sets
from occany_core.semantics.class_probe import classes_of_logits
from occany_core.semantics.class_prompts import TABLE
from occany_core.semantics.masks import NetworkPrompter
from occany_core.semantics.probe_detector import detect_regions
from occany_core.semantics.things import masks_of_logits
from occany_core.synthetic.synthocc import OccupancyScene, Setting, scenes
from occany_core.view_features import SeenViews, check_prompting, class_logits, see_views

Progress = Callable[[str, int, int], None]
SETTINGS: tuple[Setting, ...] = ("surround", "sequence")
BOX_JITTER, FARTHEST_JITTER = 0.1, 2.0
"""Standard deviation of each side of a moved box, of the box's size; it ends at two of them."""


def evaluate_masks(
    model: Model, limit: int, config: OccAnyConfig | None = None, progress: Progress | None = None
) -> dict[str, dict[str, dict]]:
    """Score masks, classes of pixels and boxes on the first `limit` scenes of two settings.

    Args:
        model: With class probe and mask decoder.
        limit: Number of scenes, at most 100.
        config: Of pictures and runtime.
        progress: Called with setting, scenes done and scenes in all.

    Returns:
        What `SegmentationScores.summary` says of surround and sequence. Kinds of prompts: the true
        `box`, a `moved_box` (each side by a random tenth of the box), and what filling these
        boxes would give: `filled_box`, `filled_moved_box`; `exact_cells`, the true masks on the
        cells on which the decoder answers, say about how much these allow. Detectors: the
        connected regions of the `class_probe`, and those of `exact_classes` on its cells, which
        bound it.

    Raises:
        ConfigError: The weights have no class probe.
    """
    check_prompting(model)
    config = config or OccAnyConfig()
    found = {}
    for setting in SETTINGS:
        scores = SegmentationScores(load_classes(TABLE))
        for done, truth in enumerate(scenes(setting, limit)):
            _judge(model, truth, config, scores)
            if progress:
                progress(setting, done + 1, limit)
        found[setting] = scores.summary()
    return found


@torch.inference_mode()
def _judge(
    model: Model, truth: OccupancyScene, config: OccAnyConfig, scores: SegmentationScores
) -> None:
    """Score one scene."""
    seen = see_views(model, view_sets(truth), config)
    logits = class_logits(model, seen.features)
    semantics, instance = (
        np.stack([at_network_size(values, *seen.size) for values in maps])
        for maps in zip(*((view.semantics, view.instance) for view in truth.views), strict=True)
    )
    scores.add_pixels(classes_of_logits(logits, seen.size).cpu().numpy(), semantics)
    generator = torch.Generator().manual_seed(truth.seed)
    exact = exact_logits(semantics, logits)
    by_detector = {
        "class_probe": detect_regions(logits.cpu(), scores.table.countable),
        "exact_classes": detect_regions(exact, scores.table.countable),
    }
    for view in range(len(truth.views)):
        things = visible_things(instance[view], semantics[view])
        for name, found in by_detector.items():
            scores.boxes[name].add(found[view], things)
        asked = things.at_least(LEAST_PIXELS)
        if not len(asked.boxes):
            continue
        side = logits.shape[-1]
        scores.add_masks(
            "exact_cells", masks_of_logits(on_cells(asked.masks, side), seen.size), asked
        )
        moved = moved_boxes(asked.boxes, generator)
        for name, boxes in (("box", asked.boxes), ("moved_box", moved)):
            scores.add_masks(name, _answered(model, seen, view, boxes), asked)
            scores.add_masks(f"filled_{name}", filled_boxes(boxes, seen.size), asked)


def _answered(
    model: Model, seen: SeenViews, view: int, boxes: Float[Tensor, "M 4"]
) -> Bool[Tensor, "M H W"]:
    """Ask the network's decoder for masks, at the size of its picture."""
    features = seen.features.views(slice(view, view + 1))
    boxes = boxes.to(features.coarse.device)
    logits = NetworkPrompter(model.network.prompt_decoder).masks_from_boxes(features, boxes[None])
    return masks_of_logits(logits[0], seen.size).cpu()


def on_cells(maps: Shaped[Tensor, "M H W"], side: int) -> Float[Tensor, "M side side"]:
    """Squash maps to a square, each cell with the value at its middle; true is 1 and false -1."""
    values = torch.where(maps, 1.0, -1.0) if maps.dtype == torch.bool else maps.float()
    return F.interpolate(values[:, None], (side, side), mode="nearest-exact")[:, 0]


def exact_logits(semantics: UInt8[np.ndarray, "V H W"], like: Tensor) -> Tensor:
    """Return what a probe would say that names the class at the middle of each of its cells."""
    cells = on_cells(torch.from_numpy(semantics), like.shape[-1]).long()
    return F.one_hot(cells, like.shape[1]).movedim(-1, 1).float()


def moved_boxes(boxes: Float[Tensor, "M 4"], generator: torch.Generator) -> Float[Tensor, "M 4"]:
    """Move each side as a detector might; boxes stay in the picture."""
    noise = torch.randn(boxes.shape, generator=generator)
    noise = noise.clamp(-FARTHEST_JITTER, FARTHEST_JITTER) * BOX_JITTER
    size = boxes[:, 2:] - boxes[:, :2]
    return (boxes + noise * size.repeat(1, 2)).clamp(0, 1)
