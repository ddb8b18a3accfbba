# SPDX-License-Identifier: Apache-2.0
"""SemanticKITTI: voxel labels, calibration and poses as arrays (evaluation page 1, 12).

Frames: `velodyne` (x forward, y left, z up; the grid's frame), `cam0` (camera 0), `world`. The
pictures come from camera 2, about 6 cm beside camera 0; the released code ignores that offset, and
so does everything here.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8, UInt16

from occany_core.datasets.class_tables import DatasetClasses, load_classes
from occany_core.errors import InputError

DATASET = "semantic_kitti"
RAW_IDS = 1 << 16
"""Ids of label files are 16 bits wide."""


@dataclass(frozen=True)
class Calibration:
    """What `calib.txt` says."""

    pixels_from_cam0: dict[str, Float[np.ndarray, "3 4"]]
    """Projection of a rectified cam0 point into camera `P0` to `P3` [px]."""
    cam0_from_velodyne: Float[np.ndarray, "4 4"]

    @property
    def intrinsics(self) -> Float[np.ndarray, "3 3"]:
        """Intrinsics of camera 2, whose pictures are used [px]."""
        return self.pixels_from_cam0["P2"][:, :3]

    @property
    def velodyne_from_cam0(self) -> Float[np.ndarray, "4 4"]:
        """Place predictions of the reference camera in the grid's frame."""
        return np.linalg.inv(self.cam0_from_velodyne)


def read_calibration(path: Path) -> Calibration:
    """Read a `calib.txt`.

    Raises:
        InputError: The file is absent, or an entry is missing or broken.
    """
    return parse_calibration(_text(path), str(path))


def parse_calibration(text: str, place: str = "calib.txt") -> Calibration:
    """Read the text of a `calib.txt`; `place` is for messages.

    Raises:
        InputError: An entry is missing or broken.
    """
    entries = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    matrices = {}
    for name in ("P0", "P1", "P2", "P3", "Tr"):
        if name not in entries:
            raise InputError(f"{place}: no entry {name!r}; expected P0 to P3 and Tr")
        matrices[name] = _matrix_3x4(entries[name], f"{place}, entry {name!r}")
    return Calibration(
        {name: matrix for name, matrix in matrices.items() if name != "Tr"},
        _with_last_row(matrices["Tr"]),
    )


def read_poses(path: Path) -> Float[np.ndarray, "N 4 4"]:
    """Read a `poses.txt`: `world_from_cam0` of every scan.

    Raises:
        InputError: The file is absent, empty or broken.
    """
    return parse_poses(_text(path), str(path))


def parse_poses(text: str, place: str = "poses.txt") -> Float[np.ndarray, "N 4 4"]:
    """Read the text of a `poses.txt`; `place` is for messages.

    Raises:
        InputError: There is no pose, or a line is broken.
    """
    lines = [
        _matrix_3x4(line, f"{place}, line {number}")
        for number, line in enumerate(text.splitlines(), 1)
        if line.strip()
    ]
    if not lines:
        raise InputError(f"{place}: no poses; expected 12 numbers a line")
    return np.stack([_with_last_row(line) for line in lines])


def velodyne_poses(
    world_from_cam0: Float[np.ndarray, "N 4 4"], calibration: Calibration
) -> Float[np.ndarray, "N 4 4"]:
    """Return `world_from_velodyne`, the world being the scanner's own at the file's origin."""
    cam0_from_velodyne = calibration.cam0_from_velodyne
    return calibration.velodyne_from_cam0 @ world_from_cam0 @ cam0_from_velodyne


def poses_in_first_camera(
    world_from_velodyne: Float[np.ndarray, "N 4 4"], calibration: Calibration
) -> Float[np.ndarray, "N 4 4"]:
    """Return `first_cam_from_cam`: the true camera motion, the first camera being the origin."""
    world_from_cam = world_from_velodyne @ calibration.velodyne_from_cam0
    return np.linalg.inv(world_from_cam[0]) @ world_from_cam


def raw_label_lookup(classes: DatasetClasses | None = None) -> UInt8[np.ndarray, "65536"]:
    """Return the class of every id of a label file: 0 is empty, unlabelled kinds are 255."""
    classes = classes or load_classes(DATASET)
    lookup = np.full(RAW_IDS, classes.raw_unlisted, dtype=np.uint8)
    for raw, class_id in classes.raw_to_class.items():
        lookup[raw] = class_id
    return lookup


def voxel_labels(
    raw: UInt16[np.ndarray, " C"],
    invalid_packed: UInt8[np.ndarray, " bytes"],
    shape: tuple[int, int, int] | None = None,
) -> UInt8[np.ndarray, "X Y Z"]:
    """Turn the contents of a `.label` and an `.invalid` file into classes (evaluation page 12).

    Args:
        raw: Ids, flattened (x, y, z).
        invalid_packed: One bit a cell in the same order, most significant bit first.
        shape: Of the grid; that of the data set if None.

    Returns:
        Class ids; 255 where nobody judges. No camera's field of view is cut out.

    Raises:
        InputError: The sizes do not belong to the grid.
    """
    classes = load_classes(DATASET)
    shape = shape or classes.grid.shape
    cells = int(np.prod(shape))
    for name, got, expected in (
        ("labels", raw.size, cells),
        ("bytes of the invalid mask", invalid_packed.size, -(-cells // 8)),
    ):
        if got != expected:
            raise InputError(
                f"{got} {name} instead of {expected} for a grid of {'x'.join(map(str, shape))}; "
                "the file is truncated or of another data set"
            )
    labels = raw_label_lookup(classes)[raw]
    labels[np.unpackbits(invalid_packed, count=cells).astype(bool)] = classes.convention.ignore
    return labels.reshape(shape)


def read_voxel_labels(label_path: Path) -> UInt8[np.ndarray, "X Y Z"]:
    """Read `voxels/NNNNNN.label` and the `.invalid` file beside it.

    Raises:
        InputError: A file is absent or of the wrong size.
    """
    raw = _binary(label_path, np.uint16)
    invalid = _binary(label_path.with_suffix(".invalid"), np.uint8)
    try:
        return voxel_labels(raw, invalid)
    except InputError as error:
        raise InputError(f"{label_path}: {error}") from error


def read_scan(path: Path) -> Float[np.ndarray, "P 3"]:
    """Read the points of `velodyne/NNNNNN.bin` in the velodyne frame [m].

    Raises:
        InputError: The file is absent or truncated.
    """
    values = _binary(path, np.float32)
    if values.size % 4:
        raise InputError(
            f"{path}: {values.size} numbers are not a multiple of 4 (x, y, z, reflectance); "
            "the file is truncated: copy it again"
        )
    return values.reshape(-1, 4)[:, :3]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}; check the data set folder") from error


def _binary(path: Path, dtype: type) -> np.ndarray:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}; check the data set folder") from error
    size = np.dtype(dtype).itemsize
    if len(content) % size:
        raise InputError(
            f"{path}: {len(content)} bytes are not a multiple of {size}; the file is truncated: "
            "copy it again"
        )
    return np.frombuffer(content, dtype=np.dtype(dtype).newbyteorder("<")).astype(dtype)


def _matrix_3x4(text: str, place: str) -> np.ndarray:
    try:
        values = np.array([float(word) for word in text.split()])
    except ValueError as error:
        raise InputError(f"{place}: {error}; expected 12 numbers") from error
    if values.size != 12 or not np.isfinite(values).all():
        raise InputError(f"{place}: {values.size} numbers; expected 12 finite ones")
    return values.reshape(3, 4)


def _with_last_row(matrix: np.ndarray) -> np.ndarray:
    return np.vstack((matrix, [0.0, 0.0, 0.0, 1.0]))
