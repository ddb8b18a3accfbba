# SPDX-License-Identifier: Apache-2.0
"""What our launch files start, with which parameters, and what RViz then shows.

The programs are stand-ins that tell how they were started, so that no package of Nav2 or RViz is
needed. `test_launch.py` runs the real ones.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from test_minilaunch import MINILAUNCH, TALKER, environment, pytestmark  # noqa: F401

from occany_core.synthetic.classes import SemanticClass

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = {
    "occany_ros": ["occany_node", "replay", "view"],
    "rviz2": ["rviz2"],
    "nav2_costmap_2d": ["nav2_costmap_2d"],
    "nav2_lifecycle_manager": ["lifecycle_manager"],
}


@pytest.fixture
def stand_ins(tmp_path):
    """A prefix in which every program only tells how it was started."""
    index = tmp_path / "share/ament_index/resource_index/packages"
    index.mkdir(parents=True)
    (tmp_path / "talker.py").write_text(TALKER)
    for package, programs in PROGRAMS.items():
        (index / package).touch()
        for name in programs:
            program = tmp_path / "lib" / package / name
            program.parent.mkdir(parents=True, exist_ok=True)
            program.write_text(
                f"#!/bin/sh\nexec '{sys.executable}' '{tmp_path / 'talker.py'}' \"$@\"\n"
            )
            program.chmod(0o755)
    (tmp_path / "share/occany_ros").symlink_to(ROOT)
    return tmp_path


class Started:
    """One program as it was started."""

    def __init__(self, program, said):
        self.program = program
        self.argv = said["argv"]
        self.parameters = {}
        for text in said["files"]:
            for content in yaml.safe_load(text).values():
                self.parameters |= flat(content["ros__parameters"])
        self.remapped = dict(
            self.argv[i + 1].split(":=") for i, word in enumerate(self.argv) if word == "-r"
        )


def flat(tree, prefix=""):
    found = {}
    for name, value in tree.items():
        nested = flat(value, f"{prefix}{name}.") if isinstance(value, dict) else None
        found |= {f"{prefix}{name}": value} if nested is None else nested
    return found


def started(prefix, launch_file, *arguments):
    """Run a launch file; the programs by name, as they were started."""
    done = subprocess.run(
        [sys.executable, str(MINILAUNCH), str(ROOT / "launch" / launch_file), *arguments],
        env=environment(prefix),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = {}
    for line in done.stdout.splitlines():
        if "SAID " in line:
            program = line[1:].split("]")[0].rsplit("-", 1)[0]
            found[program] = Started(program, json.loads(line.split("SAID ")[1]))
    return found


@pytest.mark.parametrize(
    ("file", "cameras", "view_sets", "rviz"),
    [
        ("surround.launch.py", 6, 1, "surround"),
        ("sequence.launch.py", 1, 5, "mono"),
        ("monocular.launch.py", 1, 1, "mono"),
        ("occany.launch.py", 1, 5, "surround"),
    ],
)
def test_presets_start_the_node_and_what_is_asked_for(stand_ins, file, cameras, view_sets, rviz):
    found = started(stand_ins, file)
    assert set(found) == {"occany_node"}
    node = found["occany_node"]
    assert node.remapped == {"__node": "occany"}
    assert len(node.parameters["cameras"]) == cameras
    assert node.parameters["window.view_sets"] == view_sets
    assert node.parameters["use_sim_time"] is False

    found = started(stand_ins, file, "input:=demo", "rviz:=true", "namespace:=robot")
    assert set(found) == {"occany_node", "replay", "rviz2"}
    assert found["rviz2"].argv[:2] == ["-d", f"{stand_ins}/share/occany_ros/rviz/{rviz}.rviz"]
    assert found["occany_node"].remapped["__ns"] == found["replay"].remapped["__ns"] == "/robot"


@pytest.mark.parametrize(("namespace", "name"), [("", "/occany"), ("robot", "/robot/occany")])
def test_rerun_is_shown_the_node_of_the_namespace(stand_ins, namespace, name):
    arguments = ["rerun:=true", f"namespace:={namespace}", "use_sim_time:=true"]
    found = started(stand_ins, "surround.launch.py", *arguments)
    assert set(found) == {"occany_node", "view"}
    assert found["view"].argv[:2] == ["--node", name]
    assert found["view"].parameters["use_sim_time"] is True


def test_optional_arguments_become_parameters_only_when_given(stand_ins):
    arguments = [
        "cameras:=[left, right]",
        "transport:=raw",
        "model:=12",
        "image_topic:=c/{camera}",
    ]
    parameters = started(stand_ins, "surround.launch.py", *arguments)["occany_node"].parameters
    assert parameters["cameras"] == ["left", "right"]
    assert parameters["transport"] == "raw"
    assert parameters["model.checkpoint"] == "12"
    assert parameters["topics.image"] == parameters["topics.compressed"] == "c/{camera}"
    parameters = started(stand_ins, "surround.launch.py")["occany_node"].parameters
    assert "model.checkpoint" not in parameters
    assert parameters["topics.image"] == "camera/{camera}/image"


PROFILES = sorted(path.stem for path in (ROOT / "config/profiles").glob("*.yaml"))


@pytest.mark.parametrize(
    "file", ["surround.launch.py", "sequence.launch.py", "nav2_demo.launch.py"]
)
def test_a_profile_lies_over_the_parameter_file(stand_ins, file):
    plain = started(stand_ins, file)["occany_node"].parameters
    for profile in PROFILES:
        node = started(stand_ins, file, f"profile:={profile}")["occany_node"]
        content = yaml.safe_load((ROOT / f"config/profiles/{profile}.yaml").read_text())
        changes = flat(content["/**"]["ros__parameters"])
        assert node.parameters == plain | changes


def test_profiles_are_those_of_the_launch_file_and_of_the_documents(stand_ins):
    done = subprocess.run(
        [sys.executable, str(MINILAUNCH), str(ROOT / "launch/occany.launch.py"), "profile:=fast"],
        env=environment(stand_ins), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert all(profile in done.stderr for profile in PROFILES)
    interface = (ROOT / "docs/ros_interface.md").read_text()
    table = interface[interface.index("| Profile |") :].split("\n\n")[0]
    assert sorted(row.split("`")[1] for row in table.splitlines()[2:]) == PROFILES


def test_a_bag_brings_its_own_time_for_everybody(stand_ins):
    found = started(stand_ins, "bag.launch.py", "bag:=drive.mcap", "loop:=true", "rviz:=true")
    assert set(found) == {"occany_node", "replay", "rviz2"}
    replay = found["replay"].parameters
    assert (replay["input"], replay["clock"], replay["loop"]) == ("drive.mcap", True, True)
    assert replay["loop_stamps"] == "back"
    assert found["occany_node"].parameters["use_sim_time"] is True
    assert found["rviz2"].parameters["use_sim_time"] is True


def test_a_bag_must_be_named(stand_ins):
    done = subprocess.run(
        [sys.executable, str(MINILAUNCH), str(ROOT / "launch/bag.launch.py")],
        env=environment(stand_ins), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    assert "'bag' is required" in done.stderr


def test_nav2_demo_joins_the_height_band_to_a_costmap(stand_ins):
    found = started(stand_ins, "nav2_demo.launch.py", "input:=demo", "use_sim_time:=true")
    assert set(found) == {"occany_node", "replay", "nav2_costmap_2d", "lifecycle_manager"}
    node, costmap = found["occany_node"].parameters, found["nav2_costmap_2d"].parameters
    assert costmap["occany.plugin"] == "nav2_costmap_2d::StaticLayer"
    (band,) = node["projection.bands"]
    assert costmap["occany.map_topic"] == f"/occany/output/occupancy/{band}"
    assert costmap["occany.map_subscribe_transient_local"] is True
    assert costmap["rolling_window"] is True
    # the costmap follows the vehicle by the transform that the node publishes
    assert node["publish.tf"] is True
    assert node["window.view_sets"] >= 2
    assert costmap["global_frame"] == node["frames.odom_frame"]
    assert costmap["robot_base_frame"] == node["frames.base_frame"]
    assert found["replay"].parameters["clock"] is True
    for name in ("occany_node", "nav2_costmap_2d", "lifecycle_manager"):
        assert found[name].parameters["use_sim_time"] is True
    assert found["lifecycle_manager"].parameters["node_names"] == ["costmap/costmap"]


# --- what RViz shows ----------------------------------------------------------------------------


def displays(name):
    content = yaml.safe_load((ROOT / f"rviz/{name}.rviz").read_text())["Visualization Manager"]
    return content["Displays"], content["Global Options"]["Fixed Frame"]


@pytest.mark.parametrize(
    ("name", "config", "frame"),
    [
        ("surround", "surround", "base_frame"),
        ("mono", "monocular", "base_frame"),
        ("nav2", "nav2_demo", "odom_frame"),
        ("debug", "surround", "base_frame"),
    ],
)
def test_rviz_shows_topics_that_exist_in_the_frames_of_the_preset(name, config, frame):
    shown, fixed_frame = displays(name)
    (content,) = yaml.safe_load((ROOT / f"config/{config}.yaml").read_text()).values()
    preset = flat(content["ros__parameters"])
    assert fixed_frame == preset[f"frames.{frame}"]
    interface = (ROOT / "docs/ros_interface.md").read_text()
    interface = interface.replace("occupancy/NAME", "occupancy/obstacles")
    interface = interface.replace("NAME", preset["cameras"][0])
    costmap = {"/costmap/costmap"}
    for display in shown:
        topic = display.get("Topic", {}).get("Value", "")
        if topic.startswith("/occany/"):
            assert f"`~/{topic.removeprefix('/occany/')}`" in interface
        elif display["Class"].endswith("Image"):
            cameras = [f"/camera/{camera}/image" for camera in preset["cameras"]]
            assert topic in cameras
        else:
            assert topic in {"", *(costmap if name == "nav2" else ())}
        if display.get("Style") == "Boxes":
            assert display["Size (m)"] == preset["voxels.resolution"]
        if "occupancy" in topic or "loaded" in topic or topic in costmap:
            assert display["Topic"]["Durability Policy"] == "Transient Local"
    assert len({display["Name"] for display in shown}) == len(shown)
    (by_class,) = (one for one in shown if one.get("Channel Name") == "label")
    assert by_class["Max Intensity"] == max(SemanticClass)


def test_every_rviz_file_is_started_by_a_launch_file_or_is_for_debugging():
    launch = "".join(path.read_text() for path in (ROOT / "launch").glob("*.py"))
    files = {path.name for path in (ROOT / "rviz").glob("*.rviz")}
    assert files == {"surround.rviz", "mono.rviz", "nav2.rviz", "debug.rviz"}
    assert all(f'"{name}"' in launch for name in files - {"debug.rviz"})
