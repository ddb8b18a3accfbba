# SPDX-License-Identifier: Apache-2.0
"""Which views of a packed sample are observed together, and which are rendered.

A sample holds a rig of six cameras at two instants (views 0-5 and 6-11), its front camera at three
more (12-14), and 18 views without pictures: two near each camera of the first instant (15-26, the
second of each camera six behind the first), six along the path of the front camera (27-32).
"""

from dataclasses import dataclass

import numpy as np

from occany_core.errors import ConfigError
from occany_core.training.recipe import Draw, Stage
from occany_core.training.sampling import HeldOutRule, choose_held_out

SURROUND = np.arange(6)
FRONT = np.array([0, 6, 12, 13, 14])
PICTURES = 15
NEAR_CAMERA = np.array([[15 + camera, 21 + camera] for camera in range(6)])
NEAR_RIG = np.arange(15, 27)
NEAR_FRONT = np.arange(27, 33)


@dataclass(frozen=True)
class ChosenViews:
    """Views of B scenes; the first observed one is the reference."""

    observed: np.ndarray
    """(B, V) indices."""
    novel: np.ndarray
    """(B, R) indices; R is 0 in reconstruction."""


def num_pictures(draw: Draw, rng: np.random.Generator) -> int:
    """Draw how many pictures the scenes of a batch have, held-out ones included."""
    if draw.kind != "sequence":
        return 1 if draw.kind == "single" else len(SURROUND)
    least, most = (min(count, len(FRONT)) for count in draw.views)
    return int(rng.integers(least, most + 1))


def choose_views(
    draw: Draw, stage: Stage, scenes: int, count: int, rng: np.random.Generator
) -> ChosenViews:
    """Choose the views of one batch; all scenes have equally many.

    Args:
        draw: Kind of batch.
        stage: Says what is rendered.
        scenes: Number of scenes B.
        count: Pictures per scene, from `num_pictures`.
        rng: Draws.

    Raises:
        ConfigError: A single picture cannot be held out.
    """
    if stage.novel == "held_out":
        return _with_held_out(draw, stage, scenes, count, rng)
    pictures = _pictures(draw, scenes, count, rng, only_first_rig=stage.renders)
    if not stage.renders:
        return ChosenViews(pictures, np.empty((scenes, 0), dtype=int))
    if draw.kind == "single":
        return ChosenViews(pictures, NEAR_CAMERA[pictures[:, 0]])
    near = NEAR_RIG if draw.kind == "surround" else NEAR_FRONT
    order = rng.random((scenes, len(near))).argsort(axis=1)
    return ChosenViews(pictures, near[order[:, : stage.num_novel]])


def _with_held_out(
    draw: Draw, stage: Stage, scenes: int, count: int, rng: np.random.Generator
) -> ChosenViews:
    if count < 2:
        raise ConfigError(
            f"stage {stage.name} holds views out, but a {draw.kind} batch has one picture; draw "
            "sequences of two views or more, or rigs"
        )
    pictures = _pictures(draw, scenes, count, rng, only_first_rig=False)
    held_out = list(choose_held_out(count, HeldOutRule(probability=stage.held_out), rng))
    seen = [view for view in range(count) if view not in held_out]
    return ChosenViews(pictures[:, seen], pictures[:, held_out])


def _pictures(
    draw: Draw, scenes: int, count: int, rng: np.random.Generator, *, only_first_rig: bool
) -> np.ndarray:
    if draw.kind == "single":
        return rng.integers(len(SURROUND) if only_first_rig else PICTURES, size=(scenes, 1))
    if draw.kind == "surround":
        later = (
            np.zeros((scenes, 1), dtype=int)
            if only_first_rig
            else rng.integers(2, size=(scenes, 1))
        )
        return SURROUND + len(SURROUND) * later
    start = rng.integers(len(FRONT) - count + 1, size=(scenes, 1))
    return FRONT[start + np.arange(count)]
