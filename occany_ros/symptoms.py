# SPDX-License-Identifier: Apache-2.0
"""What a look at the ROS graph tells about why nothing comes out: facts -> findings in words.

The functions are pure. What the node itself reports on /diagnostics is not repeated here; these
are the faults that it cannot see, among them its own absence.
"""

import difflib
from dataclasses import dataclass
from pathlib import Path

from occany_core.errors import OccAnyError
from occany_ros.diagnostics import ERROR, OK, WARN, Finding

RAW, COMPRESSED = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"
IMAGE_TYPES = {RAW: "raw", COMPRESSED: "compressed"}
MEGABYTE = 1_000_000
SEGMENT_MEGABYTES = 67
"""Shared memory of one process with config/fastdds.xml."""
TOPICS_SHOWN = 4


@dataclass(frozen=True, slots=True)
class End:
    """A publisher or a subscription of a topic."""

    node: str
    type_name: str
    is_reliable: bool


@dataclass(frozen=True, slots=True)
class ImageTopic:
    """A topic that a node wants images from."""

    topic: str
    wanted: End
    offers: tuple[End, ...]


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the doctor's own process has."""

    domain: str
    profile: str
    """Path in FASTRTPS_DEFAULT_PROFILES_FILE or FASTDDS_DEFAULT_PROFILES_FILE, or empty."""
    middleware: str
    shared_megabytes: int | None
    """Free in /dev/shm; None where there is none."""


def presence_finding(found: list[str], others: int, asked: str, domain: str) -> Finding:
    """Judge whether there is a node to look at.

    Args:
        found: Full names of the nodes that publish OccAnyStatus.
        others: Nodes of other kinds.
        asked: The one that is asked for, or empty.
        domain: ROS_DOMAIN_ID.
    """
    if asked in found or (found and not asked):
        return Finding("node", OK, f"found {', '.join(found)}")
    who = f"no node {asked}" if asked else "no occany node"
    there = f"; there are {', '.join(found)}" if found else f"; {others} other nodes answer"
    return Finding(
        "node",
        ERROR,
        f"{who} is seen in ROS domain {domain}{there}: start one (ros2 launch occany_ros "
        "surround.launch.py), and give it and this shell the same ROS_DOMAIN_ID, "
        "ROS_AUTOMATIC_DISCOVERY_RANGE and RMW_IMPLEMENTATION",
    )


def life_finding(node: str, state: str | None) -> Finding:
    """Judge the lifecycle state; None when the node did not answer."""
    if state is None:
        return Finding(
            "life", WARN, f"{node} does not answer: it may be loading its weights, or hang"
        )
    if state == "active":
        return Finding("life", OK, f"{node} is active")
    step = "configure" if state == "unconfigured" else "activate"
    return Finding(
        "life",
        ERROR,
        f"{node} is {state} and processes nothing: run `ros2 lifecycle set {node} {step}`, or "
        "start it with autostart:=true; if that fails, the line `pipeline` says why",
    )


def topic_finding(image: ImageTopic, elsewhere: dict[str, str]) -> Finding:
    """Judge whether images can arrive.

    Args:
        image: The topic and its ends.
        elsewhere: Type by name of all image topics that somebody publishes.
    """
    name, topic, wanted = f"topic {image.topic}", image.topic, image.wanted
    kind = IMAGE_TYPES[wanted.type_name]
    fitting = [offer for offer in image.offers if offer.type_name == wanted.type_name]
    if not image.offers:
        return Finding(name, ERROR, f"nobody publishes {topic}; {_instead(topic, elsewhere)}")
    if not fitting:
        other = image.offers[0]
        is_image = other.type_name in IMAGE_TYPES
        remedy = (
            f"set transport to {IMAGE_TYPES.get(other.type_name)}"
            if is_image
            else "remap the node to a topic of images"
        )
        return Finding(
            name,
            ERROR,
            f"{other.node} publishes {topic} as {other.type_name} and the node takes {kind} "
            f"images; {remedy}",
        )
    if wanted.is_reliable and not any(offer.is_reliable for offer in fitting):
        return Finding(
            name,
            ERROR,
            f"QoS mismatch: the node subscribes to {topic} reliably and {fitting[0].node} offers "
            "best effort only; set camera.NAME.reliability to auto or best_effort",
        )
    return Finding(name, OK, f"{fitting[0].node} publishes {kind} images")


def _instead(topic: str, elsewhere: dict[str, str]) -> str:
    if not elsewhere:
        return "nobody publishes images at all: start the camera driver or the replay"
    close = difflib.get_close_matches(topic, elsewhere, n=TOPICS_SHOWN, cutoff=0.0)
    listed = ", ".join(f"{other} ({IMAGE_TYPES[elsewhere[other]]})" for other in close)
    return f"images are published on {listed}: set image_topic and transport, or remap"


def memory_finding(surroundings: Surroundings) -> Finding:
    """Judge whether large raw images get through Fast DDS."""
    name = "shared memory"
    if surroundings.middleware not in ("", "rmw_fastrtps_cpp", "rmw_fastrtps_dynamic_cpp"):
        return Finding(name, OK, f"not looked at: the middleware is {surroundings.middleware}")
    advice = "matters for raw images and for JPEGs above 64 kB, in this shell and the driver's"
    if not surroundings.profile:
        return Finding(
            name,
            WARN,
            "no Fast DDS profile is set: large best-effort images get lost; export "
            "FASTRTPS_DEFAULT_PROFILES_FILE and FASTDDS_DEFAULT_PROFILES_FILE as "
            f"config/fastdds.xml, as our launch files do ({advice})",
        )
    if not Path(surroundings.profile).is_file():
        return Finding(
            name,
            ERROR,
            f"the Fast DDS profile {surroundings.profile} does not exist, and is ignored in "
            f"silence; name config/fastdds.xml of occany_ros ({advice})",
        )
    free = surroundings.shared_megabytes
    if free is None or free < SEGMENT_MEGABYTES:
        there = "there is no /dev/shm" if free is None else f"only {free} MB are free in /dev/shm"
        return Finding(
            name,
            WARN,
            f"{there} and each process of the profile takes {SEGMENT_MEGABYTES} MB: give a "
            "container --shm-size 512m, and remove /dev/shm/fast* when no ROS process runs",
        )
    return Finding(name, OK, f"{surroundings.profile}, {free} MB free in /dev/shm")


def weights_finding(checkpoint: str) -> Finding:
    """Judge whether weights can be loaded, by loading them here."""
    from occany_core import load_model  # takes PyTorch and its seconds

    try:
        model = load_model(checkpoint, device="cpu")
    except OccAnyError as error:
        return Finding("weights", ERROR, str(error))
    return Finding("weights", OK, f"{checkpoint} is {model.name}, and complete")


def output_finding(node: str, state: str | None, grids: int, seconds: float) -> Finding:
    """Judge what comes out.

    Args:
        node: Full name.
        state: The word in OccAnyStatus, or None when no status came.
        grids: Grids that came while listening.
        seconds: For how long that was.
    """
    if grids:
        return Finding("output", OK, f"grids within {seconds:.0f} s: {grids} or more")
    said = f"; the node says: {state}" if state else "; no status came either"
    return Finding(
        "output",
        ERROR,
        f"no grid on {node}/output/voxel_grid within {seconds:.0f} s{said}. The lines that are "
        "not ok say why; a slow machine may need --seconds 60",
    )
