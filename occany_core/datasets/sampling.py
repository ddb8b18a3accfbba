# SPDX-License-Identifier: Apache-2.0
"""Which frames of a data set make up the evaluation samples (evaluation page 3)."""

from collections.abc import Sequence
from typing import Literal, TypeVar

from occany_core.errors import InputError

Setting = Literal["sequence", "monocular"]
Selection = Literal["official_subset", "full"]
Sample = TypeVar("Sample")

FRAMES = {"sequence": 5, "monocular": 1}
"""Pictures of one camera in a sample."""
KITTI_STRIDE = 10
"""Scans between the pictures of a sample: 10 Hz recording, 1 Hz samples."""
KITTI_START_STEP = 5
"""Scans between samples; the standard archive has a voxel grid for each of these."""
KITTI_SPAN = {"sequence": 50, "monocular": 5}
"""Scans that must follow a start, itself included."""
NUSCENES_STRIDE = 2
"""Key frames between the pictures of a sample: 2 Hz key frames, 1 Hz samples."""


def kitti_start_frames(
    scans: int, setting: Setting, selection: Selection = "official_subset"
) -> list[int]:
    """Return the first scan of every SemanticKITTI sample.

    The released program compares scan numbers with the number of voxel files. The standard archive
    has one for every fifth scan, so the published figures come from the first fifth of the
    sequence (`official_subset`); `full` covers all of it.

    Args:
        scans: Scans of the sequence; 4071 in sequence 08.
        setting: How many frames a sample has.
        selection: Which part of the sequence.

    Raises:
        InputError: Unknown setting or selection, or no scans.
    """
    if scans < 1:
        raise InputError(f"a sequence of {scans} scans has no samples; check its folder")
    limits = {"official_subset": -(-scans // KITTI_START_STEP), "full": scans}
    last = _entry(limits, selection, "selection") - _entry(KITTI_SPAN, setting, "setting")
    return list(range(0, last + 1, KITTI_START_STEP))


def kitti_frames(start: int, setting: Setting) -> list[int]:
    """Return the scan numbers of the pictures of a sample (camera 2).

    Raises:
        InputError: Unknown setting.
    """
    count = _entry(FRAMES, setting, "setting")
    return [start + KITTI_STRIDE * index for index in range(count)]


def nuscenes_frames(key_frames: int, setting: Setting) -> list[list[int]]:
    """Return the key-frame numbers of every sample of a nuScenes scene.

    Args:
        key_frames: Key frames of the scene.
        setting: `monocular` also serves surround: one key frame, six cameras.

    Raises:
        InputError: Unknown setting.
    """
    span = NUSCENES_STRIDE * (_entry(FRAMES, setting, "setting") - 1)
    return [
        list(range(start, start + span + 1, NUSCENES_STRIDE))
        for start in range(max(key_frames - span, 0))
    ]


def shard(samples: Sequence[Sample], worker: int, workers: int) -> list[Sample]:
    """Return what one of several workers evaluates: every sample with index % workers == worker.

    Raises:
        InputError: There is no such worker.
    """
    if not 0 <= worker < workers:
        raise InputError(f"worker {worker} of {workers}: count from 0 to {workers - 1}")
    return list(samples[worker::workers])


def _entry(table: dict[str, int], key: str, kind: str) -> int:
    if key not in table:
        raise InputError(f"unknown {kind} {key!r}; choose one of {', '.join(table)}")
    return table[key]
