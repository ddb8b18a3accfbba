# SPDX-License-Identifier: Apache-2.0
"""Each finding has its level and a sentence with what, where and what to do."""

from dataclasses import replace

import pytest

pytest.importorskip("rclpy")

from builtin_interfaces.msg import Time

from occany_core.config import LabelsConfig, OccAnyConfig, WindowConfig
from occany_ros.background_looks import LookingState
from occany_ros.cycle_times import Durations, EventRate
from occany_ros.diagnostics import (
    ERROR,
    OK,
    WARN,
    CameraState,
    SyncState,
    camera_finding,
    clock_finding,
    diagnostics_message,
    geometry_finding,
    looking_finding,
    model_finding,
    pipeline_finding,
    skew_explanation,
    sync_finding,
)

CAMERA = CameraState(
    name="left",
    topic="/camera/left/image",
    publishers=1,
    silence_s=0.1,
    is_left_out=False,
    is_required=False,
    is_enabled=True,
    rate_hz=10.0,
    received=50,
    reliability="reliable",
    offers_only_best_effort=False,
    image="1600 x 900 rgb8",
    error="",
    warning="",
)
SYNC = SyncState(
    sets=10,
    partial_sets=0,
    dropped=0,
    clock_jumps=0,
    since_last_set_s=0.1,
    received=60,
    closest_pair="",
)


@pytest.mark.parametrize(
    ("changes", "level", "sentence"),
    [
        ({}, OK, "10.0 Hz, 1600 x 900 rgb8"),
        (
            {"silence_s": 3.2, "is_left_out": True, "publishers": 0},
            WARN,
            "camera left: no image for 3.2 s; /camera/left/image has 0 publishers; "
            "check the remapping or the driver",
        ),
        (
            {"silence_s": 3.2, "is_left_out": True, "is_required": True},
            ERROR,
            "has 1 publisher; the publisher is there but sends nothing",
        ),
        (
            {"silence_s": None, "received": 0, "offers_only_best_effort": True},
            ERROR,
            "no image yet; /camera/left/image has 1 publisher; large best-effort images get lost",
        ),
        ({"error": "unknown encoding 'x'"}, ERROR, "unknown encoding 'x'"),
        ({"warning": "distortion is too strong"}, WARN, "distortion is too strong"),
        ({"rate_hz": 3.4, "fastest_hz": 10.0}, OK, "3.4 Hz"),
        (
            {"rate_hz": 1.0, "fastest_hz": 10.0},
            WARN,
            "camera left: 1.0 Hz, and the fastest camera has 10.0 Hz: view sets wait for it up to "
            "sync.max_wait and then go without; check the driver, or set sync.policy to latest",
        ),
    ],
)
def test_camera(changes, level, sentence):
    finding = camera_finding(replace(CAMERA, **changes))
    assert finding.level == level
    assert sentence in finding.message
    assert finding.values["topic"] == "/camera/left/image"


@pytest.mark.parametrize(
    ("changes", "level", "sentence"),
    [
        ({}, OK, "10 sets, 0 with cameras missing"),
        ({"received": 0}, WARN, "no image from any camera yet"),
        ({"since_last_set_s": 9.0}, ERROR, "no complete view set for 9.0 s"),
        (
            {"partial_sets": 6, "closest_pair": "the stamps of a and b"},
            WARN,
            "10 sets, 6 with cameras missing: the stamps of a and b",
        ),
        ({"since_last_set_s": None, "closest_pair": "raise sync.max_skew"}, ERROR, "max_skew"),
    ],
)
def test_synchroniser(changes, level, sentence):
    finding = sync_finding(replace(SYNC, **changes))
    assert finding.level == level
    assert sentence in finding.message


def test_skew_is_explained_by_the_cameras_to_blame():
    assert skew_explanation({"a": 1.0}, 0.05) == ""
    assert skew_explanation({"a": 1.0, "b": 1.04}, 0.05) == ""
    text = skew_explanation({"a": 1.0, "b": 1.3, "c": 1.1}, 0.05)
    assert "stamps of a and b are 0.300 s apart and 0.050 s are allowed" in text
    assert "another time base" in skew_explanation({"a": 12.0, "b": 1.7e9}, 0.05)


def test_pipeline_geometry_and_model():
    assert pipeline_finding("running", "", 2.0, {"encode": 5.0}).level == OK
    assert pipeline_finding("waiting for images", "", 0.0, {}).level == WARN
    failing = pipeline_finding("failing", "camera a: no picture", 0.0, {})
    assert (failing.level, failing.message) == (ERROR, "camera a: no picture")
    assert geometry_finding("extrinsics", "").level == OK
    level = geometry_finding("assumed level", "")
    assert level.level == WARN
    assert "calibration.camera_height" in level.message
    missing = geometry_finding("assumed level", "no transform from x")
    assert missing.message == "no transform from x"
    assert model_finding("tiny", "ab", "Apache-2.0", "cpu").level == OK
    assert model_finding("occany", "ab", "CC-BY-NC-SA-4.0", "cpu").level == WARN


LOOKING = LookingState(done=3, last_ms=5000.0, skipped=7, comes_late=False, error="")
TOO_LATE = (
    "a view set takes 5000 ms to look at: nothing has labels, because it has left the window"
)


@pytest.mark.parametrize(
    ("changes", "pipeline", "window", "level", "sentence"),
    [
        (
            {},
            "distilled",
            {},
            OK,
            "a view set takes 5000 ms to look at; newer ones wait meanwhile",
        ),
        ({"done": 0}, "distilled", {}, WARN, "no picture was looked at yet"),
        ({"error": "out of memory"}, "distilled", {}, ERROR, "out of memory"),
        (
            {"comes_late": True},
            "distilled",
            {},
            WARN,
            f"{TOO_LATE} by then, and its boxes are too old for newer ones; raise "
            "labels.carry_seconds (1) or window.view_sets (1), or look faster",
        ),
        (
            {"comes_late": True},
            "pretrained",
            {"view_sets": 4, "seconds": 2.0},
            WARN,
            f"{TOO_LATE} by then; raise window.view_sets (4) and window.seconds (2), or look",
        ),
        ({"comes_late": True}, "sam3", {}, WARN, "by then; raise window.view_sets (1), or look"),
    ],
)
def test_looks_that_label_nothing_are_told_with_what_to_set(
    changes, pipeline, window, level, sentence
):
    labels = LabelsConfig(pipeline=pipeline)
    config = OccAnyConfig(labels=labels, window=WindowConfig(**window))
    finding = looking_finding(replace(LOOKING, **changes), config)
    assert finding.level == level
    assert sentence in finding.message
    unused = replace(config, labels=replace(labels, use=False))
    assert looking_finding(replace(LOOKING, done=0), unused).level == OK


def test_clock():
    waiting = clock_finding(uses_sim_time=True, now_s=0.0)
    assert waiting.level == WARN
    assert "nothing publishes /clock" in waiting.message
    assert clock_finding(uses_sim_time=True, now_s=3.0).level == OK
    assert clock_finding(uses_sim_time=False, now_s=1e9).message == "system time"


def test_message_groups_by_node():
    message = diagnostics_message([camera_finding(CAMERA)], "/robot/occany", Time(sec=3))
    assert message.status[0].name == "/robot/occany: camera left"
    assert message.header.stamp.sec == 3


def test_rates_fall_while_nothing_comes():
    rate = EventRate()
    assert rate.hertz(0.0) == 0.0
    for k in range(5):
        rate.note(0.1 * k)
    assert rate.hertz(0.4) == pytest.approx(10)
    assert rate.hertz(2.4) == pytest.approx(0.5)


def test_percentiles_of_the_last_durations():
    durations = Durations()
    assert durations.percentile_ms(50) == durations.last_ms == 0.0
    for ms in range(201):
        durations.note(float(ms))
    assert durations.last_ms == 200
    assert durations.percentile_ms(50) == pytest.approx(150.5)


def test_a_disabled_camera_is_no_fault():
    finding = camera_finding(replace(CAMERA, is_enabled=False, silence_s=60.0, is_left_out=True))
    assert finding.level == OK
    assert finding.message == "disabled by camera.left.enabled"
