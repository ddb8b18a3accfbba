# SPDX-License-Identifier: Apache-2.0
"""Values of parameters -> `NodeSettings`: what fits together and what does not. Without ROS.

All values are validated together. Durations in seconds, in `SyncRules` in nanoseconds.
"""

import math
from dataclasses import dataclass

from occany_core.config import OccAnyConfig, VoxelsConfig, from_flat
from occany_core.errors import ConfigError
from occany_core.odometry import Drift
from occany_core.semantics.class_prompts import vocabulary
from occany_ros.budget import Limits
from occany_ros.declaration import Value
from occany_ros.declarations import MAX_CAMERAS, core_declarations
from occany_ros.height_bands import Band, BandRules, layers_of
from occany_ros.label_colours import LabelColours, check_colours
from occany_ros.scene_files import default_directory
from occany_ros.sync_rules import SyncRules

MAX_BANDS = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class CameraSettings:
    """What is set for one camera."""

    name: str
    transport: str
    image_topic: str
    info_topic: str
    mask_topic: str
    reliability: str
    frame_id: str
    rig_from_cam: tuple[float, ...]
    """x, y, z [m] and a quaternion x, y, z, w, or empty."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PublishSettings:
    """What goes out."""

    tf: bool
    voxel_grid: bool
    voxel_points: bool
    voxel_colours: str
    max_voxel_points: int
    path_length: int
    odometry_drift: float
    odometry_drift_per_second: float

    @property
    def drift(self) -> Drift:
        """Of the odometry."""
        return Drift(self.odometry_drift, self.odometry_drift_per_second)


@dataclass(frozen=True, kw_only=True, slots=True)
class FileSettings:
    """What the file services may do."""

    directory: str
    least_free_megabytes: int
    most_megabytes: int
    time_limit: float


@dataclass(frozen=True, kw_only=True, slots=True)
class NodeSettings:
    """Everything the node was told, validated."""

    checkpoint: str
    cameras: tuple[CameraSettings, ...]
    sync: SyncRules
    base_frame: str
    odom_frame: str
    publish: PublishSettings
    bands: BandRules
    colours: LabelColours
    files: FileSettings
    budget: Limits
    core: OccAnyConfig


def _is_pose(values: tuple) -> bool:
    """Tell whether these are a position and a quaternion other than zero."""
    are_numbers = all(type(value) in (int, float) and math.isfinite(value) for value in values)
    return len(values) == 7 and are_numbers and any(abs(value) > 1e-6 for value in values[3:])


def _camera_settings(values: dict[str, Value], name: str) -> CameraSettings:
    prefix = f"camera.{name}."
    rig_from_cam = values[prefix + "rig_from_cam"]
    if rig_from_cam and not _is_pose(rig_from_cam):
        raise ConfigError(
            f"parameter {prefix}rig_from_cam is {list(rig_from_cam)}; it must be seven numbers: "
            "x, y, z [m] and a quaternion x, y, z, w"
        )
    transport = values[prefix + "transport"] or values["transport"]
    image_topic = values["topics.image" if transport == "raw" else "topics.compressed"]
    return CameraSettings(
        name=name,
        transport=transport,
        image_topic=image_topic.replace("{camera}", name),
        info_topic=values["topics.camera_info"].replace("{camera}", name),
        mask_topic=values["topics.mask"].replace("{camera}", name),
        reliability=values[prefix + "reliability"],
        frame_id=_frame(values, prefix + "frame_id"),
        rig_from_cam=rig_from_cam,
    )


def _frame(values: dict[str, Value], name: str) -> str:
    """Return a frame with the prefix; an empty name stays empty."""
    return values[name] and values["frames.prefix"] + values[name]


def check_camera_names(names: tuple) -> tuple[str, ...]:
    """Return the names of the cameras.

    Raises:
        ConfigError: None, too many, twice the same, or a name that cannot be part of a topic.
    """
    if not 1 <= len(names) <= MAX_CAMERAS or len(set(names)) < len(names):
        raise ConfigError(
            f"parameter cameras is {list(names)}; it must hold 1 to {MAX_CAMERAS} different names"
        )
    for name in names:
        if not (isinstance(name, str) and name.isidentifier() and name.isascii()):
            raise ConfigError(
                f"parameter cameras holds {name!r}; use letters, digits and _, not a digit first"
            )
    return names


def _sync_rules(values: dict[str, Value], cameras: tuple[str, ...]) -> SyncRules:
    required = frozenset(values["sync.required_cameras"])
    if not required <= set(cameras):
        raise ConfigError(
            f"parameter sync.required_cameras holds {sorted(required - set(cameras))}; "
            f"the cameras are {list(cameras)}"
        )
    disabled = frozenset(name for name in cameras if not values[f"camera.{name}.enabled"])
    if disabled & required:
        raise ConfigError(
            f"parameter camera.{min(disabled & required)}.enabled is False and "
            f"sync.required_cameras is {sorted(required)}; take the camera out of one of them"
        )
    if values["sync.min_cameras"] > len(cameras):
        raise ConfigError(
            f"parameter sync.min_cameras is {values['sync.min_cameras']}; "
            f"there are only {len(cameras)} cameras"
        )
    if values["sync.min_cameras"] > len(cameras) - len(disabled):
        raise ConfigError(
            f"parameter sync.min_cameras is {values['sync.min_cameras']} and only "
            f"{len(cameras) - len(disabled)} of {len(cameras)} cameras are enabled"
        )
    nanoseconds = {
        f"{name}_ns": round(values[f"sync.{name}"] * 1e9)
        for name in ("max_skew", "max_age", "max_wait", "camera_timeout", "max_gap")
    }
    return SyncRules(
        cameras=cameras,
        policy=values["sync.policy"],
        min_cameras=values["sync.min_cameras"],
        required_cameras=required,
        disabled_cameras=disabled,
        **nanoseconds,
    )


def _numbers(values: dict[str, Value], name: str) -> tuple[float, ...]:
    numbers = values[name]
    if not all(type(one) in (int, float) and math.isfinite(one) for one in numbers):
        raise ConfigError(f"parameter {name} is {list(numbers)}; it must hold finite numbers")
    return numbers


def _bands(values: dict[str, Value]) -> tuple[Band, ...]:
    names = values["projection.bands"]
    for name in names:
        if not (isinstance(name, str) and name.isidentifier() and name.isascii()):
            raise ConfigError(
                f"parameter projection.bands holds {name!r}; use letters, digits and _, not a "
                "digit first"
            )
    if len(names) > MAX_BANDS or len(set(names)) < len(names):
        raise ConfigError(
            f"parameter projection.bands is {list(names)}; it must hold at most {MAX_BANDS} "
            "different names"
        )
    lowest, highest = (_numbers(values, f"projection.{end}") for end in ("z_min", "z_max"))
    for end, heights in (("z_min", lowest), ("z_max", highest)):
        if names and len(heights) != len(names):
            raise ConfigError(
                f"parameter projection.{end} is {list(heights)}; it must hold one height for each "
                f"of projection.bands, which is {list(names)}"
            )
    return tuple(
        Band(name=name, z_min=float(z_min), z_max=float(z_max))
        for name, z_min, z_max in zip(names, lowest, highest, strict=False)
    )


def _band_rules(values: dict[str, Value], voxels: VoxelsConfig) -> BandRules:
    rules = {name[11:]: value for name, value in values.items() if name.startswith("projection.")}
    for name in ("bands", "z_min", "z_max"):
        del rules[name]
    bands = _bands(values)
    for band in bands:
        layers_of(band, voxels.origin[2], voxels.resolution, voxels.shape[2])
    footprint = _numbers(values, "projection.footprint")
    if footprint and (len(footprint) % 2 or len(footprint) < 6):
        raise ConfigError(
            f"parameter projection.footprint is {list(footprint)}; it must hold three corners or "
            "more as x, y, x, y, ... [m], or nothing"
        )
    labels = values["projection.free_labels"]
    if not all(type(label) is int and 0 <= label <= 255 for label in labels):
        raise ConfigError(
            f"parameter projection.free_labels is {list(labels)}; it must hold class ids 0 to 255"
        )
    return BandRules(**rules, bands=bands)


def node_settings(values: dict[str, Value]) -> NodeSettings:
    """Validate checked values together.

    Args:
        values: Every declared parameter by name.

    Raises:
        ConfigError: Names the parameter, its value and what is allowed.
    """
    names = check_camera_names(values["cameras"])
    for frame in ("frames.base_frame", "frames.odom_frame"):
        if not values[frame] or values[frame].startswith("/"):
            raise ConfigError(
                f"parameter {frame} is {values[frame]!r}; it must be a name without '/'"
            )
    if values["frames.prefix"].startswith("/"):
        raise ConfigError(
            f"parameter frames.prefix is {values['frames.prefix']!r}; frames do not begin with "
            "'/'; write it as in robot1/"
        )
    for topic in ("topics.image", "topics.compressed", "topics.camera_info", "topics.mask"):
        if "{camera}" not in values[topic] and len(names) > 1:
            raise ConfigError(
                f"parameter {topic} is {values[topic]!r}; it must contain {{camera}}, which "
                "stands for the name of each camera"
            )
    publish = {name[8:]: value for name, value in values.items() if name.startswith("publish.")}
    files = {name[6:]: value for name, value in values.items() if name.startswith("files.")}
    files["directory"] = files["directory"] or str(default_directory())
    core = {declaration.name: values[declaration.name] for declaration in core_declarations()}
    config = from_flat(core, place="the node's parameters")
    asked = tuple(one.name for one in vocabulary(config.labels.classes).classes)
    return NodeSettings(
        checkpoint=values["model.checkpoint"],
        cameras=tuple(_camera_settings(values, name) for name in names),
        sync=_sync_rules(values, names),
        base_frame=_frame(values, "frames.base_frame"),
        odom_frame=_frame(values, "frames.odom_frame"),
        publish=PublishSettings(**publish),
        files=FileSettings(**files),
        budget=Limits(
            latency_ms=values["budget.latency_ms"], memory_mb=values["budget.memory_mb"]
        ),
        bands=_band_rules(values, config.voxels),
        colours=check_colours(asked, values["labels.colours"]),
        core=config,
    )
