# SPDX-License-Identifier: Apache-2.0
"""Recordings from bags and pictures, their timing, and the replay node over real DDS."""

import itertools
import json
import shutil
import subprocess
import sys
import time

import numpy as np
import PIL.Image
import pytest

pytest.importorskip("rclpy")

from rclpy.parameter import Parameter
from rclpy.serialization import deserialize_message
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import CameraInfo, CompressedImage
from tf2_msgs.msg import TFMessage

from occany_core.errors import ConfigError, InputError
from occany_ros.bags import ResultWriter, read_messages
from occany_ros.image_messages import compressed_to_rgb
from occany_ros.picture_folders import SURROUND_CAMERAS, camera_pictures
from occany_ros.pose_messages import matrix_from_transform
from occany_ros.recording import Entry, Topic
from occany_ros.replay import Playback, ReplayNode, schedule, shifted
from occany_ros.sources import open_recording

S = 1_000_000_000


def save(path, size=(32, 24)):
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.new("RGB", size, (200, 100, 50)).save(path)
    return path


# --- what a path holds ------------------------------------------------------------------------


def test_bag_gives_topics_and_messages_in_order(recording):
    found = open_recording(str(recording))
    names = {topic.name: topic for topic in found.topics}
    assert len(names) == 13
    assert names["/tf_static"].is_latched
    assert not names["/camera/front/camera_info"].is_latched
    entries = list(found.entries())
    assert len(entries) == 1 + 8 * 12
    assert entries[0].topic == "/tf_static"
    stamps = [entry.stamp_ns for entry in entries]
    assert stamps == sorted(stamps)
    assert found.duration_ns == pytest.approx(8 * 250_000_000, abs=2)


def test_one_picture_and_a_folder_in_natural_order(tmp_path):
    for name in ("f10.png", "f9.jpg", "f1.bmp"):
        save(tmp_path / name)
    found = open_recording(str(tmp_path), period_s=0.25)
    assert found.cameras == ("camera",)
    assert found.picture_count == 3
    order = camera_pictures(tmp_path, "sequence")["camera"]
    assert [path.name for path in order] == ["f1.bmp", "f9.jpg", "f10.png"]
    assert [e.stamp_ns for e in found.entries()] == [250_000_000, 500_000_000, 750_000_000]
    assert open_recording(str(tmp_path / "f9.jpg")).picture_count == 1


def test_pictures_become_messages_that_decode(tmp_path):
    save(tmp_path / "a.bmp", size=(48, 32))
    entry = next(iter(open_recording(str(tmp_path)).entries()))
    message = deserialize_message(entry.data, CompressedImage)
    assert entry.topic == "camera/camera/image/compressed"
    assert message.format == "png"
    assert message.header.frame_id == "camera_optical_frame"


def test_a_folder_per_camera_is_a_rig_with_the_front_first(tmp_path):
    for camera in ("back", "front", "extra cam"):
        save(tmp_path / camera / "0.jpg")
    (tmp_path / "empty").mkdir()
    assert open_recording(str(tmp_path)).cameras == ("front", "back", "extra_cam")


def test_six_loose_pictures_are_a_rig_only_when_asked(tmp_path):
    for k in range(6):
        save(tmp_path / f"{k}.png")
    assert open_recording(str(tmp_path)).cameras == ("camera",)
    assert open_recording(str(tmp_path), rig="surround").cameras == SURROUND_CAMERAS
    assert "front_left" in open_recording(str(tmp_path), rig="surround").cameras[1]
    save(tmp_path / "7.png")
    with pytest.raises(InputError, match="holds 7 pictures; a surround rig of loose pictures"):
        open_recording(str(tmp_path), rig="surround")


def test_loose_pictures_with_the_names_of_cameras(tmp_path):
    for camera in ("left", "front", "right"):
        save(tmp_path / f"{camera}.jpg")
    assert open_recording(str(tmp_path), rig="surround").cameras == ("front", "left", "right")


def test_no_picture_is_lost_to_another_of_its_name(tmp_path):
    for name in ("front.jpg", "front.png", "back.png"):
        save(tmp_path / "loose" / name)
    with pytest.raises(InputError, match="2 pictures are named front"):
        open_recording(str(tmp_path / "loose"), rig="surround")
    for name in ("cam 1", "cam-1"):
        save(tmp_path / "rig" / name / "0.png")
    with pytest.raises(InputError, match="two subfolders become the camera cam_1"):
        open_recording(str(tmp_path / "rig"))
    save(tmp_path / "rig" / "thumbnail.png")
    with pytest.raises(InputError, match=r"thumbnail\.png beside subfolders"):
        open_recording(str(tmp_path / "rig"))


def test_a_calibration_file_becomes_camera_info_and_tf(tmp_path):
    save(tmp_path / "rig" / "front" / "0.jpg", size=(64, 48))
    rig_from_cam = [[0, 0, 1, 1.5], [-1, 0, 0, 0.2], [0, -1, 0, 1.6], [0, 0, 0, 1]]
    known = {
        "front": {"K": [[50, 0, 31.5], [0, 51, 23.5], [0, 0, 1]], "rig_from_cam": rig_from_cam}
    }
    (tmp_path / "rig.json").write_text(json.dumps(known))
    place = str(tmp_path / "rig")
    found = open_recording(place, calibration=str(tmp_path / "rig.json"))
    entries = {entry.topic: entry for entry in found.entries()}
    assert [topic.name for topic in found.topics if topic.is_latched] == ["/tf_static"]
    info = deserialize_message(entries["camera/front/camera_info"].data, CameraInfo)
    assert (info.width, info.height) == (64, 48)
    np.testing.assert_allclose(info.k, [50, 0, 31.5, 0, 51, 23.5, 0, 0, 1])
    (transform,) = deserialize_message(entries["/tf_static"].data, TFMessage).transforms
    np.testing.assert_allclose(matrix_from_transform(transform.transform), rig_from_cam, atol=1e-9)
    assert transform.child_frame_id == "front_optical_frame"
    (tmp_path / "rig.json").write_text(json.dumps({"back": {}}))
    with pytest.raises(InputError, match="has no camera 'front'"):
        open_recording(place, calibration=str(tmp_path / "rig.json"))


def test_a_picture_on_its_side_is_turned_upright(tmp_path):
    picture = PIL.Image.new("RGB", (40, 20))
    exif = picture.getexif()
    exif[0x0112] = 6
    picture.save(tmp_path / "phone.jpg", exif=exif)
    entry = next(iter(open_recording(str(tmp_path)).entries()))
    message = deserialize_message(entry.data, CompressedImage)
    assert compressed_to_rgb(message, "/any").shape == (40, 20, 3)


def test_what_cannot_be_played_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nowhere does not exist"):
        open_recording(str(tmp_path / "nowhere"))
    with pytest.raises(InputError, match="'' does not exist"):
        open_recording("")
    with pytest.raises(InputError, match="holds no pictures"):
        open_recording(str(tmp_path))
    (tmp_path / "notes.txt").write_text("no bag")
    with pytest.raises(InputError, match="neither a bag"):
        open_recording(str(tmp_path / "notes.txt"))
    (tmp_path / "broken.mcap").write_bytes(b"no bag")
    with pytest.raises(InputError, match=r"broken\.mcap is not a readable bag"):
        open_recording(str(tmp_path / "broken.mcap"))
    (tmp_path / "metadata.yaml").write_text("rosbag2_bagfile_information: 3")
    with pytest.raises(InputError, match="is not a readable bag"):
        open_recording(str(tmp_path))


def test_a_corrupt_picture_is_named_before_anything_plays(tmp_path):
    save(tmp_path / "0.jpg")
    damaged = save(tmp_path / "1.jpg", size=(320, 240))
    damaged.write_bytes(damaged.read_bytes()[:400])
    with pytest.raises(InputError, match=r"1\.jpg is not a readable picture"):
        open_recording(str(tmp_path))


# --- timing -------------------------------------------------------------------------------------


class Two:
    """Two messages, one second apart, recorded long ago."""

    name, topics, start_ns, duration_ns = "two", (), 100 * S, 2 * S

    def entries(self):
        yield Entry(100 * S, "/a", b"")
        yield Entry(101 * S, "/a", b"")


def playback(**changes):
    values = {"rate": 1.0, "loop": True, "is_shifted_to_now": False, "loops_jump_back": False}
    return Playback(**(values | changes))


def times(recording, how, count=4, now_ns=5000 * S):
    dues = itertools.islice(schedule(recording, how, now_ns), count)
    return [(due.played_s, (due.entry.stamp_ns + due.shift_ns) / S) for due in dues]


def test_loops_go_on_or_jump_back():
    assert times(Two(), playback()) == [(0, 100), (1, 101), (2, 102), (3, 103)]
    assert times(Two(), playback(loops_jump_back=True)) == [(0, 100), (1, 101), (2, 100), (3, 101)]
    assert times(Two(), playback(loop=False)) == [(0, 100), (1, 101)]


def test_stamps_may_begin_now():
    assert times(Two(), playback(is_shifted_to_now=True), 3) == [(0, 5000), (1, 5001), (2, 5002)]


def test_serialized_stamps_are_moved(recording):
    entry = next(e for e in open_recording(str(recording)).entries() if "image" in e.topic)
    before = deserialize_message(entry.data, CompressedImage)
    after = deserialize_message(shifted(entry.data, -1_500_000_001), CompressedImage)

    def stamp_ns(message):
        return message.header.stamp.sec * S + message.header.stamp.nanosec

    assert stamp_ns(after) == stamp_ns(before) - 1_500_000_001
    assert after.data == before.data


# --- the node -----------------------------------------------------------------------------------


def parameters(**values):
    return [Parameter(name, value=value) for name, value in values.items()]


def test_node_plays_everything_into_its_namespace(ros, recording):
    node = ros.add(
        ReplayNode(
            context=ros.context,
            namespace="robot",
            parameter_overrides=parameters(input=str(recording), rate=8.0, clock=True, wait=10.0),
        )
    )
    listener = ros.node("listener", namespace="robot")
    received = {"images": [], "infos": [], "clock": []}
    for camera in SURROUND_CAMERAS:
        listener.create_subscription(
            CompressedImage, f"camera/{camera}/image/compressed", received["images"].append, 10
        )
    listener.create_subscription(
        CameraInfo, "/robot/camera/back/camera_info", received["infos"].append, 10
    )
    listener.create_subscription(Clock, "/clock", received["clock"].append, 100)
    began = time.monotonic()
    node.play(ros.executor)
    assert time.monotonic() - began > 8 * 0.25 / 8
    assert len(received["images"]) == 8 * 6
    assert len(received["infos"]) == 8
    seconds = [m.clock.sec + m.clock.nanosec * 1e-9 for m in received["clock"]]
    assert np.all(np.diff(seconds) >= 0)
    assert 1000 <= seconds[-1] <= 1002


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"rate": 0.0}, "rate is 0.0; it must be positive"),
        ({"loop_stamps": "no"}, "loop_stamps is 'no'; it must be shift or back"),
        ({"rig": "odd"}, "rig is 'odd'"),
    ],
)
def test_wrong_parameters_are_refused_in_words(ros, values, sentence):
    with pytest.raises(ConfigError, match=sentence):
        ReplayNode(context=ros.context, parameter_overrides=parameters(**values))


@pytest.mark.ros
def test_program_ends_with_one_sentence_and_code_1(tmp_path):
    command = [sys.executable, "-m", "occany_ros.replay", "--ros-args"]
    command += ["-p", f"input:={tmp_path / 'nowhere'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "nowhere does not exist; give a bag, a picture or a folder" in done.stderr
    assert "Traceback" not in done.stderr


# --- what is written ----------------------------------------------------------------------------


def test_result_is_one_file_that_appears_when_complete(tmp_path, recording):
    path = tmp_path / "out" / "result.mcap"
    writer = ResultWriter(path)
    entries = list(open_recording(str(recording)).entries())[:20]
    types = {t.name: t.type_name for t in open_recording(str(recording)).topics}
    for entry in entries:
        writer.write(entry.topic, types[entry.topic], entry.stamp_ns, entry.data)
    assert not path.exists()
    writer.close()
    assert [topic for topic, _ in read_messages(path)] == [entry.topic for entry in entries]
    assert [p.name for p in path.parent.iterdir()] == ["result.mcap"]
    with pytest.raises(InputError, match="nothing was received"):
        list(read_messages(tmp_path / "none.mcap"))


def test_our_own_messages_are_described_inside_the_file(tmp_path):
    path = tmp_path / "result.mcap"
    writer = ResultWriter(path)
    writer.write("/status", "occany_ros/msg/OccAnyStatus", 1, b"\0\1\0\0")
    writer.write("/grid", "occany_ros/msg/VoxelGrid", 2, b"\0\1\0\0")
    writer.close()
    content = path.read_bytes()
    assert b"float32 latency_ms_p50" in content
    topics = open_recording(str(path)).topics
    assert Topic("/grid", "occany_ros/msg/VoxelGrid") in topics


def test_nothing_written_leaves_nothing(tmp_path):
    writer = ResultWriter(tmp_path / "result.mcap")
    writer.close()
    assert list(tmp_path.iterdir()) == []
    shutil.rmtree(tmp_path)
