# SPDX-License-Identifier: Apache-2.0
"""The doctor names the fault: each is made over real DDS, or put into facts by hand."""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from conftest import Ros
from rclpy.qos import QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
from test_node import Bench

from occany_ros.diagnostics import ERROR, OK, WARN
from occany_ros.doctor import Doctor, report
from occany_ros.symptoms import (
    COMPRESSED,
    RAW,
    End,
    ImageTopic,
    Surroundings,
    life_finding,
    memory_finding,
    output_finding,
    presence_finding,
    topic_finding,
    weights_finding,
)

ROOT = Path(__file__).resolve().parents[2]
WANTED = End("/occany", RAW, is_reliable=True)
DRIVER = End("/driver", RAW, is_reliable=True)
FRONT = ImageTopic("/camera/front/image", WANTED, (DRIVER,))


@pytest.mark.parametrize(
    ("finding", "level", "words"),
    [
        (
            presence_finding([], 3, "", "7"),
            ERROR,
            "no occany node is seen in ROS domain 7; 3 other",
        ),
        (presence_finding(["/a/occany"], 3, "/occany", "0"), ERROR, "there are /a/occany"),
        (presence_finding(["/occany"], 3, "", "0"), OK, "found /occany"),
        (life_finding("/occany", "unconfigured"), ERROR, "lifecycle set /occany configure"),
        (life_finding("/occany", "inactive"), ERROR, "lifecycle set /occany activate"),
        (life_finding("/occany", None), WARN, "does not answer"),
        (life_finding("/occany", "active"), OK, "is active"),
        (topic_finding(FRONT, {}), OK, "/driver publishes raw images"),
        (topic_finding(replace(FRONT, offers=()), {}), ERROR, "nobody publishes images at all"),
        (
            topic_finding(
                replace(FRONT, offers=()), {"/cam/front/image_raw": RAW, "/x": COMPRESSED}
            ),
            ERROR,
            "nobody publishes /camera/front/image; images are published on /cam/front/image_raw "
            "(raw), /x (compressed)",
        ),
        (
            topic_finding(replace(FRONT, offers=(End("/driver", COMPRESSED, True),)), {}),
            ERROR,
            "takes raw images; set transport to compressed",
        ),
        (
            topic_finding(
                replace(FRONT, offers=(End("/driver", "std_msgs/msg/String", True),)), {}
            ),
            ERROR,
            "remap the node to a topic of images",
        ),
        (
            topic_finding(replace(FRONT, offers=(End("/driver", RAW, False),)), {}),
            ERROR,
            "QoS mismatch: the node subscribes to /camera/front/image reliably",
        ),
        (output_finding("/occany", "waiting for images", 0, 6), ERROR, "says: waiting for images"),
        (output_finding("/occany", None, 0, 6), ERROR, "no status came either"),
        (output_finding("/occany", "running", 4, 6), OK, "grids within 6 s: 4"),
    ],
)
def test_findings_say_what_where_and_what_to_do(finding, level, words):
    assert finding.level == level
    assert words in finding.message


def test_a_missing_shared_memory_profile_is_told(tmp_path):
    profile = tmp_path / "fastdds.xml"
    around = Surroundings("0", str(profile), "", 500)
    assert "does not exist" in memory_finding(around).message
    profile.write_text("<dds/>")
    assert memory_finding(around).level == OK
    assert "only 10 MB" in memory_finding(replace(around, shared_megabytes=10)).message
    assert "no /dev/shm" in memory_finding(replace(around, shared_megabytes=None)).message
    assert "no Fast DDS profile is set" in memory_finding(replace(around, profile="")).message
    other = replace(around, profile="", middleware="rmw_cyclonedds_cpp")
    assert memory_finding(other).level == OK


def test_bad_weights_are_told(tmp_path):
    (tmp_path / "weights.safetensors").write_bytes(b"no weights")
    finding = weights_finding(str(tmp_path / "weights.safetensors"))
    assert finding.level == ERROR
    assert "weights.safetensors" in finding.message
    assert weights_finding("default").level == OK


# --- over real DDS ------------------------------------------------------------------------------


@pytest.fixture
def bench(ros):
    return Bench(ros)


@pytest.fixture
def elsewhere():
    """Another process, as far as DDS is concerned."""
    other = Ros()
    yield other
    other.close()


def examined(bench, seconds=1.0, node=""):
    """Let the doctor look while the bench's nodes live; findings by name."""
    doctor = bench.ros.add(Doctor(bench.ros.executor, context=bench.ros.context))
    return {finding.name: finding for finding in doctor.examine(node, seconds)}


def test_a_healthy_node_has_no_error(bench):
    bench.running(transport="compressed")
    bench.send_until_grid(["camera"], 10**12)
    step = iter(range(1, 10**6))
    bench.tester.create_timer(
        0.1, lambda: bench.send(["camera"], 10**12 + (10 + next(step)) * 10**8)
    )
    found = examined(bench, seconds=20.0)
    assert found["output"].level == OK
    assert found["life"].level == OK
    topics = [name for name in found if name.startswith("topic ")]
    assert topics == ["topic /occany/input/camera/compressed"]  # nobody has to send masks
    assert found[topics[0]].level == OK
    assert {"camera camera", "synchroniser", "pipeline", "model"} <= set(found)


def test_an_unconfigured_node_with_bad_weights_is_told(bench, tmp_path):
    bench.make(model__checkpoint=str(tmp_path / "none.safetensors"))
    found = examined(bench)
    assert "is unconfigured and processes nothing" in found["life"].message
    assert "none.safetensors" in found["weights"].message
    assert "the node says: stopped" in found["output"].message


def test_wrong_topics_types_and_qos_are_told(bench, elsewhere):
    bench.running(("left", "right", "roof"), camera__roof__reliability="reliable")
    driver = elsewhere.node("driver")  # one DDS participant cannot have a topic in two types
    driver.create_publisher(CompressedImage, "/occany/input/left/image", 1)
    driver.create_publisher(Image, "/driver/right/image", 1)
    best_effort = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
    driver.create_publisher(Image, "/occany/input/roof/image", best_effort)
    bench.ros.spin_for(1.0)
    found = examined(bench)
    assert "set transport to compressed" in found["topic /occany/input/left/image"].message
    right = found["topic /occany/input/right/image"].message
    assert "images are published on" in right
    assert "/driver/right/image (raw)" in right
    assert "/occany/output" not in right
    assert "QoS mismatch" in found["topic /occany/input/roof/image"].message
    assert "no image yet" in found["camera right"].message
    text = report(list(found.values()), as_json=False)
    assert text.splitlines()[0].startswith("ERROR")
    assert "docs/nothing_comes_out.md" in text


def test_another_node_than_the_one_asked_for_is_named(bench):
    bench.make(namespace="robot")
    found = examined(bench, node="/occany")
    assert "no node /occany" in found["node"].message
    assert "there are /robot/occany" in found["node"].message


def test_the_program_finds_a_node_of_another_process(bench):
    bench.make(namespace="robot")
    command = [sys.executable, "-m", "occany_ros.doctor", "--json", "--seconds", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        bench.ros.spin_until(lambda: program.poll() is not None, 120, "the end of the doctor")
        lines = {line["name"]: line for line in json.loads(program.stdout.read())}
    assert program.returncode == 1
    assert lines["node"]["message"] == "found /robot/occany"
    assert "/robot/occany is unconfigured" in lines["life"]["message"]


def test_the_program_ends_with_1_and_json_where_there_is_nothing():
    environment = os.environ | {"ROS_DOMAIN_ID": "101"}
    done = subprocess.run(
        [sys.executable, "-m", "occany_ros.doctor", "--json"],
        env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    lines = json.loads(done.stdout)
    assert {line["name"] for line in lines} == {"node", "weights", "shared memory"}
    assert "Traceback" not in done.stderr


def test_what_the_page_quotes_is_what_is_said():
    page = (ROOT / "docs/nothing_comes_out.md").read_text()
    quoted = [
        quote
        for row in re.findall(r"^\|[^|]*\|([^|]*)\|[^|]*\|$", page, re.MULTILINE)[2:]
        for quote in re.findall(r"`([^`]+)`", row)
    ]
    assert len(quoted) > 15
    sources = "".join(path.read_text() for path in (ROOT / "occany_ros").glob("*.py"))
    sources = re.sub(r'"\s+f?"', "", sources)  # sentences over several lines of source
    assert [quote for quote in quoted if quote not in sources] == []
