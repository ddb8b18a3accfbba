# SPDX-License-Identifier: Apache-2.0
"""What a score is to be held against: no look at the pictures, and exact knowledge of depth.

Grids are boolean, of the shape of the truth, in the rig's frame at second 0; metres.
"""

import dataclasses
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float

from occany_core import camera, rigid
from occany_core.config import VoxelsConfig
from occany_core.synthetic.classes import SemanticClass
from occany_core.synthetic.synthocc import InputView, OccupancyScene
from occany_core.synthetic.synthocc import scene as synthetic_scene
from occany_core.voxels import ViewPoints, fuse

CONSTANT_SCENE = Path(__file__).with_name("constant_scene.npz")
GROUND_LAYER = 2
"""Layer of cells that holds the level ground, -0.2 to 0.2 m: most of what is occupied in a
street."""


def constant_scene() -> Bool[np.ndarray, "200 200 16"]:
    """Return the grid that fits the training worlds best without looking."""
    with np.load(CONSTANT_SCENE) as file:
        shape = tuple(file["shape"])
        return (
            np.unpackbits(file["occupied"], count=int(np.prod(shape))).reshape(shape).astype(bool)
        )


def ground_plane(truth: OccupancyScene) -> Bool[np.ndarray, "X Y Z"]:
    """Return a level road everywhere: the plane z = 0 of the rig, and nothing on it."""
    grid = np.zeros(truth.semantics.shape, bool)
    grid[:, :, GROUND_LAYER] = True
    return grid


def exact_depth(truth: OccupancyScene, voxels: VoxelsConfig) -> Bool[np.ndarray, "X Y Z"]:
    """Return what our fusion makes of the exact depth and poses of the input views.

    It is the upper bound for methods that complete nothing. Ground is not levelled
    (`ground_tolerance`), for there is no error to be levelled; traffic that moves between the
    views leaves traces, as it does for a method.
    """
    exact = dataclasses.replace(voxels, ground_tolerance=0.0)
    grid_from_world = np.linalg.inv(truth.views[0].world_from_rig)
    points = [_exact_points(view, grid_from_world, exact) for view in truth.views]
    return fuse(points, [], exact).occupied


def _exact_points(
    view: InputView, grid_from_world: Float[np.ndarray, "4 4"], voxels: VoxelsConfig
) -> ViewPoints:
    grid_from_cam = grid_from_world @ view.world_from_rig @ view.rig_from_cam
    grid_from_cam = torch.from_numpy(grid_from_cam).float()
    depth = torch.from_numpy(view.depth)
    is_surface = torch.isfinite(depth)
    points = camera.backproject(
        torch.from_numpy(view.K).float(), depth.where(is_surface, voxels.max_range)
    )
    trusted = is_surface & (points.norm(dim=-1) < voxels.max_range)
    in_grid = rigid.apply(grid_from_cam, points.flatten(0, 1)).view_as(points)
    trust = max(voxels.min_confidence, 1.0) + 1
    return ViewPoints(in_grid, trusted.float() * trust, grid_from_cam[:3, 3])


def fit_constant_scene(seeds: Iterable[int]) -> Bool[np.ndarray, "200 200 16"]:
    """Average the truth of training worlds and cut it where the IoU on them is best."""
    occupied, seen = None, None
    for seed in seeds:
        truth = synthetic_scene(seed, "surround")
        if truth is None:
            continue
        hit = (truth.semantics != SemanticClass.FREE) & truth.mask_camera
        occupied = hit.astype(np.int32) if occupied is None else occupied + hit
        seen = truth.mask_camera.astype(np.int32) if seen is None else seen + truth.mask_camera
    frequency = occupied / np.maximum(seen, 1)
    # Expected IoU over the fitted worlds, for every cut between 0.05 and 0.95.
    cuts = np.linspace(0.05, 0.95, 37)
    ious = [
        occupied[frequency >= cut].sum()
        / (occupied.sum() + (seen - occupied)[frequency >= cut].sum())
        for cut in cuts
    ]
    return frequency >= cuts[int(np.argmax(ious))]


def save_constant_scene(grid: Bool[np.ndarray, "200 200 16"]) -> None:
    """Write the baseline that `constant_scene` reads."""
    np.savez_compressed(CONSTANT_SCENE, occupied=np.packbits(grid), shape=np.array(grid.shape))
