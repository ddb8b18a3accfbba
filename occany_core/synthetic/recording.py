# SPDX-License-Identifier: Apache-2.0
"""Makes the bundled recordings: seed -> ROS 2 bag of a six-camera drive with voxel truth.

`python -m occany_core.synthetic.recording OUT --seed N` writes OUT/surround/ (rosbag2, MCAP) and
OUT/surround_truth.npz; with `--sequence N` also OUT/sequence/, pictures of a front camera. The
bag needs the package rosbags (extra `bags`); topics and frames stand in `bag_writer.py`.
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from occany_core.errors import InputError, OccAnyError
from occany_core.synthetic.bag_writer import ViewSet, jpeg, stamp_of, write_bag
from occany_core.synthetic.occupancy import OCC3D_GRID, seen_cells, voxel_classes
from occany_core.synthetic.renderer import render
from occany_core.synthetic.rigs import RigCamera, named_rig
from occany_core.synthetic.samples import TOO_CLOSE_SHARE, is_blocked
from occany_core.synthetic.scene import Scene
from occany_core.synthetic.world import StreetWorld

FIRST_SEED = 2_000_000  # training and evaluation seeds stay below
SETS, SET_INTERVAL = 15, 0.4  # seconds
SURROUND_SIZE = (256, 144)
SEQUENCE_FRAMES, SEQUENCE_INTERVAL = 6, 0.5  # seconds
SEQUENCE_SIZE = (384, 216)


@dataclass(frozen=True)
class RecordingTruth:
    """Truth of a recording: T view sets on `OCC3D_GRID` in base_link at each stamp.

    stamps (T,) int64 nanoseconds; semantics (T,200,200,16) uint8, 17 = free; mask_camera
    (T,200,200,16) bool; origin (3,) and resolution in metres.
    """

    stamps: np.ndarray
    semantics: np.ndarray
    mask_camera: np.ndarray
    origin: np.ndarray
    resolution: float


def drive(
    seed: int, rig: list[RigCamera], times: np.ndarray, size: tuple[int, int]
) -> Iterator[ViewSet]:
    """Renders a rig at each of the given times (seconds); size is (width, height).

    Raises InputError when a camera runs into something.
    """
    width, height = size
    world = StreetWorld(seed)
    scene = Scene(world)
    K = torch.tensor(np.stack([camera.K for camera in rig])).float()
    for index, second in enumerate(times):
        world_from_rig = world.ego_poses([second])[0]
        poses = np.stack([world_from_rig @ camera.rig_from_cam for camera in rig])
        world_from_cam = torch.tensor(poses).float()
        seconds = torch.full((len(rig),), float(second))
        frames = render(scene, K, world_from_cam, seconds, height, width, noise_seed=index)
        if is_blocked(frames.depth, TOO_CLOSE_SHARE):
            raise InputError(f"seed {seed} blocks a camera at {second:.1f} s; take another seed")
        yield ViewSet(
            seconds=float(second),
            rgb=frames.rgb_uint8().numpy(),
            semantics=voxel_classes(world, float(second), world_from_rig),
            mask_camera=seen_cells(frames.depth, frames.rays, world_from_cam, world_from_rig),
        )


def write_surround(folder: Path, seed: int, sets: int = SETS) -> None:
    """Writes folder/surround (bag) and folder/surround_truth.npz.

    Raises InputError when the bag exists already, rosbags is missing or the seed is unusable.
    """
    bag, truth = folder / "surround", folder / "surround_truth.npz"
    _require_absent(bag)
    rig = named_rig("surround6", *SURROUND_SIZE)
    view_sets = list(drive(seed, rig, np.arange(sets) * SET_INTERVAL, SURROUND_SIZE))
    folder.mkdir(parents=True, exist_ok=True)
    write_bag(bag, rig, view_sets)
    write_truth(truth, view_sets)


def write_sequence(folder: Path, seed: int) -> None:
    """Writes folder/sequence/0000.jpg ... of a front camera; raises InputError if it exists."""
    target = folder / "sequence"
    _require_absent(target)
    rig = named_rig("front", *SEQUENCE_SIZE)
    times = np.arange(SEQUENCE_FRAMES) * SEQUENCE_INTERVAL
    pictures = [jpeg(view_set.rgb[0]) for view_set in drive(seed, rig, times, SEQUENCE_SIZE)]
    target.mkdir(parents=True)
    for index, picture in enumerate(pictures):
        (target / f"{index:04d}.jpg").write_bytes(picture)


def write_truth(path: Path, view_sets: list[ViewSet]) -> None:
    """Compressed npz; the mask is stored as bits, least significant first, along z."""
    masks = np.stack([view_set.mask_camera for view_set in view_sets])
    np.savez_compressed(
        path,
        stamps=np.array([stamp_of(view_set.seconds) for view_set in view_sets], np.int64),
        semantics=np.stack([view_set.semantics for view_set in view_sets]),
        mask_camera_bits=np.packbits(masks, axis=-1, bitorder="little"),
        origin=np.array(OCC3D_GRID.origin),
        resolution=np.array(OCC3D_GRID.resolution),
    )


def read_truth(path: str | Path) -> RecordingTruth:
    """Reads what `write_truth` wrote; raises InputError when the file is missing or different."""
    try:
        with np.load(path) as stored:
            semantics = stored["semantics"]
            bits = np.unpackbits(stored["mask_camera_bits"], axis=-1, bitorder="little")
            return RecordingTruth(
                stamps=stored["stamps"],
                semantics=semantics,
                mask_camera=bits[..., : semantics.shape[-1]].astype(bool),
                origin=stored["origin"],
                resolution=float(stored["resolution"]),
            )
    except (OSError, KeyError, ValueError) as error:
        raise InputError(
            f"{path} is not the truth of a recording ({error}); make it anew with"
            " python -m occany_core.synthetic.recording"
        ) from error


def _require_absent(path: Path) -> None:
    if path.exists():
        raise InputError(f"{path} exists already; remove it or choose another folder")


def main(arguments: list[str] | None = None) -> int:
    """Command line of `python -m occany_core.synthetic.recording`; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m occany_core.synthetic.recording",
        description="Render the bundled recordings.",
    )
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to write into")
    parser.add_argument("--seed", type=int, required=True, help="world of the surround bag")
    parser.add_argument("--sequence", type=int, metavar="SEED", help="also write OUT/sequence")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # on pictures this small more threads only cost time
    try:
        write_surround(options.out, options.seed)
        if options.sequence is not None:
            write_sequence(options.out, options.sequence)
    except OccAnyError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
