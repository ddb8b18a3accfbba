# SPDX-License-Identifier: Apache-2.0
"""The table of all topics and services of the node. Without ROS.

Documents and the security policy are written from it (`interface_files`), and a test holds the
running node to it. `NAME` stands for a camera, or for a height band in ~/output/occupancy/NAME.
"""

from dataclasses import dataclass
from typing import Literal

Reliability = Literal["reliable", "best effort", "as offered"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Topic:
    """One topic, from the node's side."""

    name: str
    type: str
    note: str
    depth: int = 1
    reliability: Reliability = "reliable"
    is_latched: bool = False
    """Whether late subscribers get the last message."""
    is_conditional: bool = False
    """Whether it exists only under a condition that `note` states."""

    @property
    def qos(self) -> str:
        """For people."""
        return f"{self.reliability}, {self.depth}{', latched' if self.is_latched else ''}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Service:
    """One service."""

    name: str
    type: str
    note: str


SUBSCRIPTIONS = (
    Topic(
        name="~/input/NAME/image",
        type="sensor_msgs/msg/Image",
        reliability="as offered",
        is_conditional=True,
        note="`topics.image`; per camera, with `transport` raw",
    ),
    Topic(
        name="~/input/NAME/compressed",
        type="sensor_msgs/msg/CompressedImage",
        reliability="as offered",
        is_conditional=True,
        note="`topics.compressed`; per camera, with `transport` compressed",
    ),
    Topic(
        name="~/input/NAME/camera_info",
        type="sensor_msgs/msg/CameraInfo",
        reliability="best effort",
        note="`topics.camera_info`; optional; strong distortion is refused with a warning: "
        "rectify first",
    ),
    Topic(
        name="~/input/NAME/mask",
        type="sensor_msgs/msg/Image",
        reliability="as offered",
        note="`topics.mask`; optional, mono8, latched or not: pixels that are not zero (the "
        "vehicle itself) give no points and no rays",
    ),
    Topic(
        name="~/input/odometry",
        type="nav_msgs/msg/Odometry",
        depth=10,
        reliability="best effort",
        note="optional; of `frames.base_frame`, by the vehicle: gives metres "
        "([scale_and_calibration.md](scale_and_calibration.md)) and the vertical",
    ),
    Topic(
        name="/tf_static",
        type="tf2_msgs/msg/TFMessage",
        depth=100,
        is_latched=True,
        note="optional; `frames.base_frame` to each camera's optical frame",
    ),
    Topic(
        name="/tf",
        type="tf2_msgs/msg/TFMessage",
        depth=100,
        is_conditional=True,
        note="where tf2_ros is installed; and for a moment before `publish.tf` begins",
    ),
    Topic(
        name="/clock",
        type="rosgraph_msgs/msg/Clock",
        reliability="best effort",
        is_conditional=True,
        note="with `use_sim_time`",
    ),
)

PUBLICATIONS = (
    Topic(
        name="~/output/voxel_grid",
        type="occany_ros/msg/VoxelGrid",
        note="-1 unknown, 0 to 100 percent; x fastest ([voxel_grid.md](voxel_grid.md))",
    ),
    Topic(
        name="~/output/voxel_grid_compact",
        type="occany_ros/msg/VoxelGridCompact",
        note="the same in bit-planes, for networks; computed only while somebody listens",
    ),
    Topic(
        name="~/output/voxel_points",
        type="sensor_msgs/msg/PointCloud2",
        note="centres of occupied cells: x y z rgb probability label completed",
    ),
    Topic(
        name="~/output/occupancy/NAME",
        type="nav_msgs/msg/OccupancyGrid",
        is_latched=True,
        note="a height band from above, for each of `projection.bands`",
    ),
    Topic(
        name="~/output/points",
        type="sensor_msgs/msg/PointCloud2",
        note="dense points of the observed views: x y z rgb confidence; computed only while "
        "somebody listens",
    ),
    Topic(
        name="~/output/odometry",
        type="nav_msgs/msg/Odometry",
        depth=10,
        note="pose of the newest set in `frames.odom_frame`; needs `window.view_sets` of 2 or "
        "more",
    ),
    Topic(
        name="~/output/path",
        type="nav_msgs/msg/Path",
        note="the last of these poses, of one segment",
    ),
    Topic(
        name="~/output/camera_poses",
        type="geometry_msgs/msg/PoseArray",
        note="optical frames of all views in the window",
    ),
    Topic(
        name="~/output/NAME/depth",
        type="sensor_msgs/msg/Image",
        note="32FC1: metres along the optical axis of camera NAME, NaN where its mask ignores",
    ),
    Topic(
        name="~/output/NAME/confidence",
        type="sensor_msgs/msg/Image",
        note="32FC1, in (1, inf); what counts is above `voxels.min_confidence`, or as "
        "`voxels.min_confidence_ground` and `voxels.keep_most_confident` say",
    ),
    Topic(
        name="~/output/NAME/mask",
        type="sensor_msgs/msg/Image",
        note="mono8: class ids, 255 = none; only with weights that know classes",
    ),
    Topic(
        name="~/output/NAME/camera_info",
        type="sensor_msgs/msg/CameraInfo",
        note="intrinsics as known or estimated, of these pictures",
    ),
    Topic(
        name="~/output/label_info",
        type="occany_ros/msg/LabelInfo",
        is_latched=True,
        note="ids, names and colours of the classes, with a version",
    ),
    Topic(
        name="~/output/loaded/voxel_grid",
        type="occany_ros/msg/VoxelGrid",
        is_latched=True,
        is_conditional=True,
        note="a saved grid, from the first call of `~/load` on",
    ),
    Topic(
        name="~/output/loaded/voxel_points",
        type="sensor_msgs/msg/PointCloud2",
        is_latched=True,
        is_conditional=True,
        note="its points",
    ),
    Topic(
        name="/tf",
        type="tf2_msgs/msg/TFMessage",
        depth=100,
        is_conditional=True,
        note="`odom_frame` to `base_frame`, only with `publish.tf`; activation fails when "
        "somebody else broadcasts `base_frame`",
    ),
    Topic(
        name="~/status",
        type="occany_ros/msg/OccAnyStatus",
        note="about once a second: state, rate, latency, stages, scale, last error",
    ),
    Topic(
        name="/diagnostics",
        type="diagnostic_msgs/msg/DiagnosticArray",
        depth=10,
        note="once a second, see below",
    ),
)

SERVICES = (
    Service(
        name="~/reset",
        type="std_srvs/srv/Trigger",
        note="window, memory, odometry and path start anew; a cycle that runs is not published",
    ),
    Service(
        name="~/save",
        type="occany_ros/srv/Save",
        note="the last scene to a new folder below `files.directory`, as `occany predict` writes "
        "it",
    ),
    Service(
        name="~/load",
        type="occany_ros/srv/Load",
        note="shows a saved grid on `~/output/loaded/...`, never on the live topics",
    ),
    Service(
        name="~/get_voxel_grid",
        type="occany_ros/srv/GetVoxelGrid",
        note="the last grid or a box of it, in any frame that TF knows",
    ),
    Service(
        name="~/render_view",
        type="occany_ros/srv/RenderView",
        note="the last scene as other cameras would see it: depth and confidence in metres, "
        "classes",
    ),
    Service(
        name="~/set_labels",
        type="occany_ros/srv/SetLabels",
        note="which classes are labelled, in which order and colour, by name",
    ),
    Service(
        name="~/set_camera_enabled",
        type="occany_ros/srv/SetCameraEnabled",
        note="as the live parameter `camera.NAME.enabled`",
    ),
)

OF_EVERY_NODE = ("/rosout", "/parameter_events")
"""Topics that rclpy publishes for every node."""

OF_LIFECYCLE_NODES = ("~/transition_event",)

SERVICES_OF_EVERY_NODE = (
    *("~/describe_parameters", "~/get_parameter_types", "~/get_parameters", "~/list_parameters"),
    *("~/set_parameters", "~/set_parameters_atomically", "~/get_type_description"),
)

SERVICES_OF_LIFECYCLE_NODES = (
    *("~/change_state", "~/get_state", "~/get_available_states", "~/get_available_transitions"),
    "~/get_transition_graph",
)

INPUTS_OF_PRESETS = (
    *("camera/NAME/image", "camera/NAME/image/compressed", "camera/NAME/camera_info"),
    "camera/NAME/mask",
)
"""Topics that the parameter files in config/ take instead of ~/input/NAME/..."""
