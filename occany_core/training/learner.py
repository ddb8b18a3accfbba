# SPDX-License-Identifier: Apache-2.0
"""One batch through network and losses; training and validation both go through here.

Everything is in `forward`, so that PyTorch's wrappers for several processes see it.
"""

from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from occany_core import camera, rigid
from occany_core.errors import ConfigError
from occany_core.network import KnownCameras, OccAnyNetwork, RawMaps, SceneMemory, Tokens
from occany_core.network.heads import Heads
from occany_core.network.point_activation import confidence_from_logit
from occany_core.projection import source_features
from occany_core.training.batches import Batch, Targets
from occany_core.training.losses import ground_loss, point_loss
from occany_core.training.novel_pictures import draw_points
from occany_core.training.objectives.distillation import encoder_distillation
from occany_core.training.objectives.forcing import ForcingSettings, segmentation_forcing
from occany_core.training.objectives.pointmaps import PointmapPrediction
from occany_core.training.objectives.poses import pose_loss
from occany_core.training.recipe import Recipe, Stage
from occany_core.training.segmentation import (
    LEAVE_OUT,
    Teacher,
    masks_and_classes,
    with_labels,
)


class Terms(NamedTuple):
    """The loss of a batch and its parts; a tuple, because PyTorch's wrappers look into tuples."""

    total: Float[Tensor, ""]
    world_error: Float[Tensor, ""]
    camera_error: Float[Tensor, ""]
    pose: Float[Tensor, ""]
    forcing: Float[Tensor, ""]
    distillation: Float[Tensor, ""]
    prompting: Float[Tensor, ""]
    """Of prompt decoder and class probe together."""
    mask_iou: Float[Tensor, ""]
    """Of the masks that prompts gave."""
    class_accuracy: Float[Tensor, ""]
    """Share of cells with the right class."""
    depth: Float[Tensor, "B V h w"]
    """Predicted depth of the views that are compared [m]."""


class _Segmentation(NamedTuple):
    """What promptable features add to `Terms`."""

    total: Float[Tensor, ""]
    forcing: Float[Tensor, ""]
    prompting: Float[Tensor, ""]
    mask_iou: Float[Tensor, ""]
    class_accuracy: Float[Tensor, ""]


class Learner(nn.Module):
    """Network and objective of one stage.

    Raises:
        ConfigError: Segmentation is to be trained, but there is no teacher or no head for its
            features.
    """

    def __init__(
        self, network: OccAnyNetwork, recipe: Recipe, stage: Stage, teacher: Teacher | None = None
    ) -> None:
        super().__init__()
        self.network = network
        self.objective, self.stage, self.teacher = recipe.objective, stage, teacher
        self.dtype = recipe.dtype
        self.forces = recipe.forces(stage)
        self.asked = recipe.asked(stage)
        if recipe.needs_teacher(stage):
            _check_segmentation(network, teacher)

    def forward(self, batch: Batch) -> Terms:
        """Predict and compare."""
        return self._render(batch) if self.stage.renders else self._reconstruct(batch)

    def _computing(self, device: torch.device) -> torch.autocast:
        is_half = self.dtype == "bfloat16" or (self.dtype == "auto" and device.type == "cuda")
        return torch.autocast(device.type, torch.bfloat16, enabled=is_half)

    def _reconstruct(self, batch: Batch) -> Terms:
        network = self.network
        with self._computing(batch.images.device):
            tokens = network.encode(batch.images, batch.cameras)
            if self.objective.both_passes:
                memory, online = network.update_memory_online(tokens)
                passes = [online]
            else:
                memory, passes = network.update_memory(tokens), []
            passes.append(network.decoder.render(tokens.tokens, tokens.grid, memory))
        terms = [
            self._compare(
                network.heads, (features, tokens.grid, tokens.finer), batch, tokens.cameras
            )
            for features in passes
        ]
        means = [
            torch.stack(values).mean(dim=0)
            for values in zip(*(t[:-1] for t in terms), strict=True)
        ]
        return Terms(*means, depth=terms[-1].depth)

    def _render(self, batch: Batch) -> Terms:
        network = self.network
        with self._computing(batch.images.device):
            with torch.no_grad():
                tokens = network.encode(batch.images, batch.cameras)
                memory = network.update_memory(tokens)
                seen = network.render(tokens, memory)
                levels = network.conditioning(seen.segmentation)
                projected = _projected(replace(seen, segmentation=levels), batch)
            novel = network.novel_view_encoder(
                network.tokenize(projected), tokens.grid, tokens.tokens
            )
            features = network.novel_view_decoder.render(novel, tokens.grid, memory)
        cameras = tokens.cameras and batch.novel_cameras
        terms = self._compare(
            network.novel_view_heads, (features, tokens.grid, ()), batch, cameras
        )
        if self.objective.distillation == 0 or batch.novel_images is None:
            return terms
        with torch.no_grad(), self._computing(batch.images.device):
            truth = network.encode(batch.novel_images, batch.novel_cameras).tokens
        distillation = encoder_distillation(novel.float(), truth.float())
        total = terms.total + self.objective.distillation * distillation
        return terms._replace(total=total, distillation=distillation.detach())

    def _compare(
        self,
        heads: Heads,
        seen: tuple[Tensor, tuple[int, int], tuple[Tensor, ...]],
        batch: Batch,
        cameras: KnownCameras | None,
    ) -> Terms:
        """Run heads on decoder features (features, grid, finer maps), and compare."""
        features, grid, finer = seen
        renders, objective = self.stage.renders, self.objective
        targets, _ = self._compared(batch)
        with torch.autocast(features.device.type, enabled=False):
            flat = features.float().flatten(0, 1)
            finer = [part.float().flatten(0, 1) for part in finer]
            maps = raw_maps(heads, (flat, grid, finer), cameras, targets.valid.shape[-2:])
            predicted = _pointmaps(heads, maps.unflatten(0, features.shape[:2]))
            points = point_loss(predicted, targets, objective, is_rig=batch.is_rig)
            total, nothing = points.total, points.total.new_zeros(())
            if objective.ground > 0 and cameras is not None:
                ground = ground_loss(predicted.points_cam, targets, cameras)
                total = total + objective.ground * ground
            pose = nothing
            if objective.pose > 0 and not renders:
                encoding = heads.pose_encoding(flat).unflatten(0, features.shape[:2])
                pose = pose_loss(encoding, targets.world_from_cam)
                total = total + objective.pose * pose
            segmentation = self._segmentation(
                heads, (flat, grid, finer), batch, predicted.confidence
            )
        return Terms(
            total=total + segmentation.total,
            world_error=points.world_error,
            camera_error=points.camera_error,
            pose=pose.detach(),
            forcing=segmentation.forcing.detach(),
            distillation=nothing,
            prompting=segmentation.prompting.detach(),
            mask_iou=segmentation.mask_iou,
            class_accuracy=segmentation.class_accuracy,
            depth=predicted.points_cam[..., 2].detach(),
        )

    def _compared(self, batch: Batch) -> tuple[Targets, Tensor | None]:
        """Return the targets of the stage, and their pictures (B, V, 3, H, W) where there are."""
        if self.stage.renders:
            return batch.novel, batch.novel_images
        return batch.observed, batch.images

    def _segmentation(
        self,
        heads: Heads,
        seen: tuple[Float[Tensor, "BV T D"], tuple[int, int], list[Tensor]],
        batch: Batch,
        confidence: Float[Tensor, "B V h w"],
    ) -> _Segmentation:
        """Compare features with the teacher's, and ask masks and classes of them."""
        targets, images = self._compared(batch)
        found = _Segmentation(*(5 * [confidence.new_zeros(())]))
        if images is None or not (self.forces or self.asked.has_any):
            return found
        with torch.no_grad():
            wanted = self.teacher(images, targets)
        levels = tuple(
            level.unflatten(0, images.shape[:2]) for level in heads.segmentation_levels(*seen)
        )
        if self.forces:
            settings = ForcingSettings(weighting=self.objective.forcing_weighting)
            forcing = segmentation_forcing(levels, wanted, confidence, settings).total
            found = found._replace(total=self.objective.forcing * forcing, forcing=forcing)
        if not self.asked.has_any:
            return found
        loss = masks_and_classes(
            self.network,
            (levels, wanted),
            with_labels(targets),
            (self.asked, self.objective.prompts),
            torch.Generator(images.device).manual_seed(batch.seed),
        )
        return found._replace(
            total=found.total + loss.total,
            prompting=loss.total,
            mask_iou=loss.overlap,
            class_accuracy=loss.right,
        )


def _check_segmentation(network: OccAnyNetwork, teacher: Teacher | None) -> None:
    if network.config.segmentation_dims is None:
        raise ConfigError(
            f"objective.forcing needs network.segmentation_dims; set them, {LEAVE_OUT}"
        )
    if teacher is None:
        raise ConfigError(
            f"training segmentation needs a segmentation teacher; give one, {LEAVE_OUT}"
        )


def raw_maps(
    heads: Heads,
    seen: tuple[Float[Tensor, "G T D"], tuple[int, int], list[Float[Tensor, "G C h w"]]],
    cameras: KnownCameras | None,
    size: tuple[int, int],
) -> Float[Tensor, "G 7 h w"]:
    """Run a point head, and bring its maps to the size of the targets.

    The convolutional head predicts at a quarter of the picture's size; where that is the size of
    the targets, nothing is interpolated.
    """
    features, grid, finer = seen
    head = heads.points
    if hasattr(head, "quarter") and size == (4 * grid[0], 4 * grid[1]):
        return head.quarter(features[:, 1:] + heads.point_token, grid, finer, cameras)
    maps = heads.raw_points(features, grid, finer, cameras)
    if maps.shape[-2:] == size:
        return maps
    return F.interpolate(maps, tuple(size), mode="bilinear", align_corners=False)


def _pointmaps(heads: Heads, raw: Float[Tensor, "B V 7 h w"]) -> PointmapPrediction:
    raw = raw.permute(0, 1, 3, 4, 2)
    return PointmapPrediction(
        points_reference=heads.activate(raw[..., 0:3]),
        points_cam=heads.activate(raw[..., 3:6]),
        confidence=confidence_from_logit(raw[..., 6]),
    )


def _projected(seen: RawMaps, batch: Batch) -> Float[Tensor, "B R C H W"]:
    """Draw what was reconstructed into the views that are to be rendered."""
    with torch.autocast(batch.images.device.type, enabled=False):
        points = seen.points_world
        if batch.is_calibrated:
            # Predicted depth on true rays and poses, as the pipeline does for known rigs.
            points_cam = camera.backproject(batch.cameras.K, seen.points_cam[..., 2].clamp_min(0))
            poses = batch.observed.world_from_cam
            points = rigid.apply(poses, points_cam.flatten(2, 3)).view_as(points_cam)
            K = batch.novel_cameras.K
        else:
            K = camera.pinhole(batch.novel.focal_px, *batch.images.shape[-2:])
        features = source_features(batch.images, seen.confidence, seen.segmentation)
        return draw_points(points, features, K, batch.novel.world_from_cam)


@torch.no_grad()
def observed_confidence(network: OccAnyNetwork, batch: Batch) -> Float[Tensor, " P"]:
    """Return the confidence logits of observed surfaces, in float32."""
    tokens: Tokens = network.encode(batch.images, batch.cameras)
    memory: SceneMemory = network.update_memory(tokens)
    features = network.decoder.render(tokens.tokens, tokens.grid, memory)
    valid = batch.observed.valid
    flat, finer = features.flatten(0, 1), [part.flatten(0, 1) for part in tokens.finer]
    seen = (flat, tokens.grid, finer)
    maps = raw_maps(network.heads, seen, tokens.cameras, valid.shape[-2:])
    return maps[:, 6][valid.flatten(0, 1)]
