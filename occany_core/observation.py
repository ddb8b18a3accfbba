# SPDX-License-Identifier: Apache-2.0
"""What the network is asked: views are encoded, decoded together, and other views rendered.

`V` observed and `R` rendered views. Metres.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from occany_core import pointmaps, rigid
from occany_core.calibration import calibration_of, calibration_of_novel, check_calibration
from occany_core.checkpoints import Model
from occany_core.config import OccAnyConfig
from occany_core.images import ImageBatch, View, prepare
from occany_core.location import Located
from occany_core.network import RawMaps, SceneMemory, Tokens
from occany_core.pointmaps import Pointmaps
from occany_core.poses import Cameras
from occany_core.projection import SourceFeatures, project_points, source_features
from occany_core.semantics.labelling import Look
from occany_core.stopwatch import Stopwatch


@dataclass(frozen=True)
class EncodedSet:
    """A view set after the encoder; the stream keeps these."""

    views: tuple[View, ...]
    batch: ImageBatch
    tokens: Tokens
    looks: tuple[Look, ...] | None = None
    """What `look` found in each picture; None: not looked yet, or there is no need to."""


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


def observe(
    model: Model,
    sets: list[EncodedSet],
    config: OccAnyConfig,
    watch: Stopwatch,
    *,
    with_segmentation: bool,
) -> Observed:
    """Write all views into a memory, then decode all of them against it.

    Promptable features are also there where rendered views are conditioned on them.
    """
    tokens = Tokens.joined([one.tokens for one in sets])
    renders = model.network.renders_novel_views and config.novel_views.steps > 0
    with compute_dtype(model, config):
        with watch.stage("memory"):
            memory = model.network.update_memory(tokens)
        with watch.stage("render"):
            wants_levels = renders or with_segmentation
            raw = model.network.render(tokens, memory, with_segmentation=wants_levels)
            pointmaps.check_finite(raw, "observed")
    images = torch.cat([one.batch.images for one in sets])[None].to(model.device)
    levels = model.network.conditioning(raw.segmentation)
    ignored = torch.cat([one.batch.ignored for one in sets]).to(model.device)
    raw = replace(raw, confidence=raw.confidence.masked_fill(ignored, 1.0))
    features = source_features(images, raw.confidence, levels)
    return Observed(tokens, memory, raw, features, ignored)


@dataclass(frozen=True)
class RenderedChunk:
    """Some novel views."""

    start: int
    """Index of the first among all of them."""
    cameras: Cameras
    maps: Pointmaps
    levels: tuple[Float[Tensor, "R C s s"], ...]
    """Promptable features, or nothing."""


def render_novel(
    model: Model,
    known: tuple[Observed, Located],
    cameras: Cameras,
    config: OccAnyConfig,
    watch: Stopwatch,
    *,
    with_segmentation: bool,
) -> Iterator[RenderedChunk]:
    """Render novel views chunk by chunk; nothing of a chunk is kept here."""
    size = config.novel_views.chunk
    for start in range(0, len(cameras.K), size):
        chunk = cameras.views(slice(start, start + size))
        rendered = render_chunk(
            model, known, chunk, config, watch, with_segmentation=with_segmentation
        )
        yield replace(rendered, start=start)


def render_chunk(
    model: Model,
    known: tuple[Observed, Located],
    cameras: Cameras,
    config: OccAnyConfig,
    watch: Stopwatch,
    *,
    with_segmentation: bool = False,
) -> RenderedChunk:
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
            with_segmentation=with_segmentation,
        )  # fmt: skip
        pointmaps.check_finite(raw, "rendered")
    maps = pointmaps.scaled(pointmaps.of_scene(raw), factor)
    if located.is_calibrated:
        maps = pointmaps.calibrate(maps, cameras.K, cameras.world_from_cam)
    return RenderedChunk(0, cameras, maps, tuple(level[0] for level in raw.segmentation))
