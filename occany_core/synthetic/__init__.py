# SPDX-License-Identifier: Apache-2.0
"""Synthetic streets: seed -> pictures, exact depth, classes, camera poses, dense voxel truth."""
