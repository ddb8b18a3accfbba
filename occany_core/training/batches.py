# SPDX-License-Identifier: Apache-2.0
"""Batches: which views are observed together, and their targets in the reference frame.

`B` scenes, `V` observed views, `R` rendered (novel) views, h w depth blocks. Points in metres.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from occany_core import rigid
from occany_core.training.pack import Pack

SURROUND = [0, 1, 2, 3, 4, 5]
SURROUND_LATER = [6, 7, 8, 9, 10, 11]
FRONT = [0, 6, 12, 13, 14]
NOVEL_AROUND_SURROUND = range(15, 27)
NOVEL_AROUND_FRONT = range(27, 33)
NOVEL_PER_CAMERA = 2
SURROUND_WORLD_WEIGHT = 0.0
"""Where the cameras of a rig look is hard to guess and drowned the depth in this budget; rigs come
with calibration."""
MAX_DEPTH = 80.0
"""Targets beyond are not supervised [m]."""


@dataclass(frozen=True)
class Targets:
    """Where the depth samples of some views are."""

    points_world: Float[Tensor, "B V h w 3"]
    points_cam: Float[Tensor, "B V h w 3"]
    valid: Bool[Tensor, "B V h w"]
    """A surface was hit within `MAX_DEPTH`."""
    sky: Bool[Tensor, "B V h w"]
    """Nothing was hit."""


@dataclass(frozen=True)
class Batch:
    """Observed views with targets, and novel views with poses and targets."""

    images: Float[Tensor, "B V 3 H W"]
    world_weight: float
    """Weight of errors in the reference frame."""
    is_calibrated: bool
    """Whether rendering starts from points on true rays and poses."""
    observed: Targets
    observed_world_from_cam: Float[Tensor, "B V 4 4"]
    focal_px: Float[Tensor, "B V"]
    novel: Targets | None
    novel_world_from_cam: Float[Tensor, "B R 4 4"] | None
    novel_focal_px: Float[Tensor, "B R"] | None


def _choose_views(kind: str, num_views: int, rng: np.random.Generator) -> list[int]:
    """Return pack indices of the observed views; the first is the reference."""
    if kind == "single":
        return [int(rng.integers(15))]
    if kind == "surround":
        return list(SURROUND if rng.random() < 0.5 else SURROUND_LATER)
    start = int(rng.integers(len(FRONT) - num_views + 1))
    return FRONT[start : start + num_views]


class BatchSampler:
    """Draws batches from a pack; all its randomness comes from one seeded generator."""

    def __init__(self, pack: Pack, seed: int) -> None:
        self.pack = pack
        self.rng = np.random.default_rng(seed)

    def draw(self, kind: str, scenes: int, num_views: int, num_novel: int = 0) -> Batch:
        """Draw one batch.

        Args:
            kind: `single` (any camera), `sequence` (front camera) or `surround` (whole rig).
            scenes: Number of scenes B.
            num_views: Observed views of a sequence; fixed for the other kinds.
            num_novel: Novel views R around the observed ones; 0 for none.
        """
        picks = self.rng.integers(len(self.pack), size=scenes)
        observed = [_choose_views(kind, num_views, self.rng) for _ in picks]
        novel = []
        if num_novel:
            observed, novel = self._with_novel(kind, observed, num_novel)
        mirror = torch.from_numpy(self.rng.random(scenes) < 0.5)
        reference = torch.from_numpy(
            self.pack.reference_from_cam[picks, [views[0] for views in observed]]
        )
        rgb = self.pack.rgb[picks[:, None], np.array(observed)]
        images = _mirrored(self._augmented(torch.from_numpy(rgb)), mirror, axis=-1)
        targets, poses, focal = self._targets(picks, observed, reference, mirror)
        novel_parts = self._targets(picks, novel, reference, mirror) if num_novel else (None,) * 3
        is_rig = kind == "surround"
        weight = SURROUND_WORLD_WEIGHT if is_rig else 1.0
        is_calibrated = is_rig or self.rng.random() < 0.5
        return Batch(images, weight, is_calibrated, targets, poses, focal, *novel_parts)

    def _with_novel(
        self, kind: str, observed: list[list[int]], num_novel: int
    ) -> tuple[list[list[int]], list[list[int]]]:
        """Choose novel views near the observed ones; a single view has `NOVEL_PER_CAMERA`."""
        if kind == "sequence":
            around = [NOVEL_AROUND_FRONT] * len(observed)
        elif kind == "surround":
            observed = [list(SURROUND) for _ in observed]
            around = [NOVEL_AROUND_SURROUND] * len(observed)
        else:
            observed = [[int(self.rng.integers(len(SURROUND)))] for _ in observed]
            around = [NOVEL_AROUND_SURROUND[camera :: len(SURROUND)] for (camera,) in observed]
            num_novel = NOVEL_PER_CAMERA
        novel = [list(self.rng.choice(near, num_novel, replace=False)) for near in around]
        return observed, novel

    def _augmented(self, rgb: Tensor) -> Float[Tensor, "B V 3 H W"]:
        """Scale to [-1, 1] after a random gain, contrast and tint per scene."""
        images = rgb.permute(0, 1, 4, 2, 3).float() / 255
        scenes = len(images)
        gain = torch.from_numpy(self.rng.uniform(0.7, 1.3, (scenes, 1, 1, 1, 1))).float()
        tint = torch.from_numpy(self.rng.uniform(0.93, 1.07, (scenes, 1, 3, 1, 1))).float()
        gamma = torch.from_numpy(self.rng.uniform(0.8, 1.25, (scenes, 1, 1, 1, 1))).float()
        return (images * gain * tint).clamp(0, 1) ** gamma * 2 - 1

    def _targets(
        self, picks: np.ndarray, views: list[list[int]], reference: Tensor, mirror: Tensor
    ) -> tuple[Targets, Tensor, Tensor]:
        where = (picks[:, None], np.array(views))
        depth = torch.from_numpy(self.pack.depth[where]).float()
        rays = torch.from_numpy(self.pack.rays[where]).float()
        world_from_cam = rigid.invert(reference)[:, None] @ torch.from_numpy(
            self.pack.reference_from_cam[where]
        )
        points = torch.cat((rays, torch.ones_like(rays[..., :1])), dim=-1) * depth[..., None]
        flip = torch.where(mirror, -1.0, 1.0)
        points = _mirrored(points, mirror, axis=-2)
        points[..., 0] *= flip[:, None, None, None]
        # Mirroring x in both frames: S T S with S = diag(-1, 1, 1, 1).
        sign = torch.ones(len(picks), 4)
        sign[:, 0] = flip
        world_from_cam = sign[:, None, :, None] * world_from_cam * sign[:, None, None, :]
        world = rigid.apply(world_from_cam, points.flatten(2, 3)).view_as(points)
        depth = _mirrored(depth, mirror, axis=-1)
        valid = (depth > 0.3) & (depth < MAX_DEPTH)
        focal = torch.from_numpy(self.pack.focal_px[where])
        return Targets(world, points, valid, depth == 0), world_from_cam, focal


def _mirrored(maps: Tensor, mirror: Tensor, axis: int) -> Tensor:
    """Flip one axis of the scenes marked by `mirror`."""
    pick = mirror.view(-1, *(1,) * (maps.dim() - 1))
    return torch.where(pick, maps.flip(axis), maps)
