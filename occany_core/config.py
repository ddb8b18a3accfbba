# SPDX-License-Identifier: Apache-2.0
"""Settings of the pipeline: one tree of frozen dataclasses, YAML in, YAML out.

YAML files, command-line `--set` options and ROS parameters are three views of this tree. The
meaning and unit of a field stand in its `Annotated` text, from which help, descriptors and tables
are made. The architecture of a network is not here: it belongs to the checkpoint
(`occany_core.network.NetworkConfig`).
"""

import dataclasses
import difflib
import math
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import yaml

from occany_core.errors import ConfigError

Scalar = bool | int | float | str | tuple


def _require(holds: bool, path: str, value: Scalar, rule: str) -> None:
    if not holds:
        raise ConfigError(f"{path} is {value!r}; it must be {rule}")


@dataclass(frozen=True, kw_only=True, slots=True)
class ImagesConfig:
    """Preparation of pictures."""

    width: Annotated[
        int,
        "long side of the network's picture [px], a multiple of 16; 0 takes the checkpoint's own",
    ] = 0

    def __post_init__(self) -> None:
        _require(
            self.width >= 0 and self.width % 16 == 0,
            "images.width",
            self.width,
            "0 or a positive multiple of 16",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowConfig:
    """The rolling window of view sets that are reconstructed together."""

    view_sets: Annotated[int, "newest view sets kept in the window"] = 1
    seconds: Annotated[float, "oldest age of a view set in the window [s]; 0 sets no limit"] = 0.0
    anchor: Annotated[
        Literal["newest", "oldest"], "the view set whose pose the grid is placed at"
    ] = "newest"

    def __post_init__(self) -> None:
        _require(self.view_sets >= 1, "window.view_sets", self.view_sets, "at least 1")
        _require(self.seconds >= 0, "window.seconds", self.seconds, "0 or positive")
        _require(
            self.anchor in ("newest", "oldest"), "window.anchor", self.anchor, "newest or oldest"
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationConfig:
    """What is known about the cameras besides their pictures."""

    use: Annotated[
        Literal["off", "auto", "required"],
        "intrinsics and extrinsics given with the views: ignore, use when present, or "
        "insist on them",
    ] = "auto"
    camera_height: Annotated[
        float,
        "height of the reference camera above the ground [m]; used when extrinsics are unknown",
    ] = 1.6
    camera_pitch_deg: Annotated[
        float, "downward pitch of the reference camera [deg]; used when extrinsics are unknown"
    ] = 0.0

    def __post_init__(self) -> None:
        _require(
            self.use in ("off", "auto", "required"),
            "calibration.use",
            self.use,
            "off, auto or required",
        )
        _require(
            0 <= self.camera_height <= 20,
            "calibration.camera_height",
            self.camera_height,
            "between 0 and 20 m",
        )
        _require(
            -90 < self.camera_pitch_deg < 90,
            "calibration.camera_pitch_deg",
            self.camera_pitch_deg,
            "between -90 and 90 degrees",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class NovelViewsConfig:
    """Test-time view augmentation: which unseen views are rendered (paper 3.4)."""

    steps: Annotated[int, "rendered positions ahead of each observed view; 0 renders none"] = 1
    forward_step: Annotated[float, "distance between these positions [m]"] = 3.0
    yaw_deg: Annotated[
        float, "turn of the two side views at each position [deg]; 0 omits them"
    ] = 0.0
    lateral: Annotated[float, "sideways shift of the two side views [m]"] = 2.0
    seeds: Annotated[
        int,
        "turned copies of each observed view that all of the above is done for; 1 takes the view "
        "itself",
    ] = 1
    seed_step_deg: Annotated[float, "angle from one seed to the next [deg]"] = 15.0
    seed_lateral: Annotated[
        float, "sideways shift of the seeds to the side they are turned to [m]"
    ] = 0.0
    max_views: Annotated[int, "most views rendered per cycle, evenly thinned; 0 sets no limit"] = 0
    chunk: Annotated[int, "views rendered together; changes memory use, not results"] = 12

    def __post_init__(self) -> None:
        _require(self.steps >= 0, "novel_views.steps", self.steps, "0 or positive")
        _require(self.seeds >= 1, "novel_views.seeds", self.seeds, "at least 1")
        _require(
            0 <= self.seed_step_deg <= 180,
            "novel_views.seed_step_deg",
            self.seed_step_deg,
            "between 0 and 180 degrees",
        )
        _require(self.max_views >= 0, "novel_views.max_views", self.max_views, "0 or positive")
        _require(self.chunk >= 1, "novel_views.chunk", self.chunk, "at least 1")
        _require(
            0 <= self.yaw_deg <= 180,
            "novel_views.yaw_deg",
            self.yaw_deg,
            "between 0 and 180 degrees",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class VoxelsConfig:
    """The voxel grid and how points become cells."""

    resolution: Annotated[float, "edge of one voxel [m]"] = 0.4
    origin: Annotated[
        tuple[float, float, float], "minimum corner of the grid in the grid frame [m]"
    ] = (-40.0, -40.0, -1.0)
    shape: Annotated[tuple[int, int, int], "cells along x (forward), y (left), z (up)"] = (
        200,
        200,
        16,
    )
    method: Annotated[
        Literal["cell", "trilinear"],
        "cell: the voxel that holds a point; trilinear: its eight lattice neighbours, as "
        "published",
    ] = "cell"
    min_confidence: Annotated[float, "least confidence of observed points, in (1, inf)"] = 1.1
    min_confidence_novel: Annotated[float, "least confidence of rendered points, in (1, inf)"] = (
        1.1
    )
    max_range: Annotated[float, "points farther than this from their camera are dropped [m]"] = (
        60.0
    )
    ground_tolerance: Annotated[
        float,
        "points lower than this above the rig's level ground (z = 0 of its frame) are taken for "
        "ground and moved along their ray onto it [m]; 0 leaves all points as predicted",
    ] = 0.6
    pass_weight: Annotated[
        float, "how much a ray through a cell speaks against it, in points that speak for it"
    ] = 0.5
    min_rendered_points: Annotated[int, "rendered points that fill an unknown cell"] = 2
    carve_free: Annotated[bool, "mark cells that observed rays pass through as free"] = True

    def __post_init__(self) -> None:
        _require(self.resolution > 0, "voxels.resolution", self.resolution, "positive")
        _require(len(self.origin) == 3, "voxels.origin", self.origin, "three numbers x, y, z")
        _require(
            len(self.shape) == 3 and all(n >= 1 for n in self.shape),
            "voxels.shape",
            self.shape,
            "three positive numbers of cells",
        )
        cells = self.shape[0] * self.shape[1] * self.shape[2]
        _require(cells <= 100_000_000, "voxels.shape", self.shape, "at most 100 million cells")
        _require(
            self.method in ("cell", "trilinear"), "voxels.method", self.method, "cell or trilinear"
        )
        _require(self.max_range > 0, "voxels.max_range", self.max_range, "positive")
        _require(
            self.ground_tolerance >= 0,
            "voxels.ground_tolerance",
            self.ground_tolerance,
            "0 or positive",
        )
        _require(self.pass_weight >= 0, "voxels.pass_weight", self.pass_weight, "0 or positive")
        _require(
            self.min_rendered_points >= 1,
            "voxels.min_rendered_points",
            self.min_rendered_points,
            "at least 1",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class RuntimeConfig:
    """Where and how the network runs."""

    device: Annotated[str, "cpu, cuda, cuda:N, or auto for a GPU where there is one"] = "auto"
    threads: Annotated[int, "CPU threads of the network; 0 leaves PyTorch's choice"] = 0

    def __post_init__(self) -> None:
        known = self.device in ("auto", "cpu", "cuda") or (
            self.device.startswith("cuda:") and self.device[5:].isdigit()
        )
        _require(known, "runtime.device", self.device, "auto, cpu, cuda or cuda:N")
        _require(self.threads >= 0, "runtime.threads", self.threads, "0 or positive")


@dataclass(frozen=True, kw_only=True, slots=True)
class OccAnyConfig:
    """Everything a user sets, by stage."""

    images: ImagesConfig = field(default_factory=ImagesConfig)
    window: WindowConfig = field(default_factory=WindowConfig)
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    novel_views: NovelViewsConfig = field(default_factory=NovelViewsConfig)
    voxels: VoxelsConfig = field(default_factory=VoxelsConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """One leaf of the tree."""

    path: str
    """Dotted path, for example `voxels.resolution`."""
    type: type
    """Plain Python type of the value: bool, int, float, str or tuple."""
    default: Scalar
    description: str
    choices: tuple[str, ...] = ()
    """Allowed texts, or empty."""
    item_type: type = float
    """Type of a tuple's items."""


def settings() -> list[Setting]:
    """List every leaf of `OccAnyConfig` in declaration order."""
    found = []
    for group in dataclasses.fields(OccAnyConfig):
        hints = typing.get_type_hints(group.type, include_extras=True)
        for leaf in dataclasses.fields(group.type):
            annotated, description = typing.get_args(hints[leaf.name])
            choices = typing.get_args(annotated) if typing.get_origin(annotated) is Literal else ()
            is_tuple = typing.get_origin(annotated) is tuple
            found.append(
                Setting(
                    path=f"{group.name}.{leaf.name}",
                    type=tuple if is_tuple else str if choices else annotated,
                    default=leaf.default,
                    description=description,
                    choices=choices,
                    item_type=typing.get_args(annotated)[0] if is_tuple else float,
                )
            )
    return found


def _coerce(setting: Setting, value: object, place: str) -> Scalar:
    """Accept exact types, whole numbers for floats, and lists for tuples; refuse the rest."""
    where = f"{setting.path} in {place}" if place else setting.path
    wanted = setting.type
    if wanted is tuple:
        if not isinstance(value, list | tuple) or len(value) != len(setting.default):
            raise ConfigError(
                f"{where} is {value!r}; it must be a list of {len(setting.default)} numbers"
            )
        item = dataclasses.replace(setting, type=setting.item_type)
        return tuple(_coerce(item, part, place) for part in value)
    if wanted is float and type(value) is int and abs(value) < 2**53:
        return float(value)
    if type(value) is not wanted:
        raise ConfigError(f"{where} is {value!r}; it must be of type {wanted.__name__}")
    if wanted is float and not math.isfinite(value):
        raise ConfigError(f"{where} is {value!r}; it must be a finite number")
    return value


def from_flat(
    values: dict[str, object], base: OccAnyConfig | None = None, place: str = ""
) -> OccAnyConfig:
    """Build a config from dotted paths.

    Args:
        values: For example `{"voxels.resolution": 0.2}`.
        base: Values for everything not named; the defaults if None.
        place: Named in error messages, for example a file name.

    Raises:
        ConfigError: Unknown path (the closest known one is named), wrong type, value out of range.
    """
    base = OccAnyConfig() if base is None else base
    known = {setting.path: setting for setting in settings()}
    changes: dict[str, dict[str, Scalar]] = {}
    for path, value in values.items():
        if path not in known:
            close = difflib.get_close_matches(path, known, n=1)
            hint = (
                f"; did you mean {close[0]}?" if close else "; `occany config` lists all settings"
            )
            raise ConfigError(f"unknown setting {path!r}{f' in {place}' if place else ''}{hint}")
        group, leaf = path.split(".")
        changes.setdefault(group, {})[leaf] = _coerce(known[path], value, place)
    groups = {
        group: dataclasses.replace(getattr(base, group), **leaves)
        for group, leaves in changes.items()
    }
    return dataclasses.replace(base, **groups)


def to_flat(config: OccAnyConfig) -> dict[str, Scalar]:
    """Return `{dotted path: value}` of every setting."""
    flat = {}
    for setting in settings():
        group, leaf = setting.path.split(".")
        flat[setting.path] = getattr(getattr(config, group), leaf)
    return flat


def _flatten(tree: object, place: str) -> dict[str, object]:
    if not isinstance(tree, dict):
        raise ConfigError(f"{place} must hold a mapping of groups, not {type(tree).__name__}")
    flat = {}
    for group, leaves in tree.items():
        if not isinstance(leaves, dict):
            raise ConfigError(f"{group!r} in {place} must be a group of settings, not {leaves!r}")
        flat |= {f"{group}.{leaf}": value for leaf, value in leaves.items()}
    return flat


def load_config(path: str | Path, base: OccAnyConfig | None = None) -> OccAnyConfig:
    """Read a YAML file of nested groups; an empty file gives `base`.

    Raises:
        ConfigError: The file is missing, not YAML, or holds something `from_flat` refuses.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read the config file {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not a YAML file: it is not UTF-8 text") from error
    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not valid YAML: {error}") from error
    return from_flat(_flatten(tree, str(path)) if tree is not None else {}, base, str(path))


def with_overrides(config: OccAnyConfig, assignments: list[str]) -> OccAnyConfig:
    """Apply `path=value` texts, values read as YAML (for example `voxels.resolution=0.2`).

    Raises:
        ConfigError: No `=`, or something `from_flat` refuses.
    """
    values = {}
    for assignment in assignments:
        path, separator, text = assignment.partition("=")
        if not separator:
            raise ConfigError(
                f"--set {assignment!r} has no '='; write for example voxels.resolution=0.2"
            )
        try:
            values[path.strip()] = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {assignment!r} is not valid YAML: {error}") from error
    return from_flat(values, config, "--set")


def dump_config(config: OccAnyConfig) -> str:
    """Return YAML text that `load_config` reads back, each setting with its description."""
    lines: list[str] = []
    flat = to_flat(config)
    for setting in settings():
        group, leaf = setting.path.split(".")
        if f"{group}:" not in lines:
            lines.append(f"{group}:")
        value = flat[setting.path]
        text = yaml.safe_dump(
            list(value) if isinstance(value, tuple) else value, default_flow_style=True
        )
        text = text.removesuffix("\n").removesuffix("\n...")
        choices = f" ({' | '.join(setting.choices)})" if setting.choices else ""
        lines += [f"  # {setting.description}{choices}", f"  {leaf}: {text}"]
    return "\n".join(lines) + "\n"
