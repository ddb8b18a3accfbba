# SPDX-License-Identifier: Apache-2.0
"""VoxelGrid and eye -> the cell faces that the eye can see, far to near, with their light.

Grid frame (x forward, y left, z up), metres. `F` faces.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from occany_core.voxels import VoxelGrid

DIRECTIONS = np.array([(1, 0, 0), (-1, 0, 0), (0, 1, 0), (0, -1, 0), (0, 0, 1), (0, 0, -1)])
"""Outward normals."""
SUN = np.array([-0.45, 0.42, 0.79])
"""Direction towards the light."""
LIGHT_OF_DIRECTION = np.array([0.66, 0.80, 0.88, 0.70, 1.0, 0.5])
SHADOW, OCCLUSION = 0.70, 0.045
"""Light left in a cast shadow; light lost per occupied neighbour of a face."""


@dataclass(frozen=True)
class CellFaces:
    """Faces in an order in which painting one over the other is exact."""

    ijk: Int[np.ndarray, "F 3"]
    """Cell of each face."""
    corners: Float[np.ndarray, "F 4 3"]
    """Metres, going round the face."""
    light: Float[np.ndarray, " F"]
    """In [0, 1]."""


def visible_faces(grid: VoxelGrid, eye: Float[np.ndarray, "3"]) -> CellFaces:
    """List the faces of occupied cells that point to the eye and that no occupied cell covers.

    They come far to near. Along a ray, the steps between the eye's cell and the cells it crosses
    only grow, on every axis; so descending order of the summed steps paints every cell before
    those that hide it.
    """
    padded = np.pad(grid.occupied, 1)
    ijk = np.argwhere(grid.occupied)
    eye_cell = (np.asarray(eye) - grid.spec.origin) / grid.spec.resolution
    steps = np.abs(ijk - np.floor(eye_cell)).sum(axis=1)
    ijk = ijk[np.argsort(-steps, kind="stable")]
    cells, directions = [], []
    for index, normal in enumerate(DIRECTIONS):
        axis = int(np.abs(normal).argmax())
        plane = ijk[:, axis] + (normal[axis] > 0)
        faces_eye = (eye_cell[axis] - plane) * normal[axis] > 0
        open_side = ~padded[tuple((ijk + 1 + normal).T)]
        found = np.flatnonzero(faces_eye & open_side)
        cells.append(found)
        directions.append(np.full(len(found), index))
    cell, direction = np.concatenate(cells), np.concatenate(directions)
    order = np.argsort(cell, kind="stable")
    cell, direction = cell[order], direction[order]
    ijk = ijk[cell]
    light = LIGHT_OF_DIRECTION[direction]
    light = light * (1 - OCCLUSION * _occupied_around(padded, ijk, direction))
    light = np.where(_in_shadow(grid.occupied, ijk, direction), light * SHADOW, light)
    corners = np.asarray(grid.spec.origin) + grid.spec.resolution * _corners(ijk, direction)
    return CellFaces(ijk, corners, light)


def _tangents(
    direction: Int[np.ndarray, " F"],
) -> tuple[Int[np.ndarray, "F 3"], Int[np.ndarray, "F 3"]]:
    """Return the two axes along each face."""
    axis = np.abs(DIRECTIONS[direction]).argmax(axis=1)
    unit = np.eye(3, dtype=int)
    return unit[(axis + 1) % 3], unit[(axis + 2) % 3]


def _corners(
    ijk: Int[np.ndarray, "F 3"], direction: Int[np.ndarray, " F"]
) -> Int[np.ndarray, "F 4 3"]:
    first, second = _tangents(direction)
    start = ijk + np.maximum(DIRECTIONS[direction], 0)
    return np.stack((start, start + first, start + first + second, start + second), axis=1)


def _occupied_around(
    padded: Bool[np.ndarray, "X Y Z"],
    ijk: Int[np.ndarray, "F 3"],
    direction: Int[np.ndarray, " F"],
) -> Int[np.ndarray, " F"]:
    """Count the occupied among the eight cells around the open side of each face."""
    first, second = _tangents(direction)
    front = ijk + 1 + DIRECTIONS[direction]
    count = np.zeros(len(ijk), dtype=int)
    limits = np.array(padded.shape) - 1
    for a in (-1, 0, 1):
        for b in (-1, 0, 1):
            if a or b:
                cell = np.clip(front + a * first + b * second, 0, limits)
                count += padded[tuple(cell.T)]
    return count


def _in_shadow(
    occupied: Bool[np.ndarray, "X Y Z"],
    ijk: Int[np.ndarray, "F 3"],
    direction: Int[np.ndarray, " F"],
) -> Bool[np.ndarray, " F"]:
    """Whether a cell stands between the middle of each face and the sun."""
    position = ijk + 0.5 + 0.55 * DIRECTIONS[direction]
    shaded = np.zeros(len(ijk), dtype=bool)
    limits = np.array(occupied.shape)
    step = SUN / np.linalg.norm(SUN) * 0.8
    for _ in range(int(np.ceil(limits[2] / step[2])) + 1):
        position = position + step
        cell = np.floor(position).astype(int)
        inside = ((cell >= 0) & (cell < limits)).all(axis=1)
        shaded[inside] |= occupied[tuple(cell[inside].T)]
    return shaded
