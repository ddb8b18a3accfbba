# SPDX-License-Identifier: Apache-2.0
"""Texts, boxes and masks in pictures -> a label for every pixel (spec 11)."""

from occany_core.semantics.class_prompts import PromptTable
from occany_core.semantics.detections import Detections, Detector, corners_of
from occany_core.semantics.features import PromptableFeatures
from occany_core.semantics.masks import NetworkPrompter, Prompter, Tracker
from occany_core.semantics.painting import (
    LabelledMasks,
    merge_masks,
    paint_observed,
    paint_prompted,
    paint_tracked,
)

__all__ = [
    "Detections",
    "Detector",
    "LabelledMasks",
    "NetworkPrompter",
    "PromptTable",
    "PromptableFeatures",
    "Prompter",
    "Tracker",
    "corners_of",
    "merge_masks",
    "paint_observed",
    "paint_prompted",
    "paint_tracked",
]
