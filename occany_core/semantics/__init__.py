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
from occany_core.semantics.sam2_features import Sam2Encoder, load_sam2
from occany_core.semantics.sam2_model import load_image_model, load_video_model
from occany_core.semantics.sam2_prompter import Sam2Prompter
from occany_core.semantics.sam2_tracker import Sam2Tracker

__all__ = [
    "Detections",
    "Detector",
    "LabelledMasks",
    "NetworkPrompter",
    "PromptTable",
    "PromptableFeatures",
    "Prompter",
    "Sam2Encoder",
    "Sam2Prompter",
    "Sam2Tracker",
    "Tracker",
    "corners_of",
    "load_image_model",
    "load_sam2",
    "load_video_model",
    "merge_masks",
    "paint_observed",
    "paint_prompted",
    "paint_tracked",
]
