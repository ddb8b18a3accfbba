# SPDX-License-Identifier: Apache-2.0
"""SynthOcc as files in the layout of Occ3D-nuScenes: annotations.json, imgs/, gts/.

A scene has five samples 0.5 s apart, each with six cameras and labels, so it serves all three
settings: "surround" is the first sample, "sequence" its front camera in all five, "monocular" in
the first. World frame: x forward at the start, y left, z up, metres; quaternions are w, x, y, z.
"""

import json
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from occany_core.synthetic.bag_writer import quaternion_of
from occany_core.synthetic.lidar import scan
from occany_core.synthetic.occupancy import seen_cells, voxel_classes
from occany_core.synthetic.renderer import Frames, render
from occany_core.synthetic.rigs import RigCamera, named_rig
from occany_core.synthetic.scene import Scene
from occany_core.synthetic.synthocc import FRAME_INTERVAL, SEQUENCE_FRAMES
from occany_core.synthetic.world import StreetWorld

START_MICROSECONDS = 1_700_000_000_000_000
LIDAR_BEAMS = 64
JPEG_QUALITY = 92


def write_table(folder: Path, scenes: dict[str, dict]) -> None:
    """Writes annotations.json over the entries that `write_scene` returned, all for validation."""
    table = {"train_split": [], "val_split": sorted(scenes), "scene_infos": scenes}
    (folder / "annotations.json").write_text(json.dumps(table, indent=1))


def write_scene(
    folder: Path, name: str, seed: int, size: tuple[int, int], device: str | torch.device = "cpu"
) -> dict[str, dict]:
    """Writes pictures and labels of one seed; returns its samples for `write_table`, by token.

    size is (width, height) of the pictures.
    """
    width, height = size
    world = StreetWorld(seed)
    scene = Scene(world, device)
    rig = named_rig("surround6", width, height)
    tokens = [f"{name}-{index}" for index in range(SEQUENCE_FRAMES)]
    samples = {}
    for index, token in enumerate(tokens):
        second = index * FRAME_INTERVAL
        pose = world.ego_poses([second])[0]
        world_from_cam = np.stack([pose @ camera.rig_from_cam for camera in rig])
        frames = _rendered(scene, rig, world_from_cam, second, size)
        labels = Path("gts") / name / token / "labels.npz"
        _write_labels(folder / labels, scene, pose, second, (frames, world_from_cam))
        pictures = frames.rgb_uint8().cpu().numpy()
        stamp = START_MICROSECONDS + round(second * 1e6)
        samples[token] = {
            "timestamp": stamp,
            "camera_sensor": {
                _sensor(camera.name): _write_picture(folder, token, camera, picture, pose)
                for camera, picture in zip(rig, pictures, strict=True)
            },
            "ego_pose": _as_table(pose),
            "gt_path": str(labels),
            "prev": tokens[index - 1] if index else "",
            "next": tokens[index + 1] if index + 1 < len(tokens) else "",
        }
    return samples


def _rendered(
    scene: Scene,
    rig: list[RigCamera],
    world_from_cam: np.ndarray,
    second: float,
    size: tuple[int, int],
) -> Frames:
    width, height = size
    K = torch.tensor(np.stack([camera.K for camera in rig]), device=scene.device).float()
    seconds = torch.full((len(rig),), second, device=scene.device)
    poses = torch.tensor(world_from_cam, device=scene.device).float()
    return render(scene, K, poses, seconds, height, width)


def _write_labels(
    path: Path,
    scene: Scene,
    world_from_ego: np.ndarray,
    second: float,
    seen: tuple[Frames, np.ndarray],
) -> None:
    """semantics, mask_camera and mask_lidar (200,200,16) uint8."""
    frames, world_from_cam = seen
    turn = scan(scene, world_from_ego, second, LIDAR_BEAMS, scene.world.seed)
    world_from_lidar = torch.eye(4)[None]
    world_from_lidar[0, :3, 3] = turn.origin
    poses = torch.tensor(world_from_cam).float()
    # A beam without a return tells nothing about the cells along it.
    reach = torch.where(torch.isfinite(turn.depth), turn.depth, 0.0)[None]
    by_lidar = seen_cells(reach, turn.rays[None], world_from_lidar, world_from_ego)
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        path,
        semantics=voxel_classes(scene.world, second, world_from_ego),
        mask_camera=seen_cells(frames.depth, frames.rays, poses, world_from_ego).astype(np.uint8),
        mask_lidar=by_lidar.astype(np.uint8),
    )


def _write_picture(
    folder: Path, token: str, camera: RigCamera, picture: np.ndarray, world_from_ego: np.ndarray
) -> dict:
    path = Path("imgs") / _sensor(camera.name) / f"{token}.jpg"
    (folder / path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(folder / path, quality=JPEG_QUALITY, subsampling=0)
    return {
        "img_path": str(path),
        "intrinsics": camera.K.tolist(),
        "extrinsic": _as_table(camera.rig_from_cam),
        "ego_pose": _as_table(world_from_ego),
    }


def _sensor(camera: str) -> str:
    return f"CAM_{camera.upper()}"


def _as_table(rigid: np.ndarray) -> dict[str, list[float]]:
    """A rigid motion (4,4) as translation in metres and rotation w, x, y, z."""
    x, y, z, w = quaternion_of(rigid[:3, :3])
    return {"translation": rigid[:3, 3].tolist(), "rotation": [w, x, y, z]}
