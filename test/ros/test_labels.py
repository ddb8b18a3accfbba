# SPDX-License-Identifier: Apache-2.0
"""Classes over real DDS: in grids, points and masks, what ids mean, and the choice of them."""

import numpy as np
import pytest

pytest.importorskip("rclpy")

from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import Image, PointCloud2
from std_msgs.msg import ColorRGBA
from street_views import probed_model
from test_node import FAILURE, SUCCESS
from test_services import Caller

from occany_core.checkpoints import save_model
from occany_core.synthetic.classes import SemanticClass
from occany_ros.grid_messages import cells_from_compact, cells_from_message
from occany_ros.msg import LabelInfo, VoxelGridCompact
from occany_ros.srv import GetVoxelGrid, SetLabels

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
PATIENCE_S = 60.0
NAMES = [one.name.lower() for one in SemanticClass]
SEEN = [int(one) for one in SemanticClass]


class Labeller(Caller):
    """A caller that has heard what the ids mean, late as it may be."""

    def infos(self):
        found = []
        topic = "/occany/output/label_info"
        self.tester.create_subscription(LabelInfo, topic, found.append, LATCHED)
        self.ros.spin_until(lambda: found, PATIENCE_S, "label_info")
        return found


@pytest.fixture
def labeller(ros):
    return Labeller(ros)


def test_grids_points_and_masks_carry_ids_that_label_info_explains(labeller):
    labeller.running(transport="compressed", voxels__min_confidence=1.0)
    compact = labeller.listen(VoxelGridCompact, "/occany/output/voxel_grid_compact")
    points = labeller.listen(PointCloud2, "/occany/output/voxel_points")
    masks = labeller.listen(Image, "/occany/output/camera/mask")
    labeller.send_until_grid(["camera"], 10**12)
    labeller.ros.spin_until(lambda: compact and points and masks, PATIENCE_S, "all outputs")
    (info,) = labeller.infos()
    assert info.version == 1
    assert [(one.id, one.name) for one in info.classes] == list(enumerate(NAMES))
    assert info.source == "class probe of the weights tiny"
    colour = info.classes[SemanticClass.CAR].colour
    assert (colour.r, colour.g, colour.b) == pytest.approx((1.0, 158 / 255, 0.0))

    cells = cells_from_message(labeller.grids[-1])
    assert set(np.unique(cells.labels[cells.occupied])) <= {*SEEN, LabelInfo.UNLABELLED}
    assert (cells.labels[cells.occupied] != LabelInfo.UNLABELLED).mean() > 0.5
    assert (cells.labels[~cells.occupied] == LabelInfo.UNLABELLED).all()
    packed = cells_from_compact(compact[-1])
    (grid,) = (one for one in labeller.grids if one.header == compact[-1].header)
    occupied = packed.occupied
    np.testing.assert_array_equal(
        packed.labels[occupied], cells_from_message(grid).labels[occupied]
    )
    record = np.dtype({"names": ["label"], "formats": ["u1"], "offsets": [20], "itemsize": 24})
    in_points = np.frombuffer(points[-1].data, record)["label"]
    assert set(in_points) <= {*SEEN, LabelInfo.UNLABELLED}
    assert (in_points != LabelInfo.UNLABELLED).any()
    mask = masks[-1]
    assert (mask.encoding, mask.width, mask.height, mask.step) == ("mono8", 64, 32, 64)
    assert mask.header.frame_id == "camera_optical_frame"
    assert set(mask.data) <= set(SEEN)


def test_a_choice_of_classes_by_service_has_a_new_version_and_nothing_else(labeller):
    labeller.running(transport="compressed", publish__voxel_colours="class")
    masks = labeller.listen(Image, "/occany/output/camera/mask")
    points = labeller.listen(PointCloud2, "/occany/output/voxel_points")
    labeller.send_until_grid(["camera"], 10**12)
    labeller.ros.spin_until(lambda: masks and points, PATIENCE_S, "a mask")
    infos = labeller.infos()
    found = np.bincount(np.frombuffer(masks[-1].data, np.uint8), minlength=256)
    first, second = (NAMES[label] for label in found.argsort()[::-1][:2])
    colours = [ColorRGBA(r=1.0, g=0.5), ColorRGBA(b=1.0)]
    answer = labeller.call(SetLabels, "set_labels", names=[second, first], colours=colours)
    assert answer.success, answer.message
    assert answer.message == f"labelled are: {second}, {first}"
    assert answer.version == 2
    labeller.ros.spin_until(lambda: len(infos) == 2, PATIENCE_S, "the new label_info")
    assert infos[-1].version == 2
    assert [one.name for one in infos[-1].classes] == [second, first]
    assert [one.id for one in infos[-1].classes] == [NAMES.index(second), NAMES.index(first)]
    assert infos[-1].classes[1].colour == ColorRGBA(b=1.0, a=1.0)

    labeller.send_until_grid(["camera"], 2 * 10**12, count=2)
    wanted = {NAMES.index(first), NAMES.index(second), LabelInfo.UNLABELLED}
    is_new = lambda messages: messages[-1].header.stamp.sec >= 2000  # noqa: E731
    labeller.ros.spin_until(lambda: is_new(masks) and is_new(points), PATIENCE_S, "new masks")
    assert set(masks[-1].data) <= wanted
    assert LabelInfo.UNLABELLED in set(masks[-1].data) or found[list(wanted)].sum() == found.sum()
    answer = labeller.call(GetVoxelGrid, "get_voxel_grid")
    assert set(np.unique(answer.grid.labels)) <= wanted
    record = np.dtype(
        {"names": ["rgb", "label"], "formats": ["<u4", "u1"], "offsets": [12, 20], "itemsize": 24}
    )
    cloud = np.frombuffer(points[-1].data, record)
    grey = 0x808080
    shown = {255: grey, NAMES.index(second): 0xFF8000, NAMES.index(first): 0x0000FF}
    assert len(cloud) > 0
    assert all(one["rgb"] == shown[int(one["label"])] for one in cloud)

    assert labeller.call(SetLabels, "set_labels").message == "labelled are: all classes"
    labeller.ros.spin_until(lambda: len(infos) == 3, PATIENCE_S, "the whole list again")
    assert [one.name for one in infos[-1].classes] == NAMES


def test_a_wrong_choice_is_refused_in_words_and_changes_nothing(labeller):
    node = labeller.make()
    answer = labeller.call(SetLabels, "set_labels", names=["car"])
    assert "ros2 lifecycle set /occany configure" in answer.message
    node.start()
    infos = labeller.infos()
    red = ColorRGBA(r=1.0)
    for names, colours, words in (
        (["a red lorry"], [], "'a red lorry', which is none of the classes that the weights know"),
        (["a red lorry"], [], "other, barrier, bicycle, bus, car, construction_vehicle,"),
        (["a red lorry"], [], "for other texts name a GroundingDINO in labels.detector, or use"),
        (["car", "car"], [], "it must be a list of different texts"),
        (["car", "Car"], [], "every text must stand there once"),
        (["car", "bus"], [red], "holds 1 colours for the 2 classes"),
        (["car"], [ColorRGBA(r=255.0)], "(255.0, 0.0, 0.0) must have red, green and blue"),
    ):
        answer = labeller.call(SetLabels, "set_labels", names=names, colours=colours)
        assert not answer.success
        assert words in answer.message
    labeller.ros.spin_for(0.3)
    assert [one.version for one in infos] == [1]
    refused = labeller.set(node, labels__classes=["car"], labels__colours=["red"])
    assert "parameter labels.colours holds 'red'; write red, green and blue like" in refused.reason
    assert labeller.set(node, labels__use=False).successful
    labeller.ros.spin_until(lambda: len(infos) == 2, PATIENCE_S, "an empty label_info")
    assert infos[-1].classes == []
    answer = labeller.call(SetLabels, "set_labels", names=["car"])
    assert "no classes are named: labels.use is off" in answer.message


def test_labels_go_off_and_on_while_classes_have_colours_of_their_own(labeller):
    node = labeller.running(transport="compressed")
    red = ColorRGBA(r=1.0, a=1.0)
    assert labeller.call(SetLabels, "set_labels", names=["car"], colours=[red]).success
    assert labeller.set(node, labels__use=False).successful
    labeller.send_until_grid(["camera"], 10**12, count=2)
    assert len(labeller.grids[-1].labels) == 0
    assert labeller.set(node, labels__use=True).successful
    labeller.send_until_grid(["camera"], 2 * 10**12, count=2)
    assert len(labeller.grids[-1].labels) > 0
    assert [one.colour for one in labeller.infos()[-1].classes] == [red]
    assert node.fatal == ""


def test_without_labels_grids_are_as_before(labeller):
    labeller.running(transport="compressed", labels__use=False)
    masks = labeller.listen(Image, "/occany/output/camera/mask")
    labeller.send_until_grid(["camera"], 10**12, count=2)
    assert len(labeller.grids[-1].labels) == 0
    assert masks == []


def test_weights_with_classes_that_nobody_knows_are_refused_until_labels_are_off(
    labeller, tmp_path
):
    path = tmp_path / "five.safetensors"
    card = {"name": "five", "licence": "Apache-2.0"}
    save_model(probed_model(0, classes=5).network, card, path)
    node = labeller.make(transport="compressed", model__checkpoint=str(path))
    assert node.trigger_configure() == FAILURE
    assert "the weights five name 5 classes" in node._status.last_error
    assert "set labels.use to false" in node._status.last_error
    assert labeller.set(node, labels__use=False).successful
    assert node.trigger_configure() == SUCCESS
    refused = labeller.set(node, labels__use=True)
    assert not refused.successful
    assert "the weights five name 5 classes" in refused.reason
    assert labeller.infos()[-1].classes == []
    assert node.get_parameter("labels.use").value is False
