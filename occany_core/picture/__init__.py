# SPDX-License-Identifier: Apache-2.0
"""Pictures for people: of a VoxelGrid a 3D view, a map, and a page with both; charts of numbers.

NumPy and Pillow only. Pictures are uint8 RGB arrays (H, W, 3).
"""

from occany_core.picture.page import compose_scene_picture, save_scene_picture
from occany_core.picture.top_view import render_top
from occany_core.picture.view_3d import render_grid

__all__ = ["render_grid", "render_top", "compose_scene_picture", "save_scene_picture"]
