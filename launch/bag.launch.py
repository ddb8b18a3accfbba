# SPDX-License-Identifier: Apache-2.0
"""Voxels from a recording, with the recording's own time: every node takes it from /clock."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.substitutions import FindPackageShare


def generate_launch_description():
    share = FindPackageShare("occany_ros")
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "bag", description="the recording: a folder or file of rosbag2 (mcap or sqlite3)"
            ),
            DeclareLaunchArgument(
                "params_file",
                default_value=PathJoinSubstitution([share, "config", "surround.yaml"]),
                description="YAML file with the node's parameters",
            ),
            DeclareLaunchArgument(
                "use_sim_time",
                default_value="true",
                description="take the time from /clock, which the replay publishes",
            ),
            DeclareLaunchArgument(
                "loop_stamps",
                default_value="back",
                choices=["shift", "back"],
                description="at each loop, let the stamps go on or jump back to the first",
            ),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(
                    PathJoinSubstitution([share, "launch", "occany.launch.py"])
                ),
                launch_arguments={"input": LaunchConfiguration("bag")}.items(),
            ),
        ]
    )
