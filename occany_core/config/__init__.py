# SPDX-License-Identifier: Apache-2.0
"""Settings of the pipeline: one tree of frozen dataclasses, YAML in, YAML out.

YAML files, command-line `--set` options and ROS parameters are three views of this tree. The
meaning and unit of a field stand in its `Annotated` text, from which help, descriptors and tables
are made. The architecture of a network is not here: it belongs to the checkpoint
(`occany_core.network.NetworkConfig`).
"""

from occany_core.config.groups import (
    CalibrationConfig,
    ImagesConfig,
    LabelsConfig,
    NovelViewsConfig,
    OccAnyConfig,
    RuntimeConfig,
    ScaleConfig,
    VoxelsConfig,
    WindowConfig,
)
from occany_core.config.settings import (
    Setting,
    as_float,
    dump_config,
    from_flat,
    load_config,
    read_assignment,
    settings,
    to_flat,
    with_overrides,
)

__all__ = [
    "CalibrationConfig",
    "ImagesConfig",
    "LabelsConfig",
    "NovelViewsConfig",
    "OccAnyConfig",
    "RuntimeConfig",
    "ScaleConfig",
    "Setting",
    "VoxelsConfig",
    "WindowConfig",
    "as_float",
    "dump_config",
    "from_flat",
    "load_config",
    "read_assignment",
    "settings",
    "to_flat",
    "with_overrides",
]
