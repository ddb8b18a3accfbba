# SPDX-License-Identifier: Apache-2.0
"""A rolling Nav2 costmap that fills from the 2D height band; needs nav2_costmap_2d."""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

COSTMAP = "costmap/costmap"
"""Name of the node that Nav2's stand-alone costmap makes for itself."""


def generate_launch_description():
    share = FindPackageShare("occany_ros")
    use_sim_time = {"use_sim_time": LaunchConfiguration("use_sim_time")}
    return LaunchDescription(
        [
            DeclareLaunchArgument(
                "params_file",
                default_value=PathJoinSubstitution([share, "config", "nav2_demo.yaml"]),
                description="YAML file with the node's parameters; it must publish TF from odom",
            ),
            DeclareLaunchArgument(
                "costmap_file",
                default_value=PathJoinSubstitution([share, "config", "nav2_costmap.yaml"]),
                description="YAML file with the costmap's parameters",
            ),
            DeclareLaunchArgument(
                "rviz_config",
                default_value=PathJoinSubstitution([share, "rviz", "nav2.rviz"]),
                description="what RViz shows",
            ),
            IncludeLaunchDescription(
                PythonLaunchDescriptionSource(
                    PathJoinSubstitution([share, "launch", "surround.launch.py"])
                )
            ),
            Node(
                package="nav2_costmap_2d",
                executable="nav2_costmap_2d",
                output="screen",
                parameters=[LaunchConfiguration("costmap_file"), use_sim_time],
            ),
            Node(
                package="nav2_lifecycle_manager",
                executable="lifecycle_manager",
                name="lifecycle_manager_costmap",
                output="screen",
                # without a bond: the stand-alone costmap offers none
                parameters=[
                    {"autostart": True, "node_names": [COSTMAP], "bond_timeout": 0.0},
                    use_sim_time,
                ],
            ),
        ]
    )
