# SPDX-License-Identifier: Apache-2.0
"""Golden files of voxelisation, stage fusion and pooling (`voxel`, `voxelize_*`, `pooling`)."""

import re
from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from occany_core import rigid
from occany_core.bench.golden.checklist import Checklist, Stage
from occany_core.errors import InputError
from occany_core.voxels import (
    ClassScores,
    ClassTable,
    ConfidenceGrid,
    LabelledPoints,
    VoxelGridSpec,
    class_scores,
    fuse_joint,
    fuse_layered,
    label_trilinear,
    mark_trilinear,
    occupancy_weights,
    pool_geometry,
    pool_labels,
    pool_unified,
)

TRANSFORMED = 1e-4
"""Tolerance of transformed points in `voxelize_*` [m] (golden_inference/description)."""
SUMS = 1e-5
"""Tolerance of weights and scores before any decision there."""
CONVENTIONS = (ClassTable(18, other=0, empty=17), ClassTable(20, other=20, empty=0))
"""Of Occ3D-nuScenes and SemanticKITTI; `voxel.safetensors` does not say which it uses."""


def check_voxel(path: Path) -> list[Stage]:
    """Compare with `voxel.safetensors`: one small grid, without a confidence threshold."""
    checklist = Checklist.of(path)
    classes, spec = _convention(checklist), _spec(checklist, "grid")
    moved = rigid.apply(checklist.given("T_cam_to_voxel"), checklist.given("points_cam"))
    checklist.within("points_voxel_frame", moved)
    points, confidence = checklist.given("points_voxel_frame"), checklist.given("conf")
    labels = checklist.given("sem")
    checklist.within("trilinear.occ", occupancy_weights(points, spec))
    found = class_scores(points, confidence, labels, spec, classes.num_classes)
    scores = _dense(found, spec, classes.num_classes)
    for name in checklist.arrays:
        if chosen := re.fullmatch(r"trilinear\.sem_classes((?:_\d+)+)", name):
            listed = [int(number) for number in chosen[1].split("_")[1:]]
            checklist.within(name, scores[..., listed])
    marks = ConfidenceGrid(spec)
    marks.add(points, confidence)
    checklist.exact("pred.geometry", marks.published(-torch.inf, classes))
    grid = label_trilinear(points, confidence, labels, spec, classes)
    checklist.exact("pred.semantic", grid)
    checklist.exact("pred.semantic_pooled", pool_labels(grid, classes))
    only_other = pool_labels(grid, classes, only_other=True)
    checklist.exact("pred.semantic_pooled_other_only", only_other)
    return checklist.report()


def check_voxelize(path: Path) -> list[Stage]:
    """Compare with a `voxelize_*` file: three grids, raw sums, and both ways to fuse stages."""
    checklist = Checklist.of(path)
    spec = _spec(checklist, "dim")
    classes = ClassTable(
        *(int(checklist.given(name)) for name in ("n_classes", "other_class", "empty_class"))
    )
    confidence, labels = checklist.given("conf"), checklist.given("labels")
    threshold = float(checklist.given("threshold"))
    kept = confidence > threshold
    points = rigid.apply(checklist.given("T_cam_to_voxel"), checklist.given("points_cam"))
    checklist.within("points_voxel_frame_kept", points[kept], TRANSFORMED)
    points[kept] = checklist.given("points_voxel_frame_kept")
    everything = LabelledPoints(points, confidence, labels)
    _check_grids(checklist, everything, threshold, (spec, classes))
    _check_raw(checklist, spec, classes)
    _check_fusion(checklist, everything, spec, classes)
    return checklist.report()


def check_pooling(path: Path) -> list[Stage]:
    """Compare with `pooling.npz`: every mode in every label convention of the file."""
    checklist = Checklist.of(path)
    for name in [name for name in checklist.arrays if name.endswith("/conv")]:
        convention = name.removesuffix("/conv")
        classes = ClassTable(*checklist.given(name).tolist())
        grid = checklist.given(f"{convention}/input")
        for mode, ours in (
            ("geometry_dilate", pool_geometry(grid, classes)),
            ("geometry_vote", pool_geometry(grid, classes, by_vote=True)),
            ("separate_semantic", pool_labels(grid, classes)),
            ("separate_semantic_other_only", pool_labels(grid, classes, only_other=True)),
            ("unified", pool_unified(grid, classes)),
            ("unified_vote", pool_unified(grid, classes, by_vote=True)),
        ):
            checklist.exact(f"{convention}/{mode}", ours)
    return checklist.report()


def _check_grids(
    checklist: Checklist,
    everything: LabelledPoints,
    threshold: float,
    grid: tuple[VoxelGridSpec, ClassTable],
) -> None:
    """Compare the grids of one stage; geometry once with the threshold after the points."""
    spec, classes = grid
    marks = ConfidenceGrid(spec)
    marks.add(everything.points, everything.confidence)
    checklist.exact("geometry_only", marks.published(threshold, classes))
    kept = everything.above(threshold)
    labelled = label_trilinear(kept.points, kept.confidence, kept.labels, spec, classes)
    checklist.exact("semantic", labelled)
    unlabelled = torch.full_like(kept.labels, classes.empty)
    labelled = label_trilinear(kept.points, kept.confidence, unlabelled, spec, classes)
    checklist.exact("semantic_all_points_empty", labelled)


def _check_raw(checklist: Checklist, spec: VoxelGridSpec, classes: ClassTable) -> None:
    """Compare sums before any decision, listed in the file where they are not zero."""
    points = checklist.given("raw/points")
    marked = mark_trilinear(points, spec)
    checklist.exact("raw/occ_index", marked.nonzero())
    checklist.within("raw/occ_value", occupancy_weights(points, spec)[marked], SUMS)
    confidence, labels = checklist.given("raw/conf"), checklist.given("raw/labels")
    found = class_scores(points, confidence, labels, spec, classes.num_classes)
    checklist.exact("raw/sem_index", found.index)
    checklist.within("raw/sem_value", found.scores, SUMS)


def _check_fusion(
    checklist: Checklist, everything: LabelledPoints, spec: VoxelGridSpec, classes: ClassTable
) -> None:
    """Compare both ways to fuse the first points of the file with the others."""
    count = int(checklist.given("fuse/recon_count"))
    threshold = {stage: float(checklist.given(f"fuse/{stage}_thr")) for stage in ("recon", "gen")}
    observed = everything[:count].above(threshold["recon"])
    rendered = everything[count:].above(threshold["gen"])
    checklist.exact("fuse/joint", fuse_joint(observed, rendered, spec, classes))
    layered = fuse_layered(observed, rendered, spec, classes)
    checklist.exact("fuse/layered", layered)
    if "fuse/layered_pooled" in checklist.arrays:
        checklist.exact("fuse/layered_pooled", pool_labels(layered, classes))


def _spec(checklist: Checklist, shape: str) -> VoxelGridSpec:
    """Read the grid of a file."""
    origin = tuple(checklist.given("origin").tolist())
    return VoxelGridSpec(
        origin, float(checklist.given("voxel_size")), tuple(checklist.given(shape).tolist())
    )


def _convention(checklist: Checklist) -> ClassTable:
    """Return the convention of `voxel.safetensors`: what most cells without points hold is empty.

    Raises:
        InputError: That is the empty class of no known convention.
    """
    untouched = checklist.given("trilinear.occ") == 0
    empty = int(checklist.given("pred.geometry")[untouched].mode().values)
    for classes in CONVENTIONS:
        if classes.empty == empty:
            return classes
    raise InputError(
        f"cells of {checklist.file} without points hold {empty}; the conventions known here have "
        f"{' or '.join(str(classes.empty) for classes in CONVENTIONS)} for empty"
    )


def _dense(found: ClassScores, spec: VoxelGridSpec, num_classes: int) -> Float[Tensor, "X Y Z C"]:
    scores = torch.zeros(*spec.shape, num_classes)
    scores[tuple(found.index.T)] = found.scores
    return scores


CHECKS: dict[str, Callable[[Path], list[Stage]]] = {
    "voxel.safetensors": check_voxel,
    "voxelize_*.npz": check_voxelize,
    "pooling.npz": check_pooling,
}
