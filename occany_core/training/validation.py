# SPDX-License-Identifier: Apache-2.0
"""Scores on samples that training never sees."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import UInt8
from torch import nn

from occany_core.training.batches import Batch, BatchSampler
from occany_core.training.journal import depth_sheet
from occany_core.training.losses import depth_scores
from occany_core.training.pool import Pool
from occany_core.training.recipe import Recipe, Stage

VIEWS = 24
"""Of one batch."""
BATCHES = 2
"""Of every kind."""
SEED = 1


@dataclass(frozen=True)
class Scores:
    """What was found."""

    values: dict[str, float]
    """KIND_abs_rel, KIND_within_1.25 (depth) and KIND_world_error (as in the loss); where they are
    trained, KIND_forcing, KIND_mask_iou and KIND_class_accuracy, of the student's features."""
    sheets: dict[str, UInt8[np.ndarray, "H W 3"]]
    """A picture per kind, see `depth_sheet`."""


def held_back_batches(
    pool: Pool, recipe: Recipe, stage: Stage, device: torch.device
) -> list[tuple[str, Batch]]:
    """Draw the same few batches of every kind of a stage, each with its most views."""
    sampler = BatchSampler(pool, replace(recipe, views_per_step=VIEWS), device)
    batches = []
    for draw in {draw.kind: draw for draw in stage.phases[-1].draws}.values():
        longest = replace(draw, views=(draw.views[1], draw.views[1]))
        rng = np.random.default_rng(SEED)
        batches += [(draw.kind, sampler.draw_kind(longest, stage, rng)) for _ in range(BATCHES)]
    return batches


@torch.no_grad()
def score(learner: nn.Module, batches: list[tuple[str, Batch]]) -> Scores:
    """Run a learner over batches; every process must do so."""
    found: dict[str, list[float]] = {}
    sheets = {}
    learner.eval()
    for kind, batch in batches:
        terms = learner(batch)
        targets = batch.observed if batch.novel is None else batch.novel
        relative, close = depth_scores(terms.depth, targets)
        scores = {"abs_rel": relative, "within_1.25": close, "world_error": terms.world_error}
        if terms.forcing > 0:
            scores["forcing"] = terms.forcing
        if terms.prompting > 0:
            scores |= {"mask_iou": terms.mask_iou, "class_accuracy": terms.class_accuracy}
        for name, value in scores.items():
            found.setdefault(f"{kind}_{name}", []).append(float(value))
        sheets[kind] = depth_sheet(batch, terms)
    values = {name: round(sum(all_) / len(all_), 4) for name, all_ in found.items()}
    return Scores(values, sheets)
