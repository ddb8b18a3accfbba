# SPDX-License-Identifier: Apache-2.0
"""VoxelGrid -> map seen from above: free, unknown and occupied columns, range rings, the vehicle.

Forward (+x) is up and left (+y) is left, as on a map that turns with the vehicle. Metres.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from occany_core.datasets.class_tables import SemanticClass
from occany_core.picture.colours import (
    EGO,
    FAINT_TEXT,
    FREE,
    PANEL,
    PLANE,
    RING,
    colours_of_cells,
)
from occany_core.picture.view_3d import EGO_LENGTH, EGO_WIDTH, ring_radii
from occany_core.voxels import VoxelGrid, VoxelGridSpec

OVERSAMPLING = 2
RELIEF = 0.16
"""Light gained or lost per metre of height difference to the next column."""


@dataclass(frozen=True)
class MapScale:
    """Where metres of the grid frame lie on a square picture."""

    px_per_metre: float
    middle: tuple[float, float]
    """Point of the grid frame (x, y) [m] in the middle of the picture."""
    side_px: int

    def pixel(self, x: float, y: float) -> tuple[float, float]:
        """Return the column and row of a point of the grid frame [m]."""
        half = self.side_px / 2
        return (
            half - (y - self.middle[1]) * self.px_per_metre,
            half - (x - self.middle[0]) * self.px_per_metre,
        )


def render_top(
    grid: VoxelGrid, side: int = 480, classes: tuple[SemanticClass, ...] = ()
) -> UInt8[np.ndarray, "side side 3"]:
    """Draw the grid from above.

    A column is occupied when one of its cells is (coloured by its highest one), else free when one
    of its cells is, else unknown.

    Args:
        grid: Of any size; the longer of its horizontal sides fills the picture.
        side: Of the square picture [px].
        classes: Colour cells by these; by height and kind if empty.
    """
    scale = _scale_of(grid.spec, side * OVERSAMPLING)
    columns = Image.fromarray(column_colours(grid, classes)[::-1, ::-1].astype(np.uint8))
    low, high = _limits(grid.spec)
    left, top = scale.pixel(high[0], high[1])
    right, bottom = scale.pixel(low[0], low[1])
    size = (max(round(right - left), 1), max(round(bottom - top), 1))
    canvas = Image.new("RGB", (scale.side_px, scale.side_px), PANEL)
    canvas.paste(columns.resize(size, Image.Resampling.NEAREST), (round(left), round(top)))
    canvas = _with_rings(canvas, scale, grid.spec)
    _draw_ego(ImageDraw.Draw(canvas), scale)
    canvas = canvas.resize((side, side), Image.Resampling.BOX)
    _draw_distances(ImageDraw.Draw(canvas), _scale_of(grid.spec, side), grid.spec)
    return np.asarray(canvas)


def column_colours(
    grid: VoxelGrid, classes: tuple[SemanticClass, ...] = ()
) -> Float[np.ndarray, "X Y 3"]:
    """Return the colour of every column of cells, 0 to 255."""
    occupied = grid.occupied
    any_occupied = occupied.any(axis=2)
    highest = occupied.shape[2] - 1 - occupied[:, :, ::-1].argmax(axis=2)
    height = grid.spec.origin[2] + (highest + 0.5) * grid.spec.resolution
    colours = np.empty((*any_occupied.shape, 3), np.float32)
    colours[:] = PLANE
    colours[grid.free.any(axis=2)] = FREE
    surface = np.where(any_occupied, height, 0.0)
    towards_light = np.pad(surface, ((1, 0), (0, 1)), mode="edge")[:-1, 1:]
    relief = np.clip(1 - RELIEF / 2 + RELIEF * (surface - towards_light), 0.6, 1.15)
    ijk = np.stack((*np.indices(highest.shape), highest), axis=-1).reshape(-1, 3)
    painted = colours_of_cells(grid, ijk, classes).reshape(colours.shape)
    painted = np.clip(painted * relief[..., None], 0, 255)
    return np.where(any_occupied[..., None], painted, colours)


def _limits(spec: VoxelGridSpec) -> tuple[np.ndarray, np.ndarray]:
    low = np.asarray(spec.origin[:2], float)
    return low, low + spec.resolution * np.asarray(spec.shape[:2])


def _scale_of(spec: VoxelGridSpec, side_px: int) -> MapScale:
    low, high = _limits(spec)
    middle = (low + high) / 2
    return MapScale(
        side_px / float((high - low).max()), (float(middle[0]), float(middle[1])), side_px
    )


def _with_rings(canvas: Image.Image, scale: MapScale, spec: VoxelGridSpec) -> Image.Image:
    overlay = Image.new("RGBA", canvas.size, (*RING, 0))
    draw = ImageDraw.Draw(overlay)
    column, row = scale.pixel(0, 0)
    for radius in ring_radii(spec):
        reach = radius * scale.px_per_metre
        box = (column - reach, row - reach, column + reach, row + reach)
        draw.ellipse(box, outline=(*RING, 80), width=OVERSAMPLING)
    return Image.alpha_composite(canvas.convert("RGBA"), overlay).convert("RGB")


def _draw_ego(draw: ImageDraw.ImageDraw, scale: MapScale) -> None:
    # Never so small that it cannot be seen.
    stretch = max(1.0, 14 * OVERSAMPLING / (EGO_LENGTH * scale.px_per_metre))
    half, front = EGO_WIDTH / 2 * stretch, EGO_LENGTH / 2 * stretch
    body = [(-front, -half), (front, -half), (front, half), (-front, half)]
    arrow = [(front * 1.25, -half), (front * 1.25 + 2 * half, 0.0), (front * 1.25, half)]
    for shape in (body, arrow):
        draw.polygon([scale.pixel(x, y) for x, y in shape], fill=EGO, outline=PANEL)


def _draw_distances(draw: ImageDraw.ImageDraw, scale: MapScale, spec: VoxelGridSpec) -> None:
    font = ImageFont.load_default(max(scale.side_px // 40, 10))
    for radius in ring_radii(spec):
        column, row = scale.pixel(radius, 0)
        if 12 <= row < scale.side_px:
            place = (column + 3, row + 1)
            draw.text(
                place, f"{radius} m", font=font, fill=RING, stroke_width=2, stroke_fill=PANEL
            )
    note = "from above, forward is up"
    draw.text((6, 4), note, font=font, fill=FAINT_TEXT, stroke_width=2, stroke_fill=PANEL)
