# SPDX-License-Identifier: Apache-2.0
"""Points -> VoxelGrid: voxelise, carve free space, fuse observed and rendered points (spec 8-10).

`fusion` is what runs live; `published`, `labels` and `pooling` give the published grids.
"""

from occany_core.voxels.fusion import RAY_STRIDE, Fusion, HighestConfidence, ViewPoints, fuse
from occany_core.voxels.grid import (
    FREE,
    OCCUPIED,
    OCCUPIED_FROM,
    UNKNOWN,
    VoxelGrid,
    VoxelGridSpec,
    count_points,
    lattice_coordinates,
)
from occany_core.voxels.ground import LEVEL, Ground, estimate_ground
from occany_core.voxels.labels import (
    ClassScores,
    LabelGrid,
    LabelledPoints,
    class_scores,
    fuse_joint,
    fuse_layered,
    label_trilinear,
)
from occany_core.voxels.pooling import pool_geometry, pool_labels, pool_unified
from occany_core.voxels.published import (
    ClassTable,
    ConfidenceGrid,
    mark_trilinear,
    occupancy_weights,
)
from occany_core.voxels.rays import count_rays
from occany_core.voxels.surfaces import double_columns, fill_flat_gaps

__all__ = [
    "FREE",
    "LEVEL",
    "OCCUPIED",
    "OCCUPIED_FROM",
    "RAY_STRIDE",
    "UNKNOWN",
    "ClassScores",
    "ClassTable",
    "ConfidenceGrid",
    "Fusion",
    "Ground",
    "HighestConfidence",
    "LabelGrid",
    "LabelledPoints",
    "ViewPoints",
    "VoxelGrid",
    "VoxelGridSpec",
    "class_scores",
    "count_points",
    "count_rays",
    "double_columns",
    "estimate_ground",
    "fill_flat_gaps",
    "fuse",
    "fuse_joint",
    "fuse_layered",
    "label_trilinear",
    "lattice_coordinates",
    "mark_trilinear",
    "occupancy_weights",
    "pool_geometry",
    "pool_labels",
    "pool_unified",
]
