# SPDX-License-Identifier: Apache-2.0
"""Pictures and what was found in them -> a page: outlined masks with names, scores and a legend.

`V` views, `M` things of a view. NumPy, Pillow, and PyTorch to enlarge masks.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from occany_core.datasets.class_tables import SemanticClass
from occany_core.errors import InputError
from occany_core.picture.colours import FAINT_TEXT, PAGE, TEXT
from occany_core.picture.page import shortened
from occany_core.semantics.things import FoundThings, masks_of_logits

PAGE_WIDTH, WIDEST_TILE = 1920, 1280
MARGIN, GAP, HEADER_HEIGHT, CAPTION_HEIGHT, LEGEND_HEIGHT = 20, 12, 54, 24, 34
PANORAMA = 2.2
"""Pictures with a larger ratio of width to height stand two in a row at most."""
FILL, RIM = 0.36, 0.7
"""Opacity of the colour inside a mask, and of the dark line around its outline."""
OUTLINE = 3
"""Thickness of outlines [px]."""
LEAST_LUMINANCE = 150.0
"""Of drawn colours, 0 to 255: darker classes are lightened so that they stand out."""
LABEL_SIZE, LABEL_ROOM, LABEL_HEIGHT = 15, 4, 21
INK = (12, 14, 18)
"""Of names on the colours of classes."""


@dataclass(frozen=True)
class Box:
    """Pixels of a picture, ends excluded."""

    left: int
    top: int
    right: int
    bottom: int

    def meets(self, other: "Box") -> bool:
        """Whether they have a pixel in common."""
        return (
            self.left < other.right
            and other.left < self.right
            and self.top < other.bottom
            and other.top < self.bottom
        )


def compose_instances_picture(
    pictures: Sequence[UInt8[np.ndarray, "H W 3"]],
    things: Sequence[FoundThings],
    classes: Sequence[SemanticClass],
    title: str,
    captions: Sequence[str],
) -> UInt8[np.ndarray, "H W 3"]:
    """Compose a page with every picture, what was found drawn into it.

    Args:
        pictures: As far as the network saw them, at any resolution.
        things: What was found in each; masks and boxes cover the picture.
        classes: What labels mean.
        title: One line.
        captions: One for each picture.

    Raises:
        InputError: No picture, or another number of findings or captions.
    """
    if not pictures or not len(pictures) == len(things) == len(captions):
        raise InputError(
            f"{len(pictures)} pictures came with findings of {len(things)} and {len(captions)} "
            "captions; give one of each for every picture, at least one"
        )
    aspect = pictures[0].shape[1] / pictures[0].shape[0]
    columns = _columns(len(pictures), aspect)
    width = (PAGE_WIDTH - 2 * MARGIN - GAP * (columns - 1)) // columns
    width = min(width, WIDEST_TILE)
    height = round(width / aspect)
    rows = -(-len(pictures) // columns)
    legend = _Legend(things, classes, columns * (width + GAP) - GAP)
    top = HEADER_HEIGHT + rows * (height + CAPTION_HEIGHT + GAP)
    size = (2 * MARGIN + columns * (width + GAP) - GAP, top + legend.height + MARGIN)
    page = Image.new("RGB", size, PAGE)
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN, 15), title, font=ImageFont.load_default(22), fill=TEXT)
    font = ImageFont.load_default(15)
    for index, (picture, found, caption) in enumerate(
        zip(pictures, things, captions, strict=True)
    ):
        left = MARGIN + index % columns * (width + GAP)
        above = HEADER_HEIGHT + index // columns * (height + CAPTION_HEIGHT + GAP)
        page.paste(draw_things(picture, found, classes, (width, height)), (left, above))
        number = f"{len(found.masks) or 'nothing'} found"
        below, room = above + height + 4, width - draw.textlength(number, font=font) - 2 * GAP
        name = shortened(draw, caption, font, int(room))
        draw.text((left, below), name, font=font, fill=FAINT_TEXT)
        draw.text((left + width, below), number, FAINT_TEXT, font, anchor="ra")
    legend.draw(draw, MARGIN, top)
    return np.asarray(page)


def _columns(number: int, aspect: float) -> int:
    if number == 1:
        return 1
    return 2 if number <= 4 or aspect > PANORAMA else 3


def draw_things(
    picture: UInt8[np.ndarray, "H W 3"],
    things: FoundThings,
    classes: Sequence[SemanticClass],
    size: tuple[int, int],
) -> Image.Image:
    """Draw masks into a picture, the best score last, and write names and scores beside them.

    Args:
        picture: What the masks cover.
        things: Found in it.
        classes: What labels mean.
        size: Width and height of the result [px].
    """
    canvas = Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS)
    named = {one.id: one for one in classes}
    colours = [drawn_colour(named[label]) for label in things.found.labels.tolist()]
    order = things.found.scores.argsort().tolist()
    painted = np.asarray(canvas).astype(np.float32)
    if order:
        masks = masks_of_logits(things.masks, size[::-1])
        for index in order:
            _paint(painted, masks[index], colours[index])
    canvas = Image.fromarray(painted.round().astype(np.uint8))
    _write_names(canvas, things, classes, order[::-1])
    return canvas


def _write_names(
    canvas: Image.Image,
    things: FoundThings,
    classes: Sequence[SemanticClass],
    order: list[int],
) -> None:
    """Write names and scores on plates of the colours of the classes."""
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(LABEL_SIZE)
    by_id = {one.id: one for one in classes}
    named = [by_id[things.found.labels[index].item()] for index in order]
    texts = [
        f"{one.name.replace('_', ' ')} {things.found.scores[index]:.2f}"
        for one, index in zip(named, order, strict=True)
    ]
    widths = [int(draw.textlength(text, font=font)) + 2 * LABEL_ROOM for text in texts]
    corners = things.found.boxes[order] * torch.tensor([*canvas.size, *canvas.size])
    boxes = [Box(*sides) for sides in corners.round().int().tolist()]
    places = place_labels(boxes, widths, canvas.size)
    for text, one, place in zip(texts, named, places, strict=True):
        if place is None:
            continue
        plate = (place.left, place.top, place.right - 1, place.bottom - 1)
        draw.rounded_rectangle(plate, 4, fill=drawn_colour(one))
        at = (place.left + LABEL_ROOM, place.top + LABEL_HEIGHT / 2)
        draw.text(at, text, INK, font, anchor="lm")


def place_labels(
    boxes: Sequence[Box], widths: Sequence[int], size: tuple[int, int]
) -> list[Box | None]:
    """Find a place beside each box for its label, where no earlier label stands.

    Above the box, at its upper or lower end, or further down within it; None where all of these
    are taken.

    Args:
        boxes: Of the things, the most important first.
        widths: Of their labels [px]; all are `LABEL_HEIGHT` high.
        size: Width and height of the picture [px]; labels stay inside.
    """
    placed: list[Box | None] = []
    for box, width in zip(boxes, widths, strict=True):
        lefts = (box.left, box.right - width, (box.left + box.right - width) // 2)
        tops = (
            box.top - LABEL_HEIGHT - 1,
            box.top + 2,
            box.bottom + 1,
            *range(box.top + 2, box.bottom, LABEL_HEIGHT + 2),
        )
        places = (_inside(left, top, width, size) for top in tops for left in lefts)
        taken = [one for one in placed if one is not None]
        free = (one for one in places if not any(one.meets(other) for other in taken))
        placed.append(next(free, None))
    return placed


def _inside(left: int, top: int, width: int, size: tuple[int, int]) -> Box:
    """Move a label into the picture."""
    left = max(min(left, size[0] - width), 0)
    top = max(min(top, size[1] - LABEL_HEIGHT), 0)
    return Box(left, top, left + width, top + LABEL_HEIGHT)


def drawn_colour(one: SemanticClass) -> tuple[int, int, int]:
    """Return the colour of a class, mixed with white until it stands out."""
    colour = np.array(one.colour, np.float64)
    luminance = float(colour @ (0.299, 0.587, 0.114))
    white = max(0.0, (LEAST_LUMINANCE - luminance) / (255 - luminance))
    red, green, blue = (colour + (255 - colour) * white).round().astype(int).tolist()
    return red, green, blue


def _paint(
    canvas: Float[np.ndarray, "H W 3"], mask: Bool[Tensor, "H W"], colour: tuple[int, int, int]
) -> None:
    """Tint a mask and draw its outline, with a dark line around it; in place."""
    inside = mask.float()[None, None]
    shrunk = -F.max_pool2d(-inside, 2 * OUTLINE + 1, 1, OUTLINE)
    grown = F.max_pool2d(inside, 3, 1, 1)
    fill, outline, rim = (
        area[0, 0].bool().numpy() for area in (inside, inside - shrunk, grown - inside)
    )
    for area, tint, opacity in (
        (fill, colour, FILL),
        (rim, (0, 0, 0), RIM),
        (outline, colour, 1.0),
    ):
        canvas[area] = canvas[area] * (1 - opacity) + np.array(tint, np.float32) * opacity


class _Legend:
    """Classes that were found, the commonest first, in as many lines as they need."""

    def __init__(
        self, things: Sequence[FoundThings], classes: Sequence[SemanticClass], width: int
    ) -> None:
        self.font = ImageFont.load_default(15)
        counts = torch.bincount(
            torch.cat([one.found.labels for one in things]), minlength=256
        ).tolist()
        found = sorted((one for one in classes if counts[one.id]), key=lambda c: -counts[c.id])
        self.places: list[tuple[int, int, str, tuple[int, int, int]]] = []
        left, line = 0, 0
        for one in found:
            text = f"{one.name.replace('_', ' ')} ({counts[one.id]})"
            length = 30 + int(self.font.getlength(text)) + 28
            if left and left + length > width:
                left, line = 0, line + 1
            self.places.append((left, line * LEGEND_HEIGHT, text, drawn_colour(one)))
            left += length
        self.height = (line + 1) * LEGEND_HEIGHT if found else 0

    def draw(self, draw: ImageDraw.ImageDraw, left: int, top: int) -> None:
        for right, below, text, colour in self.places:
            x, y = left + right, top + below
            draw.rounded_rectangle((x, y + 3, x + 22, y + 17), 3, fill=colour)
            draw.text((x + 30, y + 1), text, font=self.font, fill=TEXT)
