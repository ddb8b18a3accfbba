# SPDX-License-Identifier: Apache-2.0
"""Training samples: seed -> 15 rendered views and the exact depth of 18 novel views.

Views: the six cameras of a jittered rig at 0 s and at 0.5 s, then the front camera at 1, 1.5 and
2 s. Novel views: two from each of the first six, then six more along the front camera's path.
Poses are relative to the first view (the reference camera at 0 s).
"""

from dataclasses import dataclass

import numpy as np
import torch

from occany_core.synthetic.lidar import scan, sparse_depth
from occany_core.synthetic.renderer import render
from occany_core.synthetic.rigs import RigCamera, jittered_surround, novel_view_pose
from occany_core.synthetic.scene import Scene
from occany_core.synthetic.teacher import seen_views
from occany_core.synthetic.visibility import cast
from occany_core.synthetic.world import StreetWorld

RIG_SEED_OFFSET = 900_001
FRAME_INTERVAL = 0.5  # seconds
RENDERED_VIEWS = 15
NOVEL_SOURCES = (*range(6), *range(6), 0, 6, 12, 13, 14, 13)
TOO_CLOSE = 1.2  # metres
TOO_CLOSE_SHARE = 0.25  # a view with more pixels nearer than TOO_CLOSE rejects the sample
OCCLUSION_MARGIN = 0.1  # share of depth, and metres, by which a return may lie behind a surface
LEAN = 2.5  # times as strong as usual; what varies little is hardly learnt
FARTHEST_DEPTH = 300.0  # metres; beyond it depth is stored as 0, like the sky


@dataclass(frozen=True)
class Sample:
    """V = 15 rendered views and N = 18 novel views, in this order.

    rgb (V,H,W,3) uint8; depth (V+N,H,W) float16 z-depth in metres, 0 where unknown; K (V+N,3,3)
    float32 pixels; reference_from_cam (V+N,4,4) float32; rig_from_cam (V,4,4) float32, the
    mounting of each rendered view's camera on its vehicle; seconds (V+N,) float32.

    What the segmentation teacher needs of the rendered views: semantics (V,H,W) uint8
    `SemanticClass`; instance (V,H,W) int32, 0 where ground or sky; normal (V,H,W,3) float32,
    reference frame, 0 in the sky; centres (V,I,3) float32, where instance i stands when the view
    is taken, metres, reference frame, row 0 unused.
    """

    rgb: np.ndarray
    depth: np.ndarray
    K: np.ndarray
    reference_from_cam: np.ndarray
    rig_from_cam: np.ndarray
    seconds: np.ndarray
    semantics: np.ndarray
    instance: np.ndarray
    normal: np.ndarray
    centres: np.ndarray


@dataclass
class _Views:
    """Growing list of cameras in the world."""

    K: list[np.ndarray]
    world_from_cam: list[np.ndarray]
    seconds: list[float]

    def tensors(
        self, device: str | torch.device
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        return (
            torch.tensor(np.stack(self.K), device=device).float(),
            torch.tensor(np.stack(self.world_from_cam), device=device).float(),
            torch.tensor(self.seconds, device=device),
        )


def training_sample(
    seed: int, width: int, height: int, device: str | torch.device = "cpu", lidar_beams: int = 0
) -> Sample | None:
    """The sample of a seed, or None when a camera stands inside or right before something.

    With lidar_beams, depth is known only where returns of a roof LiDAR with that many beams, which
    scans at the time of each view, fall.
    """
    world = StreetWorld(seed, LEAN)
    scene = Scene(world, device)
    rng = np.random.default_rng(seed + RIG_SEED_OFFSET)
    rig = jittered_surround(rng, width, height)
    views = _rendered_views(world, rig)
    novel = _novel_views(views, rng)
    frames = render(scene, *views.tensors(device), height, width, noise_seed=seed)
    if is_blocked(frames.depth, TOO_CLOSE_SHARE):
        return None
    novel_depth = cast(scene, *novel.tensors(device), height, width).depth
    depth = torch.cat([frames.depth, novel_depth])
    if lidar_beams:
        depth = _scanned(scene, (views, novel), lidar_beams, depth)
    depth = depth.cpu().numpy()
    known = np.isfinite(depth) & (depth < FARTHEST_DEPTH)
    reference_from_world = np.linalg.inv(views.world_from_cam[0])
    poses = [reference_from_world @ pose for pose in views.world_from_cam + novel.world_from_cam]
    reference = torch.from_numpy(reference_from_world).to(frames.normal)
    seen = seen_views(scene, frames, views.tensors(device)[2], reference)
    return Sample(
        rgb=frames.rgb_uint8().cpu().numpy(),
        depth=np.where(known, depth, 0).astype(np.float16),
        K=np.stack(views.K + novel.K).astype(np.float32),
        reference_from_cam=np.stack(poses).astype(np.float32),
        rig_from_cam=np.stack([c.rig_from_cam for c in _cameras(rig)]).astype(np.float32),
        seconds=np.array(views.seconds + novel.seconds, np.float32),
        semantics=seen.semantics.cpu().numpy().astype(np.uint8),
        instance=seen.instance.cpu().numpy().astype(np.int32),
        normal=seen.normal.cpu().numpy(),
        centres=seen.centres.cpu().numpy(),
    )


def _scanned(
    scene: Scene, views: tuple[_Views, _Views], beams: int, dense: torch.Tensor
) -> torch.Tensor:
    """Depth like `dense` (V+N,H,W), inf where no return falls, and where something hides it."""
    tensors = [group.tensors(scene.device) for group in views]
    K, poses, seconds = (torch.cat(parts) for parts in zip(*tensors, strict=True))
    height, width = dense.shape[1:]
    sparse = torch.full_like(dense, torch.inf)
    for second in sorted({float(second) for second in seconds}):
        pose = scene.world.ego_poses([second])[0]
        points = scan(scene, pose, second, beams, scene.world.seed).points()
        for index in torch.nonzero(seconds == second)[:, 0].tolist():
            sparse[index] = sparse_depth(points, K[index], poses[index], height, width)
    hidden = sparse > dense * (1 + OCCLUSION_MARGIN) + OCCLUSION_MARGIN
    return torch.where(hidden, torch.inf, sparse)


def is_blocked(depth: torch.Tensor, allowed_share: float) -> bool:
    """Whether any view of depth (F,H,W) has more than this share of pixels nearer than 1.2 m."""
    return float((depth < TOO_CLOSE).float().mean((1, 2)).max()) > allowed_share


def _rendered_views(world: StreetWorld, rig: list[RigCamera]) -> _Views:
    poses = world.ego_poses(np.arange(5) * FRAME_INTERVAL)
    cameras, instants = _cameras(rig), [0] * 6 + [1] * 6 + [2, 3, 4]
    return _Views(
        K=[camera.K for camera in cameras],
        world_from_cam=[
            poses[instant] @ camera.rig_from_cam
            for camera, instant in zip(cameras, instants, strict=True)
        ],
        seconds=[FRAME_INTERVAL * instant for instant in instants],
    )


def _cameras(rig: list[RigCamera]) -> list[RigCamera]:
    """The camera of each rendered view."""
    return [*rig, *rig, *rig[:1] * 3]


def _novel_views(views: _Views, rng: np.random.Generator) -> _Views:
    """One moved camera per entry of `NOVEL_SOURCES`, at the time of its source."""
    novel = _Views([], [], [])
    for source in NOVEL_SOURCES:
        novel.world_from_cam.append(novel_view_pose(views.world_from_cam[source], rng))
        novel.K.append(views.K[source])
        novel.seconds.append(views.seconds[source])
    return novel
