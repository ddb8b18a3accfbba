# SPDX-License-Identifier: Apache-2.0
"""The table of all parameters: name, default, description, range and choices. Without ROS.

Core settings appear under their own names. Durations in seconds, lengths in metres.
"""

from occany_core.config import settings as core_settings
from occany_ros.declaration import Declaration
from occany_ros.height_bands import UNKNOWN_IS
from occany_ros.sync_rules import POLICIES

MAX_CAMERAS = 16

LIVE_CORE_GROUPS = ("window", "calibration", "scale", "novel_views", "voxels", "labels")
"""Core settings that take effect at the next cycle; the others when the node is configured."""
LOADED = tuple(f"labels.{name}" for name in "pipeline detector sam2 sam3 min_score".split())
"""Those among them that models are loaded with."""


NODE_DECLARATIONS = (
    Declaration(
        name="autostart",
        default=True,
        description="configure and activate at the start, without a lifecycle manager",
        is_fixed=True,
    ),
    Declaration(
        name="model.checkpoint",
        default="default",
        description="'default' for the bundled weights, or the path of a .safetensors file",
    ),
    Declaration(
        name="cameras",
        default=("camera",),
        description=f"names of 1 to {MAX_CAMERAS} cameras; the first one is the reference view",
    ),
    Declaration(
        name="transport",
        default="raw",
        choices=("raw", "compressed"),
        description="take topics.image or topics.compressed, for cameras that set nothing else",
    ),
    Declaration(
        name="topics.image",
        default="~/input/{camera}/image",
        description="topic of raw images; {camera} stands for the camera's name",
    ),
    Declaration(
        name="topics.compressed",
        default="~/input/{camera}/compressed",
        description="topic of compressed images; {camera} stands for the camera's name",
    ),
    Declaration(
        name="topics.camera_info",
        default="~/input/{camera}/camera_info",
        description="topic of calibrations; {camera} stands for the camera's name",
    ),
    Declaration(
        name="topics.mask",
        default="~/input/{camera}/mask",
        description="topic of masks, mono8: pixels that are not zero are ignored; {camera} stands "
        "for the camera's name",
    ),
    Declaration(
        name="sync.policy",
        default="approximate",
        choices=POLICIES,
        is_live=True,
        description="which images form a set: stamps within max_skew, equal stamps, or the newest",
    ),
    Declaration(
        name="sync.max_skew",
        default=0.05,
        least=0.0,
        most=10.0,
        is_live=True,
        description="largest difference of capture times in a set [s], policy approximate",
    ),
    Declaration(
        name="sync.max_age",
        default=0.5,
        least=0.0,
        most=60.0,
        is_live=True,
        description="oldest image in a set, before its newest [s], policy latest",
    ),
    Declaration(
        name="sync.max_wait",
        default=0.5,
        least=0.0,
        most=60.0,
        is_live=True,
        description="a set that lacks cameras goes out after this wait [s]",
    ),
    Declaration(
        name="sync.camera_timeout",
        default=2.0,
        least=0.01,
        most=600.0,
        is_live=True,
        description="a camera silent for longer is left out until it returns [s]",
    ),
    Declaration(
        name="sync.max_gap",
        default=0.0,
        least=0.0,
        is_live=True,
        description="a step forward of the stamps beyond this clears the window [s]; 0 never",
    ),
    Declaration(
        name="sync.min_cameras",
        default=1,
        least=1,
        most=MAX_CAMERAS,
        is_live=True,
        description="fewest cameras in a set",
    ),
    Declaration(
        name="sync.required_cameras",
        default=(),
        is_live=True,
        description="cameras without which there is no set",
    ),
    Declaration(
        name="frames.base_frame",
        default="base_link",
        description="the vehicle's frame: x forward, y left, z up; the grid is given in it",
    ),
    Declaration(
        name="frames.odom_frame", default="odom", description="frame of odometry and path"
    ),
    Declaration(
        name="frames.prefix",
        default="",
        description="put before the names of frames in these parameters, such as robot1/; images "
        "bring their frames with their own prefix",
    ),
    Declaration(
        name="projection.bands",
        default=("obstacles",),
        description="height bands published as ~/output/occupancy/NAME for 2D planners",
    ),
    Declaration(
        name="projection.z_min",
        default=(0.25,),
        is_live=True,
        description="lower end of each band above base_frame's origin [m], one per band",
    ),
    Declaration(
        name="projection.z_max",
        default=(2.0,),
        is_live=True,
        description="upper end of each band [m]; cells whose centre is in between belong to it",
    ),
    Declaration(
        name="projection.min_probability",
        default=50,
        least=50,
        most=100,
        is_live=True,
        description="percent that a cell needs to count as an obstacle in a band",
    ),
    Declaration(
        name="projection.min_cells",
        default=1,
        least=1,
        most=1000,
        is_live=True,
        description="obstacle cells that make a column of a band occupied",
    ),
    Declaration(
        name="projection.min_known_share",
        default=0.5,
        least=0.0,
        most=1.0,
        is_live=True,
        description="part of a column's cells that must be known to be free for it to be free",
    ),
    Declaration(
        name="projection.unknown_is",
        default="unknown",
        choices=tuple(UNKNOWN_IS),
        is_live=True,
        description="what a column that is neither occupied nor known to be free is given as",
    ),
    Declaration(
        name="projection.completed_counts",
        default=True,
        is_live=True,
        description="cells that only rendered views filled are obstacles; false: unknown",
    ),
    Declaration(
        name="projection.scaled",
        default=False,
        is_live=True,
        description="give percent of the most probable cell instead of 0 and 100",
    ),
    Declaration(
        name="projection.free_labels",
        default=(),
        is_live=True,
        description="class ids that are no obstacles, such as road; for weights with classes",
    ),
    Declaration(
        name="projection.max_tilt_deg",
        default=10.0,
        least=0.0,
        most=180.0,
        is_live=True,
        description="no band is published while ~/input/odometry has base_frame tilted more than "
        "this against the vertical [deg]",
    ),
    Declaration(
        name="projection.footprint",
        default=(),
        is_live=True,
        description="corners x, y, x, y, ... of the vehicle in base_frame [m]; columns inside are "
        "free in every band",
    ),
    Declaration(
        name="labels.colours",
        default=(),
        is_live=True,
        description="'#rrggbb' for each of labels.classes; empty: the usual colours",
    ),
    Declaration(
        name="files.directory",
        default="",
        description="the services save and load scenes in folders below this one and nowhere "
        "else; empty: occany/ in $ROS_HOME or ~/.ros",
    ),
    Declaration(
        name="files.least_free_megabytes",
        default=500,
        least=0,
        most=1_000_000_000,
        is_live=True,
        description="a save is refused when less than this is free on the disk",
    ),
    Declaration(
        name="files.most_megabytes",
        default=500,
        least=1,
        most=1_000_000,
        is_live=True,
        description="a load is refused when the grid would take more than this in memory",
    ),
    Declaration(
        name="files.time_limit",
        default=30.0,
        least=0.1,
        most=3600.0,
        is_live=True,
        description="a save or load that takes longer is answered as not finished [s]",
    ),
    Declaration(
        name="budget.latency_ms",
        default=0.0,
        least=0.0,
        most=600_000.0,
        is_live=True,
        description="longest time of a cycle, from a complete view set to its published grid "
        "[ms]; beyond it less is done, step by step; 0 sets no limit",
    ),
    Declaration(
        name="budget.memory_mb",
        default=0,
        least=0,
        most=10_000_000,
        is_live=True,
        description="most memory of a cycle, PyTorch's on a GPU or the whole process's [MB]; "
        "beyond it less is done, step by step; 0 sets no limit",
    ),
    Declaration(
        name="publish.tf",
        default=False,
        description="broadcast odom_frame -> base_frame; refused when something else does",
    ),
    Declaration(
        name="publish.voxel_grid",
        default=True,
        is_live=True,
        description="publish ~/output/voxel_grid",
    ),
    Declaration(
        name="publish.voxel_points",
        default=True,
        is_live=True,
        description="publish ~/output/voxel_points",
    ),
    Declaration(
        name="publish.voxel_colours",
        default="height",
        choices=("height", "class"),
        is_live=True,
        description="what the colours of ~/output/voxel_points show",
    ),
    Declaration(
        name="publish.max_voxel_points",
        default=100_000,
        least=0,
        most=10_000_000,
        is_live=True,
        description="most points in ~/output/voxel_points, evenly thinned; 0 sets no limit",
    ),
    Declaration(
        name="publish.path_length",
        default=1000,
        least=1,
        most=1_000_000,
        is_live=True,
        description="newest poses kept in ~/output/path",
    ),
    Declaration(
        name="publish.odometry_drift",
        default=0.05,
        least=0.001,
        most=10.0,
        is_live=True,
        description="standard deviation of the odometry per metre of its path, for its covariance",
    ),
    Declaration(
        name="publish.odometry_drift_per_second",
        default=6.0,
        least=0.0,
        most=100.0,
        is_live=True,
        description="and per second [m/s], for motion that the weights do not see: the bundled "
        "ones see hardly any; 0 for weights that do",
    ),
)


def camera_declarations(camera: str) -> tuple[Declaration, ...]:
    """List the parameters of one camera."""
    return (
        Declaration(
            name=f"camera.{camera}.enabled",
            default=True,
            is_live=True,
            description="false leaves the camera out of all view sets",
        ),
        Declaration(
            name=f"camera.{camera}.transport",
            default="",
            choices=("", "raw", "compressed"),
            description="raw or compressed images; empty: as the parameter `transport` says",
        ),
        Declaration(
            name=f"camera.{camera}.reliability",
            default="auto",
            choices=("auto", "reliable", "best_effort"),
            description="of the image subscription; auto takes what the publishers offer",
        ),
        Declaration(
            name=f"camera.{camera}.frame_id",
            default="",
            description="optical frame of the camera; empty: the one in its messages",
        ),
        Declaration(
            name=f"camera.{camera}.rig_from_cam",
            default=(),
            description="pose of the optical frame in base_frame, x y z [m] and quaternion "
            "x y z w; empty: from TF",
        ),
    )


def core_declarations() -> tuple[Declaration, ...]:
    """List the core's settings as parameters of the same names."""
    return tuple(
        Declaration(
            name=setting.path,
            default=setting.default,
            description=setting.description,
            choices=setting.choices,
            is_live=setting.path.split(".")[0] in LIVE_CORE_GROUPS and setting.path not in LOADED,
        )
        for setting in core_settings()
    )
