# SPDX-License-Identifier: Apache-2.0
"""Training samples at network size, and the shards on disk that hold them.

A sample is one world: the pictures of a surround rig at two instants and of its front camera at
three more (15 views), and the depth of 18 views that nobody photographed. Depth is kept once per
block of pixels, at its centre. Labels, for segmentation, are optional. Shards are folders of plain
`.npy` files, complete or absent.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from occany_core.errors import InputError
from occany_core.images import fit
from occany_core.synthetic.samples import Sample

LABEL_BLOCK = 2
"""Side of the pixel blocks that keep one label each [px]."""
MOST_INSTANCES = 255
"""Of one sample; those that are seen least are left out, as if they were ground."""
WHOLE_NORMAL = 127
"""How a component of 1 is stored."""
MEASURED = ("rgb", "depth", "rays", "focal_px", "reference_from_cam", "rig_from_cam")
LABELS = ("semantics", "instance", "normal", "centres")


@dataclass(frozen=True)
class Pack:
    """Samples at network size. S samples, V pictures, A >= V views with depth, h w blocks.

    The labels of the pictures, H/2 x W/2 of them, are there together or not at all.
    """

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
    rig_from_cam: np.ndarray
    """(S, V, 4, 4) float32; where the camera of each picture is mounted [m]."""
    semantics: np.ndarray | None = None
    """(S, V, H/2, W/2) uint8 `SemanticClass`."""
    instance: np.ndarray | None = None
    """(S, V, H/2, W/2) uint8; 0 where ground or sky."""
    normal: np.ndarray | None = None
    """(S, V, H/2, W/2, 3) int8, 127 for 1; reference frame, 0 in the sky."""
    centres: np.ndarray | None = None
    """(S, V, 256, 3) float16: where instances stand when a view is taken, reference frame [m]."""

    def __len__(self) -> int:
        return len(self.rgb)

    @property
    def has_labels(self) -> bool:
        """Whether segmentation can be trained on it."""
        return self.semantics is not None

    def parts(self) -> dict[str, np.ndarray]:
        """Return the arrays that are there, by name."""
        return {name: array for name, array in vars(self).items() if array is not None}

    @staticmethod
    def joined(packs: "list[Pack]") -> "Pack":
        """Concatenate packs, with or without labels."""
        names = list(packs[0].parts())
        return Pack(**{n: np.concatenate([getattr(p, n) for p in packs]) for n in names})


def pack_sample(
    sample: Sample, height: int, width: int, block: int, *, with_labels: bool = False
) -> Pack:
    """Bring one rendered world to network size.

    Args:
        sample: The world.
        height: Of the network's pictures [px].
        width: Of the network's pictures [px].
        block: Side of the blocks that keep one depth [px].
        with_labels: Whether segmentation is to be trained.
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
        "rig_from_cam": sample.rig_from_cam.astype(np.float32),
    }
    if with_labels:
        rows = _source_pixels(height, LABEL_BLOCK, scale, top)
        columns = _source_pixels(width, LABEL_BLOCK, scale, left)
        parts |= _labels(sample, rows, columns)
    return Pack(**{name: part[None] for name, part in parts.items()})


def _labels(sample: Sample, rows: np.ndarray, columns: np.ndarray) -> dict[str, np.ndarray]:
    """Take the labels of some rendered pixels; instances are numbered anew, most seen first."""
    where = np.s_[:, rows[:, None], columns[None, :]]
    instance = sample.instance[where]
    cells = np.bincount(instance.ravel(), minlength=sample.centres.shape[1])
    cells[0] = 0
    order = np.argsort(-cells, kind="stable")[:MOST_INSTANCES]
    kept = order[cells[order] > 0]
    new = np.zeros(len(cells), np.uint8)
    new[kept] = np.arange(1, len(kept) + 1)
    centres = np.zeros((len(instance), MOST_INSTANCES + 1, 3), np.float16)
    centres[:, 1 : len(kept) + 1] = sample.centres[:, kept]
    return {
        "semantics": sample.semantics[where],
        "instance": new[instance],
        "normal": np.rint(sample.normal[where] * WHOLE_NORMAL).astype(np.int8),
        "centres": centres,
    }


def _source_pixels(length: int, block: int, scale: float, offset: int) -> np.ndarray:
    """Return the rendered pixel nearest to the centre of each block of the fitted picture."""
    centres = np.arange(length // block) * block + (block - 1) / 2
    return np.rint((centres + offset + 0.5) / scale - 0.5).astype(np.int64)


def write_shard(pack: Pack, folder: Path) -> None:
    """Write samples as one folder that is complete as soon as it is there."""
    unfinished = folder.with_name(f".{folder.name}")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    for name, array in pack.parts().items():
        np.save(unfinished / f"{name}.npy", array)
    unfinished.rename(folder)


def read_shard(folder: Path) -> Pack:
    """Read one shard, with its labels where it has them.

    Raises:
        InputError: A file is missing or damaged.
    """
    has_labels = any((folder / f"{name}.npy").exists() for name in LABELS)
    names = (*MEASURED, *LABELS) if has_labels else MEASURED
    try:
        arrays = {name: np.load(folder / f"{name}.npy") for name in names}
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
    for array in pack.parts().values():
        if array.dtype.kind != "f":
            continue
        bad |= ~np.isfinite(array).reshape(len(pack), -1).all(axis=1)
    depth = pack.depth.reshape(len(pack), -1)
    return bad | (depth < 0).any(axis=1) | ~(depth > 0).any(axis=1)


def shard_folders(folder: Path) -> list[Path]:
    """List finished shards in order."""
    return sorted(folder.glob("shard_*"))
