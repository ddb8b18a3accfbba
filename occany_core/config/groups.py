# SPDX-License-Identifier: Apache-2.0
"""The settings by stage, each with meaning, unit, default and range."""

import typing
from dataclasses import dataclass, field, fields
from typing import Annotated, Literal

from occany_core.errors import ConfigError

Scalar = bool | int | float | str | tuple


def _require(holds: bool, path: str, value: Scalar, rule: str) -> None:
    if not holds:
        raise ConfigError(f"{path} is {value!r}; it must be {rule}")


def _require_choices(group: object, name: str) -> None:
    """See that settings with named choices hold one of them."""
    for leaf in fields(group):
        wanted, _ = typing.get_args(leaf.type)
        if typing.get_origin(wanted) is Literal:
            *first, last = choices = typing.get_args(wanted)
            value = getattr(group, leaf.name)
            rule = f"{', '.join(first)} or {last}"
            _require(value in choices, f"{name}.{leaf.name}", value, rule)


@dataclass(frozen=True, kw_only=True, slots=True)
class ImagesConfig:
    """Preparation of pictures."""

    width: Annotated[
        int,
        "long side of the network's picture [px], a multiple of 16; 0 takes the checkpoint's own",
    ] = 0

    def __post_init__(self) -> None:
        _require(
            0 <= self.width <= 8192 and self.width % 16 == 0,
            "images.width",
            self.width,
            "0 or a positive multiple of 16, at most 8192",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class WindowConfig:
    """The rolling window of view sets that are reconstructed together."""

    view_sets: Annotated[int, "newest view sets kept in the window"] = 1
    seconds: Annotated[float, "oldest age of a view set in the window [s]; 0 sets no limit"] = 0.0
    keyframe_distance: Annotated[
        float,
        "a view set stays only if the rig had moved this far since the one before it [m]; "
        "otherwise the next takes its place; 0 looks at no distance",
    ] = 0.0
    keyframe_angle_deg: Annotated[
        float, "or had turned this far [deg]; with both 0 every view set stays"
    ] = 0.0
    max_speed: Annotated[
        float,
        "a motion between two view sets that is faster begins a new segment of the odometry and a "
        "new window [m/s]; 0 believes every motion",
    ] = 70.0
    anchor: Annotated[
        Literal["newest", "oldest", "reference"],
        "the view set whose pose the grid is placed at; reference is the first view's frame as "
        "predicted, as published",
    ] = "newest"

    def __post_init__(self) -> None:
        _require(
            1 <= self.view_sets <= 256, "window.view_sets", self.view_sets, "between 1 and 256"
        )
        for name in ("seconds", "keyframe_distance", "keyframe_angle_deg", "max_speed"):
            value = getattr(self, name)
            _require(value >= 0, f"window.{name}", value, "0 or positive")
        _require_choices(self, "window")


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
        _require_choices(self, "calibration")
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
class ScaleConfig:
    """Where metres come from (see `occany_core.scale`)."""

    factor: Annotated[
        float, "metres per metre of the network, where you know it; 0 has it determined"
    ] = 0.0
    use: Annotated[
        Literal["model", "odometry", "auto"],
        "what may correct the network's metres: nothing, the vehicle's odometry, or also the "
        "distances between calibrated cameras; for weights that see motion, unlike the bundled "
        "ones",
    ] = "model"
    max_spread: Annotated[
        float,
        "known and predicted distances that disagree by more than this share correct nothing",
    ] = 0.2
    max_correction: Annotated[
        float,
        "a factor above this, or below its inverse, corrects nothing: the network cannot be that "
        "wrong about depth, so it is about motion",
    ] = 2.0

    def __post_init__(self) -> None:
        _require(
            self.factor == 0 or 0.01 <= self.factor <= 100,
            "scale.factor",
            self.factor,
            "0, or between 0.01 and 100",
        )
        _require_choices(self, "scale")
        _require(
            0 < self.max_spread <= 1, "scale.max_spread", self.max_spread, "above 0, at most 1"
        )
        _require(
            self.max_correction >= 1, "scale.max_correction", self.max_correction, "at least 1"
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
    keep_points: Annotated[
        bool, "keep the points of rendered views with the scene; false bounds the memory of many"
    ] = True

    def __post_init__(self) -> None:
        _require(0 <= self.steps <= 1000, "novel_views.steps", self.steps, "between 0 and 1000")
        _require(1 <= self.seeds <= 1000, "novel_views.seeds", self.seeds, "between 1 and 1000")
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
    min_confidence: Annotated[float, "least confidence of observed points, in (1, inf)"] = 2.3
    min_confidence_novel: Annotated[float, "least confidence of rendered points, in (1, inf)"] = (
        6.0
    )
    min_confidence_ground: Annotated[
        float,
        "least confidence of points that were put onto the ground, observed or rendered, in "
        "(1, inf): where a viewing ray meets the ground is known without it",
    ] = 1.2
    keep_most_confident: Annotated[
        float,
        "share of the observed points that stand on the ground that counts whatever its "
        "confidence, the most confident ones: pictures unlike those of the training lower all "
        "confidences; 0 to 1",
    ] = 0.6
    max_range: Annotated[float, "points farther than this from their camera are dropped [m]"] = (
        60.0
    )
    ground: Annotated[
        Literal["level", "tilted"],
        "the ground that points are put onto: the plane z = 0 of the rig, or one through the "
        "rig's foot whose tilt is estimated from the observed points",
    ] = "tilted"
    ground_tolerance: Annotated[
        float,
        "points lower than this above the ground are taken for ground and moved along their ray "
        "onto it [m]; 0 leaves all points as predicted",
    ] = 0.2
    ground_tolerance_growth: Annotated[
        float, "by so much does ground_tolerance grow per metre of range, as errors do"
    ] = 0.05
    kerb_height: Annotated[
        float,
        "ground beside the carriageway stands up to so much above it [m]; points in between stay "
        "where they are",
    ] = 0.1
    pass_weight: Annotated[
        float, "how much a ray through a cell speaks against it, in points that speak for it"
    ] = 0.5
    min_rendered_points: Annotated[int, "rendered points that fill an unknown cell"] = 2
    carve_free: Annotated[bool, "mark cells that observed rays pass through as free"] = True

    def __post_init__(self) -> None:
        _require(
            self.resolution >= 0.001, "voxels.resolution", self.resolution, "at least 0.001 m"
        )
        _require(len(self.origin) == 3, "voxels.origin", self.origin, "three numbers x, y, z")
        _require(
            len(self.shape) == 3 and all(n >= 1 for n in self.shape),
            "voxels.shape",
            self.shape,
            "three positive numbers of cells",
        )
        cells = self.shape[0] * self.shape[1] * self.shape[2]
        _require(cells <= 100_000_000, "voxels.shape", self.shape, "at most 100 million cells")
        _require_choices(self, "voxels")
        for name in ("min_confidence", "min_confidence_novel", "min_confidence_ground"):
            value = getattr(self, name)
            _require(value >= 1, f"voxels.{name}", value, "at least 1")
        _require(
            0 <= self.keep_most_confident <= 1,
            "voxels.keep_most_confident",
            self.keep_most_confident,
            "between 0 and 1",
        )
        _require(self.max_range > 0, "voxels.max_range", self.max_range, "positive")
        for name in ("ground_tolerance", "ground_tolerance_growth", "kerb_height"):
            value = getattr(self, name)
            _require(value >= 0, f"voxels.{name}", value, "0 or positive")
        _require(self.pass_weight >= 0, "voxels.pass_weight", self.pass_weight, "0 or positive")
        _require(
            self.min_rendered_points >= 1,
            "voxels.min_rendered_points",
            self.min_rendered_points,
            "at least 1",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelsConfig:
    """Classes of pixels and cells."""

    use: Annotated[
        bool, "name the class of pixels and of occupied cells, where something knows classes"
    ] = True
    pipeline: Annotated[
        Literal["classes", "distilled", "pretrained", "sam3"],
        "classes: of each pixel, by the weights' own probe; distilled: masks that boxes of a "
        "detector ask of the network's features; pretrained: of SAM2's features of the pictures; "
        "sam3: masks that texts ask of SAM3",
    ] = "classes"
    classes: Annotated[
        tuple[str, ...],
        "names of the classes that are labelled, in this order, and texts for a detector that "
        "understands them; empty: all classes of the table",
    ] = ()
    detector: Annotated[
        str,
        "what finds boxes: builtin, from the weights' own probe, or the folder of a GroundingDINO",
    ] = "builtin"
    sam2: Annotated[
        str,
        "folder or .pt file of a SAM2.1 that answers boxes and tracks masks into rendered views; "
        "empty: the weights' own mask decoder answers",
    ] = ""
    sam3: Annotated[str, "folder of a SAM3, for the pipeline sam3"] = ""
    min_score: Annotated[
        float, "boxes of a detector up to this score are dropped; 0.05 as published"
    ] = 0.05
    min_score_tracked: Annotated[
        float, "objects up to this score are not painted in rendered views"
    ] = 0.15
    merge: Annotated[
        bool, "masks of one class whose scores are nearly equal become one object"
    ] = True
    rendered: Annotated[
        Literal["unturned", "all", "none"],
        "rendered views into which masks are tracked: those ahead of a camera, all, or none",
    ] = "unturned"
    carry_seconds: Annotated[
        float,
        "live: how old boxes may be that are asked of a newer picture of the same camera, while "
        "the detector works [s]",
    ] = 1.0

    def __post_init__(self) -> None:
        _require_choices(self, "labels")
        for name in ("min_score", "min_score_tracked"):
            value = getattr(self, name)
            _require(0 <= value < 1, f"labels.{name}", value, "at least 0 and below 1")
        _require(
            0 <= self.carry_seconds <= 60,
            "labels.carry_seconds",
            self.carry_seconds,
            "between 0 and 60",
        )
        texts = [" ".join(text.split()) for text in self.classes]
        _require(
            all(0 < len(text) <= 80 for text in texts) and len(set(texts)) == len(texts),
            "labels.classes",
            self.classes,
            "a list of different texts of 1 to 80 letters",
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class RuntimeConfig:
    """Where and how the network runs."""

    device: Annotated[str, "cpu, cuda, cuda:N, or auto for a GPU where there is one"] = "auto"
    dtype: Annotated[
        Literal["float32", "bfloat16"],
        "number format of the network's layers; heads and geometry are always float32",
    ] = "float32"
    threads: Annotated[int, "CPU threads of the network; 0 leaves PyTorch's choice"] = 0

    def __post_init__(self) -> None:
        known = self.device in ("auto", "cpu", "cuda") or (
            self.device.startswith("cuda:") and self.device[5:].isdigit()
        )
        _require(known, "runtime.device", self.device, "auto, cpu, cuda or cuda:N")
        _require_choices(self, "runtime")
        _require(0 <= self.threads <= 1024, "runtime.threads", self.threads, "between 0 and 1024")


@dataclass(frozen=True, kw_only=True, slots=True)
class OccAnyConfig:
    """Everything a user sets, by stage."""

    images: ImagesConfig = field(default_factory=ImagesConfig)
    window: WindowConfig = field(default_factory=WindowConfig)
    calibration: CalibrationConfig = field(default_factory=CalibrationConfig)
    scale: ScaleConfig = field(default_factory=ScaleConfig)
    novel_views: NovelViewsConfig = field(default_factory=NovelViewsConfig)
    voxels: VoxelsConfig = field(default_factory=VoxelsConfig)
    labels: LabelsConfig = field(default_factory=LabelsConfig)
    runtime: RuntimeConfig = field(default_factory=RuntimeConfig)
