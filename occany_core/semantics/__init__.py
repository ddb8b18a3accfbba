# SPDX-License-Identifier: Apache-2.0
"""Masks of classes in pictures -> a label for every pixel (spec 11)."""

from occany_core.semantics.painting import (
    LabelledMasks,
    PromptTable,
    boxes_in_pixels,
    merge_masks,
    paint_observed,
    paint_prompted,
    paint_tracked,
)

__all__ = [
    "LabelledMasks",
    "PromptTable",
    "boxes_in_pixels",
    "merge_masks",
    "paint_observed",
    "paint_prompted",
    "paint_tracked",
]
