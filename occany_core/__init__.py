# SPDX-License-Identifier: Apache-2.0
"""Camera images to metric voxel grids, without ROS."""

from occany_core.checkpoints import Model, load_model
from occany_core.config import OccAnyConfig
from occany_core.errors import OccAnyError
from occany_core.images import View
from occany_core.pipeline import Scene, predict
from occany_core.stream import Stream
from occany_core.voxels import VoxelGrid, VoxelGridSpec

__version__ = "0.1.0"

__all__ = [
    "Model",
    "OccAnyConfig",
    "OccAnyError",
    "Scene",
    "Stream",
    "View",
    "VoxelGrid",
    "VoxelGridSpec",
    "__version__",
    "load_model",
    "predict",
]
