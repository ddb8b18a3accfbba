# SPDX-License-Identifier: Apache-2.0
"""VoxelGrid -> 3D view from behind and above the vehicle.

Perspective, exact occlusion, coloured by height; completed cells in a second ramp. Grid frame
(x forward, y left, z up), metres; the vehicle stands at the origin of the grid frame.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageChops, ImageDraw

from occany_core.datasets.class_tables import SemanticClass
from occany_core.picture.cell_faces import CellFaces, visible_faces
from occany_core.picture.colours import EGO, LINE, PANEL, PLANE, RING, colours_of_cells
from occany_core.voxels import VoxelGrid, VoxelGridSpec

OVERSAMPLING = 2
PITCH_DEG, HEADING_DEG, FIELD_OF_VIEW_DEG = 36.0, 16.0, 42.0
NEAR = 0.5
"""Nothing closer to the eye is drawn [m]."""
LOW, TALL = 254, 255
"""Alpha of painted faces: ground lines may, or may not, be drawn over them."""
LOW_BELOW = 0.45
"""Height of the top of cells that count as ground [m]."""
EDGE_LIGHT = 0.84
SMALLEST_SCENE = 16.0
"""Half the least width of what is shown [m]."""
EGO_LENGTH, EGO_WIDTH, EGO_HEIGHT = 4.4, 1.9, 1.5


@dataclass(frozen=True)
class Eye:
    """A perspective camera in the grid frame."""

    position: Float[np.ndarray, "3"]
    axes: Float[np.ndarray, "3 3"]
    """Rows right, down, forward."""
    focal_px: float
    centre_px: tuple[float, float]

    def project(self, points: Float[np.ndarray, "... 3"]) -> Float[np.ndarray, "... 3"]:
        """Return pixel u, v and depth [m]; u, v mean something where the depth is positive."""
        local = (points - self.position) @ self.axes.T
        depth = local[..., 2:]
        pixels = local[..., :2] / np.maximum(depth, 1e-6) * self.focal_px + self.centre_px
        return np.concatenate((pixels, depth), axis=-1)


def render_grid(
    grid: VoxelGrid,
    width: int = 960,
    height: int = 640,
    classes: tuple[SemanticClass, ...] = (),
) -> UInt8[np.ndarray, "H W 3"]:
    """Draw the grid as seen from behind and above the vehicle.

    Args:
        grid: Any size; the view is fitted to its occupied cells and the vehicle.
        width: Of the picture [px].
        height: Of the picture [px].
        classes: Colour cells by these; by height and kind if empty.
    """
    eye = _eye_for(grid, width * OVERSAMPLING, height * OVERSAMPLING)
    canvas = Image.new("RGBA", (width * OVERSAMPLING, height * OVERSAMPLING), (*PANEL, LOW))
    _draw_plane(ImageDraw.Draw(canvas), eye, grid.spec)
    faces = visible_faces(grid, eye.position)
    colours = colours_of_cells(grid, faces.ijk, classes) * faces.light[:, None]
    _draw_faces(ImageDraw.Draw(canvas), eye, faces, colours, grid.spec)
    canvas = _with_rings(canvas, eye, grid.spec)
    _draw_ego(canvas, eye)
    return np.asarray(canvas.convert("RGB").resize((width, height), Image.Resampling.BOX))


def shown_region(grid: VoxelGrid) -> tuple[float, float, float, float]:
    """Return limits (x0, x1, y0, y1) [m] around the vehicle and nearly all occupied cells."""
    centres = grid.occupied_centres()[:, :2]
    near = np.array(
        [(-SMALLEST_SCENE / 2, -SMALLEST_SCENE), (SMALLEST_SCENE * 1.5, SMALLEST_SCENE)]
    )
    if len(centres):
        most = np.percentile(centres, (0.2, 99.8), axis=0)
        near = np.stack((np.minimum(near[0], most[0]), np.maximum(near[1], most[1])))
    (x0, y0), (x1, y1) = near
    return float(x0), float(x1), float(y0), float(y1)


def _eye_for(grid: VoxelGrid, width: int, height: int) -> Eye:
    """Place the eye so that the shown region fills the picture."""
    x0, x1, y0, y1 = shown_region(grid)
    pitch, heading = math.radians(PITCH_DEG), math.radians(HEADING_DEG)
    forward = np.array(
        [
            math.cos(pitch) * math.cos(heading),
            math.cos(pitch) * math.sin(heading),
            -math.sin(pitch),
        ]
    )
    right = np.array([math.sin(heading), -math.cos(heading), 0.0])
    axes = np.stack((right, np.cross(forward, right), forward))
    focal_px = width / 2 / math.tan(math.radians(FIELD_OF_VIEW_DEG) / 2)
    corners = np.array([(x, y, z) for x in (x0, x1) for y in (y0, y1) for z in (0.0, 3.0)])
    local = corners @ axes.T
    # A corner at (right r, forward f) is inside when |r - r0| <= (f + distance) * slope; the least
    # distance and the offset r0 follow from the extreme corners on either side. Likewise down.
    offsets, distances = [], []
    for axis, half_px in ((0, width / 2), (1, height / 2)):
        slope = half_px / focal_px * 0.97
        high = (local[:, axis] - slope * local[:, 2]).max()
        low = (local[:, axis] + slope * local[:, 2]).min()
        offsets.append((high + low) / 2)
        distances.append((high - low) / 2 / slope)
    distance = max(distances)
    position = offsets[0] * axes[0] + offsets[1] * axes[1] - distance * axes[2]
    return Eye(position, axes, focal_px, (width / 2, height / 2))


def _draw_plane(draw: ImageDraw.ImageDraw, eye: Eye, spec: VoxelGridSpec) -> None:
    """Draw the ground plane of the grid with lines every ten metres."""
    (x0, y0), (x1, y1) = _limits(spec)
    outline = _clipped(eye, np.array([(x0, y0, 0), (x1, y0, 0), (x1, y1, 0), (x0, y1, 0)], float))
    if len(outline) >= 3:
        draw.polygon([tuple(p) for p in outline], fill=(*PLANE, LOW))
    for x in np.arange(math.ceil(x0 / 10) * 10, x1 + 1e-6, 10):
        _draw_path(draw, eye, np.array([(x, y0, 0), (x, y1, 0)]), (*LINE, LOW))
    for y in np.arange(math.ceil(y0 / 10) * 10, y1 + 1e-6, 10):
        _draw_path(draw, eye, np.array([(x0, y, 0), (x1, y, 0)]), (*LINE, LOW))


def _limits(spec: VoxelGridSpec) -> tuple[np.ndarray, np.ndarray]:
    low = np.asarray(spec.origin[:2], float)
    return low, low + spec.resolution * np.asarray(spec.shape[:2])


def _clipped(eye: Eye, polygon: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "M 2"]:
    """Project a polygon, without its part behind the eye."""
    depth = (polygon - eye.position) @ eye.axes[2] - NEAR
    kept = []
    for index in range(len(polygon)):
        here, there = index, (index + 1) % len(polygon)
        if depth[here] > 0:
            kept.append(polygon[here])
        if (depth[here] > 0) != (depth[there] > 0):
            share = depth[here] / (depth[here] - depth[there])
            kept.append(polygon[here] + share * (polygon[there] - polygon[here]))
    return eye.project(np.array(kept).reshape(-1, 3))[:, :2]


def _draw_path(
    draw: ImageDraw.ImageDraw,
    eye: Eye,
    path: Float[np.ndarray, "N 3"],
    colour: tuple[int, ...],
    width: int = 2,
) -> None:
    for start, end in itertools.pairwise(path):
        pixels = _clipped(eye, np.stack((start, end)))
        if len(pixels) >= 2:
            draw.line([tuple(pixels[0]), tuple(pixels[1])], fill=colour, width=width)


def _draw_faces(
    draw: ImageDraw.ImageDraw,
    eye: Eye,
    faces: CellFaces,
    colours: Float[np.ndarray, "F 3"],
    spec: VoxelGridSpec,
) -> None:
    """Paint far faces first; distant ones fade into the background."""
    pixels = eye.project(faces.corners)
    canvas_width, canvas_height = 2 * eye.centre_px[0], 2 * eye.centre_px[1]
    u, v, depth = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    inside = (depth.min(axis=1) > NEAR) & (u.max(axis=1) > 0) & (u.min(axis=1) < canvas_width)
    inside &= (v.max(axis=1) > 0) & (v.min(axis=1) < canvas_height)
    ijk, pixels, depth = faces.ijk[inside], pixels[inside], depth[inside].mean(axis=1)
    height = spec.origin[2] + (ijk[:, 2] + 0.5) * spec.resolution
    colours = colours[inside]
    fade = np.clip((depth - 60) / 200, 0, 0.3)[:, None]
    alpha = np.where(height + spec.resolution / 2 < LOW_BELOW, LOW, TALL)
    # Edges vanish where cells are only a few pixels wide.
    edge_px = eye.focal_px * spec.resolution / np.maximum(depth, NEAR)
    edge = 1 - (1 - EDGE_LIGHT) * np.clip((edge_px - 4) / 8, 0, 1)[:, None]
    fills = np.concatenate((colours * (1 - fade) + np.array(PANEL) * fade, alpha[:, None]), axis=1)
    edges = np.concatenate((fills[:, :3] * edge, alpha[:, None]), axis=1)
    for corners, fill, outline in zip(
        pixels[..., :2].reshape(-1, 8).tolist(),
        np.clip(fills, 0, 255).astype(int).tolist(),
        np.clip(edges, 0, 255).astype(int).tolist(),
        strict=True,
    ):
        draw.polygon(corners, fill=tuple(fill), outline=tuple(outline))


def ring_radii(spec: VoxelGridSpec) -> list[int]:
    """Return the radii [m] of the range rings: about five, in steps of 5, 10, 20 or 50 m."""
    low, high = _limits(spec)
    farthest = float(np.abs(np.stack((low, high))).max())
    step = next((step for step in (5, 10, 20, 50) if farthest / step <= 6), 100)
    return [step * index for index in range(1, int(farthest / step + 1e-6) + 1)]


def _with_rings(canvas: Image.Image, eye: Eye, spec: VoxelGridSpec) -> Image.Image:
    """Lay faint range rings over the ground, not over anything that stands on it."""
    overlay = Image.new("L", canvas.size, 0)
    draw = ImageDraw.Draw(overlay)
    low, high = _limits(spec)
    angles = np.linspace(0, 2 * math.pi, 181)
    for radius in ring_radii(spec):
        ring = radius * np.stack((np.cos(angles), np.sin(angles), 0 * angles), axis=1)
        on_grid = ((ring[:, :2] >= low) & (ring[:, :2] <= high)).all(axis=1)
        for index in np.flatnonzero(on_grid[:-1] & on_grid[1:]):
            _draw_path(draw, eye, ring[index : index + 2], (110,), width=3)
    ground = canvas.getchannel("A").point(lambda alpha: 255 * (alpha < TALL))
    mask = ImageChops.multiply(overlay, ground)
    return Image.composite(Image.new("RGBA", canvas.size, (*RING, 255)), canvas, mask)


def _draw_ego(canvas: Image.Image, eye: Eye) -> None:
    """Draw the vehicle as a box and its heading as an arrow, over everything."""
    overlay = Image.new("RGBA", canvas.size, (0, 0, 0, 0))
    draw = ImageDraw.Draw(overlay)
    half = EGO_WIDTH / 2
    back, front = -EGO_LENGTH / 2, EGO_LENGTH / 2
    arrow = [(front + 0.7, 0.3), (front + 3.0, 0.3), (front + 3.0, 0.95), (front + 5.0, 0)]
    arrow += [(x, -y) for x, y in reversed(arrow[:-1])]
    _draw_shape(draw, eye, [(x, y, 0.25) for x, y in arrow], 235)
    floor = [(back, -half), (front, -half), (front, half), (back, half)]
    sides = [(floor[a], floor[b]) for a, b in ((1, 2), (0, 1), (2, 3), (3, 0))]
    for index, (a, b) in enumerate(sides):
        if index:
            side = [(*a, 0.0), (*b, 0.0), (*b, EGO_HEIGHT), (*a, EGO_HEIGHT)]
            _draw_shape(draw, eye, side, 245, light=(0.70, 0.62, 0.74, 0.82)[index])
    _draw_shape(draw, eye, [(x, y, EGO_HEIGHT) for x, y in floor], 250)
    canvas.alpha_composite(overlay)


def _draw_shape(
    draw: ImageDraw.ImageDraw, eye: Eye, shape: list[tuple], alpha: int, light: float = 1.0
) -> None:
    pixels = _clipped(eye, np.array(shape, float))
    if len(pixels) >= 3:
        fill = tuple(int(value * light) for value in EGO)
        outline = tuple(int(value * light * 0.55) for value in EGO)
        draw.polygon([tuple(p) for p in pixels], fill=(*fill, alpha), outline=(*outline, alpha))
