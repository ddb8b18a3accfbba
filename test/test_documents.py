# SPDX-License-Identifier: Apache-2.0
"""Programs that the documents show are run on golden vectors, in Python and in C++."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from occany_core.grid_codec import DenseGrid, GridPose, decode_dense
from occany_ros import interface
from occany_ros.declarations import NODE_DECLARATIONS, camera_declarations, core_declarations

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs/voxel_grid.md"
VECTORS = json.loads((ROOT / "test/golden/grid_codec.json").read_text())["vectors"]
COMPILER = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")


def code(language):
    (text,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    return text


def dense(vector):
    """The grid as arrays by the reader of occany_core, and as a message."""
    fields = dict(vector["dense"])
    pose = fields.pop("pose")
    kinds = {"data": np.int8, "labels": np.uint8, "completed": np.uint8}
    arrays = {name: np.array(fields[name], kind) for name, kind in kinds.items()}
    place = GridPose(tuple(pose["position"]), tuple(pose["quat_xyzw"]))
    cells = decode_dense(DenseGrid(pose=place, **fields | arrays))
    origin = SimpleNamespace(
        position=SimpleNamespace(**dict(zip("xyz", pose["position"], strict=True))),
        orientation=SimpleNamespace(**dict(zip("xyzw", pose["quat_xyzw"], strict=True))),
    )
    return cells, SimpleNamespace(origin=origin, **fields | arrays)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_python_of_the_message_page_reads_grids_as_the_library_does(vector):
    program = {}
    text = code("python")
    assert len([line for line in text.splitlines() if line.strip()]) <= 30
    exec(compile(text, PAGE.name, "exec"), program)
    cells, message = dense(vector)
    points, percent, completed = program["centres_of_occupied_cells"](message)
    iz, iy, ix = np.nonzero(np.transpose(cells.probability) >= 50)
    np.testing.assert_array_equal(percent, cells.probability[ix, iy, iz])
    expected = np.zeros(len(ix), bool) if cells.completed is None else cells.completed[ix, iy, iz]
    np.testing.assert_array_equal(completed, expected)
    corner = np.array(cells.pose.position)
    reach = (np.stack([ix, iy, iz], axis=1) + 0.5) * cells.resolution
    np.testing.assert_allclose(
        np.linalg.norm(points - corner, axis=1), np.linalg.norm(reach, axis=1), rtol=1e-5
    )
    if cells.pose.quat_xyzw == (0.0, 0.0, 0.0, 1.0):
        np.testing.assert_allclose(points, corner + reach, rtol=1e-5, atol=1e-6)


def test_python_of_the_message_page_turns_with_the_origin():
    program = {}
    exec(compile(code("python"), PAGE.name, "exec"), program)
    half = np.sqrt(0.5)
    message = SimpleNamespace(
        size_x=2, size_y=1, size_z=1, resolution=2.0, data=[0, 100], completed=[2],
        origin=SimpleNamespace(
            position=SimpleNamespace(x=10.0, y=0.0, z=0.0),
            orientation=SimpleNamespace(x=0.0, y=0.0, z=half, w=half),  # to the left
        ),
    )  # fmt: skip
    points, percent, completed = program["centres_of_occupied_cells"](message)
    np.testing.assert_allclose(points, [[10.0 - 1.0, 3.0, 1.0]], atol=1e-6)
    assert (percent.tolist(), completed.tolist()) == ([100], [True])


MAIN = """
#include <cstdio>
#include <vector>
struct Message {  // the fields of the generated type
  float resolution;
  std::uint32_t size_x, size_y, size_z;
  std::vector<std::int8_t> data;
  std::vector<std::uint8_t> labels, completed;
};
int main() {
  Message m{%(resolution)sf, %(size_x)s, %(size_y)s, %(size_z)s, {%(data)s}, {%(labels)s},
            {%(completed)s}};
  Reader<Message> reader{m};
  for (std::uint32_t ix = 0; ix < m.size_x; ++ix)
    for (std::uint32_t iy = 0; iy < m.size_y; ++iy)
      for (std::uint32_t iz = 0; iz < m.size_z; ++iz) {
        const std::size_t i = reader.index(ix, iy, iz);
        const auto c = reader.centre(ix, iy, iz);
        std::printf("%%d %%d %%d %%.6g %%.6g %%.6g\\n", static_cast<int>(reader.cell(i)),
                    reader.label(i), reader.completed(i), c[0], c[1], c[2]);
      }
}
"""


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler (c++, g++ or CXX)")
@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_cpp_of_the_message_page_reads_grids_as_the_library_does(vector, tmp_path):
    values = {
        name: ", ".join(map(str, value)) if isinstance(value, list) else value
        for name, value in vector["dense"].items()
    }
    source = tmp_path / "reader.cpp"
    source.write_text(code("cpp") + MAIN % values)
    command = [COMPILER, "-std=c++17", "-Wall", "-Werror", "-o", tmp_path / "reader", source]
    subprocess.run(command, check=True)
    printed = subprocess.run([tmp_path / "reader"], check=True, capture_output=True, text=True)
    found = np.array([line.split() for line in printed.stdout.splitlines()], float)
    cells, _ = dense(vector)
    probability = cells.probability.reshape(-1)
    np.testing.assert_array_equal(
        found[:, 0], np.where(probability < 0, 0, np.where(probability < 50, 1, 2))
    )
    labels = 255 if cells.labels is None else cells.labels.reshape(-1)
    np.testing.assert_array_equal(found[:, 1], labels)
    completed = 0 if cells.completed is None else cells.completed.reshape(-1)
    np.testing.assert_array_equal(found[:, 2], completed)
    index = np.stack(np.indices(cells.probability.shape), axis=-1).reshape(-1, 3)
    np.testing.assert_allclose(found[:, 3:], (index + 0.5) * cells.resolution, rtol=1e-5)


# --- pages about other packages -----------------------------------------------------------------

PAGES = sorted((ROOT / "docs").rglob("*.md"))
PARAMETERS = {one.name for one in (*NODE_DECLARATIONS, *core_declarations())}
PARAMETERS |= {one.name for one in camera_declarations("NAME")}
GROUPS = {name.split(".")[0] for name in PARAMETERS if "." in name}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_topics_services_and_parameters_that_exist(page):
    text = page.read_text()
    names = {one.name for one in interface.PUBLICATIONS + interface.SUBSCRIPTIONS}
    names |= {one.name for one in interface.SERVICES}
    names |= {*interface.SERVICES_OF_LIFECYCLE_NODES, *interface.SERVICES_OF_EVERY_NODE}
    names |= {name.replace("/NAME", "/obstacles") for name in names} | {"~/output/loaded"}
    for topic in re.findall(r"(?:~|/occany)/((?:input|output)/[\w/]*\w|status)\b", text):
        assert f"~/{topic}" in names, f"{page.name} names ~/{topic}"
    for service in re.findall(r"`~/(\w+)`", text):
        assert f"~/{service}" in names, f"{page.name} names ~/{service}"
    for name in re.findall(r"`((?:[a-z_]+|camera\.NAME)\.[a-z_]+(?:\.[a-z_]+)?)`", text):
        is_ours = name.split(".")[0] in GROUPS and not name.endswith((".md", ".py", ".yaml"))
        is_ours &= page.name != "parity.md"  # names functions
        assert not is_ours or name in PARAMETERS, f"{page.name} names the parameter {name}"


def test_yaml_of_the_pages_is_yaml_and_takes_the_resolution_of_the_grid():
    blocks = [
        (page.name, text)
        for page in PAGES
        for text in re.findall(r"^```yaml\n(.*?)^```$", page.read_text(), re.M | re.S)
    ]
    assert len(blocks) >= 4
    (resolution,) = (one.default for one in core_declarations() if one.name == "voxels.resolution")
    for name, text in blocks:
        assert yaml.safe_load(text), name
        for size in re.findall(r"(?:voxel_size|z_resolution): ([\d.]+)", text):
            assert float(size) == resolution, name


def test_every_page_is_reached_from_the_readme_or_the_pages_it_names():
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        reached.add(page)
        links = re.findall(r"\]\(([^)#]+\.md)\)", page.read_text())
        waiting += {(page.parent / link).resolve() for link in links} - reached
    assert [page.name for page in PAGES if page not in reached] == []
