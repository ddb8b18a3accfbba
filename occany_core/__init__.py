# SPDX-License-Identifier: Apache-2.0
"""Camera images to metric voxel grids, without ROS.

The public names are imported when they are first used: importing the package does not load
PyTorch, so that programs which only move messages start fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from occany_core.checkpoints import Model, load_model
    from occany_core.config import OccAnyConfig
    from occany_core.errors import OccAnyError
    from occany_core.images import View
    from occany_core.pipeline import Scene, predict
    from occany_core.stream import Stream
    from occany_core.voxels import VoxelGrid, VoxelGridSpec

__version__ = "0.1.0"

_HOMES = {
    "Model": "checkpoints",
    "OccAnyConfig": "config",
    "OccAnyError": "errors",
    "Scene": "pipeline",
    "Stream": "stream",
    "View": "images",
    "VoxelGrid": "voxels",
    "VoxelGridSpec": "voxels",
    "load_model": "checkpoints",
    "predict": "pipeline",
}

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


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
