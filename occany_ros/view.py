# SPDX-License-Identifier: Apache-2.0
"""Shows the node live in Rerun, for people without RViz, or writes what it shows to a file.

`ros2 run occany_ros view`, `ros2 run occany_ros view --save drive.rrd`; or `rerun:=true` with the
launch files. It finds the node's topics by itself.
"""

import argparse
import contextlib
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import rclpy
from geometry_msgs.msg import PoseArray
from nav_msgs.msg import OccupancyGrid, Odometry
from nav_msgs.msg import Path as PathMessage
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node, NodeNameNonExistentError
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from sensor_msgs.msg import CameraInfo, CompressedImage, Image

from occany_core.errors import InputError, OccAnyError
from occany_core.live_view import LiveView
from occany_core.voxels import VoxelGrid as CoreGrid
from occany_core.voxels import VoxelGridSpec
from occany_ros.grid_messages import cells_from_message
from occany_ros.image_messages import image_to_rgb, intrinsics
from occany_ros.msg import OccAnyStatus, VoxelGrid
from occany_ros.pose_messages import matrix_from_pose

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
AS_IT_COMES = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
IMAGE_KINDS = {
    "sensor_msgs/msg/Image": Image,
    "sensor_msgs/msg/CompressedImage": CompressedImage,
    "sensor_msgs/msg/CameraInfo": CameraInfo,
}
SEARCH_PERIOD_S = 1.0
PICTURE_WIDTH = 640
"""Raw pictures are shown at least this wide [px]."""
WAITING_S = 10.0


class Viewer(Node):
    """Subscribes to everything the node `source` has."""

    def __init__(self, view: LiveView, source: str, **options: object) -> None:
        """Begin to listen.

        Args:
            view: Where to show.
            source: Full name of the node.
            options: Of rclpy.
        """
        super().__init__("view", **options)
        self.grids = 0
        """Grids shown so far."""
        self._view = view
        self._source = f"/{source.strip('/')}"
        self._topics: set[str] = set()
        self._cameras: list[str] = []
        self._last_error = ""
        self._lenses: dict[str, CameraInfo] = {}
        self._listen(VoxelGrid, f"{self._source}/output/voxel_grid", self._on_grid)
        self._listen(Odometry, f"{self._source}/output/odometry", self._on_odometry)
        self._listen(PathMessage, f"{self._source}/output/path", self._on_path)
        self._listen(PoseArray, f"{self._source}/output/camera_poses", self._on_camera_poses)
        self._listen(OccAnyStatus, f"{self._source}/status", self._on_status)
        self._search_timer = self.create_timer(SEARCH_PERIOD_S, self.search)
        self._began_s = time.monotonic()
        self.search()

    def _listen(self, kind: type, topic: str, show: Callable, qos: QoSProfile | int = 1) -> None:
        if topic in self._topics:
            return
        self._topics.add(topic)

        def receive(message: object) -> None:
            try:
                stamp = message.header.stamp
                self._view.at(stamp.sec + stamp.nanosec * 1e-9)
                show(message)
            except InputError as error:
                self.get_logger().warning(f"{topic}: {error}", throttle_duration_sec=10.0)

        self.create_subscription(kind, topic, receive, qos)

    def search(self) -> None:
        """Subscribe to the node's height bands and to the images that it takes."""
        namespace, name = self._source.rsplit("/", 1)
        try:
            given = self.get_publisher_names_and_types_by_node(name, namespace or "/")
            taken = self.get_subscriber_names_and_types_by_node(name, namespace or "/")
        except NodeNameNonExistentError:
            if time.monotonic() - self._began_s > WAITING_S:
                self.get_logger().warning(
                    f"no node {self._source} is running; start it, or give its name with --node",
                    throttle_duration_sec=30.0,
                )
            return
        for topic, kinds in given:
            if kinds == ["nav_msgs/msg/OccupancyGrid"]:
                self._listen(OccupancyGrid, topic, self._shower(self._on_map, topic), LATCHED)
        for topic, (kind, *_) in taken:
            if kind in IMAGE_KINDS:
                show = {Image: self._on_image, CompressedImage: self._on_compressed}.get(
                    IMAGE_KINDS[kind], self._on_lens
                )
                self._listen(IMAGE_KINDS[kind], topic, self._shower(show, topic), self._qos(topic))

    def _qos(self, topic: str) -> QoSProfile:
        offers = [p.qos_profile.reliability for p in self.get_publishers_info_by_topic(topic)]
        return AS_IT_COMES if ReliabilityPolicy.BEST_EFFORT in offers else QoSProfile(depth=1)

    @staticmethod
    def _shower(show: Callable, topic: str) -> Callable:
        return lambda message: show(message, topic)

    def _camera(self, topic: str) -> str:
        """Return the camera that a topic belongs to, by its name in the topic."""
        parts = topic.strip("/").split("/")
        known = [part for part in parts if part in self._cameras]
        return known[0] if known else "_".join(parts[:-1]) or topic.strip("/")

    def _on_grid(self, message: VoxelGrid) -> None:
        cells = cells_from_message(message)
        shape = cells.probability.shape
        completed = np.zeros(shape, bool) if cells.completed is None else cells.completed
        spec = VoxelGridSpec((0.0, 0.0, 0.0), cells.resolution, shape)
        rig_from_corner = matrix_from_pose(message.origin)
        # Colours tell heights: keep the corner's position in the grid, its turn in the transform.
        spec = VoxelGridSpec(tuple(rig_from_corner[:3, 3]), spec.resolution, shape)
        turn = rig_from_corner.copy()
        turn[:3, 3] -= turn[:3, :3] @ rig_from_corner[:3, 3]
        self._view.voxels(CoreGrid(spec, cells.probability, completed, cells.labels), turn)
        self.grids += 1

    def _on_odometry(self, message: Odometry) -> None:
        self._view.rig(matrix_from_pose(message.pose.pose))

    def _on_path(self, message: PathMessage) -> None:
        places = [stamped.pose.position for stamped in message.poses]
        self._view.path(np.array([[place.x, place.y, place.z] for place in places]))

    def _on_status(self, message: OccAnyStatus) -> None:
        if message.camera_names:
            self._cameras = list(message.camera_names)
        if message.last_error and message.last_error != self._last_error:
            self._view.text(message.last_error)
        self._last_error = message.last_error

    def _on_camera_poses(self, message: PoseArray) -> None:
        """Show the newest set, which is last; only the status knows names."""
        if len(self._cameras) != len(message.poses):
            return
        newest = dict(zip(self._cameras, message.poses, strict=True))
        for camera, pose in newest.items():
            self._view.camera(camera, matrix_from_pose(pose))

    def _on_map(self, message: OccupancyGrid, topic: str) -> None:
        shape = message.info.height, message.info.width
        columns = np.asarray(message.data, np.int8)
        if columns.size != shape[0] * shape[1]:
            raise InputError(f"the map has {columns.size} cells and states {shape}")
        self._view.floor_map(topic.rsplit("/", 1)[-1], columns.reshape(shape))

    def _on_lens(self, message: CameraInfo, topic: str) -> None:
        self._lenses[topic] = message

    def _draw_frustum(self, camera: str, height_width: tuple[int, int] | None = None) -> None:
        """Tell intrinsics for pictures of this size (as calibrated if None), where there are."""
        infos = [info for topic, info in self._lenses.items() if self._camera(topic) == camera]
        for info in infos[:1]:
            height, width = height_width or (info.height, info.width)
            K = intrinsics(info, height, width)
            if K is not None:
                self._view.lens(camera, K, (width, height))

    def _on_image(self, message: Image, topic: str) -> None:
        camera, rgb = self._camera(topic), image_to_rgb(message, topic, PICTURE_WIDTH)
        self._draw_frustum(camera, rgb.shape[:2])
        self._view.picture(camera, rgb)

    def _on_compressed(self, message: CompressedImage, topic: str) -> None:
        camera, data = self._camera(topic), bytes(message.data)
        self._draw_frustum(camera)
        kind = "image/png" if data.startswith(b"\x89PNG") else "image/jpeg"
        self._view.encoded_picture(camera, data, kind)


def main(args: list[str] | None = None) -> int:
    """Show until a signal; 1 where Rerun cannot start."""
    parser = argparse.ArgumentParser(prog="view", description=__doc__.split("\n\n")[0])
    parser.add_argument("--node", default="/occany", help="full name of the node")
    parser.add_argument("--save", type=Path, help=".rrd file to write instead of a window")
    options, ros_arguments = parser.parse_known_args(args)
    try:
        view = LiveView(options.save)
    except OccAnyError as error:
        sys.stderr.write(f"view: {error}\n")
        return 1
    rclpy.init(args=ros_arguments)
    node = Viewer(view, options.node)
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        executor.spin()
    except (KeyboardInterrupt, ExternalShutdownException):
        pass
    except Exception:
        if rclpy.ok():  # else a signal ended the context under a callback that was using it
            raise
    view.close()
    sys.stderr.write(f"view: showed {node.grids} grids\n")
    with contextlib.suppress(KeyboardInterrupt):
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
