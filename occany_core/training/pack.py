# SPDX-License-Identifier: Apache-2.0
"""Training data: rendered street samples at network size, packed into shards on disk.

A sample is one world: the pictures of a surround rig at two instants and of its front camera at
three more (15 views), and the depth of 18 views that nobody photographed. Depth is kept at the
centres of 4 x 4 blocks, where the convolutional point head predicts. Shards are folders of plain
`.npy` files, written atomically.
"""

import logging
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from occany_core.errors import InputError
from occany_core.images import fit
from occany_core.synthetic.samples import Sample

logger = logging.getLogger(__name__)

RENDER_HEIGHT, RENDER_WIDTH = 112, 192
"""Size at which worlds are rendered [px]."""
BLOCK = 4
"""Depth is kept once per block of this many pixels."""
SAMPLES_PER_SHARD = 32


@dataclass(frozen=True)
class Pack:
    """Samples at network size. S samples, V pictures, A >= V views with depth, h w blocks."""

    rgb: np.ndarray
    """(S, V, H, W, 3) uint8."""
    depth: np.ndarray
    """(S, A, h, w) float16 [m]; 0 where no surface is hit."""
    rays: np.ndarray
    """(S, A, h, w, 2) float16: x/z and y/z of the depth samples."""
    focal_px: np.ndarray
    """(S, A) float32 at network size."""
    reference_from_cam: np.ndarray
    """(S, A, 4, 4) float32; reference = front camera at the first instant [m]."""

    def __len__(self) -> int:
        return len(self.rgb)


def pack_samples(samples: Iterable[Sample], height: int, width: int, folder: Path) -> None:
    """Bring rendered samples to network size and write them as shards.

    Args:
        samples: Rendered worlds.
        height: Of the network's picture [px].
        width: Of the network's picture [px].
        folder: Where shards go; existing shards stay.
    """
    folder.mkdir(parents=True, exist_ok=True)
    held: list[dict[str, np.ndarray]] = []
    for sample in samples:
        held.append(_at_network_size(sample, height, width))
        if len(held) == SAMPLES_PER_SHARD:
            _write_shard(folder, held)
            held = []
    if held:
        _write_shard(folder, held)


def _at_network_size(sample: Sample, height: int, width: int) -> dict[str, np.ndarray]:
    pictures = [fit(picture, height, width) for picture in sample.rgb]
    _, scale, left, top = pictures[0]
    columns = _source_pixels(width, scale, left)
    rows = _source_pixels(height, scale, top)
    K = sample.K
    x = (columns[None, None, :] - K[:, 0, 2, None, None]) / K[:, 0, 0, None, None]
    y = (rows[None, :, None] - K[:, 1, 2, None, None]) / K[:, 1, 1, None, None]
    rays = np.stack(np.broadcast_arrays(x, y), axis=-1)
    return {
        "rgb": np.stack([picture for picture, *_ in pictures]),
        "depth": sample.depth[:, rows[:, None], columns[None, :]].astype(np.float16),
        "rays": rays.astype(np.float16),
        "focal_px": (K[:, 0, 0] * scale).astype(np.float32),
        "reference_from_cam": sample.reference_from_cam.astype(np.float32),
    }


def _source_pixels(length: int, scale: float, offset: int) -> np.ndarray:
    """Return the rendered pixel nearest to the centre of each block of the fitted picture."""
    centres = np.arange(length // BLOCK) * BLOCK + (BLOCK - 1) / 2
    return np.rint((centres + offset + 0.5) / scale - 0.5).astype(np.int64)


def _write_shard(folder: Path, samples: list[dict[str, np.ndarray]]) -> None:
    name = f"shard_{len(list(folder.glob('shard_*'))):05d}"
    unfinished = folder / f".{name}"
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir()
    for key in samples[0]:
        np.save(unfinished / f"{key}.npy", np.stack([sample[key] for sample in samples]))
    unfinished.rename(folder / name)
    logger.info("%s: %d samples", folder / name, len(samples))


def shard_folders(folder: Path) -> Iterator[Path]:
    """List finished shards in order."""
    return iter(sorted(folder.glob("shard_*")))


def load_pack(folder: Path) -> Pack:
    """Read all shards of a folder into memory.

    Raises:
        InputError: The folder holds no shard.
    """
    shards = list(shard_folders(folder))
    if not shards:
        raise InputError(
            f"{folder} holds no training shards; run `occany train tiny` to render them"
        )
    return Pack(
        **{
            field.name: np.concatenate([np.load(shard / f"{field.name}.npy") for shard in shards])
            for field in fields(Pack)
        }
    )
