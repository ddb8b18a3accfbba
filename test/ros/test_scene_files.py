# SPDX-License-Identifier: Apache-2.0
"""Names that come from the network, and files that may be anything."""

import contextlib
import os
import zipfile

import numpy as np
import pytest

from occany_core.errors import InputError
from occany_core.results import GRID
from occany_ros.scene_files import default_directory, load, name_of_stamp, place


def write_grid(folder, shape=(4, 3, 2), **changes):
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {
        "format": np.int64(1),
        "probability": np.full(shape, 100, np.int8),
        "completed": np.zeros(shape, bool),
        "origin": np.zeros(3),
        "resolution": np.float64(0.5),
    }
    np.savez_compressed(folder / GRID, **(arrays | changes))
    return folder / GRID


@pytest.mark.parametrize("name", ["street", "2026_11.v-2", "_", "a" * 64])
def test_plain_names_stand_below_the_directory(tmp_path, name):
    assert place(tmp_path, name) == tmp_path / name


@pytest.mark.parametrize(
    "name",
    [
        *("", ".", "..", "../up", "a/b", "/etc", ".hidden", "-rf"),
        *("a\\b", "a\0b", "a b", "a" * 65, "a\n"),
    ],
)
def test_names_that_lead_elsewhere_are_refused(tmp_path, name):
    with pytest.raises(InputError, match="is refused"):
        place(tmp_path, name)


def test_links_are_not_followed(tmp_path):
    outside = tmp_path / "outside"
    write_grid(outside)
    inside = tmp_path / "inside"
    inside.mkdir()
    (inside / "link").symlink_to(outside)
    with pytest.raises(InputError, match="links are not followed"):
        load(inside, "link", 100)
    (inside / "real").mkdir()
    (inside / "real" / GRID).symlink_to(outside / GRID)
    with pytest.raises(InputError, match="there is no saved scene"):
        load(inside, "real", 100)


def test_a_saved_grid_is_read(tmp_path):
    write_grid(tmp_path / "one")
    grid = load(tmp_path, "one", 100)
    assert grid.spec.shape == (4, 3, 2)
    assert grid.occupied.all()


def test_a_missing_scene_is_answered_with_those_that_exist(tmp_path):
    with pytest.raises(InputError, match="none was saved yet"):
        load(tmp_path, "two", 100)
    write_grid(tmp_path / "one")
    with pytest.raises(InputError, match=r"the last ones are one$"):
        load(tmp_path, "two", 100)


def test_a_small_file_that_unpacks_to_much_is_refused_before_it_is_unpacked(tmp_path):
    path = write_grid(tmp_path / "bomb", shape=(100, 1000, 100))
    assert path.stat().st_size < 100_000
    with pytest.raises(InputError, match=r"holds 20 MB and files.most_megabytes is 5"):
        load(tmp_path, "bomb", 5)


def test_damaged_files_are_named(tmp_path):
    path = write_grid(tmp_path / "one")
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(200):
        changed = bytearray(content)
        for place_ in rng.integers(0, len(changed), 3):
            changed[place_] = rng.integers(0, 256)
        path.write_bytes(bytes(changed))
        with contextlib.suppress(InputError):  # and nothing else
            assert load(tmp_path, "one", 100).spec.shape == (4, 3, 2)
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match="damaged"):
        load(tmp_path, "one", 100)


def test_a_header_that_promises_more_than_there_is(tmp_path):
    path = tmp_path / "one" / GRID
    write_grid(tmp_path / "one")
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    data = parts["probability.npy"]
    shape = b"(4, 3, 2)"
    huge = b"(99999999, 99999, 99)"
    header_end = data.index(b"\n")
    header = data[:header_end].replace(shape, huge)
    parts["probability.npy"] = header[:header_end] + data[header_end:]
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    with pytest.raises(InputError, match=r"damaged|is not a grid"):
        load(tmp_path, "one", 100)


def test_where_scenes_are_kept_and_how_they_are_called(monkeypatch, tmp_path):
    monkeypatch.setenv("ROS_HOME", str(tmp_path))
    assert default_directory() == tmp_path / "occany"
    monkeypatch.delenv("ROS_HOME")
    monkeypatch.setenv("HOME", os.fspath(tmp_path))
    assert default_directory() == tmp_path / ".ros/occany"
    assert name_of_stamp(1_000_000_000_250_999_999) == "20010909_014640_250"
