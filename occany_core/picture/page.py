# SPDX-License-Identifier: Apache-2.0
"""Input pictures and VoxelGrid -> one page: the pictures, the 3D view, the map, a legend."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from occany_core.datasets.class_tables import SemanticClass
from occany_core.errors import InputError
from occany_core.picture.colours import (
    FAINT_TEXT,
    FREE,
    HIGHEST,
    LOWEST,
    PAGE,
    PLANE,
    TEXT,
    colours_of_heights,
)
from occany_core.picture.top_view import render_top
from occany_core.picture.view_3d import render_grid
from occany_core.voxels import VoxelGrid

WIDTH, BODY_HEIGHT = 1920, 600
MARGIN, GAP = 20, 8
PICTURES_WIDTH = 460
HEADER_HEIGHT, LEGEND_HEIGHT, CAPTION_HEIGHT = 54, 44, 17
MOST_PICTURES = 12
FORMATS = (".png", ".jpg", ".jpeg", ".webp")


@dataclass(frozen=True)
class Tiling:
    """Equal tiles for the input pictures."""

    columns: int
    width: int
    height: int
    """Of the picture in a tile [px], without its caption."""


def save_scene_picture(
    path: str | Path,
    pictures: Sequence[UInt8[np.ndarray, "H W 3"]],
    grid: VoxelGrid,
    title: str,
    captions: Sequence[str] | None = None,
    classes: tuple[SemanticClass, ...] = (),
) -> None:
    """Write the page of `compose_scene_picture` to a file.

    Raises:
        InputError: The file name has another ending than .png, .jpg, .jpeg or .webp.
        OSError: The file cannot be written.
    """
    check_format(Path(path))
    Image.fromarray(compose_scene_picture(pictures, grid, title, captions, classes)).save(path)


def check_format(path: Path) -> None:
    """See that a picture can be written under this name.

    Raises:
        InputError: It has another ending than .png, .jpg, .jpeg or .webp.
    """
    if path.suffix.lower() not in FORMATS:
        raise InputError(
            f"cannot write a picture to {path}; its name must end in one of {', '.join(FORMATS)}"
        )


def compose_scene_picture(
    pictures: Sequence[UInt8[np.ndarray, "H W 3"]],
    grid: VoxelGrid,
    title: str,
    captions: Sequence[str] | None = None,
    classes: tuple[SemanticClass, ...] = (),
) -> UInt8[np.ndarray, "H W 3"]:
    """Compose one page.

    Args:
        pictures: Input pictures of any sizes, possibly none; above twelve an even choice is shown.
        grid: What was made of them.
        title: One line.
        captions: One for each picture.
        classes: Colour cells by these; by height and kind if empty.

    Raises:
        InputError: Another number of captions than of pictures.
    """
    if captions is not None and len(captions) != len(pictures):
        raise InputError(
            f"{len(captions)} captions for {len(pictures)} pictures; give one for each"
        )
    captions = [""] * len(pictures) if captions is None else captions
    page = Image.new(
        "RGB", (WIDTH, HEADER_HEIGHT + BODY_HEIGHT + LEGEND_HEIGHT + MARGIN // 2), PAGE
    )
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN, 16), title, font=ImageFont.load_default(22), fill=TEXT)
    _write_right(draw, WIDTH - MARGIN, 22, _facts(grid))
    left = MARGIN
    if len(pictures):
        number = min(len(pictures), MOST_PICTURES)
        chosen = np.linspace(0, len(pictures) - 1, number).round().astype(int)
        shown = [pictures[i] for i in chosen]
        tiles = tiling([picture.shape[1] / picture.shape[0] for picture in shown])
        _paste_pictures(page, tiles, shown, [captions[i] for i in chosen])
        left += tiles.columns * (tiles.width + GAP)
    map_left = WIDTH - MARGIN - BODY_HEIGHT
    view = render_grid(grid, map_left - GAP - left, BODY_HEIGHT, classes)
    page.paste(Image.fromarray(view), (left, HEADER_HEIGHT))
    page.paste(Image.fromarray(render_top(grid, BODY_HEIGHT, classes)), (map_left, HEADER_HEIGHT))
    top = HEADER_HEIGHT + BODY_HEIGHT + 14
    if classes and grid.labels is not None:
        left = _draw_classes(draw, left, top, classes_in(grid, classes))
    else:
        left = _draw_ramps(draw, left, top)
    _draw_swatches(draw, left, top, {"free (map)": FREE, "unknown (map)": PLANE})
    return np.asarray(page)


def _facts(grid: VoxelGrid) -> str:
    size = " x ".join(f"{n * grid.spec.resolution:g}" for n in grid.spec.shape)
    occupied, completed = int(grid.occupied.sum()), int((grid.occupied & grid.completed).sum())
    cells = f"{occupied:,} occupied cells, {completed:,} of them completed"
    return f"{cells}   |   {size} m, cells of {grid.spec.resolution:g} m"


def _write_right(draw: ImageDraw.ImageDraw, right: int, top: int, text: str) -> None:
    font = ImageFont.load_default(15)
    draw.text((right - draw.textlength(text, font=font), top), text, font=font, fill=FAINT_TEXT)


def tiling(aspects: Sequence[float]) -> Tiling:
    """Choose the number of columns that shows pictures largest.

    Args:
        aspects: Width over height of each picture; the middle one sets the shape of all tiles.
    """
    aspect = float(np.median(aspects))
    best = Tiling(1, 0, 0)
    for columns in range(1, len(aspects) + 1):
        rows = -(-len(aspects) // columns)
        width = (PICTURES_WIDTH - GAP * (columns - 1)) / columns
        height = (BODY_HEIGHT - GAP * (rows - 1)) / rows - CAPTION_HEIGHT
        width = min(width, height * aspect)
        if width > best.width:
            best = Tiling(columns, int(width), int(width / aspect))
    return best


def _paste_pictures(
    page: Image.Image, tiles: Tiling, pictures: list[np.ndarray], captions: list[str]
) -> None:
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(13)
    rows = -(-len(pictures) // tiles.columns)
    pitch = min(tiles.height + CAPTION_HEIGHT + GAP, BODY_HEIGHT // rows)
    for index, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        column, row = index % tiles.columns, index // tiles.columns
        left = MARGIN + column * (tiles.width + GAP)
        top = HEADER_HEIGHT + row * pitch
        thumbnail = Image.fromarray(picture)
        scale = min(tiles.width / thumbnail.width, tiles.height / thumbnail.height)
        size = (max(int(thumbnail.width * scale), 1), max(int(thumbnail.height * scale), 1))
        page.paste(thumbnail.resize(size, Image.Resampling.LANCZOS), (left, top))
        draw.text(
            (left, top + tiles.height + 1),
            shortened(draw, caption, font, tiles.width),
            font=font,
            fill=FAINT_TEXT,
        )


def shortened(draw: ImageDraw.ImageDraw, text: str, font: ImageFont.ImageFont, width: int) -> str:
    """Cut a text off where it becomes wider than this [px]."""
    shown = text
    while shown and draw.textlength(shown, font=font) > width:
        shown = shown[:-1]
    return shown if shown == text else shown[:-3] + "..."


def classes_in(grid: VoxelGrid, classes: tuple[SemanticClass, ...]) -> list[SemanticClass]:
    """Return the classes of occupied cells, the commonest first."""
    counts = np.bincount(grid.labels[grid.occupied], minlength=256)
    return sorted((one for one in classes if counts[one.id]), key=lambda one: -counts[one.id])


def _draw_classes(
    draw: ImageDraw.ImageDraw, left: int, top: int, classes: list[SemanticClass]
) -> int:
    """Draw what the class colours mean, in two rows; return where it ends."""
    named = [(one.name.replace("_", " "), one.colour) for one in classes]
    rows = {top - 8: dict(named[0::2]), top + 10: dict(named[1::2])}
    return max(_draw_swatches(draw, left, at, colours) for at, colours in rows.items())


def _draw_ramps(draw: ImageDraw.ImageDraw, left: int, top: int) -> int:
    """Draw both height ramps; return where they end."""
    font = ImageFont.load_default(14)
    for name, completed in (("observed", False), ("completed (rendered, not seen)", True)):
        draw.text((left, top), name, font=font, fill=TEXT)
        left += int(draw.textlength(name, font=font)) + 10
        heights = np.linspace(LOWEST, HIGHEST, 120)
        colours = colours_of_heights(heights, np.full(len(heights), completed)).astype(int)
        for step, colour in enumerate(colours.tolist()):
            draw.line([(left + step, top + 1), (left + step, top + 14)], fill=tuple(colour))
        for height in (0, 2, 4):
            at = left + (height - LOWEST) / (HIGHEST - LOWEST) * len(heights)
            text = f"{height} m"
            draw.text((at - 8, top + 15), text, font=ImageFont.load_default(11), fill=FAINT_TEXT)
        left += len(heights) + 30
    return left


def _draw_swatches(
    draw: ImageDraw.ImageDraw, left: int, top: int, colours: dict[str, tuple[int, ...]]
) -> int:
    """Draw names beside their colours; return where they end."""
    font = ImageFont.load_default(14)
    for name, colour in colours.items():
        draw.rectangle([(left, top + 1), (left + 22, top + 14)], fill=colour, outline=FAINT_TEXT)
        draw.text((left + 30, top), name, font=font, fill=TEXT)
        left += 30 + int(draw.textlength(name, font=font)) + 26
    return left
