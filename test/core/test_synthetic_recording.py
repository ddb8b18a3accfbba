# SPDX-License-Identifier: Apache-2.0
"""The recording: what is written reads back, and the bundled one is what its README says."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from occany_core.errors import InputError
from occany_core.synthetic import recording
from occany_core.synthetic.bag_writer import quaternion_of, ros_topics_of, stamp_of
from occany_core.synthetic.classes import SemanticClass
from occany_core.synthetic.occupancy import OCC3D_GRID
from occany_core.synthetic.rigs import named_rig

RECORDINGS = Path(__file__).resolve().parents[2] / "recordings"
BUNDLED_SEED = 2_000_012
LARGEST_BUNDLE = 3_000_000  # bytes
RIG = {camera.name: camera for camera in named_rig("surround6", *recording.SURROUND_SIZE)}


def read_bag(path):
    """Messages by topic as (stamp in ns, message)."""
    highlevel = pytest.importorskip("rosbags.highlevel", reason="rosbags is not installed")
    messages = {}
    with highlevel.AnyReader([path]) as reader:
        for connection, stamp, data in reader.messages():
            message = reader.deserialize(data, connection.msgtype)
            messages.setdefault(connection.topic, []).append((stamp, message))
    return messages


def picture(message):
    return np.array(Image.open(io.BytesIO(bytes(message.data))))


def rotation_of(q):
    x, y, z, w = q.x, q.y, q.z, q.w
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    pytest.importorskip("rosbags", reason="rosbags is not installed")
    folder = tmp_path_factory.mktemp("recording")
    recording.write_surround(folder, BUNDLED_SEED, sets=2)
    return folder


def check_bag(path, sets):
    messages = read_bag(path)
    stamps = [stamp_of(index * recording.SET_INTERVAL) for index in range(sets)]
    for name, camera in RIG.items():
        topics = ros_topics_of(name)
        assert [stamp for stamp, _ in messages[topics.image]] == stamps
        assert [stamp for stamp, _ in messages[topics.camera_info]] == stamps
        for (stamp, image), (_, info) in zip(messages[topics.image], messages[topics.camera_info]):
            header = image.header
            assert header.stamp.sec * 10**9 + header.stamp.nanosec == stamp
            assert header.frame_id == info.header.frame_id == f"{name}_optical_frame"
            assert image.format == "jpeg"
            assert picture(image).shape == (info.height, info.width, 3)
            np.testing.assert_allclose(info.k.reshape(3, 3), camera.K)
            np.testing.assert_allclose(info.p.reshape(3, 4)[:, :3], camera.K)
    ((_, static),) = messages["/tf_static"]
    for stamped in static.transforms:
        assert stamped.header.frame_id == "base_link"
        name = stamped.child_frame_id.removesuffix("_optical_frame")
        moved, expected = stamped.transform, RIG[name].rig_from_cam
        np.testing.assert_allclose(rotation_of(moved.rotation), expected[:3, :3], atol=1e-12)
        t = moved.translation
        np.testing.assert_allclose([t.x, t.y, t.z], expected[:3, 3])
    assert len(static.transforms) == len(RIG)
    return messages


def test_recording_round_trip(written):
    messages = check_bag(written / "surround", sets=2)
    first = next(recording.drive(BUNDLED_SEED, list(RIG.values()), [0.0], recording.SURROUND_SIZE))
    shown = picture(messages[ros_topics_of("front").image][0][1]).astype(int)
    assert np.abs(shown - first.rgb[0]).mean() < 8  # JPEG at quality 80
    truth = recording.read_truth(written / "surround_truth.npz")
    np.testing.assert_array_equal(truth.semantics[0], first.semantics)
    np.testing.assert_array_equal(truth.mask_camera[0], first.mask_camera)
    assert tuple(truth.origin) == OCC3D_GRID.origin
    assert truth.resolution == OCC3D_GRID.resolution


def test_static_transforms_are_latched_for_late_joiners(written):
    metadata = (written / "surround/metadata.yaml").read_text()
    tf_static = metadata.split("name: /tf_static")[1].split("type: ")[0]
    assert "durability: 1" in tf_static  # transient local
    front = metadata.split("name: /camera/front/image/compressed")[1].split("type: ")[0]
    assert "durability: 2" in front  # volatile


def test_bundled_recording_is_whole_and_small():
    check_bag(RECORDINGS / "surround", recording.SETS)
    truth = recording.read_truth(RECORDINGS / "surround_truth.npz")
    assert truth.semantics.shape == truth.mask_camera.shape == (15, *OCC3D_GRID.shape)
    assert truth.stamps[1] - truth.stamps[0] == 400_000_000
    bundle = [*RECORDINGS.glob("surround/*"), RECORDINGS / "surround_truth.npz"]
    assert sum(path.stat().st_size for path in bundle) < LARGEST_BUNDLE


def test_bundled_truth_is_the_street_that_was_recorded():
    truth = recording.read_truth(RECORDINGS / "surround_truth.npz")
    occupied = truth.semantics != int(SemanticClass.FREE)
    below = occupied[:, 95:105, 95:105]  # the vehicle stands on the level of its wheels
    assert below[..., 1:4].any(axis=-1).all()
    assert not below[..., 5:].any()
    far = occupied[:, 170:, 95:105, :8].any(axis=-1)
    assert far.mean() > 0.9  # ground, whatever its relief
    assert 0.05 < truth.mask_camera.mean() < 0.7


def test_bundled_sequence_is_a_folder_of_pictures():
    pictures = sorted((RECORDINGS / "sequence").glob("*.jpg"))
    assert len(pictures) == recording.SEQUENCE_FRAMES
    assert {Image.open(path).size for path in pictures} == {recording.SEQUENCE_SIZE}
    assert sum(path.stat().st_size for path in pictures) < 300_000


def test_existing_recording_is_not_overwritten(tmp_path, capsys):
    (tmp_path / "surround").mkdir()
    assert recording.main([str(tmp_path), "--seed", str(BUNDLED_SEED)]) == 1
    assert "exists already" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == [tmp_path / "surround"]


def test_broken_truth_is_named(tmp_path):
    (tmp_path / "truth.npz").write_bytes(b"no npz")
    for name in ("truth.npz", "missing.npz"):
        with pytest.raises(InputError, match=name):
            recording.read_truth(tmp_path / name)


def test_quaternions_of_the_rig_are_unit_and_positive():
    for camera in RIG.values():
        quaternion = np.array(quaternion_of(camera.rig_from_cam[:3, :3]))
        assert np.linalg.norm(quaternion) == pytest.approx(1)
        assert quaternion[3] >= 0
