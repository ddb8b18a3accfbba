# SPDX-License-Identifier: Apache-2.0
"""The two encodings of a grid: order of cells, round trips, sizes, and that every check fires."""

import array
import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from occany_core import grid_codec
from occany_core.errors import InputError
from occany_core.grid_codec import (
    UNLABELED,
    CompactGrid,
    DenseGrid,
    GridCells,
    GridPose,
    decode_compact,
    decode_dense,
    encode_compact,
    encode_dense,
)

ROOT = Path(__file__).resolve().parents[2]
VECTORS = json.loads((ROOT / "test/golden/grid_codec.json").read_text())["vectors"]
ARRAYS = {
    DenseGrid: {"data": np.int8, "labels": np.uint8, "completed": np.uint8},
    CompactGrid: dict.fromkeys(
        ("known", "occupied", "probability", "label", "completed"), np.uint8
    ),
}


@st.composite
def grids(draw):
    shape = draw(st.tuples(*[st.integers(1, 6)] * 3))
    probability = draw(hnp.arrays(np.int8, shape, elements=st.integers(-1, 100)))
    labels = draw(st.none() | hnp.arrays(np.uint8, shape))
    completed = draw(st.none() | hnp.arrays(np.bool_, shape))
    return GridCells(GridPose((1.0, -2.0, 0.5)), 0.25, probability, labels, completed)


def small_grid():
    probability = np.full((3, 2, 2), -1, np.int8)
    probability[0] = 0
    probability[2, 1, 1] = 80
    labels = np.full(probability.shape, UNLABELED, np.uint8)
    labels[2, 1, 1] = 7
    completed = np.zeros(probability.shape, np.bool_)
    completed[2, 1, 1] = True
    return GridCells(GridPose(), 0.4, probability, labels, completed)


def equal(left, right):
    return (left is None and right is None) or np.array_equal(left, right)


def same_cells(left, right):
    return (
        left.pose == right.pose
        and left.resolution == right.resolution
        and all(
            equal(getattr(left, name), getattr(right, name))
            for name in ("probability", "labels", "completed")
        )
    )


def from_vector(kind, fields):
    pose = GridPose(**{name: tuple(values) for name, values in fields["pose"].items()})
    arrays = {name: np.array(fields[name], dtype) for name, dtype in ARRAYS[kind].items()}
    return kind(**(fields | arrays | {"pose": pose}))


# --- laws ---------------------------------------------------------------------------------------


@given(grids())
def test_dense_form_keeps_everything(cells):
    assert same_cells(decode_dense(encode_dense(cells)), cells)


@given(grids(), st.integers(0, 2))
def test_compact_form_keeps_what_it_promises(cells, layout):
    back = decode_compact(encode_compact(cells, probability_layout=layout))
    occupied = cells.occupied
    assert np.array_equal(back.known, cells.known)
    assert np.array_equal(back.occupied, occupied)
    if layout == grid_codec.PROBABILITY_PER_CELL:
        assert np.array_equal(back.probability, cells.probability)
    if layout == grid_codec.PROBABILITY_PER_OCCUPIED_CELL:
        assert np.array_equal(back.probability[occupied], cells.probability[occupied])
        assert set(np.unique(back.probability[~occupied])) <= {-1, 0}
    if cells.labels is not None and occupied.any():
        assert np.array_equal(back.labels, np.where(occupied, cells.labels, UNLABELED))
    else:
        assert back.labels is None
    if cells.completed is not None and occupied.any():
        assert np.array_equal(back.completed, cells.completed & occupied)
    else:
        assert back.completed is None


@given(grids())
def test_dense_order_is_x_fastest(cells):
    grid = encode_dense(cells)
    for ix, iy, iz in np.ndindex(cells.probability.shape):
        index = (iz * grid.size_y + iy) * grid.size_x + ix
        assert grid.data[index] == cells.probability[ix, iy, iz]
        if cells.completed is not None:
            assert (
                bool(grid.completed[index // 8] >> (index % 8) & 1) == cells.completed[ix, iy, iz]
            )


@given(grids())
def test_compact_order_is_z_fastest(cells):
    grid = encode_compact(cells)
    for ix, iy, iz in np.ndindex(cells.probability.shape):
        index = (ix * grid.size_y + iy) * grid.size_z + iz
        assert bool(grid.known[index // 8] >> (index % 8) & 1) == cells.known[ix, iy, iz]
        assert bool(grid.occupied[index // 8] >> (index % 8) & 1) == cells.occupied[ix, iy, iz]


# --- shared test vectors ------------------------------------------------------------------------


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_vectors(vector):
    dense = from_vector(DenseGrid, vector["dense"])
    compact = from_vector(CompactGrid, vector["compact"])
    cells = decode_dense(dense)
    again = (
        encode_dense(cells),
        encode_compact(
            cells,
            probability_layout=compact.probability_layout,
            scale_source=grid_codec.scale_source_name(compact),
            frame_source=grid_codec.frame_source_name(compact),
        ),
    )
    for made, expected in zip(again, (dense, compact), strict=True):
        for field in dataclasses.fields(expected):
            left, right = getattr(made, field.name), getattr(expected, field.name)
            assert np.array_equal(left, right), field.name
    assert np.array_equal(decode_compact(compact).occupied, cells.occupied)


def test_fields_and_constants_are_those_of_the_messages():
    for kind, name in ((DenseGrid, "VoxelGrid"), (CompactGrid, "VoxelGridCompact")):
        text = re.sub(r"#.*", "", (ROOT / f"msg/{name}.msg").read_text())
        members = [line.split()[1] for line in text.splitlines() if line.split()]
        constants = {m.split("=")[0]: int(m.split("=")[1]) for m in members if "=" in m}
        fields = ["pose" if m == "origin" else m for m in members if "=" not in m]
        assert fields == ["header", *(field.name for field in dataclasses.fields(kind))]
        for constant, value in constants.items():
            group, _, rest = constant.partition("_")
            spoken = rest.lower().replace("_", " ")
            if group == "PROBABILITY":
                assert getattr(grid_codec, constant) == value
            elif group == "SCALE":
                assert grid_codec.SCALE_SOURCES[value].replace("_", " ") == spoken
            else:
                assert grid_codec.FRAME_SOURCES[value] == spoken
        assert len(constants) == (11 if kind is CompactGrid else 0)


# --- sizes on the wire --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "share", "kilobytes"),
    [
        ((200, 200, 16), 0.02, 186),
        ((200, 200, 16), 0.05, 224),
        ((200, 200, 16), 0.10, 288),
        ((256, 256, 32), 0.02, 608),
        ((256, 256, 32), 0.05, 734),
        ((256, 256, 32), 0.10, 944),
    ],
)
def test_compact_size(shape, share, kilobytes):
    probability = np.zeros(shape, np.int8)
    probability.ravel()[: round(share * probability.size)] = 100
    labels = np.zeros(shape, np.uint8)
    grid = encode_compact(GridCells(GridPose(), 0.4, probability, labels))
    size = sum(getattr(grid, name).nbytes for name in ARRAYS[CompactGrid])
    assert round(size / 1000) == kilobytes


# --- what comes from ROS and from other senders -------------------------------------------------


def test_reads_the_array_types_of_ros_without_copying():
    grid = encode_dense(small_grid())
    data = array.array("b", grid.data.tolist())
    from_ros = dataclasses.replace(
        grid,
        data=data,
        labels=array.array("B", grid.labels.tolist()),
        completed=array.array("B", grid.completed.tolist()),
    )
    cells = decode_dense(from_ros)
    assert same_cells(cells, small_grid())
    assert np.shares_memory(cells.probability, np.frombuffer(data, np.int8))


def test_bit_planes_win_over_probabilities_on_the_wrong_side():
    grid = encode_compact(small_grid(), probability_layout=grid_codec.PROBABILITY_PER_CELL)
    swapped = dataclasses.replace(grid, probability=255 - grid.probability)
    cells = decode_compact(swapped)
    assert np.array_equal(cells.occupied, small_grid().occupied)
    assert cells.probability[2, 1, 1] == 50
    assert cells.probability[0, 0, 0] == 49


NOT_FINITE = GridPose((0.0, float("nan"), 0.0))
NOT_UNIT = GridPose(quat_xyzw=(0.0, 0.0, 0.0, 2.0))
BYTES = np.zeros(99, np.uint8)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size_x": 0}, "at least one cell"),
        ({"size_x": 2**31, "size_y": 2**31}, "more than the limit"),
        ({"resolution": 0.0}, "resolution is 0.0"),
        ({"resolution": float("inf")}, "resolution is inf"),
        ({"pose": NOT_FINITE}, "not finite"),
        ({"pose": NOT_UNIT}, "length 2"),
        ({"data": BYTES}, "data has 99 entries where 12"),
        ({"data": np.full(12, 101, np.int8)}, "probability 101"),
        ({"data": np.full(12, -2, np.int8)}, "probability -2"),
        ({"data": [0] * 12}, "list whose memory"),
        ({"labels": BYTES}, "labels has 99 entries where 12"),
        ({"completed": BYTES}, "completed has 99 entries where 2"),
    ],
)
def test_dense_refuses(change, words):
    with pytest.raises(InputError, match=words):
        decode_dense(dataclasses.replace(encode_dense(small_grid()), **change))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size_z": 0}, "at least one cell"),
        ({"size_x": 2**31, "size_y": 2**31}, "more than the limit"),
        ({"resolution": -1.0}, "resolution is -1.0"),
        ({"pose": NOT_FINITE}, "not finite"),
        ({"pose": NOT_UNIT}, "length 2"),
        ({"known": BYTES}, "known has 99 entries where 2"),
        ({"occupied": BYTES}, "occupied has 99 entries where 2"),
        ({"known": np.zeros(2, np.uint8)}, "1 cells are marked occupied"),
        ({"probability_layout": 3}, "probability_layout is 3"),
        ({"probability_layout": 0}, "probability has 1 entries where 0"),
        ({"probability_layout": 2}, "probability has 1 entries where 12"),
        ({"probability": BYTES}, "probability has 99 entries where 1"),
        ({"label": BYTES}, "label has 99 entries where 1"),
        ({"completed": BYTES}, "completed has 99 entries where 1"),
        ({"scale_source": 5}, "scale_source is 5"),
        ({"frame_source": 3}, "frame_source is 3"),
    ],
)
def test_compact_refuses(change, words):
    with pytest.raises(InputError, match=words):
        decode_compact(dataclasses.replace(encode_compact(small_grid()), **change))


def test_limit_of_cells_can_be_lowered():
    with pytest.raises(InputError, match="limit of 11"):
        decode_dense(encode_dense(small_grid()), max_cells=11)
    with pytest.raises(InputError, match="limit of 11"):
        decode_compact(encode_compact(small_grid()), max_cells=11)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"probability": np.zeros((2, 2), np.int8)}, "three-dimensional"),
        ({"probability": np.zeros((2, 2, 2))}, "float64"),
        ({"probability": np.full((3, 2, 2), 120, np.int8)}, "probability 120"),
        ({"labels": np.zeros((2, 2, 2), np.uint8)}, "labels has shape"),
        ({"completed": np.zeros((3, 2, 2), np.uint8)}, "completed is of type uint8"),
        ({"resolution": 0.0}, "resolution is 0.0"),
        ({"pose": NOT_UNIT}, "length 2"),
    ],
)
@pytest.mark.parametrize("encode", [encode_dense, encode_compact])
def test_encoders_refuse(encode, change, words):
    with pytest.raises(InputError, match=words):
        encode(dataclasses.replace(small_grid(), **change))


def test_encoder_refuses_unknown_names():
    with pytest.raises(InputError, match="scale_source is 'guess'"):
        encode_compact(small_grid(), scale_source="guess")
    with pytest.raises(InputError, match="frame_source is 'guess'"):
        encode_compact(small_grid(), frame_source="guess")
    with pytest.raises(InputError, match="probability_layout is 9"):
        encode_compact(small_grid(), probability_layout=9)
