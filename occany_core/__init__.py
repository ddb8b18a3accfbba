# SPDX-License-Identifier: Apache-2.0
"""Camera images to metric voxel grids, without ROS."""

__version__ = "0.1.0"
