# SPDX-License-Identifier: Apache-2.0
"""Heights and kinds of cells, or classes -> colours. Metres above the ground z = 0; RGB to 255."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from occany_core.datasets.class_tables import SemanticClass
from occany_core.voxels import VoxelGrid

PAGE = (17, 21, 28)
"""Background of a page."""
PANEL = (24, 29, 38)
"""Background of a view."""
PLANE = (33, 40, 52)
"""Ground plane inside the grid; unknown columns of the top view."""
FREE = (78, 91, 110)
"""Free columns of the top view."""
LINE = (62, 73, 91)
"""Lines on the ground plane."""
RING = (235, 240, 250)
TEXT = (226, 231, 240)
FAINT_TEXT = (150, 160, 176)
EGO = (255, 255, 255)

UNLABELLED = (128, 128, 128)

LOWEST, HIGHEST = -0.6, 4.6
"""Ends of the ramps [m]."""

OBSERVED_RAMP = np.array(
    [
        (62, 92, 168),
        (42, 128, 170),
        (32, 158, 143),
        (88, 196, 104),
        (186, 217, 66),
        (253, 231, 80),
    ],
    np.float32,
)
COMPLETED_RAMP = np.array(
    [
        (104, 74, 128),
        (158, 84, 128),
        (204, 98, 116),
        (234, 122, 104),
        (248, 158, 112),
        (253, 202, 150),
    ],
    np.float32,
)


def colours_of_heights(
    height: Float[np.ndarray, " P"], completed: Bool[np.ndarray, " P"]
) -> Float[np.ndarray, "P 3"]:
    """Return the colour of cells from the height of their centre [m] and their kind."""
    position = np.clip((height - LOWEST) / (HIGHEST - LOWEST), 0, 1) * (len(OBSERVED_RAMP) - 1)
    below = np.minimum(position.astype(int), len(OBSERVED_RAMP) - 2)
    share = (position - below)[:, None].astype(np.float32)
    ramps = np.stack((OBSERVED_RAMP, COMPLETED_RAMP))
    which = completed.astype(int)
    return ramps[which, below] * (1 - share) + ramps[which, below + 1] * share


def class_palette(classes: Sequence[SemanticClass]) -> UInt8[np.ndarray, "256 3"]:
    """Return the colour of every id; grey for those that no class stands for."""
    palette = np.full((256, 3), UNLABELLED, np.uint8)
    for one in classes:
        palette[one.id] = one.colour
    return palette


def colours_of_cells(
    grid: VoxelGrid, ijk: Int[np.ndarray, "P 3"], classes: tuple[SemanticClass, ...]
) -> Float[np.ndarray, "P 3"]:
    """Return the colour of cells: of their class, or without classes of height and kind."""
    index = tuple(ijk.T)
    if classes and grid.labels is not None:
        return class_palette(classes)[grid.labels[index]].astype(np.float32)
    height = grid.spec.origin[2] + (ijk[:, 2] + 0.5) * grid.spec.resolution
    return colours_of_heights(height, grid.completed[index])
