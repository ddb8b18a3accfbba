# SPDX-License-Identifier: Apache-2.0
"""Pictures -> Scene: the whole chain, readable top to bottom.

`reconstruct` takes view sets (all pictures of a rig at one instant; one picture each for a single
camera), oldest first. World is the optical frame of the first view; grid and rig have body axes.
Metres.
"""

from dataclasses import dataclass, field, replace

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from occany_core import pointmaps
from occany_core.checkpoints import Model
from occany_core.config import OccAnyConfig
from occany_core.datasets.class_tables import SemanticClass
from occany_core.errors import ConfigError, InputError
from occany_core.grid_frame import find_ground, in_grid, keep_most_confident
from occany_core.images import View, check_views
from occany_core.location import Located, locate
from occany_core.network import RawMaps
from occany_core.novel_views import ProposedViews, propose_views
from occany_core.observation import EncodedSet, Observed, encode, observe, render_novel
from occany_core.pointmaps import Pointmaps
from occany_core.poses import Cameras
from occany_core.scale import Scale
from occany_core.semantics import LabelledMasks
from occany_core.semantics.labelling import Labeller
from occany_core.semantics.scene_labels import SceneLabels
from occany_core.stopwatch import Stopwatch
from occany_core.voxels import Fusion, Ground, HighestConfidence, VoxelGrid


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
    """Class id of every pixel, 255 without; None where nothing is labelled."""
    classes: tuple[SemanticClass, ...] = ()
    """What the ids of pixels and cells mean, in the order of `labels.classes`; 255 is no class."""
    objects: tuple[LabelledMasks, ...] = ()
    """Objects of each view, for pipelines that find some."""

    @property
    def scale_source(self) -> str:
        """Where metres come from, one of `grid_fields.SCALE_SOURCES`."""
        return self.scale.source


def look(labeller: Labeller, encoded: EncodedSet, config: OccAnyConfig) -> EncodedSet:
    """Look at the pictures of a view set, where the labelling pipeline does so, and once only."""
    if encoded.looks and encoded.looks[0].asked == config.labels.classes:
        return encoded
    rgb = torch.from_numpy(encoded.batch.rgb)
    return replace(encoded, looks=labeller.look(rgb, config.labels))


@torch.inference_mode()
def reconstruct(
    model: Model,
    sets: list[EncodedSet],
    config: OccAnyConfig,
    timings: dict[str, float] | None = None,
    labeller: Labeller | None = None,
) -> Scene:
    """Turn encoded view sets into a scene.

    Args:
        model: Network and card.
        sets: Oldest first; the first view of the first set is the reference view.
        config: All settings.
        timings: Seconds of stages that ran before, to be reported along.
        labeller: Names pixels and cells; if None, one is made for this call.

    Raises:
        InputError: No sets, or sets whose pictures have other shapes.
        ConfigError, CheckpointError: As `Labeller`.
        DegenerateGeometryError: The prediction is not finite or determines no cameras.
    """
    if not sets:
        raise InputError("no view sets were given; at least one is needed")
    watch = Stopwatch()
    watch.seconds.update(timings or {})
    views = [view for one in sets for view in one.views]
    set_index = [index for index, one in enumerate(sets) for _ in one.views]
    _check_sizes(sets)
    labeller = labeller or Labeller(model, config.labels)
    wants_features = labeller.needs_features(config.labels)
    observed = observe(model, sets, config, watch, with_segmentation=wants_features)
    with watch.stage("labels"):
        labels = label_scene(labeller, sets, observed, config)
    with watch.stage("cameras"):
        located = locate_sets(sets, observed.raw, config)
        grid_from_world = located.grid_from_world(config.window.anchor)
        told = located.is_calibrated and model.network.config.calibration
        seen = _seen_here(located.seen, set_index, config.window.anchor) if told else located.seen
        ground = find_ground(seen, grid_from_world, config.voxels, told=told)
    frame = (grid_from_world, ground)
    proposed = _propose(model, located.cameras, config)
    fused = _fuse(model, (observed, located), frame, proposed, labels, config, watch)
    return Scene(
        camera_names=tuple(view.camera for view in views),
        stamps=tuple(view.stamp for view in views),
        set_index=tuple(set_index),
        rgb=np.concatenate([one.batch.rgb for one in sets]),
        cameras=located.cameras.cpu(),
        observed=located.seen.cpu(),
        novel_cameras=proposed and cameras_of(proposed, located).cpu(),
        novel=fused.novel,
        grid=fused.grid,
        highest_confidence=fused.highest_confidence,
        grid_from_world=grid_from_world.cpu(),
        ground=ground,
        world_from_rig=located.world_from_rig.cpu(),
        frame_source=located.frame_source,
        scale=located.scale,
        timings=watch.seconds,
        labels=None if labels is None else labels.pixels.cpu().numpy(),
        classes=() if labels is None else labels.classes,
        objects=() if labels is None else tuple(one.cpu() for one in labels.objects),
    )


def _check_sizes(sets: list[EncodedSet]) -> None:
    for index, one in enumerate(sets):
        if one.tokens.grid == sets[0].tokens.grid:
            continue
        first, other = (
            f"{view.camera or 'unnamed camera'}, {view.rgb.shape[1]}x{view.rgb.shape[0]}"
            for view in (sets[0].views[0], one.views[0])
        )
        raise InputError(
            f"view set {index} ({other}) has pictures of another shape than view set 0 ({first}); "
            "bring them to one size, or predict them apart (a stream does so by itself)"
        )


@dataclass(frozen=True)
class _Fused:
    """What all points together say."""

    grid: VoxelGrid
    highest_confidence: HighestConfidence | None
    novel: Pointmaps | None


def _fuse(  # noqa: PLR0913 - everything that is known by now
    model: Model,
    known: tuple[Observed, Located],
    frame: tuple[Float[Tensor, "4 4"], Ground],
    proposed: ProposedViews | None,
    labels: SceneLabels | None,
    config: OccAnyConfig,
    watch: Stopwatch,
) -> _Fused:
    """Render the proposed views and put all points and labels into a grid."""
    _, located = known
    fusion = Fusion(config.voxels, located.seen.points_world.device)
    kept, chunks = [], iter(())
    tracks = labels is not None and proposed is not None and labels.follow(proposed)
    if proposed is not None:
        cameras = cameras_of(proposed, located)
        chunks = render_novel(model, known, cameras, config, watch, with_segmentation=tracks)
    for chunk in chunks:
        with watch.stage("voxels"):
            points = in_grid(chunk.maps, chunk.cameras, frame, config.voxels)
            fusion.render(points)
        if tracks:
            with watch.stage("labels"):
                labels.render(chunk.start, points, chunk.levels)
        if config.novel_views.keep_points:
            kept.append(chunk.maps)
    with watch.stage("voxels"):
        seen = in_grid(located.seen, located.cameras, frame, config.voxels)
        seen = keep_most_confident(seen, config.voxels.keep_most_confident)
        fusion.see(seen)
        grid = fusion.grid()
    if labels is not None:
        with watch.stage("labels"):
            labels.see(seen)
            grid = labels.labelled(grid)
    novel = pointmaps.joined(kept).cpu() if kept else None
    return _Fused(grid, fusion.highest_confidence(), novel)


def cameras_of(proposed: ProposedViews, located: Located) -> Cameras:
    """Give proposed views the intrinsics of the views that they belong to."""
    return Cameras(located.cameras.K[proposed.owner], proposed.world_from_cam)


def locate_sets(sets: list[EncodedSet], raw: RawMaps, config: OccAnyConfig) -> Located:
    """Find points, cameras and rigs of encoded view sets."""
    intrinsics = [K for one in sets for K in one.batch.K]
    return locate([one.views for one in sets], intrinsics, raw, config)


def label_scene(
    labeller: Labeller, sets: list[EncodedSet], observed: Observed, config: OccAnyConfig
) -> SceneLabels | None:
    """Name the class of every pixel, where something can and the settings want it."""
    levels = [level[0] for level in observed.raw.segmentation]
    looks = [look for one in sets for look in one.looks or [None] * len(one.views)]
    size = tuple(observed.raw.confidence.shape[-2:])
    views = labeller.label(levels, looks, size, config.labels)
    if views is None:
        return None
    return SceneLabels(labeller, views, levels, observed.ignored, config)


def _seen_here(seen: Pointmaps, set_index: list[int], anchor: str) -> Pointmaps:
    """Return the points of the view set at which the grid stands: rigs lean, each in its way."""
    here = max(set_index) if anchor == "newest" else 0
    start = set_index.index(here)
    return seen.views(slice(start, start + set_index.count(here)))


def _propose(model: Model, cameras: Cameras, config: OccAnyConfig) -> ProposedViews | None:
    """Choose novel views by test-time view augmentation; None where there is nothing to render."""
    proposed = propose_views(cameras.world_from_cam, config.novel_views)
    if not (model.network.renders_novel_views and len(proposed.owner)):
        return None
    return proposed


def check_request(model: object, config: object) -> None:
    """Refuse what is no model or no settings.

    Raises:
        InputError, ConfigError: Showing what makes one.
    """
    if not isinstance(model, Model):
        raise InputError(
            f"the model is {type(model).__name__}; give what `load_model` returns, as in "
            "predict(load_model('default'), [[View(rgb)]])"
        )
    if not isinstance(config, OccAnyConfig):
        raise ConfigError(
            f"the config is {type(config).__name__}; give an `OccAnyConfig`, as from "
            "occany_core.config.from_flat({'voxels.resolution': 0.2})"
        )


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
        InputError, ConfigError: Something else than a model, view sets or settings.
    """
    config = OccAnyConfig() if config is None else config
    check_request(model, config)
    if not isinstance(view_sets, list | tuple):
        raise InputError(
            f"the view sets are {type(view_sets).__name__}; they must be a list of lists of "
            "`View`, as in predict(model, [[View(rgb)]])"
        )
    for views in view_sets:
        check_views(views)
    labeller = Labeller(model, config.labels)
    watch = Stopwatch()
    with watch.stage("encode"):
        sets = [encode(model, views, config) for views in view_sets]
    if labeller.models.look_at_pictures:
        with watch.stage("look"):
            sets = [look(labeller, one, config) for one in sets]
    return reconstruct(model, sets, config, watch.seconds, labeller)
