# SPDX-License-Identifier: Apache-2.0
"""Pictures -> Scene: the whole chain, readable top to bottom.

`reconstruct` takes view sets (all pictures of a rig at one instant; one picture each for a single
camera), oldest first. World is the optical frame of the first view; grid and rig have body axes.
Metres.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from occany_core import pointmaps, rigid
from occany_core.calibration import calibration_of, calibration_of_novel, check_calibration
from occany_core.checkpoints import Model
from occany_core.class_labels import UNLABELLED, classify_pixels, known_classes, label_cells
from occany_core.config import OccAnyConfig
from occany_core.datasets.class_tables import SemanticClass
from occany_core.errors import InputError
from occany_core.grid_frame import find_ground, in_grid
from occany_core.images import ImageBatch, View, prepare
from occany_core.location import Located, locate
from occany_core.network import RawMaps, SceneMemory, Tokens
from occany_core.novel_views import propose_views
from occany_core.pointmaps import Pointmaps
from occany_core.poses import Cameras
from occany_core.projection import SourceFeatures, project_points, source_features
from occany_core.scale import Scale
from occany_core.stopwatch import Stopwatch
from occany_core.voxels import Fusion, Ground, HighestConfidence, VoxelGrid


@dataclass(frozen=True)
class EncodedSet:
    """A view set after the encoder; the stream keeps these."""

    views: tuple[View, ...]
    batch: ImageBatch
    tokens: Tokens


@dataclass(frozen=True)
class Scene:
    """Everything known about the scene of one window. V views, oldest set first."""

    camera_names: tuple[str, ...]
    stamps: tuple[float, ...]
    """Capture time of each view [s]."""
    set_index: tuple[int, ...]
    """View set of each view."""
    rgb: UInt8[np.ndarray, "V H W 3"]
    cameras: Cameras
    observed: Pointmaps
    novel_cameras: Cameras | None
    novel: Pointmaps | None
    """None where no views are rendered, or `novel_views.keep_points` is off."""
    grid: VoxelGrid
    highest_confidence: HighestConfidence | None
    """For `voxels.method: trilinear`, from which any pair of thresholds gives its grid."""
    grid_from_world: Float[Tensor, "4 4"]
    ground: Ground
    """In the grid frame; level unless `voxels.ground` has it estimated."""
    world_from_rig: Float[Tensor, "S 4 4"]
    """Pose of the rig at each view set; the rig is the grid frame's body at that instant."""
    frame_source: str
    """`extrinsics`, or `assumed level` where the mounting is unknown."""
    scale: Scale = field(default_factory=Scale)
    """What makes metres of the network's; `model`: as the network believes them."""
    timings: dict[str, float] = field(default_factory=dict)
    """Seconds per stage."""
    labels: UInt8[np.ndarray, "V H W"] | None = None
    """Class id of every pixel; None where the weights know none, or `labels.use` is off."""
    classes: tuple[SemanticClass, ...] = ()
    """What the ids of pixels and cells mean; 255 is no class."""

    @property
    def scale_source(self) -> str:
        """Where metres come from, one of `grid_fields.SCALE_SOURCES`."""
        return self.scale.source


@dataclass(frozen=True)
class Observed:
    """What the network makes of the views of a window, before anything is located."""

    tokens: Tokens
    memory: SceneMemory
    raw: RawMaps
    features: SourceFeatures
    ignored: Bool[Tensor, "V H W"]
    """Pixels that show nothing of the scene; their confidence is 1."""

    def drawn(self, points_world: Float[Tensor, "V H W 3"]) -> Float[Tensor, "V H W 3"]:
        """Return the points that can be drawn into other views; ignored ones are not a number."""
        return points_world.masked_fill(self.ignored[..., None], torch.nan)


def compute_dtype(model: Model, config: OccAnyConfig) -> AbstractContextManager:
    """Return the context in which the network's layers run; heads and geometry stay float32."""
    wants_half = config.runtime.dtype == "bfloat16"
    return torch.autocast(model.device.type, torch.bfloat16, enabled=wants_half)


@torch.inference_mode()
def encode(model: Model, views: list[View], config: OccAnyConfig) -> EncodedSet:
    """Prepare and encode one view set.

    Raises:
        InputError: No views, an unusable picture or K, or calibration that is required and
            missing.
    """
    check_calibration(views, config.calibration)
    batch = prepare(views, config.images.width or model.network.config.picture_width)
    cameras = calibration_of(views, batch, config.calibration)
    with compute_dtype(model, config):
        tokens = model.network.encode(
            batch.images[None].to(model.device), cameras and cameras.to(model.device)
        )
    return EncodedSet(tuple(views), batch, tokens)


@torch.inference_mode()
def reconstruct(
    model: Model,
    sets: list[EncodedSet],
    config: OccAnyConfig,
    timings: dict[str, float] | None = None,
) -> Scene:
    """Turn encoded view sets into a scene.

    Args:
        model: Network and card.
        sets: Oldest first; the first view of the first set is the reference view.
        config: All settings.
        timings: Seconds of stages that ran before, to be reported along.

    Raises:
        InputError: No sets, or sets of different picture sizes.
        DegenerateGeometryError: The prediction is not finite or determines no cameras.
    """
    if not sets:
        raise InputError("no view sets were given; at least one is needed")
    watch = Stopwatch()
    watch.seconds.update(timings or {})
    views = [view for one in sets for view in one.views]
    set_index = [index for index, one in enumerate(sets) for _ in one.views]
    if len({one.tokens.grid for one in sets}) > 1:
        raise InputError(
            "the view sets of a window have different picture sizes; reset the stream"
        )
    observed = observe(model, sets, config, watch)
    with watch.stage("cameras"):
        located = locate_sets(sets, observed.raw, config)
        grid_from_world = located.grid_from_world(config.window.anchor)
        told = located.is_calibrated and model.network.config.calibration
        seen = _seen_here(located.seen, set_index, config.window.anchor) if told else located.seen
        ground = find_ground(seen, grid_from_world, config.voxels, told=told)
    frame = (grid_from_world, ground)
    fusion = Fusion(config.voxels, located.seen.points_world.device)
    parts = []
    novel_cameras = _propose(model, located.cameras, config)
    for maps, cameras in _render_novel(model, (observed, located), novel_cameras, config, watch):
        with watch.stage("voxels"):
            fusion.render(in_grid(maps, cameras, frame, config.voxels))
        if config.novel_views.keep_points:
            parts.append(maps)
    with watch.stage("voxels"):
        seen = in_grid(located.seen, located.cameras, frame, config.voxels)
        fusion.see(seen)
        grid = fusion.grid()
    with watch.stage("labels"):
        labels = _label(model, observed, config)
        if labels is not None:
            grid = label_cells(seen, labels, grid, config.voxels.min_confidence)
    return Scene(
        camera_names=tuple(view.camera for view in views),
        stamps=tuple(view.stamp for view in views),
        set_index=tuple(set_index),
        rgb=np.concatenate([one.batch.rgb for one in sets]),
        cameras=located.cameras.cpu(),
        observed=located.seen.cpu(),
        novel_cameras=novel_cameras and novel_cameras.cpu(),
        novel=pointmaps.joined(parts).cpu() if parts else None,
        grid=grid,
        highest_confidence=fusion.highest_confidence(),
        grid_from_world=grid_from_world.cpu(),
        ground=ground,
        world_from_rig=located.world_from_rig.cpu(),
        frame_source=located.frame_source,
        scale=located.scale,
        timings=watch.seconds,
        labels=None if labels is None else labels.cpu().numpy(),
        classes=() if labels is None else known_classes(model),
    )


def locate_sets(sets: list[EncodedSet], raw: RawMaps, config: OccAnyConfig) -> Located:
    """Find points, cameras and rigs of encoded view sets."""
    intrinsics = [K for one in sets for K in one.batch.K]
    return locate([one.views for one in sets], intrinsics, raw, config)


def _label(
    model: Model, observed: Observed, config: OccAnyConfig
) -> UInt8[Tensor, "V H W"] | None:
    """Name the class of every pixel, where the weights can and the settings want it."""
    if not (config.labels.use and known_classes(model)):
        return None
    fine, size = observed.raw.segmentation[-1][0], observed.raw.confidence.shape[-2:]
    return classify_pixels(model, fine, size).masked_fill(observed.ignored, UNLABELLED)


def _seen_here(seen: Pointmaps, set_index: list[int], anchor: str) -> Pointmaps:
    """Return the points of the view set at which the grid stands: rigs lean, each in its way."""
    here = max(set_index) if anchor == "newest" else 0
    start = set_index.index(here)
    return seen.views(slice(start, start + set_index.count(here)))


def observe(
    model: Model, sets: list[EncodedSet], config: OccAnyConfig, watch: Stopwatch
) -> Observed:
    """Write all views into a memory, then decode all of them against it."""
    tokens = Tokens.joined([one.tokens for one in sets])
    renders = model.network.renders_novel_views and config.novel_views.steps > 0
    labels = config.labels.use and bool(known_classes(model))
    with compute_dtype(model, config):
        with watch.stage("memory"):
            memory = model.network.update_memory(tokens)
        with watch.stage("render"):
            raw = model.network.render(tokens, memory, with_segmentation=renders or labels)
            pointmaps.check_finite(raw, "observed")
    images = torch.cat([one.batch.images for one in sets])[None].to(model.device)
    levels = model.network.conditioning(raw.segmentation)
    ignored = torch.cat([one.batch.ignored for one in sets]).to(model.device)
    raw = replace(raw, confidence=raw.confidence.masked_fill(ignored, 1.0))
    features = source_features(images, raw.confidence, levels)
    return Observed(tokens, memory, raw, features, ignored)


def _propose(model: Model, cameras: Cameras, config: OccAnyConfig) -> Cameras | None:
    """Choose novel views by test-time view augmentation; None where there is nothing to render."""
    proposed = propose_views(cameras.world_from_cam, config.novel_views)
    if not (model.network.renders_novel_views and len(proposed.owner)):
        return None
    return Cameras(cameras.K[proposed.owner], proposed.world_from_cam)


def _render_novel(
    model: Model,
    known: tuple[Observed, Located],
    cameras: Cameras | None,
    config: OccAnyConfig,
    watch: Stopwatch,
) -> Iterator[tuple[Pointmaps, Cameras]]:
    """Render novel views chunk by chunk; nothing of a chunk is kept here."""
    size = config.novel_views.chunk
    for start in range(0, 0 if cameras is None else len(cameras.K), size):
        chunk = cameras.views(slice(start, start + size))
        yield render_chunk(model, known, chunk, config, watch), chunk


def render_chunk(
    model: Model,
    known: tuple[Observed, Located],
    cameras: Cameras,
    config: OccAnyConfig,
    watch: Stopwatch,
) -> Pointmaps:
    """Render novel views together.

    The network is shown its own metres, in which its memory is, and its answer is scaled.
    """
    observed, located = known
    factor = located.scale.factor
    drawn = observed.drawn(located.seen.points_world / factor)
    in_network = Cameras(cameras.K, rigid.scaled(cameras.world_from_cam, 1 / factor))
    # View by view: the picture of projected points is large, its tokens are small.
    tokens = []
    for view in range(len(cameras.K)):
        one = in_network.views(slice(view, view + 1))
        with watch.stage("project"):
            projected = project_points(
                drawn[None], observed.features,
                one.K[None], one.world_from_cam[None],
            )  # fmt: skip
        with watch.stage("tokenize"):
            tokens.append(model.network.tokenize(projected))
    known = None
    if located.is_calibrated:
        known = calibration_of_novel(in_network, located.rig_from_reference)
    with watch.stage("render_novel"), compute_dtype(model, config):
        raw = model.network.render_novel(
            torch.cat(tokens, dim=1), observed.tokens, observed.memory, known,
            with_segmentation=False,
        )  # fmt: skip
        pointmaps.check_finite(raw, "rendered")
    maps = pointmaps.scaled(pointmaps.of_scene(raw), factor)
    if located.is_calibrated:
        maps = pointmaps.calibrate(maps, cameras.K, cameras.world_from_cam)
    return maps


def predict(
    model: Model, view_sets: list[list[View]], config: OccAnyConfig | None = None
) -> Scene:
    """Turn pictures into a scene in one call.

    Args:
        model: From `load_model`.
        view_sets: Oldest first. One set of several views is a surround rig at one instant;
            several sets of one view are a sequence; one set of one view is monocular.
        config: Settings; the defaults if None.

    Raises:
        InputError, DegenerateGeometryError: As `encode` and `reconstruct`.
    """
    config = OccAnyConfig() if config is None else config
    watch = Stopwatch()
    with watch.stage("encode"):
        sets = [encode(model, views, config) for views in view_sets]
    return reconstruct(model, sets, config, watch.seconds)
