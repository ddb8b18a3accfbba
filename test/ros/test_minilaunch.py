# SPDX-License-Identifier: Apache-2.0
"""dev/minilaunch.py starts what launch files describe; our launch files describe themselves."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
MINILAUNCH = ROOT / "dev/minilaunch.py"
LAUNCH_FILES = sorted((ROOT / "launch").glob("*.launch.py"))

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("launch_ros") is not None,
    reason="the real launch_ros is installed and used instead of dev/minilaunch.py",
)

TALKER = """import json, os, signal, sys
files = [sys.argv[i + 1] for i, a in enumerate(sys.argv) if a == "--params-file"]
try:
    print("SAID " + json.dumps(dict(
        argv=sys.argv[1:], files=[open(f).read() for f in files],
        env={k: v for k, v in os.environ.items() if k.startswith("TEST_")})), flush=True)
    if "wait" in sys.argv:
        signal.pause()
except KeyboardInterrupt:
    print("INTERRUPTED", flush=True)
sys.exit(3 if "fail" in sys.argv else 0)
"""

HEAD = """
from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument, GroupAction, IncludeLaunchDescription, SetEnvironmentVariable)
from launch.conditions import IfCondition, UnlessCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import (
    EnvironmentVariable, EqualsSubstitution, LaunchConfiguration, NotEqualsSubstitution,
    PathJoinSubstitution, TextSubstitution)
from launch_ros.actions import Node, PushRosNamespace
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare


def talker(*arguments, **kwargs):
    return Node(package="talkers", executable="talker", arguments=list(arguments), **kwargs)


def generate_launch_description():
    return LaunchDescription([
"""


@pytest.fixture
def prefix(tmp_path):
    """A prefix with the package `talkers`, whose one program tells how it was started."""
    index = tmp_path / "share/ament_index/resource_index/packages"
    index.mkdir(parents=True)
    (index / "talkers").touch()
    program = tmp_path / "lib/talkers/talker"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\nexec '{sys.executable}' '{tmp_path / 'talker.py'}' \"$@\"\n")
    program.chmod(0o755)
    (tmp_path / "talker.py").write_text(TALKER)
    (tmp_path / "share/talkers").mkdir()
    return tmp_path


def command(prefix, entities, *arguments):
    file = prefix / "test.launch.py"
    file.write_text(f"{HEAD}{entities}\n    ])\n")
    return [sys.executable, str(MINILAUNCH), str(file), *arguments]


def environment(prefix):
    return os.environ | {"AMENT_PREFIX_PATH": str(prefix), "TEST_OUTSIDE": "outside"}


def launch(prefix, entities, *arguments):
    """Run to the end; return the process and what each talker said."""
    done = subprocess.run(
        command(prefix, entities, *arguments),
        env=environment(prefix),
        capture_output=True,
        text=True,
        timeout=60,
    )
    said = [
        json.loads(line.split("SAID ")[1]) for line in done.stdout.splitlines() if "SAID " in line
    ]
    return done, said


def test_starts_a_node_like_launch_ros(prefix):
    (prefix / "file.yaml").write_text("/**: {ros__parameters: {from_file: 1}}\n")
    done, (said,) = launch(
        prefix,
        """
        DeclareLaunchArgument("topic", default_value="grid"),
        DeclareLaunchArgument("rate", default_value="2.5"),
        SetEnvironmentVariable("TEST_INSIDE", EnvironmentVariable("TEST_OUTSIDE")),
        talker("plain", name="speaker", namespace="left",
            parameters=[
                PathJoinSubstitution([FindPackageShare("talkers"), "..", "..", "file.yaml"]),
                {"rate": LaunchConfiguration("rate"), "flag": True, "names": ["a", "b"],
                 "empty": LaunchConfiguration("none", default=""),
                 "text": ParameterValue(LaunchConfiguration("rate"), value_type=str)}],
            remappings=[("~/grid", ["/robot/", LaunchConfiguration("topic")])],
            additional_env={"TEST_OWN": TextSubstitution(text="own")}),
        """,
        "topic:=renamed",
    )
    assert done.returncode == 0, done.stderr
    argv = said["argv"]
    assert argv[:2] == ["plain", "--ros-args"]
    remapped = {argv[i + 1] for i, argument in enumerate(argv) if argument == "-r"}
    assert remapped == {"__node:=speaker", "__ns:=/left", "~/grid:=/robot/renamed"}
    from_file, from_launch = (yaml.safe_load(text) for text in said["files"])
    assert from_file["/**"]["ros__parameters"] == {"from_file": 1}
    assert from_launch["/**"]["ros__parameters"] == {
        "rate": 2.5, "flag": True, "names": ["a", "b"], "empty": "", "text": "2.5",
    }  # fmt: skip
    assert said["env"] == {
        "TEST_OUTSIDE": "outside", "TEST_INSIDE": "outside", "TEST_OWN": "own",
    }  # fmt: skip


def test_conditions_groups_and_includes(prefix):
    (prefix / "inner.launch.py").write_text(
        HEAD
        + """
        DeclareLaunchArgument("who"),
        talker(LaunchConfiguration("who")),
    ])
    """
    )
    done, said = launch(
        prefix,
        f"""
        DeclareLaunchArgument("mode", default_value="a", choices=["a", "b"]),
        talker("if", condition=IfCondition(EqualsSubstitution(LaunchConfiguration("mode"), "b"))),
        talker("unless", condition=UnlessCondition("true")),
        talker("not", condition=IfCondition(NotEqualsSubstitution("x", "y"))),
        GroupAction([
            PushRosNamespace("robot"),
            SetEnvironmentVariable("TEST_GROUP", "yes"),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource({str(prefix / "inner.launch.py")!r}),
                launch_arguments={{"who": "included"}}.items()),
        ]),
        talker("after", LaunchConfiguration("who", default="scoped")),
        """,
        "mode:=b",
    )
    assert done.returncode == 0, done.stderr
    by_name = {talk["argv"][0]: talk for talk in said}
    assert set(by_name) == {"if", "not", "included", "after"}
    assert "__ns:=/robot" in by_name["included"]["argv"]
    assert by_name["included"]["env"]["TEST_GROUP"] == "yes"
    assert by_name["after"]["argv"][1] == "scoped"
    assert "TEST_GROUP" not in by_name["after"]["env"]


@pytest.mark.parametrize(
    ("entities", "arguments", "words"),
    [
        ('DeclareLaunchArgument("bag")', (), "'bag' is required"),
        ('DeclareLaunchArgument("m", choices=["a"])', ("m:=z",), "'m' is 'z'; it may be: a"),
        ('talker(LaunchConfiguration("nothing"))', (), "'nothing' does not exist"),
        ('talker(EnvironmentVariable("TEST_NO"))', (), "'TEST_NO' does not exist"),
        ('talker(condition=IfCondition("perhaps"))', (), "neither true nor false: 'perhaps'"),
        ('Node(package="nobody", executable="x")', (), "package 'nobody' is in no prefix"),
        ('Node(package="talkers", executable="x")', (), "executable 'x' not found"),
        (
            '__import__("launch.actions").actions.TimerAction()',
            (),
            "not know launch.actions.Timer",
        ),
    ],
)
def test_mistakes_are_one_sentence(prefix, entities, arguments, words):
    done, said = launch(prefix, entities, *arguments)
    assert done.returncode == 1
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert said == []


def test_unknown_launch_file_and_malformed_argument(prefix):
    for arguments, words in ((["no.launch.py"], "occany_ros"), (["x.launch.py", "a=b"], ":=")):
        done = subprocess.run(
            [sys.executable, str(MINILAUNCH), *arguments],
            env=environment(prefix), capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode != 0
        assert words in done.stderr
        assert "Traceback" not in done.stderr


def test_a_process_that_fails_is_reported(prefix):
    done, _ = launch(prefix, 'talker("fail"), talker("fine")')
    assert done.returncode == 1
    assert "[talker-1]: process has died, exit code 3" in done.stderr
    assert "talker-2" not in done.stderr


def test_seconds_ends_it_with_one_interrupt(prefix):
    begin = time.monotonic()
    done, said = launch(prefix, 'talker("wait")', "--seconds", "1")
    assert done.returncode == 0, done.stderr
    assert len(said) == 1
    assert done.stdout.count("INTERRUPTED") == 1
    assert 1.0 <= time.monotonic() - begin < 30


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_every_process(prefix, number):
    process = subprocess.Popen(
        command(prefix, 'talker("wait"), talker("wait")'),
        env=environment(prefix), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    started = []
    while len(started) < 2:
        line = process.stdout.readline()
        assert line, "minilaunch ended before its processes started"
        started += [line] if "SAID" in line else []
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 0
    assert output.count("INTERRUPTED") == 2


@pytest.mark.parametrize("file", LAUNCH_FILES, ids=lambda file: file.name)
def test_every_argument_of_our_launch_files_is_described(prefix, file):
    (prefix / "share/ament_index/resource_index/packages/occany_ros").touch()
    (prefix / "share/occany_ros").symlink_to(ROOT)
    done = subprocess.run(
        [sys.executable, str(MINILAUNCH), str(file), "--show-args"],
        env=environment(prefix), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    head, *arguments = re.split(r"^    '", done.stdout, flags=re.MULTILINE)
    assert "name>:=<value>" in head
    names = [argument.split("'")[0] for argument in arguments]
    assert len(names) >= 3
    assert len(names) == len(set(names))
    for name, argument in zip(names, arguments, strict=True):
        description = argument.splitlines()[1].strip()
        assert len(description) >= 10, f"{file.name}: {name} has no description"
