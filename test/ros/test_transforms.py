# SPDX-License-Identifier: Apache-2.0
"""The static tree, and the adapter over real DDS."""

import importlib.util

import numpy as np
import pytest

pytest.importorskip("rclpy")

from geometry_msgs.msg import TransformStamped
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import Header
from tf2_msgs.msg import TFMessage

from occany_core.errors import InputError
from occany_ros.pose_messages import matrix_from_values, transform_from_matrix
from occany_ros.transforms import NoTransforms, StaticTransforms, StaticTree, make_transforms

A_FROM_B = matrix_from_values([1, 2, 3, 0, 0, 0.6, 0.8])
B_FROM_C = matrix_from_values([-1, 0, 4, 0.5, -0.5, 0.5, -0.5])
B_FROM_D = matrix_from_values([0, 7, 0, 0, 0, 0, 1])


def tree():
    found = StaticTree()
    found.insert("a", "b", A_FROM_B)
    found.insert("b", "c", B_FROM_C)
    found.insert("b", "d", B_FROM_D)
    return found


def test_paths_up_down_and_across():
    np.testing.assert_allclose(tree().lookup("a", "c"), A_FROM_B @ B_FROM_C)
    np.testing.assert_allclose(tree().lookup("c", "a"), np.linalg.inv(A_FROM_B @ B_FROM_C))
    np.testing.assert_allclose(tree().lookup("d", "c"), np.linalg.inv(B_FROM_D) @ B_FROM_C)
    np.testing.assert_array_equal(tree().lookup("x", "x"), np.eye(4))
    assert tree().lookup("a", "x") is None


def test_a_loop_is_refused():
    looped = tree()
    looped.insert("c", "a", np.eye(4))
    with pytest.raises(InputError, match="loop through frame"):
        looped.lookup("a", "c")


def stamped(parent, child, matrix):
    return transform_from_matrix(matrix, Header(frame_id=parent), child)


def test_adapter_reads_what_was_latched_before_it_started(ros):
    latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
    publisher = ros.node("rig").create_publisher(TFMessage, "/tf_static", latched)
    broken = TransformStamped(child_frame_id="broken")
    broken.header.frame_id = "a"
    broken.transform.rotation.w = 0.0
    publisher.publish(
        TFMessage(transforms=[broken, stamped("a", "b", A_FROM_B), stamped("b", "/c", B_FROM_C)])
    )
    transforms = make_transforms(ros.node("reader"))

    def found():
        try:
            return transforms.lookup("a", "c", 0)
        except InputError:
            return None

    ros.spin_until(lambda: found() is not None, what="the transform")
    np.testing.assert_allclose(found(), A_FROM_B @ B_FROM_C, atol=1e-12)
    with pytest.raises(InputError, match="no transform from 'nowhere' to 'a'"):
        transforms.lookup("a", "nowhere", 0)
    transforms.close()


def test_broadcast_reaches_a_listener(ros):
    received = []
    ros.node("listener").create_subscription(TFMessage, "/tf", received.append, 10)
    node = ros.node("sender")
    transforms = StaticTransforms(node)
    transforms.send(stamped("odom", "base_link", A_FROM_B))
    ros.spin_until(lambda: node.count_subscribers("/tf") > 0, what="discovery")

    def arrived():
        transforms.send(stamped("odom", "base_link", A_FROM_B))
        return received

    ros.spin_until(arrived, what="a message on /tf")
    assert received[0].transforms[0].child_frame_id == "base_link"
    transforms.close()


def test_without_tf_messages_the_remedy_is_named():
    with pytest.raises(InputError, match="tf2_msgs is not installed"):
        NoTransforms().lookup("a", "b", 0)
    with pytest.raises(InputError, match=r"publish\.tf"):
        NoTransforms().send(TransformStamped())


def test_the_full_buffer_is_taken_where_it_exists(ros):
    expected = "BufferTransforms" if importlib.util.find_spec("tf2_ros") else "StaticTransforms"
    transforms = make_transforms(ros.node("any"))
    assert type(transforms).__name__ == expected
    transforms.close()
