# SPDX-License-Identifier: Apache-2.0
"""SynthOcc, the evaluation set: held-back seeds -> input pictures and dense voxel truth.

Three settings share the same seeds, the rig `surround6` and the ego frame at second 0: "surround"
(six cameras at once), "sequence" (five frames of the front camera, 0.5 s apart) and "monocular"
(its first frame). Truth: Occ3D classes on 200 x 200 x 16 cells of 0.4 m from (-40, -40, -1).
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from occany_core.errors import ConfigError
from occany_core.synthetic.occupancy import OCC3D_GRID, GridFrame, seen_cells, voxel_classes
from occany_core.synthetic.renderer import Frames, render
from occany_core.synthetic.rigs import RigCamera, named_rig
from occany_core.synthetic.samples import TOO_CLOSE_SHARE, is_blocked
from occany_core.synthetic.scene import Scene
from occany_core.synthetic.visibility import cast
from occany_core.synthetic.world import StreetWorld

Setting = Literal["surround", "sequence", "monocular"]
SETTINGS: tuple[Setting, ...] = ("surround", "sequence", "monocular")
FIRST_SEED = 1_000_000  # training seeds stay below
SCENE_COUNT = 100
SEQUENCE_FRAMES = 5
FRAME_INTERVAL = 0.5  # seconds
PICTURE_WIDTH, PICTURE_HEIGHT = 256, 144
_TRIAL_WIDTH, _TRIAL_HEIGHT = 128, 72  # size at which a seed is accepted or rejected


@dataclass(frozen=True)
class InputView:
    """One input picture: rgb (H,W,3) uint8, K (3,3) pixels, rig_from_cam (4,4), stamp in seconds.

    Truth, not an input of a method: world_from_rig (4,4) at the stamp; depth (H,W) float32, exact
    z-depth in metres, inf in the sky; semantics (H,W) uint8 Occ3D class, 17 in the sky; instance
    (H,W) int32, 0 where ground or sky, the same in all views of a scene.
    """

    camera: str
    rgb: np.ndarray
    K: np.ndarray
    rig_from_cam: np.ndarray
    stamp: float
    world_from_rig: np.ndarray
    depth: np.ndarray
    semantics: np.ndarray
    instance: np.ndarray


@dataclass(frozen=True)
class OccupancyScene:
    """Input views and truth of one seed.

    semantics (200,200,16) uint8 Occ3D class, 17 where free; mask_camera bool, the cells that the
    input views of this setting see; both in the ego frame at second 0 on `grid`.
    """

    seed: int
    setting: Setting
    views: list[InputView]
    semantics: np.ndarray
    mask_camera: np.ndarray
    grid: GridFrame


def scene(
    seed: int,
    setting: Setting,
    width: int = PICTURE_WIDTH,
    height: int = PICTURE_HEIGHT,
    device: str | torch.device = "cpu",
) -> OccupancyScene | None:
    """The evaluation scene of a seed, or None when the seed is rejected.

    Rejection does not depend on setting or picture size. Raises ConfigError for a bad setting.
    """
    if setting not in SETTINGS:
        raise ConfigError(f"setting is {setting!r}; it must be one of {', '.join(SETTINGS)}")
    world = StreetWorld(seed)
    street = Scene(world, device)
    if not _is_usable(world, street):
        return None
    cameras, stamps = _cameras(setting, width, height)
    K, world_from_cam, seconds = _tensors(world, cameras, stamps, device)
    frames = render(street, K, world_from_cam, seconds, height, width)
    views = _input_views(frames, cameras, stamps, world.ego_poses(stamps))
    world_from_ego = world.ego_poses([0.0])[0]
    return OccupancyScene(
        seed=seed,
        setting=setting,
        views=views,
        semantics=voxel_classes(world, 0.0, world_from_ego),
        mask_camera=seen_cells(frames.depth, frames.rays, world_from_cam, world_from_ego),
        grid=OCC3D_GRID,
    )


def _input_views(
    frames: Frames, cameras: list[RigCamera], stamps: list[float], poses: np.ndarray
) -> list[InputView]:
    """What each camera shows, with its truth; `poses` (F,4,4) are world_from_rig."""
    rgb, depth = frames.rgb_uint8().cpu().numpy(), frames.depth.cpu().numpy()
    semantics = frames.semantics.cpu().numpy().astype(np.uint8)
    instance = frames.instance.cpu().numpy().astype(np.int32)
    return [
        InputView(
            camera=cam.name,
            rgb=rgb[i],
            K=cam.K,
            rig_from_cam=cam.rig_from_cam,
            stamp=stamps[i],
            world_from_rig=poses[i],
            depth=depth[i],
            semantics=semantics[i],
            instance=instance[i],
        )
        for i, cam in enumerate(cameras)
    ]


def scenes(
    setting: Setting,
    count: int = SCENE_COUNT,
    width: int = PICTURE_WIDTH,
    height: int = PICTURE_HEIGHT,
    device: str | torch.device = "cpu",
) -> Iterator[OccupancyScene]:
    """The first `count` scenes of the set, from seed 1 000 000 upwards, rejected seeds skipped."""
    usable = (scene(seed, setting, width, height, device) for seed in itertools.count(FIRST_SEED))
    return itertools.islice((found for found in usable if found is not None), count)


def usable_seeds(count: int = SCENE_COUNT, device: str | torch.device = "cpu") -> Iterator[int]:
    """The seeds of the first `count` scenes of the set."""
    worlds = (StreetWorld(seed) for seed in itertools.count(FIRST_SEED))
    usable = (world.seed for world in worlds if _is_usable(world, Scene(world, device)))
    return itertools.islice(usable, count)


def _is_usable(world: StreetWorld, street: Scene) -> bool:
    """Whether no camera of any setting stands inside or right before something."""
    size = (_TRIAL_WIDTH, _TRIAL_HEIGHT)
    surround, sequence = _cameras("surround", *size), _cameras("sequence", *size)
    cameras, stamps = surround[0] + sequence[0], surround[1] + sequence[1]
    views = _tensors(world, cameras, stamps, street.device)
    return not is_blocked(cast(street, *views, size[1], size[0]).depth, TOO_CLOSE_SHARE)


def _cameras(setting: Setting, width: int, height: int) -> tuple[list[RigCamera], list[float]]:
    """Cameras and stamps of a setting's input views."""
    rig = named_rig("surround6", width, height)
    if setting == "surround":
        return rig, [0.0] * len(rig)
    count = SEQUENCE_FRAMES if setting == "sequence" else 1
    return rig[:1] * count, [i * FRAME_INTERVAL for i in range(count)]


def _tensors(
    world: StreetWorld, cameras: list[RigCamera], stamps: list[float], device: str | torch.device
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """K (F,3,3), world_from_cam (F,4,4) and seconds (F,) as float32."""
    poses = world.ego_poses(stamps)
    world_from_cam = np.stack([p @ c.rig_from_cam for p, c in zip(poses, cameras, strict=True)])
    return (
        torch.tensor(np.stack([camera.K for camera in cameras]), device=device).float(),
        torch.tensor(world_from_cam, device=device).float(),
        torch.tensor(stamps, device=device),
    )
