# SPDX-License-Identifier: Apache-2.0
"""The surround launch file driven by launch_pytest; needs a full ROS 2 installation.

`test_launch.py` makes the same assertion with whichever launcher the machine has.
"""

import pytest

pytest.importorskip("launch_pytest", reason="launch_pytest comes with ROS 2")

import launch_pytest
from launch import LaunchDescription
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import PathJoinSubstitution
from launch_ros.substitutions import FindPackageShare

from occany_ros.msg import VoxelGrid


@launch_pytest.fixture
def surround():
    share = FindPackageShare("occany_ros")
    source = PythonLaunchDescriptionSource(
        PathJoinSubstitution([share, "launch", "surround.launch.py"])
    )
    arguments = {"input": "demo", "loop": "true", "use_sim_time": "true"}
    return LaunchDescription(
        [
            IncludeLaunchDescription(source, launch_arguments=arguments.items()),
            launch_pytest.actions.ReadyToTest(),
        ]
    )


@pytest.mark.launch(fixture=surround)
def test_surround_publishes_grids(ros):
    received = []
    listener = ros.node("listener")
    listener.create_subscription(VoxelGrid, "/occany/output/voxel_grid", received.append, 1)
    ros.spin_until(lambda: received, timeout=60, what="a grid")
    grid = received[0]
    assert len(grid.data) == grid.size_x * grid.size_y * grid.size_z
