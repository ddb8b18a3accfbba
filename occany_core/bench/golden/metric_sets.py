# SPDX-License-Identifier: Apache-2.0
"""Golden files of the evaluation's metrics (`ssc_metrics`, `recon_depth`, `trajectory`)."""

from collections.abc import Callable
from dataclasses import astuple
from pathlib import Path

import numpy as np

from occany_core.bench.golden.checklist import Checklist, Stage
from occany_core.datasets.class_tables import load_classes
from occany_core.evaluation.cloud_metrics import (
    errors_of_distances,
    has_true_point,
    predicted_cloud,
    true_points,
)
from occany_core.evaluation.depth_metrics import depth_errors
from occany_core.evaluation.nearest_neighbours import nearest_distances
from occany_core.evaluation.semantic_metrics import (
    SemanticCounts,
    count_semantics,
    count_superclasses,
)
from occany_core.evaluation.trajectory_metrics import (
    annotated_path,
    displacement_error,
    predicted_path,
)

RATIOS = 1e-9
METRES = 1e-5
"""Tolerances of golden_inference/description."""
TABLES = {"kitti": "semantic_kitti", "nuscenes": "occ3d_nuscenes"}
"""Class tables by the names that `ssc_metrics` uses."""


def check_ssc_metrics(path: Path) -> list[Stage]:
    """Compare counts and ratios of labelled grids with `ssc_metrics`."""
    checklist = Checklist.of(path)
    for name in [name for name in checklist.arrays if name.endswith("/pred")]:
        dataset = name.removesuffix("/pred")
        if dataset not in TABLES:
            continue
        classes = load_classes(TABLES[dataset])
        predicted = checklist.given(name).numpy()
        truth = checklist.given(f"{dataset}/gt").numpy()
        counts = count_semantics(predicted, truth, classes.convention)
        _check_counts(checklist, f"{dataset}/original", counts)
        counts = count_superclasses(predicted, truth, classes)
        _check_counts(checklist, f"{dataset}/superclass", counts)
        empty = np.full_like(truth[0], classes.convention.empty)
        counts = count_semantics(empty, truth[0], classes.convention)
        nothing = np.array([*_geometry_ratios(counts), counts.mean_iou / 100])
        checklist.within(f"{dataset}/all_empty_prediction/prec_rec_iou_miou", nothing, RATIOS)
    return checklist.report()


def _geometry_ratios(counts: SemanticCounts) -> list[float]:
    geometry = counts.geometry
    return [percent / 100 for percent in (geometry.precision, geometry.recall, geometry.iou)]


def _check_counts(checklist: Checklist, place: str, counts: SemanticCounts) -> None:
    geometry, averaged = counts.geometry, list(counts.convention.averaged)
    for name, ours in (
        (
            "tp_fp_fn",
            [geometry.true_positive, geometry.false_positive, geometry.false_negative],
        ),
        ("tps", counts.true_positive),
        ("fps", counts.false_positive),
        ("fns", counts.false_negative),
        ("count", counts.truth_cells),
    ):
        checklist.exact(f"{place}/{name}", np.asarray(ours))
    precision, recall, iou = _geometry_ratios(counts)
    for name, ours in (
        ("precision", precision),
        ("recall", recall),
        ("iou", iou),
        ("mIoU", counts.mean_iou / 100),
        ("precision_per_class", counts.class_precision / 100),
        ("recall_per_class", counts.class_recall / 100),
        ("iou_per_class", counts.class_iou[averaged] / 100),
    ):
        checklist.within(f"{place}/{name}", np.asarray(ours), RATIOS)
    theirs = [str(name) for name in checklist.given(f"{place}/class_names")]
    ours = [counts.convention.names[index] for index in averaged]
    different = sum(a != b for a, b in zip(ours, theirs, strict=False))
    different += abs(len(ours) - len(theirs))
    checklist.stages.append(Stage(checklist.file, f"{place}/class_names", float(different), 0.0))


def check_recon_depth(path: Path) -> list[Stage]:
    """Compare depth errors, cloud errors and both clouds with `recon_depth`."""
    checklist = Checklist.of(path)
    predicted, truth = (checklist.given(f"depth/{name}").numpy() for name in ("pred", "gt"))
    for name in [name for name in checklist.arrays if name.startswith("depth/max")]:
        errors = depth_errors(predicted, truth, float(name.removeprefix("depth/max")))
        checklist.within(name, np.array(astuple(errors) if errors else [np.nan] * 7), METRES)
    predicted, truth = (checklist.given(f"cloud/{name}").numpy() for name in ("pred", "gt"))
    to_truth = nearest_distances(predicted, truth)
    to_prediction = nearest_distances(truth, predicted)
    checklist.within("cloud/d_pred_to_gt", to_truth, METRES)
    checklist.within("cloud/d_gt_to_pred", to_prediction, METRES)
    for name in [name for name in checklist.arrays if name.startswith("cloud/th")]:
        threshold = float(name.removeprefix("cloud/th"))
        errors = errors_of_distances(to_truth, to_prediction, threshold)
        checklist.within(name, np.array(astuple(errors)), METRES)
    depth, K, world_from_cam = (
        checklist.given(f"gtcloud/{name}") for name in ("depth", "K", "c2w")
    )
    points = true_points(depth, K, world_from_cam)
    checklist.within("gtcloud/points_all", points, METRES)
    checklist.within("gtcloud/points_valid", points[has_true_point(depth)], METRES)
    cloud = predicted_cloud(
        *(checklist.given(f"predcloud/{name}") for name in ("pts3d", "pts3d_local", "conf"))
    )
    checklist.within("predcloud/points", cloud, METRES)
    return checklist.report()


def check_trajectory(path: Path) -> list[Stage]:
    """Compare paths, interpolation and the displacement error with `trajectory`."""
    checklist = Checklist.of(path)
    world_from_cam = checklist.given("c2w")
    frames = world_from_cam.shape[1]
    ours = predicted_path(world_from_cam)
    checklist.within("pred_x_z_theta", ours, METRES)
    checklist.within("pred_from_3x4", predicted_path(world_from_cam[..., :3, :]), METRES)
    waypoints = checklist.given("raw_traj").numpy()
    truth = np.stack([annotated_path(points, frames) for points in waypoints])
    checklist.within("gt_trajectory", truth, METRES)
    errors = displacement_error(ours[..., :2].numpy(), truth)
    checklist.within("ade", errors, METRES)
    checklist.within("ade_batch_mean", errors.mean(), METRES)
    for name in [name for name in checklist.arrays if name.endswith("_in")]:
        result = name.removesuffix("_in") + "_out"
        path_of_points = annotated_path(
            checklist.given(name).numpy(), len(checklist.arrays[result])
        )
        checklist.within(result, path_of_points, METRES)
    return checklist.report()


CHECKS: dict[str, Callable[[Path], list[Stage]]] = {
    "ssc_metrics.npz": check_ssc_metrics,
    "recon_depth.npz": check_recon_depth,
    "trajectory.npz": check_trajectory,
}
