# SPDX-License-Identifier: Apache-2.0
"""Training samples at network size, and the shards on disk that hold them.

A sample is one world: the pictures of a surround rig at two instants and of its front camera at
three more (15 views), and the depth of 18 views that nobody photographed. Depth is kept once per
block of pixels, at its centre. Shards are folders of plain `.npy` files, complete or absent.
"""

import shutil
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np

from occany_core.errors import InputError
from occany_core.images import fit
from occany_core.synthetic.samples import Sample


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

    @staticmethod
    def joined(packs: "list[Pack]") -> "Pack":
        """Concatenate packs."""
        names = [field.name for field in fields(Pack)]
        return Pack(**{n: np.concatenate([getattr(p, n) for p in packs]) for n in names})


def pack_sample(sample: Sample, height: int, width: int, block: int) -> Pack:
    """Bring one rendered world to network size.

    Args:
        sample: The world.
        height: Of the network's pictures [px].
        width: Of the network's pictures [px].
        block: Side of the blocks that keep one depth [px].
    """
    pictures = [fit(picture, height, width) for picture in sample.rgb]
    _, scale, left, top = pictures[0]
    columns = _source_pixels(width, block, scale, left)
    rows = _source_pixels(height, block, scale, top)
    K = sample.K
    x = (columns[None, None, :] - K[:, 0, 2, None, None]) / K[:, 0, 0, None, None]
    y = (rows[None, :, None] - K[:, 1, 2, None, None]) / K[:, 1, 1, None, None]
    rays = np.stack(np.broadcast_arrays(x, y), axis=-1)
    parts = {
        "rgb": np.stack([picture for picture, *_ in pictures]),
        "depth": sample.depth[:, rows[:, None], columns[None, :]].astype(np.float16),
        "rays": rays.astype(np.float16),
        "focal_px": (K[:, 0, 0] * scale).astype(np.float32),
        "reference_from_cam": sample.reference_from_cam.astype(np.float32),
    }
    return Pack(**{name: part[None] for name, part in parts.items()})


def _source_pixels(length: int, block: int, scale: float, offset: int) -> np.ndarray:
    """Return the rendered pixel nearest to the centre of each block of the fitted picture."""
    centres = np.arange(length // block) * block + (block - 1) / 2
    return np.rint((centres + offset + 0.5) / scale - 0.5).astype(np.int64)


def write_shard(pack: Pack, folder: Path) -> None:
    """Write samples as one folder that is complete as soon as it is there."""
    unfinished = folder.with_name(f".{folder.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    for name, array in vars(pack).items():
        np.save(unfinished / f"{name}.npy", array)
    unfinished.rename(folder)


def read_shard(folder: Path) -> Pack:
    """Read one shard.

    Raises:
        InputError: A file is missing or damaged.
    """
    try:
        arrays = {field.name: np.load(folder / f"{field.name}.npy") for field in fields(Pack)}
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"the shard {folder} cannot be read: {error}; delete it") from error
    if len({len(array) for array in arrays.values()}) != 1:
        raise InputError(f"the files of {folder} hold different numbers of samples; delete it")
    return Pack(**arrays)


def bad_samples(pack: Pack) -> np.ndarray:
    """Return which samples cannot be trained on, (S,) bool.

    They hold a number that is not finite, a negative depth, or no surface at all.
    """
    bad = np.zeros(len(pack), dtype=bool)
    for array in (pack.depth, pack.rays, pack.focal_px, pack.reference_from_cam):
        bad |= ~np.isfinite(array).reshape(len(pack), -1).all(axis=1)
    depth = pack.depth.reshape(len(pack), -1)
    return bad | (depth < 0).any(axis=1) | ~(depth > 0).any(axis=1)


def shard_folders(folder: Path) -> list[Path]:
    """List finished shards in order."""
    return sorted(folder.glob("shard_*"))
