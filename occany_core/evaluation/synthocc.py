# SPDX-License-Identifier: Apache-2.0
"""SynthOcc: the model on held-back synthetic streets, beside methods that bound its score.

Reference: design.md 6.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Callable

import numpy as np
from jaxtyping import UInt8

from occany_core.checkpoints import Model
from occany_core.config import OccAnyConfig, from_flat
from occany_core.errors import ConfigError
from occany_core.evaluation import baselines
from occany_core.evaluation.scene_scores import SceneScores
from occany_core.images import View
from occany_core.observation import encode
from occany_core.pipeline import look, reconstruct
from occany_core.semantics.class_prompts import UNLABELLED
from occany_core.semantics.labelling import Labeller
from occany_core.synthetic.classes import SemanticClass
from occany_core.synthetic.occupancy import OCC3D_GRID
from occany_core.synthetic.synthocc import SETTINGS, OccupancyScene, scenes
from occany_core.voxels import VoxelGrid

Progress = Callable[[str, int, int], None]
WITHOUT_PROBE = "mIoU is left out: the network has no class probe (network.prompt_classes)"


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
        What `SceneScores.summary` says of: surround, surround_no_novel_views,
        surround_uncalibrated (only the front camera's mounting is given, to place the grid),
        sequence, monocular, and three baselines in each setting: constant_scene, ground_plane and
        exact_depth. Poses are judged where they are predicted, and classes where the network has a
        probe for them.

    Raises:
        ConfigError: The grid is another one.
    """
    config = from_flat({"window.anchor": "oldest"}, config or OccAnyConfig())
    check_grid(config)
    judge = _Judge(model, config)
    for setting in SETTINGS:
        for done, truth in enumerate(scenes(setting, limit)):
            judge.add(truth)
            if progress:
                progress(setting, done + 1, limit)
    return {name: scores.summary() for name, scores in judge.scores.items()}


def check_grid(config: OccAnyConfig) -> None:
    """See that predicted cells are those of the truth.

    Raises:
        ConfigError: The grid has another place, number or size of cells.
    """
    for name, judged in dataclasses.asdict(OCC3D_GRID).items():
        value = getattr(config.voxels, name)
        if value != judged:
            raise ConfigError(
                f"voxels.{name} is {value}; SynthOcc is judged with {judged}: leave it out"
            )


class _Judge:
    """Predicts scenes in all ways, and gathers the scores by name."""

    def __init__(self, model: Model, config: OccAnyConfig) -> None:
        self.model, self.config = model, config
        self.labeller = Labeller(model, config.labels)
        self.scores: dict[str, SceneScores] = defaultdict(SceneScores)
        self.constant = baselines.constant_scene()

    def add(self, truth: OccupancyScene) -> None:
        """Score one scene in its setting."""
        sets, config = view_sets(truth), self.config
        self._predict(truth.setting, sets, truth, config)
        if truth.setting == "surround":
            plain = from_flat({"novel_views.steps": 0}, config)
            self._predict("surround_no_novel_views", sets, truth, plain)
            self._predict("surround_uncalibrated", uncalibrated(sets), truth, config)
        ending = "" if truth.setting == "surround" else f"_{truth.setting}"
        for name, occupied in (
            ("constant_scene", self.constant),
            ("ground_plane", baselines.ground_plane(truth)),
            ("exact_depth", baselines.exact_depth(truth, config.voxels)),
        ):
            self.scores[name + ending].add_cells(occupied, truth)

    def _predict(
        self, name: str, sets: list[list[View]], truth: OccupancyScene, config: OccAnyConfig
    ) -> None:
        encoded = [encode(self.model, views, config) for views in sets]
        encoded = [look(self.labeller, one, config) for one in encoded]
        scene = reconstruct(self.model, encoded, config, labeller=self.labeller)
        scores = self.scores[name]
        scores.add_cells(scene.grid.occupied, truth)
        scores.add_depth(scene.observed.points_cam[..., 2].numpy(), truth)
        if truth.setting == "sequence" or name == "surround_uncalibrated":
            scores.add_poses(scene.cameras.world_from_cam, truth)
        if scene.classes:
            scores.add_classes(judged_labels(scene.grid), truth)


def judged_labels(grid: VoxelGrid) -> UInt8[np.ndarray, "X Y Z"]:
    """Give `OTHER` to occupied cells without a class, and `FREE` to all that are not occupied."""
    labels = np.where(grid.labels == UNLABELLED, np.uint8(SemanticClass.OTHER), grid.labels)
    return np.where(grid.occupied, labels, np.uint8(SemanticClass.FREE))


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
