# SPDX-License-Identifier: Apache-2.0
"""The node, and if asked a replay and RViz. The presets beside this file include it."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, GroupAction, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.substitutions import (
    EqualsSubstitution,
    LaunchConfiguration,
    NotEqualsSubstitution,
    PathJoinSubstitution,
)
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterFile, ParameterValue
from launch_ros.substitutions import FindPackageShare

SHARE = FindPackageShare("occany_ros")


def arguments():
    return [
        DeclareLaunchArgument(
            "params_file",
            default_value=PathJoinSubstitution([SHARE, "config", "sequence.yaml"]),
            description="YAML file with the node's parameters",
        ),
        DeclareLaunchArgument(
            "profile",
            default_value="",
            choices=["", "realtime", "balanced", "quality", "cpu_test", "jetson"],
            description="file in config/profiles that lies over params_file; empty: none",
        ),
        DeclareLaunchArgument(
            "namespace",
            default_value="",
            description="namespace of all nodes and of their relative topics",
        ),
        DeclareLaunchArgument(
            "cameras",
            default_value="",
            description="names of the cameras, as in [front, back]; empty: as in params_file",
        ),
        DeclareLaunchArgument(
            "transport",
            default_value="",
            choices=["", "raw", "compressed"],
            description="raw or compressed images; empty: as in params_file",
        ),
        DeclareLaunchArgument(
            "image_topic",
            default_value="",
            description="topic of the images; {camera} stands for each name, as in "
            "cam/{camera}/image_raw; empty: as in params_file",
        ),
        DeclareLaunchArgument(
            "model",
            default_value="",
            description="'default' or the path of a .safetensors file; empty: as in params_file",
        ),
        DeclareLaunchArgument(
            "input",
            default_value="",
            description="what to replay: a bag, a picture, a folder of pictures or of one "
            "subfolder per camera, or 'demo' for the bundled recording; empty: live cameras",
        ),
        DeclareLaunchArgument(
            "rig",
            default_value="auto",
            choices=["auto", "surround", "sequence"],
            description="how loose pictures are meant: six cameras at once, or one camera",
        ),
        DeclareLaunchArgument(
            "calibration",
            default_value="",
            description="JSON with K and rig_from_cam of the cameras of replayed pictures",
        ),
        DeclareLaunchArgument(
            "rate", default_value="1.0", description="speed of the replay; 1 is as recorded"
        ),
        DeclareLaunchArgument(
            "period", default_value="0.5", description="seconds between pictures of a camera"
        ),
        DeclareLaunchArgument("loop", default_value="false", description="replay again and again"),
        DeclareLaunchArgument(
            "loop_stamps",
            default_value="shift",
            choices=["shift", "back"],
            description="at each loop, let the stamps go on or jump back to the first",
        ),
        DeclareLaunchArgument(
            "use_sim_time",
            default_value="false",
            description="take the time from /clock, which the replay then publishes",
        ),
        DeclareLaunchArgument(
            "autostart",
            default_value="true",
            description="configure and activate the node; false: leave it to a lifecycle manager",
        ),
        DeclareLaunchArgument("rviz", default_value="false", description="start RViz"),
        DeclareLaunchArgument(
            "rviz_config",
            default_value=PathJoinSubstitution([SHARE, "rviz", "surround.rviz"]),
            description="what RViz shows: rviz/ has surround, mono, nav2 and debug",
        ),
        DeclareLaunchArgument(
            "log_level",
            default_value="info",
            choices=["debug", "info", "warn", "error", "fatal"],
            description="least severity that is logged",
        ),
    ]


def environment():
    """Room for images of six cameras in shared memory; both names, of older and newer Fast DDS."""
    profile = PathJoinSubstitution([SHARE, "config", "fastdds.xml"])
    return [
        SetEnvironmentVariable("FASTRTPS_DEFAULT_PROFILES_FILE", profile),
        SetEnvironmentVariable("FASTDDS_DEFAULT_PROFILES_FILE", profile),
        # PyTorch's threads spin while they wait; on a busy machine that starves everybody.
        SetEnvironmentVariable("OMP_WAIT_POLICY", "PASSIVE"),
    ]


def occany_node(optional, parameters):
    """The node; each optional argument gives parameters only where it is not empty."""
    if not optional:
        return Node(
            package="occany_ros",
            executable="occany_node",
            name="occany",
            namespace=LaunchConfiguration("namespace"),
            output="screen",
            parameters=parameters,
            ros_arguments=["--log-level", LaunchConfiguration("log_level")],
        )
    (argument, parameter), *rest = optional
    value = LaunchConfiguration(argument)
    return GroupAction(
        [
            GroupAction(
                [occany_node(rest, parameters)],
                condition=IfCondition(EqualsSubstitution(value, "")),
            ),
            GroupAction(
                [occany_node(rest, [*parameters, parameter])],
                condition=IfCondition(NotEqualsSubstitution(value, "")),
            ),
        ]
    )


def generate_launch_description():
    profile = PathJoinSubstitution([SHARE, "config", "profiles", LaunchConfiguration("profile")])
    optional = [
        ("profile", ParameterFile([profile, ".yaml"])),
        ("cameras", {"cameras": LaunchConfiguration("cameras")}),
        ("transport", {"transport": LaunchConfiguration("transport")}),
        (
            "image_topic",
            {
                name: ParameterValue(LaunchConfiguration("image_topic"), value_type=str)
                for name in ("topics.image", "topics.compressed")
            },
        ),
        (
            "model",
            {"model.checkpoint": ParameterValue(LaunchConfiguration("model"), value_type=str)},
        ),
    ]
    parameters = [
        LaunchConfiguration("params_file"),
        {
            "autostart": LaunchConfiguration("autostart"),
            "use_sim_time": LaunchConfiguration("use_sim_time"),
        },
    ]
    replay = Node(
        package="occany_ros",
        executable="replay",
        name="replay",
        namespace=LaunchConfiguration("namespace"),
        output="screen",
        parameters=[
            {
                "input": ParameterValue(LaunchConfiguration("input"), value_type=str),
                "calibration": ParameterValue(LaunchConfiguration("calibration"), value_type=str),
                "rig": LaunchConfiguration("rig"),
                "rate": LaunchConfiguration("rate"),
                "period": LaunchConfiguration("period"),
                "loop": LaunchConfiguration("loop"),
                "loop_stamps": LaunchConfiguration("loop_stamps"),
                "clock": LaunchConfiguration("use_sim_time"),
            }
        ],
        condition=IfCondition(NotEqualsSubstitution(LaunchConfiguration("input"), "")),
    )
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        name="rviz",
        arguments=["-d", LaunchConfiguration("rviz_config")],
        parameters=[{"use_sim_time": LaunchConfiguration("use_sim_time")}],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    return LaunchDescription(
        [*arguments(), *environment(), occany_node(optional, parameters), replay, rviz]
    )
