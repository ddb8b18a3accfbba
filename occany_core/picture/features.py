# SPDX-License-Identifier: Apache-2.0
"""Feature maps -> colours by principal components, and a page of views beside their levels.

Equal colours are equal features, in all views that are coloured together.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw, ImageFont

from occany_core.errors import InputError
from occany_core.picture.colours import FAINT_TEXT, PAGE, TEXT

COLOURS = 3
MARGIN_PERCENT = 1.0
"""Values beyond this percentile at either end take the end of the range."""
TILE_WIDTH, MARGIN, GAP, HEADER_HEIGHT, CAPTION_HEIGHT = 440, 16, 8, 50, 22


def colours_of_features(features: Float[np.ndarray, "V C h w"]) -> UInt8[np.ndarray, "V h w 3"]:
    """Show the three strongest principal components as red, green and blue.

    The components are those of all views together; each points to where its largest weight is
    positive, so that the same features have the same colours in every run.

    Args:
        features: At least three channels.

    Raises:
        InputError: Fewer channels, no pixel, or a value that is not finite.
    """
    if features.ndim != 4 or features.shape[1] < COLOURS or not features.size:
        raise InputError(
            f"features have shape {features.shape}; give (views, channels, height, width) with at "
            f"least {COLOURS} channels"
        )
    if not np.isfinite(features).all():
        raise InputError("a feature is not finite; check the pictures and the weights")
    rows = np.moveaxis(features, 1, -1).astype(np.float64)
    rows = rows - rows.mean(axis=(0, 1, 2))
    flat = rows.reshape(-1, rows.shape[-1])
    _, directions = np.linalg.eigh(flat.T @ flat)
    axes = directions[:, : -COLOURS - 1 : -1]
    axes = axes * np.sign(np.take_along_axis(axes, np.abs(axes).argmax(axis=0)[None], axis=0))
    parts = rows @ axes
    ends = (MARGIN_PERCENT, 100 - MARGIN_PERCENT)
    low, high = np.percentile(parts, ends, axis=(0, 1, 2))
    share = (parts - low) / np.maximum(high - low, 1e-9)
    return (share.clip(0, 1) * 255).round().astype(np.uint8)


def compose_features_picture(
    pictures: Sequence[UInt8[np.ndarray, "H W 3"]],
    levels: dict[str, Float[np.ndarray, "V C h w"]],
    title: str,
    captions: Sequence[str] = (),
) -> UInt8[np.ndarray, "H W 3"]:
    """Compose a page with a row for each view: the picture, then its features level by level.

    Args:
        pictures: The views, all of one size.
        levels: Caption and features of each level; square maps are stretched over the picture.
        title: One line.
        captions: One below each picture, or none.

    Raises:
        InputError: No picture, or features or captions of another number of views.
    """
    numbers = {len(features) for features in levels.values()}
    if not pictures or numbers != {len(pictures)}:
        raise InputError(
            f"{len(pictures)} pictures came with features of {sorted(numbers)} views; give both "
            "of the same views, at least one"
        )
    if captions and len(captions) != len(pictures):
        raise InputError(
            f"{len(captions)} captions for {len(pictures)} pictures; give one for each, or none"
        )
    height = round(TILE_WIDTH * pictures[0].shape[0] / pictures[0].shape[1])
    pitch = height + GAP + (CAPTION_HEIGHT if captions else 0)
    columns = {"picture": list(pictures)}
    columns |= {name: list(colours_of_features(level)) for name, level in levels.items()}
    page = Image.new(
        "RGB",
        (
            2 * MARGIN + len(columns) * (TILE_WIDTH + GAP) - GAP,
            HEADER_HEIGHT + CAPTION_HEIGHT + len(pictures) * pitch - GAP + MARGIN,
        ),
        PAGE,
    )
    draw = ImageDraw.Draw(page)
    draw.text((MARGIN, 14), title, font=ImageFont.load_default(22), fill=TEXT)
    for column, (name, tiles) in enumerate(columns.items()):
        left = MARGIN + column * (TILE_WIDTH + GAP)
        draw.text((left, HEADER_HEIGHT), name, font=ImageFont.load_default(15), fill=FAINT_TEXT)
        sampling = Image.Resampling.NEAREST if column else Image.Resampling.LANCZOS
        for row, tile in enumerate(tiles):
            top = HEADER_HEIGHT + CAPTION_HEIGHT + row * pitch
            shown = Image.fromarray(tile).resize((TILE_WIDTH, height), sampling)
            page.paste(shown, (left, top))
    for row, caption in enumerate(captions):
        below = HEADER_HEIGHT + CAPTION_HEIGHT + row * pitch + height + 3
        draw.text((MARGIN, below), caption, font=ImageFont.load_default(13), fill=FAINT_TEXT)
    return np.asarray(page)
