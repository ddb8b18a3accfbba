# SPDX-License-Identifier: Apache-2.0
"""`occany synth`: pictures of synthetic streets, and SynthOcc in the file layout of Occ3D."""

import argparse
import math
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from occany_core.checkpoints.store import choose_device
from occany_core.errors import ConfigError, InputError
from occany_core.synthetic.imaging import distorted
from occany_core.synthetic.occ3d_export import write_scene, write_table
from occany_core.synthetic.renderer import render
from occany_core.synthetic.rigs import RIG_NAMES, RigCamera, named_rig
from occany_core.synthetic.scene import Scene
from occany_core.synthetic.synthocc import SCENE_COUNT, usable_seeds
from occany_core.synthetic.world import StreetWorld

NAME = "synth"
HELP = "render synthetic streets, or write SynthOcc as files"
EXAMPLE = "occany synth render 7 -o street"
SEEDS = 2**32
NEAREST_SHADE, FARTHEST_SHADE = 2.0, 80.0  # metres of depth that are white and black in pictures


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the sub-verbs; each has its own options."""
    subverbs = parser.add_subparsers(metavar="WHAT", required=True)
    one = subverbs.add_parser("render", help="pictures, depth and a contact sheet of one seed")
    one.add_argument("seed", type=int, help="which world")
    one.add_argument("--rig", default="surround6", choices=RIG_NAMES)
    one.add_argument("--frames", type=int, default=1, help="moments, 0.5 s apart")
    one.add_argument(
        "--distortion", type=float, nargs=2, metavar=("K1", "K2"), help="bend pictures like a lens"
    )
    _shared_arguments(one, _render)
    one = subverbs.add_parser("export", help="SynthOcc as annotations, pictures and labels")
    one.add_argument("--limit", type=int, default=SCENE_COUNT, help=f"1 to {SCENE_COUNT} scenes")
    _shared_arguments(one, _export)


def _shared_arguments(parser: argparse.ArgumentParser, work: object) -> None:
    parser.add_argument("-o", "--out", type=Path, required=True, metavar="DIR")
    parser.add_argument("--size", type=int, nargs=2, default=(256, 144), metavar=("W", "H"))
    parser.add_argument("--device", default="cpu", help="cpu, cuda, cuda:N or auto")
    parser.add_argument(
        "--debug",
        action="store_true",
        default=argparse.SUPPRESS,  # it may also stand before WHAT
        help="show where a failure comes from",
    )
    parser.set_defaults(work=work)


def run(arguments: argparse.Namespace) -> None:
    """Run the chosen sub-verb.

    Raises:
        ConfigError: A number is out of range, or there is no such device.
        InputError: The folder is a file or holds something already.
    """
    if min(arguments.size) < 16:
        raise ConfigError(f"--size is {tuple(arguments.size)}; both sides must be at least 16")
    arguments.device = choose_device(arguments.device)
    if arguments.out.exists() and not arguments.out.is_dir():
        raise InputError(f"{arguments.out} is not a folder; choose another name for -o")
    if arguments.out.exists() and any(arguments.out.iterdir()):
        raise InputError(f"{arguments.out} is not empty; choose another folder for -o")
    arguments.work(arguments)


def _render(arguments: argparse.Namespace) -> None:
    """Write a picture and a depth file per camera and moment, and sheet.png."""
    if not 0 <= arguments.seed < SEEDS:
        raise ConfigError(f"seed is {arguments.seed}; it must be between 0 and {SEEDS - 1}")
    if arguments.frames < 1:
        raise ConfigError(f"--frames is {arguments.frames}; it must be at least 1")
    if not all(map(math.isfinite, arguments.distortion or ())):
        raise ConfigError(f"--distortion is {arguments.distortion}; both numbers must be finite")
    arguments.out.mkdir(parents=True, exist_ok=True)
    width, height = arguments.size
    rig = named_rig(arguments.rig, width, height)
    world = StreetWorld(arguments.seed)
    scene = Scene(world, arguments.device)
    sheet = []
    for frame in range(arguments.frames):
        rgb, depth = _pictures(scene, rig, 0.5 * frame, arguments)
        for index, camera in enumerate(rig):
            stem = arguments.out / f"{frame:03d}_{camera.name}"
            Image.fromarray(rgb[index]).save(f"{stem}.png")
            np.save(f"{stem}_depth.npy", depth[index])
        sheet.append(np.concatenate([np.concatenate(list(rgb), 1), _shaded(depth)]))
    Image.fromarray(np.concatenate(sheet)).save(arguments.out / "sheet.png")
    count = len(rig) * arguments.frames
    print(f"{count} pictures with depth (.npy, metres) and sheet.png in {arguments.out}")


def _pictures(
    scene: Scene, rig: list[RigCamera], second: float, arguments: argparse.Namespace
) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (C,H,W,3) uint8 and pinhole depth (C,H,W) float32 of all cameras at one moment."""
    width, height = arguments.size
    pose = scene.world.ego_poses([second])[0]
    poses = np.stack([pose @ camera.rig_from_cam for camera in rig])
    K = torch.tensor(np.stack([camera.K for camera in rig]), device=scene.device).float()
    seconds = torch.full((len(rig),), second, device=scene.device)
    world_from_cam = torch.tensor(poses, device=scene.device).float()
    frames = render(scene, K, world_from_cam, seconds, height, width)
    rgb = frames.rgb_uint8()
    if arguments.distortion:
        rgb = (distorted(frames.rgb, K, tuple(arguments.distortion)) * 255).round().byte()
    return rgb.cpu().numpy(), frames.depth.cpu().numpy()


def _shaded(depth: np.ndarray) -> np.ndarray:
    """Depth (C,H,W) as a grey strip (H,C*W,3): near is bright, the sky black."""
    share = np.log(depth.clip(NEAREST_SHADE, FARTHEST_SHADE) / NEAREST_SHADE)
    grey = 255 * (1 - share / np.log(FARTHEST_SHADE / NEAREST_SHADE))
    strip = np.concatenate(list(grey.astype(np.uint8)), 1)
    return np.repeat(strip[..., None], 3, -1)


def _export(arguments: argparse.Namespace) -> None:
    """Write the first scenes of SynthOcc."""
    if not 1 <= arguments.limit <= SCENE_COUNT:
        raise ConfigError(f"--limit is {arguments.limit}; it must be between 1 and {SCENE_COUNT}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    scenes = {}
    for done, seed in enumerate(usable_seeds(arguments.limit, arguments.device)):
        name = f"scene-{seed:07d}"
        size = tuple(arguments.size)
        scenes[name] = write_scene(arguments.out, name, seed, size, arguments.device)
        print(f"\r{done + 1} of {arguments.limit} scenes", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    write_table(arguments.out, scenes)
    print(f"annotations.json, imgs/ and gts/ of {len(scenes)} scenes in {arguments.out}")
