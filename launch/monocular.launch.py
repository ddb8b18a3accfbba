# SPDX-License-Identifier: Apache-2.0
"""Voxels from one camera, each picture on its own."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import PathJoinSubstitution
from launch_ros.substitutions import FindPackageShare


def generate_launch_description():
    share = FindPackageShare("occany_ros")
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "params_file",
                default_value=PathJoinSubstitution([share, "config", "monocular.yaml"]),
                description="YAML file with the node's parameters",
            ),
            DeclareLaunchArgument(
                "rig",
                default_value="sequence",
                choices=["auto", "surround", "sequence"],
                description="how loose pictures are meant: six cameras at once, or one camera",
            ),
            DeclareLaunchArgument(
                "rviz_config",
                default_value=PathJoinSubstitution([share, "rviz", "mono.rviz"]),
                description="what RViz shows",
            ),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(
                    PathJoinSubstitution([share, "launch", "occany.launch.py"])
                )
            ),
        ]
    )
