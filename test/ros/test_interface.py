# SPDX-License-Identifier: Apache-2.0
"""The running node has the topics, services and parameters of the table, and no others."""

import fnmatch
import gc
import json
import time
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

pytest.importorskip("rclpy")

from nav_msgs.msg import Odometry
from rcl_interfaces.srv import ListParameters
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy
from test_services import Caller
from tf2_msgs.msg import TFMessage

from occany_ros import interface
from occany_ros.declarations import NODE_DECLARATIONS, camera_declarations, core_declarations
from occany_ros.interface_files import POLICY, SCHEMA
from occany_ros.parameters import FOREIGN
from occany_ros.srv import Load, Save
from occany_ros.transforms import HAS_TF_BUFFER

ROOT = Path(__file__).resolve().parents[2]
IGNORED = {*interface.OF_EVERY_NODE, *interface.OF_LIFECYCLE_NODES}
RELIABILITY = {
    "reliable": ReliabilityPolicy.RELIABLE,
    "best effort": ReliabilityPolicy.BEST_EFFORT,
    "as offered": ReliabilityPolicy.RELIABLE,  # what the tests' publishers offer
}


TAKEN_LATCHED_OR_NOT = ("~/input/NAME/mask",)  # by two subscriptions


def full(name):
    name = name.replace("~/", "/occany/").replace("occupancy/NAME", "occupancy/obstacles")
    return name.replace("NAME", "camera")


@pytest.fixture
def complete(ros, tmp_path):
    """A node that does everything it can: odometry, TF, a saved and loaded grid."""
    gc.collect()  # nodes of earlier tests leave the graph only then
    caller = Caller(ros)
    caller.running(
        transport="compressed",
        window__view_sets=2,
        publish__tf=True,
        files__directory=str(tmp_path),
        files__least_free_megabytes=0,
    )
    transforms = caller.listen(TFMessage, "/tf")
    caller.listen(Odometry, "/occany/output/odometry")
    caller.send_until_grid(["camera"], 10**12, count=2)
    caller.ros.spin_until(lambda: transforms, what="/tf")
    assert caller.call(Save, "save", name="scene").success
    assert caller.call(Load, "load", name="scene").success
    return caller


def eventually(caller, read, expected):
    """Wait for the graph, which nodes come to and leave late."""
    deadline = time.monotonic() + 40
    while (found := read()) != expected and time.monotonic() < deadline:
        caller.ros.spin_for(0.2)
    assert found == expected


def test_the_running_node_has_the_topics_and_services_of_the_table(complete):
    tester = complete.tester
    ignored = {full(name) for name in IGNORED}

    def publications():
        found = dict(tester.get_publisher_names_and_types_by_node("occany", "/"))
        return {name: types for name, types in found.items() if name not in ignored}

    expected = {full(t.name): [t.type] for t in interface.PUBLICATIONS}
    eventually(complete, publications, expected)

    absent = {"~/input/NAME/image", "/clock"} | (set() if HAS_TF_BUFFER else {"/tf"})
    expected = {
        full(topic.name): [topic.type]
        for topic in interface.SUBSCRIPTIONS
        if topic.name not in absent
    }
    eventually(
        complete,
        lambda: dict(tester.get_subscriber_names_and_types_by_node("occany", "/")),
        expected,
    )

    of_ros = (*interface.SERVICES_OF_EVERY_NODE, *interface.SERVICES_OF_LIFECYCLE_NODES)
    of_ros = {full(name) for name in of_ros}

    def services():
        found = dict(tester.get_service_names_and_types_by_node("occany", "/"))
        own = {name: types for name, types in found.items() if name not in of_ros}
        return own, of_ros - set(found)

    ours = {full(service.name): [service.type] for service in interface.SERVICES}
    eventually(complete, services, (ours, set()))


def test_qualities_of_service_are_those_of_the_table(complete):
    def ends_of(topic, side):
        return [end for end in side(full(topic.name)) if end.node_name == "occany"]

    def check(topic, side):
        def ends():
            return ends_of(topic, side)

        complete.ros.spin_until(lambda: len(ends()) == 1, 40.0, f"one end of {topic.name}")
        (endpoint,) = ends()
        qos = endpoint.qos_profile
        latched = qos.durability == DurabilityPolicy.TRANSIENT_LOCAL
        assert qos.reliability == RELIABILITY[topic.reliability], topic.name
        assert latched == topic.is_latched, topic.name

    for topic in interface.PUBLICATIONS:
        check(topic, complete.tester.get_publishers_info_by_topic)
    side = complete.tester.get_subscriptions_info_by_topic
    for topic in interface.SUBSCRIPTIONS:
        if topic.name in TAKEN_LATCHED_OR_NOT:
            complete.ros.spin_until(lambda t=topic: len(ends_of(t, side)) == 2, 40.0, topic.name)
            qualities = [end.qos_profile for end in ends_of(topic, side)]
            found = {(one.reliability, one.durability) for one in qualities}
            assert found == {
                (ReliabilityPolicy.RELIABLE, DurabilityPolicy.TRANSIENT_LOCAL),
                (ReliabilityPolicy.BEST_EFFORT, DurabilityPolicy.VOLATILE),
            }
        elif not topic.is_conditional:
            check(topic, side)
    # Discovery does not tell depths; the node's own objects do.
    depths = {p.topic_name: p.qos_profile.depth for p in complete.ros.nodes[-1].publishers}
    for topic in interface.PUBLICATIONS:
        assert depths[full(topic.name)] == topic.depth, topic.name


def test_the_running_node_has_the_parameters_of_the_tables(complete):
    answer = complete.call(ListParameters, "list_parameters")
    found = {n for n in answer.result.names if n.split(".")[0] not in FOREIGN}
    declared = (*NODE_DECLARATIONS, *core_declarations(), *camera_declarations("camera"))
    assert found == {declaration.name for declaration in declared}


# --- what is written from the tables ------------------------------------------------------------


def allowed(kind, verb):
    profile = ElementTree.parse(ROOT / POLICY).getroot().find(".//profile")
    assert (profile.get("ns"), profile.get("node")) == ("/", "occany")
    groups = [group for group in profile.findall(f"{kind}s") if group.get(verb) == "ALLOW"]
    return {entry.text for group in groups for entry in group.findall(kind)}


def test_the_policy_allows_what_the_table_names_and_nothing_else():
    starred = {name.replace("NAME", "*") for name in (t.name for t in interface.PUBLICATIONS)}
    assert allowed("topic", "publish") == starred | IGNORED
    inputs = {topic.name.replace("NAME", "*") for topic in interface.SUBSCRIPTIONS}
    presets = {name.replace("NAME", "*") for name in interface.INPUTS_OF_PRESETS}
    assert allowed("topic", "subscribe") == inputs | presets | {"/parameter_events"}
    of_ros = {*interface.SERVICES_OF_EVERY_NODE, *interface.SERVICES_OF_LIFECYCLE_NODES}
    assert allowed("service", "reply") == {s.name for s in interface.SERVICES} | of_ros
    profile = ElementTree.parse(ROOT / POLICY).getroot().find(".//profile")
    verbs = {verb for group in profile for verb in group.attrib}
    assert verbs == {"publish", "subscribe", "reply"}, "the node calls no services"


def parameter_files():
    for path in sorted((ROOT / "config").glob("*.yaml")):
        for node, content in yaml.safe_load(path.read_text()).items():
            if node.strip("/*") in ("", "occany"):
                yield path.name, content["ros__parameters"]


def test_the_policy_covers_the_topics_of_the_parameter_files():
    patterns = allowed("topic", "subscribe")
    topics = [
        topic.replace("{camera}", "front")
        for _, parameters in parameter_files()
        for topic in parameters.get("topics", {}).values()
    ]
    assert topics
    for topic in topics:
        assert any(fnmatch.fnmatch(topic, pattern) for pattern in patterns), topic


def problems(value, shape, place=""):
    """A small validator: what the schema of parameters uses of JSON schema."""
    kinds = {"boolean": bool, "integer": int, "string": str, "array": list, "object": dict}
    kind = shape.get("type")
    if kind == "number" and type(value) in (int, float):
        kind = None
    if kind is not None and (kind == "number" or type(value) is not kinds[kind]):
        return [f"{place} is {value!r} and not {kind}"]
    found = []
    if value not in shape.get("enum", [value]):
        found.append(f"{place} is {value!r}")
    if isinstance(value, int | float) and not isinstance(value, bool):
        within = shape.get("minimum", value) <= value <= shape.get("maximum", value)
        found += [] if within else [f"{place} is {value!r}"]
    for key, item in value.items() if isinstance(value, dict) else ():
        inner = shape.get("properties", {}).get(key, shape.get("additionalProperties", True))
        if inner is False:
            found.append(f"{place}.{key} is unknown")
        elif inner is not True:
            found += problems(item, inner, f"{place}.{key}")
    return found


def test_the_schema_accepts_our_parameter_files_and_finds_mistakes():
    schema = json.loads((ROOT / SCHEMA).read_text())
    files = list(parameter_files())
    assert len(files) >= 3
    for name, parameters in files:
        assert problems({"occany": {"ros__parameters": parameters}}, schema) == [], name
    wrong = {
        "sync": {"policy": "newest", "max_skew": -1.0},
        "publish": {"tff": True},
        "cameras": "front",
        "camera": {"front": {"enabled": 1}},
    }
    said = "; ".join(problems({"occany": {"ros__parameters": wrong}}, schema))
    mistakes = ("policy is 'newest'", "max_skew is -1.0", ".tff is unknown")
    mistakes += ("cameras is 'front' and not array", "front.enabled is 1 and not boolean")
    assert [mistake for mistake in mistakes if mistake not in said] == []
