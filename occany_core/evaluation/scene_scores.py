# SPDX-License-Identifier: Apache-2.0
"""What one method scores over scenes of SynthOcc: cells, depth, poses and classes.

Judged are the cells that the input cameras see; unknown counts as not occupied.
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float, Shaped, UInt8
from torch import Tensor

from occany_core.datasets.class_tables import load_classes
from occany_core.evaluation.baselines import GROUND_LAYER
from occany_core.evaluation.depth_metrics import DepthErrors, depth_errors, mean_depth_errors
from occany_core.evaluation.metrics import OccupancyCounts, count_occupancy
from occany_core.evaluation.semantic_metrics import (
    SemanticCounts,
    count_semantics,
    count_superclasses,
)
from occany_core.evaluation.trajectory_metrics import PoseErrors, mean_pose_errors, pose_errors
from occany_core.images import plan_fit
from occany_core.synthetic.classes import SemanticClass
from occany_core.synthetic.synthocc import InputView, OccupancyScene


@dataclass
class SceneScores:
    """Add scenes, then read the summary."""

    cells: OccupancyCounts = field(default_factory=OccupancyCounts)
    above_ground: OccupancyCounts = field(default_factory=OccupancyCounts)
    depth: list[DepthErrors | None] = field(default_factory=list)
    poses: list[PoseErrors] = field(default_factory=list)
    classes: SemanticCounts | None = None
    superclasses: SemanticCounts | None = None

    def add_cells(self, occupied: Bool[np.ndarray, "X Y Z"], truth: OccupancyScene) -> None:
        """Judge a grid, and the part of it above the ground layer."""
        is_occupied = truth.semantics != SemanticClass.FREE
        self.cells += count_occupancy(occupied, is_occupied, truth.mask_camera)
        higher = truth.mask_camera.copy()
        higher[:, :, : GROUND_LAYER + 1] = False
        self.above_ground += count_occupancy(occupied, is_occupied, higher)

    def add_depth(self, predicted: Float[np.ndarray, "V H W"], truth: OccupancyScene) -> None:
        """Judge the depth [m] of the input views, as it is, without any scaling."""
        exact = np.stack([exact_depth_at(view, *predicted.shape[1:]) for view in truth.views])
        self.depth.append(depth_errors(predicted, exact))

    def add_poses(self, world_from_cam: Float[Tensor, "V 4 4"], truth: OccupancyScene) -> None:
        """Judge where the views are, seen from the first."""
        true = torch.stack(
            [torch.from_numpy(view.world_from_rig @ view.rig_from_cam) for view in truth.views]
        )
        self.poses.append(pose_errors(world_from_cam, true))

    def add_classes(self, labels: UInt8[np.ndarray, "X Y Z"], truth: OccupancyScene) -> None:
        """Judge a grid of classes, and of their superclasses."""
        table = load_classes("occ3d_nuscenes")
        judged = np.where(truth.mask_camera, truth.semantics, np.uint8(table.convention.ignore))
        counts = count_semantics(labels, judged, table.convention)
        self.classes = counts if self.classes is None else self.classes + counts
        counts = count_superclasses(labels, judged, table)
        self.superclasses = counts if self.superclasses is None else self.superclasses + counts

    def summary(self) -> dict[str, float]:
        """Return what was added.

        precision, recall, iou and iou_above_ground in percent; of depth abs_rel and within_1.25
        (shares, averaged over scenes); translation_m and rotation_deg of poses; mean_iou and
        superclass_iou in percent, means over the classes and the superclasses that occur.
        """
        found = self.cells.summary() | {"iou_above_ground": self.above_ground.summary()["iou"]}
        if self.depth:
            depth = mean_depth_errors(self.depth)
            found |= {"abs_rel": round(depth.abs_rel, 4), "within_1.25": round(depth.within_1, 4)}
        if self.poses:
            poses = mean_pose_errors(self.poses)
            found["translation_m"] = round(poses.translation_m, 3)
            found["rotation_deg"] = round(poses.rotation_deg, 2)
        if self.classes is not None:
            found["mean_iou"] = round(self.classes.mean_iou_of_present, 2)
            found["superclass_iou"] = round(self.superclasses.mean_iou_of_present, 2)
        return found


def exact_depth_at(view: InputView, height: int, width: int) -> Float[np.ndarray, "height width"]:
    """Return the exact depth at the pixels of the prepared picture [m]; 0 in the sky."""
    depth = at_network_size(view.depth, height, width)
    return np.where(np.isfinite(depth), depth, 0.0)


def at_network_size(
    values: Shaped[np.ndarray, "H W"], height: int, width: int
) -> Shaped[np.ndarray, "height width"]:
    """Return what a map of the input picture says at the pixels of the prepared picture."""
    plan = plan_fit(values.shape, (height, width))
    rows, columns = (
        (((np.arange(side) + start + 0.5) / plan.scale).astype(int)).clip(0, most - 1)
        for side, start, most in zip(
            (height, width), (plan.top, plan.left), values.shape, strict=True
        )
    )
    return values[rows][:, columns]
