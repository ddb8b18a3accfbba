# SPDX-License-Identifier: Apache-2.0
"""What rendered views are worth: test-time view augmentation from none to all (paper Fig. 6).

On the surround scenes of SynthOcc, one ingredient after the other: views straight ahead, turned
ones, shifted ones, more positions.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from occany_core.checkpoints import Model
from occany_core.config import NovelViewsConfig, OccAnyConfig, from_flat
from occany_core.evaluation.metrics import OccupancyCounts, count_occupancy
from occany_core.evaluation.synthocc import check_grid, view_sets
from occany_core.observation import encode
from occany_core.pipeline import reconstruct
from occany_core.synthetic.classes import SemanticClass
from occany_core.synthetic.synthocc import scenes

INGREDIENTS = (3.0, 60.0, 2.0, 4)
"""What the sweep goes through: see `variants`."""
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Variant:
    """One choice of rendered views."""

    name: str
    novel_views: NovelViewsConfig


@dataclass(frozen=True)
class VariantScore:
    """What a choice of rendered views gives."""

    name: str
    rendered: int
    """Views per scene."""
    seconds: float
    """Per scene, from tokens to grid."""
    ratios: dict[str, float]
    """precision, recall, iou in percent."""


def variants(forward_step: float, yaw_deg: float, lateral: float, steps: int) -> list[Variant]:
    """Return the ingredients one after the other.

    Args:
        forward_step: Distance between positions [m].
        yaw_deg: Turn of side views [deg].
        lateral: Shift of side views [m].
        steps: Most positions ahead of each view.
    """

    def choice(positions: int, yaw: float, shift: float) -> NovelViewsConfig:
        return NovelViewsConfig(
            steps=positions, forward_step=forward_step, yaw_deg=yaw, lateral=shift
        )

    every = [Variant("no rendered views", choice(0, 0.0, 0.0))]
    positions = 1
    while positions <= steps:
        every += [
            Variant(f"{positions} ahead", choice(positions, 0.0, 0.0)),
            Variant(f"{positions} ahead, turned", choice(positions, yaw_deg, 0.0)),
            Variant(f"{positions} ahead, turned, shifted", choice(positions, yaw_deg, lateral)),
        ]
        positions *= 2
    return every


def sweep(
    model: Model,
    chosen: list[Variant],
    limit: int,
    config: OccAnyConfig | None = None,
    progress: Progress | None = None,
) -> list[VariantScore]:
    """Score every variant on the same scenes; pictures are encoded once per scene.

    Args:
        model: From `load_model`.
        chosen: From `variants`.
        limit: Number of scenes.
        config: Settings besides the rendered views; the grid must stay the one of SynthOcc.
        progress: Called with scenes done and scenes in all.

    Raises:
        ConfigError: The grid is another one.
    """
    base = from_flat({"window.anchor": "oldest", "novel_views.keep_points": False}, config)
    check_grid(base)
    counts = {variant.name: OccupancyCounts() for variant in chosen}
    seconds = dict.fromkeys(counts, 0.0)
    rendered = dict.fromkeys(counts, 0)
    for done, truth in enumerate(scenes("surround", limit)):
        sets = [encode(model, views, base) for views in view_sets(truth)]
        occupied = truth.semantics != SemanticClass.FREE
        for variant in chosen:
            started = time.perf_counter()
            scene = reconstruct(model, sets, _with_views(base, variant.novel_views))
            seconds[variant.name] += time.perf_counter() - started
            counts[variant.name] += count_occupancy(
                scene.grid.occupied, occupied, truth.mask_camera
            )
            novel = scene.novel_cameras
            rendered[variant.name] = 0 if novel is None else len(novel.K)
        if progress:
            progress(done + 1, limit)
    return [
        VariantScore(name, rendered[name], seconds[name] / limit, counts[name].summary())
        for name in counts
    ]


def _with_views(config: OccAnyConfig, novel_views: NovelViewsConfig) -> OccAnyConfig:
    names = ("steps", "forward_step", "yaw_deg", "lateral")
    return from_flat({f"novel_views.{n}": getattr(novel_views, n) for n in names}, config)
