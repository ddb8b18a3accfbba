# SPDX-License-Identifier: Apache-2.0
"""SynthOcc: the model on held-back synthetic streets, beside a scene that never changes.

Judged are the cells that the input cameras see; unknown counts as not occupied. Reference:
design.md 6.
"""

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from occany_core.checkpoints import Model
from occany_core.config import OccAnyConfig, from_flat
from occany_core.evaluation.metrics import OccupancyCounts, count_occupancy
from occany_core.images import View
from occany_core.pipeline import predict
from occany_core.synthetic.classes import SemanticClass
from occany_core.synthetic.synthocc import OccupancyScene, scenes
from occany_core.synthetic.synthocc import scene as synthetic_scene

CONSTANT_SCENE = Path(__file__).with_name("constant_scene.npz")
GROUND_LAYER = 2
"""Layer of cells that holds the level ground, -0.2 to 0.2 m: most of what is occupied in a
street."""
Progress = Callable[[str, int, int], None]


def evaluate(
    model: Model, limit: int, config: OccAnyConfig | None = None, progress: Progress | None = None
) -> dict[str, dict[str, float]]:
    """Score a model on the first `limit` scenes of every setting.

    Args:
        model: From `load_model`.
        limit: Number of scenes, at most 100.
        config: Settings; the grid must stay the one of SynthOcc.
        progress: Called with setting, scenes done and scenes in all.

    Returns:
        Precision, recall, IoU, and IoU above the ground layer, in percent, of: surround,
        surround_no_novel_views, surround_uncalibrated (only the front camera's mounting is given,
        to place the grid), sequence, monocular, and of the constant scene in each setting.
    """
    config = from_flat({"window.anchor": "oldest"}, config or OccAnyConfig())
    plain = from_flat({"novel_views.steps": 0}, config)
    constant = constant_scene()
    scores: dict[str, OccupancyCounts] = {}
    above: dict[str, OccupancyCounts] = {}

    def add(name: str, grid: np.ndarray, truth: OccupancyScene) -> None:
        occupied = truth.semantics != SemanticClass.FREE
        found = count_occupancy(grid, occupied, truth.mask_camera)
        scores[name] = scores.get(name, OccupancyCounts()) + found
        higher = truth.mask_camera.copy()
        higher[:, :, : GROUND_LAYER + 1] = False
        found = count_occupancy(grid, occupied, higher)
        above[name] = above.get(name, OccupancyCounts()) + found

    for setting in ("surround", "sequence", "monocular"):
        for done, truth in enumerate(scenes(setting, limit)):
            sets = view_sets(truth)
            add(setting, predict(model, sets, config).grid.occupied, truth)
            if setting == "surround":
                add("surround_no_novel_views", predict(model, sets, plain).grid.occupied, truth)
                bare = predict(model, uncalibrated(sets), config).grid.occupied
                add("surround_uncalibrated", bare, truth)
                add("constant_scene", constant, truth)
            else:
                add(f"constant_scene_{setting}", constant, truth)
            if progress:
                progress(setting, done + 1, limit)
    return {
        name: counts.summary() | {"iou_above_ground": above[name].summary()["iou"]}
        for name, counts in scores.items()
    }


def view_sets(truth: OccupancyScene) -> list[list[View]]:
    """Turn the input of a scene into calibrated view sets, oldest first."""
    views = [
        View(
            rgb=view.rgb,
            camera=view.camera,
            stamp=view.stamp,
            K=view.K,
            rig_from_cam=view.rig_from_cam,
        )
        for view in truth.views
    ]
    return [views] if truth.setting == "surround" else [[view] for view in views]


def uncalibrated(sets: list[list[View]]) -> list[list[View]]:
    """Forget all calibration except the mounting of the first camera, which places the grid."""
    return [
        [
            dataclasses.replace(
                view, K=None, rig_from_cam=view.rig_from_cam if index == 0 else None
            )
            for index, view in enumerate(views)
        ]
        for views in sets
    ]


def constant_scene() -> np.ndarray:
    """Return the grid (200, 200, 16) bool that fits the training worlds best without looking."""
    with np.load(CONSTANT_SCENE) as file:
        shape = tuple(file["shape"])
        return (
            np.unpackbits(file["occupied"], count=int(np.prod(shape))).reshape(shape).astype(bool)
        )


def fit_constant_scene(seeds: Iterable[int]) -> np.ndarray:
    """Average the truth of training worlds and cut it where the IoU on them is best."""
    occupied, seen = None, None
    for seed in seeds:
        truth = synthetic_scene(seed, "surround")
        if truth is None:
            continue
        hit = (truth.semantics != SemanticClass.FREE) & truth.mask_camera
        occupied = hit.astype(np.int32) if occupied is None else occupied + hit
        seen = truth.mask_camera.astype(np.int32) if seen is None else seen + truth.mask_camera
    frequency = occupied / np.maximum(seen, 1)
    # Expected IoU over the fitted worlds, for every cut between 0.05 and 0.95.
    cuts = np.linspace(0.05, 0.95, 37)
    ious = [
        occupied[frequency >= cut].sum()
        / (occupied.sum() + (seen - occupied)[frequency >= cut].sum())
        for cut in cuts
    ]
    return frequency >= cuts[int(np.argmax(ious))]


def save_constant_scene(grid: np.ndarray) -> None:
    """Write the baseline that `constant_scene` reads."""
    np.savez_compressed(CONSTANT_SCENE, occupied=np.packbits(grid), shape=np.array(grid.shape))
