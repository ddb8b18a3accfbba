# SPDX-License-Identifier: Apache-2.0
"""What class ids mean -> `~/output/label_info`, latched, with a version that counts changes."""

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_msgs.msg import ColorRGBA

from occany_core.datasets.class_tables import SemanticClass
from occany_ros.msg import LabelClass, LabelInfo


class LabelInfoOutput:
    """The topic; it lives as long as the node, so that versions never repeat."""

    def __init__(self, node: Node) -> None:
        self.version = 0
        self._node = node
        self._shown: tuple | None = None
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._publisher = node.create_publisher(LabelInfo, "~/output/label_info", latched)

    def show(self, classes: tuple[SemanticClass, ...], source: str) -> None:
        """Tell what the ids mean from now on, unless that is told already.

        Args:
            classes: In the order in which they are listed.
            source: Who names them.
        """
        if self._shown == (classes, source):
            return
        self._shown = classes, source
        self.version += 1
        message = LabelInfo(version=self.version)
        message.header.stamp = self._node.get_clock().now().to_msg()
        message.classes = [_class_message(one) for one in classes]
        message.source = source
        self._publisher.publish(message)


def _class_message(one: SemanticClass) -> LabelClass:
    red, green, blue = (value / 255 for value in one.colour)
    return LabelClass(id=one.id, name=one.name, colour=ColorRGBA(r=red, g=green, b=blue, a=1.0))
