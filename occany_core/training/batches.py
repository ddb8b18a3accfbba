# SPDX-License-Identifier: Apache-2.0
"""Batches: pictures and targets of scenes, made on the device where training runs.

`B` scenes, `V` observed views, `R` rendered (novel) views, h w depth blocks. Points in metres. The
reference frame is the camera frame of the first observed view.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from occany_core import camera, rigid
from occany_core.network import KnownCameras
from occany_core.training.pack import LABELS, WHOLE_NORMAL
from occany_core.training.pool import Pool
from occany_core.training.recipe import Draw, Recipe, Stage
from occany_core.training.views import choose_views, num_pictures

LEAST_DEPTH = 0.3
"""Nearer surfaces are not compared [m]."""
GROUND_BAND, GROUND_RISE, FARTHEST_GROUND = 0.3, 0.05, 40.0
"""Surfaces so near to the level ground of a rig, in metres and per metre of range, are taken for
ground; up to this range [m]."""


@dataclass(frozen=True)
class ViewLabels:
    """What rendered views show, one label for each block of `LABEL_BLOCK` pixels."""

    semantics: Int[Tensor, "B V h2 w2"]
    """`SemanticClass`."""
    instance: Int[Tensor, "B V h2 w2"]
    """0 where ground or sky; the same in all views of a scene."""
    normal: Float[Tensor, "B V h2 w2 3"]
    """Unit vectors, reference frame; 0 in the sky."""
    centres: Float[Tensor, "B V I 3"]
    """Where instance i stands when the view is taken [m], reference frame; row 0 is unused."""


@dataclass(frozen=True)
class Targets:
    """Where the depth samples of some views are, and what the views show."""

    points_world: Float[Tensor, "B V h w 3"]
    points_cam: Float[Tensor, "B V h w 3"]
    valid: Bool[Tensor, "B V h w"]
    """A surface was hit within the range that is compared."""
    sky: Bool[Tensor, "B V h w"]
    """Nothing was hit."""
    ground: Bool[Tensor, "B V h w"]
    """A surface on the ground, as far as the mounting of the camera tells."""
    world_from_cam: Float[Tensor, "B V 4 4"]
    focal_px: Float[Tensor, "B V"]
    labels: ViewLabels | None = None
    """Of pictures, where the pool has any."""


@dataclass(frozen=True)
class Batch:
    """Observed views with targets, and views to be rendered."""

    images: Float[Tensor, "B V 3 H W"]
    is_rig: bool
    """The views are those of a rig at one instant."""
    is_calibrated: bool
    """Whether the network is told the cameras, and rendering starts from points on true rays and
    poses."""
    observed: Targets
    novel: Targets | None
    novel_images: Float[Tensor, "B R 3 H W"] | None
    """Of held-out views; nobody photographed the others."""
    cameras: KnownCameras
    """Of the observed views, as the network may be told them."""
    novel_cameras: KnownCameras | None
    samples: tuple[int, ...]
    """Places in the pool, to name in messages."""
    seed: int = 0
    """Of what is drawn while the batch is compared, such as prompts."""

    @property
    def num_views(self) -> int:
        """Views that are compared."""
        return (
            self.observed.valid.shape[:2].numel()
            if self.novel is None
            else (self.novel.valid.shape[:2].numel())
        )


@dataclass(frozen=True)
class Turn:
    """Which batch is wanted. It fixes all random draws, so a run can go on anywhere."""

    stage_index: int
    number: int
    """Batches drawn before in this stage, accumulated ones included."""
    passed: float
    """Share of the stage that is over."""
    rank: int = 0
    ranks: int = 1


class BatchSampler:
    """Draws batches from a pool. Several processes share one draw and take a part each."""

    def __init__(self, pool: Pool, recipe: Recipe, device: torch.device) -> None:
        self.pool, self.recipe, self.device = pool, recipe, device

    def draw(self, turn: Turn) -> Batch:
        """Draw the batch of a turn."""
        stage = self.recipe.stages[turn.stage_index]
        rng = np.random.default_rng((self.recipe.seed, turn.stage_index, turn.number))
        phases = stage.phases
        phase = next((one for one in phases if turn.passed < one.until), phases[-1])
        weights = np.array([draw.weight for draw in phase.draws])
        draw = phase.draws[rng.choice(len(weights), p=weights / weights.sum())]
        return self.draw_kind(draw, stage, rng, (turn.rank, turn.ranks))

    def draw_kind(
        self,
        draw: Draw,
        stage: Stage,
        rng: np.random.Generator,
        share: tuple[int, int] = (0, 1),
    ) -> Batch:
        """Draw a batch of one kind.

        Args:
            draw: The kind.
            stage: Says what is rendered.
            rng: All processes must hand in equal ones.
            share: This process and the number of processes.
        """
        rank, ranks = share
        count = num_pictures(draw, rng)
        novel = stage.num_novel if stage.novel == "nearby" else 0
        scenes = max(self.recipe.views_per_step // (count + novel), 1)
        chosen = choose_views(draw, stage, scenes * ranks, count, rng)
        picks = rng.integers(len(self.pool), size=scenes * ranks)
        changes = _Changes.draw(rng, scenes * ranks, math.radians(self.recipe.tilt))
        is_calibrated = draw.kind == "surround" or bool(rng.random() < self.recipe.calibrated)
        mine = slice(rank * scenes, (rank + 1) * scenes)
        observed, novel_views = chosen.observed[mine], chosen.novel[mine]
        self.pool.used_views += observed.size * ranks
        batch = self._batch(
            picks[mine], observed, novel_views, changes.part(mine), draw, is_calibrated
        )
        return replace(batch, seed=int(rng.integers(2**31)) + rank)

    def _batch(
        self,
        picks: np.ndarray,
        observed: np.ndarray,
        novel: np.ndarray,
        changes: "_Changes",
        draw: Draw,
        is_calibrated: bool,
    ) -> Batch:
        samples = torch.from_numpy(picks)
        changes = changes.to(self.device)
        reference = self._take("reference_from_cam", samples, torch.from_numpy(observed[:, :1]))
        seen, unseen = torch.from_numpy(observed), torch.from_numpy(novel)
        pictures = self.pool.parts["rgb"].shape[1]
        has_pictures = novel.size > 0 and novel.max() < pictures
        mountings = changes.mountings(self._take("rig_from_cam", samples, seen))
        targets = self._targets(samples, seen, reference, changes)
        targets = replace(targets, ground=on_ground(targets, mountings))
        cameras = self._cameras(targets, changes.tilted(mountings), is_calibrated)
        unseen_targets, novel_cameras = None, None
        if novel.size:
            unseen_targets = self._targets(samples, unseen, reference, changes)
            poses = mountings[:, :1] @ unseen_targets.world_from_cam
            unseen_targets = replace(unseen_targets, ground=on_ground(unseen_targets, poses))
            told = changes.tilted(poses), changes.tilted(mountings[:, :1])
            novel_cameras = self._cameras(unseen_targets, told[0], is_calibrated, told[1])
        return Batch(
            images=changes.pictures(self._take("rgb", samples, seen)),
            is_rig=draw.kind == "surround",
            is_calibrated=is_calibrated,
            observed=targets,
            novel=unseen_targets,
            novel_images=(
                changes.pictures(self._take("rgb", samples, unseen)) if has_pictures else None
            ),
            cameras=cameras,
            novel_cameras=novel_cameras,
            samples=tuple(picks.tolist()),
        )

    def _cameras(
        self,
        targets: Targets,
        rig_from_cam: Float[Tensor, "B V 4 4"],
        is_known: bool,
        rig_from_reference: Float[Tensor, "B 1 4 4"] | None = None,
    ) -> KnownCameras:
        K = centred_pinhole(targets.focal_px, *self.recipe.picture)
        known = torch.full(K.shape[:2], is_known, device=K.device)
        return KnownCameras(K, rig_from_cam, known, rig_from_reference)

    def _take(self, name: str, samples: Tensor, views: Tensor) -> Tensor:
        taken = self.pool.take(name, samples, views)
        if taken.device.type == "cpu" and self.device.type == "cuda":
            taken = taken.pin_memory()
        return taken.to(self.device, non_blocking=True)

    def _targets(
        self, samples: Tensor, views: Tensor, reference: Tensor, changes: "_Changes"
    ) -> Targets:
        depth = self._take("depth", samples, views).float()
        rays = self._take("rays", samples, views).float()
        poses = rigid.invert(reference) @ self._take("reference_from_cam", samples, views)
        labels = self._labels(samples, views, reference, changes)
        points = changes.points(points_on_rays(rays, depth))
        poses, depth = changes.poses(poses), changes.maps(depth)
        world = rigid.apply(poses, points.flatten(2, 3)).view_as(points)
        return Targets(
            points_world=world,
            points_cam=points,
            valid=(depth > LEAST_DEPTH) & (depth < self.recipe.most_depth),
            sky=depth == 0,
            ground=torch.zeros_like(depth, dtype=torch.bool),
            world_from_cam=poses,
            focal_px=self._take("focal_px", samples, views),
            labels=labels,
        )

    def _labels(
        self, samples: Tensor, views: Tensor, reference: Tensor, changes: "_Changes"
    ) -> ViewLabels | None:
        pictures = self.pool.parts["rgb"].shape[1]
        if not self.pool.with_labels or int(views.max()) >= pictures:
            return None
        semantics, instance, normal, centres = (
            self._take(name, samples, views) for name in LABELS
        )
        reference_from_sample = rigid.invert(reference)
        rotation = reference_from_sample[:, :, None, :3, :3]
        centres = rigid.apply(reference_from_sample, centres.float())
        return ViewLabels(
            semantics=changes.maps(semantics).long(),
            instance=changes.maps(instance).long(),
            normal=changes.points(normal.float() / WHOLE_NORMAL @ rotation.transpose(-1, -2)),
            centres=changes.mirrored(centres),
        )


def centred_pinhole(
    focal_px: Float[Tensor, "B V"], height: int, width: int
) -> Float[Tensor, "B V 3 3"]:
    """Return K [px] of rendered pictures, whose principal point is the picture's true centre."""
    K = camera.pinhole(focal_px, height, width)
    K[..., :2, 2] -= 0.5
    return K


def points_on_rays(
    rays: Float[Tensor, "*batch 2"], depth: Float[Tensor, "*batch"]
) -> Float[Tensor, "*batch 3"]:
    """Return camera-frame points [m] from x/z, y/z and depth along z [m]."""
    return torch.cat((rays, torch.ones_like(rays[..., :1])), dim=-1) * depth[..., None]


def on_ground(targets: Targets, rig_from_cam: Float[Tensor, "B V 4 4"]) -> Bool[Tensor, "B V h w"]:
    """Return which surfaces lie near the level ground of the rig.

    Args:
        targets: Where surfaces are; `ground` is not looked at.
        rig_from_cam: Of the same views; origin on the ground [m].
    """
    mounting = rig_from_cam[:, :, None, None]
    above = (mounting[..., 2, :3] * targets.points_cam).sum(dim=-1) + mounting[..., 2, 3]
    reach = targets.points_cam.norm(dim=-1)
    is_low = above.abs() < GROUND_BAND + GROUND_RISE * reach
    return targets.valid & is_low & (reach < FARTHEST_GROUND)


@dataclass(frozen=True)
class _Changes:
    """Random changes of B scenes: colours, mirroring left and right, and what rigs are told."""

    mirror: Bool[Tensor, " B"]
    tilt: Float[Tensor, "B 4 4"]
    """Turns the rig that cameras are told they are mounted on."""
    gain: Float[Tensor, " B"]
    tint: Float[Tensor, "B 3"]
    gamma: Float[Tensor, " B"]

    @classmethod
    def draw(cls, rng: np.random.Generator, scenes: int, tilt: float) -> "_Changes":
        """Draw changes of so many scenes; `tilt` is the spread of roll and pitch [rad]."""
        angles = torch.from_numpy(rng.normal(0, 1, (scenes, 2)) * tilt).float()
        vectors = torch.cat((angles, torch.zeros(scenes, 1)), dim=1)
        return cls(
            torch.from_numpy(rng.random(scenes) < 0.5),
            rigid.turn(vectors),
            torch.from_numpy(rng.uniform(0.7, 1.3, scenes)).float(),
            torch.from_numpy(rng.uniform(0.93, 1.07, (scenes, 3))).float(),
            torch.from_numpy(rng.uniform(0.8, 1.25, scenes)).float(),
        )

    def part(self, picked: slice) -> "_Changes":
        return _Changes(*(value[picked] for value in vars(self).values()))

    def to(self, device: torch.device) -> "_Changes":
        return _Changes(*(value.to(device, non_blocking=True) for value in vars(self).values()))

    def pictures(self, rgb: Tensor) -> Float[Tensor, "B V 3 H W"]:
        """Scale uint8 (B, V, H, W, 3) to [-1, 1] after the changes."""
        images = rgb.permute(0, 1, 4, 2, 3).float() / 255
        gain = self.gain[:, None, None, None, None]
        gamma = self.gamma[:, None, None, None, None]
        images = (images * gain * self.tint[:, None, :, None, None]).clamp(0, 1) ** gamma
        return self.maps(images * 2 - 1)

    def maps(self, maps: Tensor) -> Tensor:
        """Mirror maps whose last axis are columns."""
        pick = self.mirror.view(-1, *(1,) * (maps.dim() - 1))
        return torch.where(pick, maps.flip(-1), maps)

    def _sign(self) -> Float[Tensor, " B"]:
        return torch.where(self.mirror, -1.0, 1.0)

    def points(self, points: Float[Tensor, "B V h w 3"]) -> Float[Tensor, "B V h w 3"]:
        """Mirror points [m] or directions, and the maps that hold them."""
        axes = self.mirrored(points).unbind(-1)
        return torch.stack([self.maps(axis) for axis in axes], dim=-1)

    def mirrored(self, points: Float[Tensor, "B V *rest 3"]) -> Float[Tensor, "B V *rest 3"]:
        """Mirror points [m] in a list."""
        x, y, z = points.unbind(-1)
        return torch.stack((x * self._sign().view(-1, *(1,) * (x.dim() - 1)), y, z), dim=-1)

    def mountings(self, rig_from_cam: Float[Tensor, "B V 4 4"]) -> Float[Tensor, "B V 4 4"]:
        """Mirror y of the rig and x of the camera."""
        signs = torch.ones(2, len(rig_from_cam), 4, device=rig_from_cam.device)
        signs[0, :, 1] = signs[1, :, 0] = self._sign()
        return signs[0, :, None, :, None] * rig_from_cam * signs[1, :, None, None, :]

    def tilted(self, rig_from_cam: Float[Tensor, "B V 4 4"]) -> Float[Tensor, "B V 4 4"]:
        """Return mountings on the rig that the network is told of."""
        return self.tilt[:, None] @ rig_from_cam

    def poses(self, poses: Float[Tensor, "B V 4 4"]) -> Float[Tensor, "B V 4 4"]:
        """Mirror x in both frames: S T S with S = diag(-1, 1, 1, 1)."""
        x = torch.ones(len(poses), 4, device=poses.device)
        x[:, 0] = self._sign()
        return x[:, None, :, None] * poses * x[:, None, None, :]
