# SPDX-License-Identifier: Apache-2.0
"""Messages: grid cells <-> the fields of VoxelGrid.msg and VoxelGridCompact.msg, NumPy alone.

Input and output are `GridCells` on one side, `DenseGrid` or `CompactGrid` on the other; shapes,
frames and units stand with them in `grid_fields`. Whatever comes from outside is checked before
anything is allocated; what is wrong raises `InputError`.
"""

from math import prod

import numpy as np

from occany_core.errors import InputError
from occany_core.grid_fields import (
    FRAME_SOURCES,
    MAX_CELLS,
    OCCUPIED_FROM,
    PROBABILITY_NONE,
    PROBABILITY_PER_CELL,
    PROBABILITY_PER_OCCUPIED_CELL,
    SCALE_SOURCES,
    UNKNOWN,
    UNLABELED,
    CompactGrid,
    DenseGrid,
    GridCells,
    GridPose,
    check_box,
    check_cells,
    check_layout,
    check_length,
    check_length_or_empty,
    check_probability,
    code_of,
    name_of,
)

__all__ = [
    "FRAME_SOURCES",
    "MAX_CELLS",
    "OCCUPIED_FROM",
    "PROBABILITY_NONE",
    "PROBABILITY_PER_CELL",
    "PROBABILITY_PER_OCCUPIED_CELL",
    "SCALE_SOURCES",
    "UNKNOWN",
    "UNLABELED",
    "CompactGrid",
    "DenseGrid",
    "GridCells",
    "GridPose",
    "decode_compact",
    "decode_dense",
    "encode_compact",
    "encode_dense",
    "frame_source_name",
    "scale_source_name",
]


def encode_dense(cells: GridCells) -> DenseGrid:
    """Turn cells into the fields of VoxelGrid.msg.

    Raises:
        InputError: an array has the wrong shape or type, a value is out of range, the pose is not
            finite or not a rotation, or the grid is empty or larger than `MAX_CELLS`.
    """
    shape = check_cells(cells)
    return DenseGrid(
        pose=cells.pose,
        resolution=float(cells.resolution),
        size_x=shape[0],
        size_y=shape[1],
        size_z=shape[2],
        data=_x_fastest(cells.probability),
        labels=_no_bytes() if cells.labels is None else _x_fastest(cells.labels),
        completed=_no_bytes() if cells.completed is None else _pack(_x_fastest(cells.completed)),
    )


def decode_dense(grid: DenseGrid, *, max_cells: int = MAX_CELLS) -> GridCells:
    """Turn the fields of VoxelGrid.msg into cells.

    The arrays may be of any kind that offers its memory (`array.array`, bytes, NumPy). Those of
    `probability` and `labels` are views of that memory, not copies.

    Args:
        grid: the fields of a message.
        max_cells: largest number of cells accepted.

    Raises:
        InputError: the fields contradict the comments in VoxelGrid.msg.
    """
    shape = check_box(grid, max_cells)
    num_cells = prod(shape)
    data = _flat(grid.data, np.int8, "data")
    labels = _flat(grid.labels, np.uint8, "labels")
    completed = _flat(grid.completed, np.uint8, "completed")
    check_length("data", data, num_cells, "one value per cell")
    check_length_or_empty("labels", labels, num_cells, "one value per cell")
    check_length_or_empty("completed", completed, _num_bytes(num_cells), "one bit per cell")
    check_probability(data)
    return GridCells(
        pose=grid.pose,
        resolution=float(grid.resolution),
        probability=_from_x_fastest(data, shape),
        labels=_from_x_fastest(labels, shape) if labels.size else None,
        completed=(
            _from_x_fastest(_unpack(completed, num_cells), shape) if completed.size else None
        ),
    )


def encode_compact(
    cells: GridCells,
    *,
    probability_layout: int = PROBABILITY_PER_OCCUPIED_CELL,
    scale_source: str = "model",
    frame_source: str = "extrinsics",
) -> CompactGrid:
    """Turn cells into the fields of VoxelGridCompact.msg.

    Labels and completion of cells that are not occupied are not part of this form.

    Args:
        cells: the grid.
        probability_layout: `PROBABILITY_NONE`, `PROBABILITY_PER_OCCUPIED_CELL` or
            `PROBABILITY_PER_CELL`.
        scale_source: one of `SCALE_SOURCES`.
        frame_source: one of `FRAME_SOURCES`.

    Raises:
        InputError: as `encode_dense`; or a layout or source that does not exist.
    """
    shape = check_cells(cells)
    check_layout(probability_layout)
    occupied = cells.occupied
    if probability_layout == PROBABILITY_NONE:
        probability = _no_bytes()
    elif probability_layout == PROBABILITY_PER_OCCUPIED_CELL:
        probability = _percent_to_byte(cells.probability[occupied])
    else:
        probability = _percent_to_byte(np.maximum(cells.probability, 0).ravel())
    return CompactGrid(
        pose=cells.pose,
        resolution=float(cells.resolution),
        size_x=shape[0],
        size_y=shape[1],
        size_z=shape[2],
        known=_pack(cells.known.ravel()),
        occupied=_pack(occupied.ravel()),
        probability_layout=probability_layout,
        probability=probability,
        label=_no_bytes() if cells.labels is None else cells.labels[occupied],
        completed=_no_bytes() if cells.completed is None else _pack(cells.completed[occupied]),
        scale_source=code_of(scale_source, SCALE_SOURCES, "scale_source"),
        frame_source=code_of(frame_source, FRAME_SOURCES, "frame_source"),
    )


def decode_compact(grid: CompactGrid, *, max_cells: int = MAX_CELLS) -> GridCells:
    """Turn the fields of VoxelGridCompact.msg into cells.

    The bit-planes decide what is occupied: a probability on the other side of one half is moved to
    50 % or 49 %. Without probabilities an occupied cell has 100 % and a free cell 0 %. Cells that
    are not occupied get the label 255.

    Args:
        grid: the fields of a message.
        max_cells: largest number of cells accepted.

    Raises:
        InputError: the fields contradict the comments in VoxelGridCompact.msg.
    """
    shape = check_box(grid, max_cells)
    num_cells = prod(shape)
    known = _decode_plane(grid.known, num_cells, "known")
    occupied = _decode_plane(grid.occupied, num_cells, "occupied")
    strays = int(np.count_nonzero(occupied & ~known))
    if strays:
        raise InputError(
            f"{strays} cells are marked occupied in `occupied` but unknown in `known`; "
            "the sender must mark every occupied cell as known"
        )
    num_occupied = int(np.count_nonzero(occupied))
    label = _flat(grid.label, np.uint8, "label")
    completed = _flat(grid.completed, np.uint8, "completed")
    check_length_or_empty("label", label, num_occupied, "one value per occupied cell")
    check_length_or_empty(
        "completed", completed, _num_bytes(num_occupied), "one bit per occupied cell"
    )
    name_of(grid.scale_source, SCALE_SOURCES, "scale_source")
    name_of(grid.frame_source, FRAME_SOURCES, "frame_source")
    return GridCells(
        pose=grid.pose,
        resolution=float(grid.resolution),
        probability=_decode_probability(grid, known, occupied).reshape(shape),
        labels=_scatter(label, occupied, UNLABELED).reshape(shape) if label.size else None,
        completed=(
            _scatter(_unpack(completed, num_occupied), occupied, False).reshape(shape)
            if completed.size
            else None
        ),
    )


def scale_source_name(grid: CompactGrid) -> str:
    """Say where the metres of a grid come from.

    Raises:
        InputError: the code is unknown.
    """
    return name_of(grid.scale_source, SCALE_SOURCES, "scale_source")


def frame_source_name(grid: CompactGrid) -> str:
    """Say where the mounting of a grid comes from.

    Raises:
        InputError: the code is unknown.
    """
    return name_of(grid.frame_source, FRAME_SOURCES, "frame_source")


def _decode_probability(grid: CompactGrid, known: np.ndarray, occupied: np.ndarray) -> np.ndarray:
    """The probability of each cell [%], flat int8, -1 where unknown."""
    layout = check_layout(grid.probability_layout)
    values = _flat(grid.probability, np.uint8, "probability")
    if layout == PROBABILITY_NONE:
        check_length("probability", values, 0, "nothing, as probability_layout is 0")
        return np.where(occupied, 100, np.where(known, 0, UNKNOWN)).astype(np.int8)
    if layout == PROBABILITY_PER_OCCUPIED_CELL:
        check_length(
            "probability", values, int(np.count_nonzero(occupied)), "one value per occupied cell"
        )
        percent = _scatter(_byte_to_percent(values), occupied, 0)
    else:
        check_length("probability", values, known.size, "one value per cell")
        percent = _byte_to_percent(values)
    percent = np.where(
        occupied, np.maximum(percent, OCCUPIED_FROM), np.minimum(percent, OCCUPIED_FROM - 1)
    )
    return np.where(known, percent, UNKNOWN).astype(np.int8)


def _flat(values: object, dtype: type[np.generic], name: str) -> np.ndarray:
    """Flat view of anything that offers its memory, one byte an entry."""
    try:
        view = memoryview(values)  # type: ignore[arg-type]
        return np.frombuffer(view.cast("B"), dtype) if view.nbytes else np.zeros(0, dtype)
    except TypeError as error:
        raise InputError(
            f"{name} is a {type(values).__name__} whose memory cannot be read ({error}); "
            "give an array.array, bytes or a contiguous NumPy array"
        ) from error


def _no_bytes() -> np.ndarray:
    return np.zeros(0, np.uint8)


def _x_fastest(cells: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(cells.transpose(2, 1, 0)).ravel()


def _from_x_fastest(flat: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    return flat.reshape(shape[::-1]).transpose(2, 1, 0)


def _num_bytes(num_bits: int) -> int:
    return (num_bits + 7) // 8


def _pack(flags: np.ndarray) -> np.ndarray:
    return np.packbits(flags, bitorder="little")


def _unpack(plane: np.ndarray, num_bits: int) -> np.ndarray:
    return np.unpackbits(plane, count=num_bits, bitorder="little").view(np.bool_)


def _decode_plane(plane: object, num_cells: int, name: str) -> np.ndarray:
    packed = _flat(plane, np.uint8, name)
    check_length(name, packed, _num_bytes(num_cells), "one bit per cell")
    return _unpack(packed, num_cells)


def _scatter(values: np.ndarray, where: np.ndarray, elsewhere: int | bool) -> np.ndarray:
    cells = np.full(where.shape, elsewhere, values.dtype)
    cells[where] = values
    return cells


def _percent_to_byte(percent: np.ndarray) -> np.ndarray:
    # whole numbers, so that every language rounds alike (half up)
    return ((percent.astype(np.uint16) * 255 + 50) // 100).astype(np.uint8)


def _byte_to_percent(values: np.ndarray) -> np.ndarray:
    return ((values.astype(np.uint16) * 100 + 127) // 255).astype(np.int8)
