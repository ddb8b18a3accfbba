# SPDX-License-Identifier: Apache-2.0
"""A Scene of the core -> every output topic. Grid, clouds and camera poses in the base frame [m].

Offers reliable delivery at depth 1, so that a slow reader cannot build a backlog. What costs time
is computed only for a topic somebody listens to, or one that parameters ask for.
"""

from collections import deque

import numpy as np
from builtin_interfaces.msg import Time
from geometry_msgs.msg import PoseArray, PoseStamped
from nav_msgs.msg import OccupancyGrid, Odometry, Path
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile
from sensor_msgs.msg import PointCloud2
from std_msgs.msg import Header

from occany_core import Scene
from occany_core import VoxelGrid as CoreGrid
from occany_core.odometry import Odometry as PathOfRig
from occany_ros.cloud_messages import colour_points, points_to_cloud, voxel_points
from occany_ros.grid_messages import compact_message, grid_message, occupancy_message
from occany_ros.height_bands import Band, BandRules, project, tilt_error
from occany_ros.inference import Result
from occany_ros.msg import VoxelGrid, VoxelGridCompact
from occany_ros.node_settings import NodeSettings
from occany_ros.pose_messages import odometry_message, pose_from_matrix, transform_from_matrix
from occany_ros.transforms import Transforms


def time_message(stamp_ns: int) -> Time:
    """Return a stamp as a message."""
    return Time(sec=stamp_ns // 1_000_000_000, nanosec=stamp_ns % 1_000_000_000)


class Outputs:
    """The node's data topics."""

    def __init__(self, node: Node, transforms: Transforms, bands: tuple[Band, ...]) -> None:
        self._node = node
        self._transforms = transforms
        newest = QoSProfile(depth=1)
        self._grid = node.create_publisher(VoxelGrid, "~/output/voxel_grid", newest)
        self._compact = node.create_publisher(
            VoxelGridCompact, "~/output/voxel_grid_compact", newest
        )
        self._voxel_points = node.create_publisher(PointCloud2, "~/output/voxel_points", newest)
        self._points = node.create_publisher(PointCloud2, "~/output/points", newest)
        self._odometry = node.create_publisher(Odometry, "~/output/odometry", QoSProfile(depth=10))
        self._path = node.create_publisher(Path, "~/output/path", newest)
        self._camera_poses = node.create_publisher(PoseArray, "~/output/camera_poses", newest)
        # Latched, as planners expect of maps.
        latched = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._bands = {
            band.name: node.create_publisher(
                OccupancyGrid, f"~/output/occupancy/{band.name}", latched
            )
            for band in bands
        }
        self.bands_error = ""
        """Why the last cycle gave no height bands; empty when it did."""
        self._track: deque[PoseStamped] = deque()
        self._segment = 1

    def reset(self) -> None:
        """Begin a new track, after a jump of the clock."""
        self._track.clear()
        self._segment = 1

    def publish(
        self,
        result: Result,
        newest_stamp_ns: int,
        settings: NodeSettings,
        upright_from_base: np.ndarray | None = None,
    ) -> None:
        """Publish one cycle.

        Args:
            result: What the inference gave.
            newest_stamp_ns: Capture time of the newest set, which the ego pose refers to.
            settings: The node's settings.
            upright_from_base: Pose (4, 4) of the grid's frame by the vehicle's own odometry, or
                None.
        """
        scene = result.scene
        stamp = time_message(result.grid_stamp_ns)
        header = Header(stamp=stamp, frame_id=settings.base_frame)
        if settings.publish.voxel_grid:
            self._grid.publish(grid_message(scene.grid, header))
        if self._compact.get_subscription_count():
            self._compact.publish(
                compact_message(scene.grid, header, scene.scale_source, scene.frame_source)
            )
        if settings.publish.voxel_points:
            classes = scene.classes if settings.publish.voxel_colours == "class" else ()
            points = voxel_points(scene.grid, settings.publish.max_voxel_points, classes)
            self._voxel_points.publish(points_to_cloud(points, header))
        most_deg = settings.bands.max_tilt_deg
        self.bands_error = tilt_error(upright_from_base, most_deg, settings.base_frame)
        if not self.bands_error:
            self._publish_bands(scene.grid, header, settings.bands)
        if self._points.get_subscription_count():
            cloud = self._dense_cloud(scene, settings.core.voxels.min_confidence)
            self._points.publish(points_to_cloud(cloud, header))
        grid_from_world = np.asarray(scene.grid_from_world, np.float64)
        world_from_cam = np.asarray(scene.cameras.world_from_cam, np.float64)
        poses = [pose_from_matrix(grid_from_world @ pose) for pose in world_from_cam]
        self._camera_poses.publish(PoseArray(header=header, poses=poses))
        if result.odometry is not None:
            self._publish_ego_pose(result.odometry, newest_stamp_ns, settings)

    def _publish_bands(self, grid: CoreGrid, header: Header, rules: BandRules) -> None:
        x, y, _ = (float(value) for value in grid.spec.origin)
        for band in rules.bands:
            columns = project(grid, band, rules)
            message = occupancy_message(columns, (x, y), float(grid.spec.resolution), header)
            self._bands[band.name].publish(message)

    @staticmethod
    def _dense_cloud(scene: Scene, min_confidence: float) -> np.ndarray:
        grid_from_world = np.asarray(scene.grid_from_world, np.float32)
        points = np.asarray(scene.observed.points_world)
        points = points @ grid_from_world[:3, :3].T + grid_from_world[:3, 3]
        confidence = np.asarray(scene.observed.confidence)
        return colour_points(points, np.asarray(scene.rgb), confidence, min_confidence)

    def _publish_ego_pose(self, path: PathOfRig, stamp_ns: int, settings: NodeSettings) -> None:
        if path.segment != self._segment:
            self._track.clear()
            self._segment = path.segment
        odom_from_base = np.asarray(path.odom_from_rig, np.float64)
        header = Header(stamp=time_message(stamp_ns), frame_id=settings.odom_frame)
        drift = settings.publish.drift
        deviations = path.position_deviation(drift), path.rotation_deviation(drift)
        odometry = odometry_message(odom_from_base, header, settings.base_frame, deviations)
        self._odometry.publish(odometry)
        self._track.append(PoseStamped(header=header, pose=odometry.pose.pose))
        while len(self._track) > settings.publish.path_length:
            self._track.popleft()
        self._path.publish(Path(header=header, poses=list(self._track)))
        if settings.publish.tf:
            self._transforms.send(
                transform_from_matrix(odom_from_base, header, settings.base_frame)
            )

    def close(self) -> None:
        """Remove the publishers."""
        for publisher in (
            self._grid,
            self._compact,
            self._voxel_points,
            self._points,
            self._odometry,
            self._path,
            self._camera_poses,
            *self._bands.values(),
        ):
            self._node.destroy_publisher(publisher)
