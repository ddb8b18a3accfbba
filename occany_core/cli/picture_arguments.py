# SPDX-License-Identifier: Apache-2.0
"""PICTURES, --rig, --calibration and --masks -> view sets, for every verb that reads pictures."""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool

from occany_core.cli.calibration_file import NO_CALIBRATION, CameraCalibration, load_calibration
from occany_core.cli.picture_files import RIGS, PictureFile, read_masks, read_picture, view_sets
from occany_core.images import View
from occany_core.view_checks import check_intrinsics

PICTURES = "a folder of pictures, a folder with one subfolder per camera, or picture files"


@dataclass(frozen=True)
class Pictures:
    """What was named on the command line, checked but for the pictures themselves."""

    files: list[list[PictureFile]]
    """View sets, oldest first."""
    calibration: Mapping[str, CameraCalibration]
    """By camera, as far as it is known."""
    masks: Mapping[str, Bool[np.ndarray, "H W"]]
    """Pixels to be ignored, by camera."""

    @property
    def cameras(self) -> list[str]:
        """Names of the cameras."""
        return list(dict.fromkeys(file.camera for one in self.files for file in one))

    @property
    def names(self) -> list[str]:
        """Name of each picture file."""
        return [file.path.name for one in self.files for file in one]

    def read(self) -> list[list[View]]:
        """Read them all; for want of capture times the number of the view set is its stamp.

        Raises:
            InputError: A file cannot be read, or does not go with the camera's K.
        """
        return [
            [self._view(file, float(index)) for file in one]
            for index, one in enumerate(self.files)
        ]

    def _view(self, file: PictureFile, stamp: float) -> View:
        known = self.calibration.get(file.camera, NO_CALIBRATION)
        rgb = read_picture(file.path)
        check_intrinsics(known.K, f"{file.path} ({file.camera})", rgb.shape[:2])
        return View(
            rgb,
            file.camera,
            stamp,
            K=known.K,
            rig_from_cam=known.rig_from_cam,
            ignored=self.masks.get(file.camera),
        )


def add_options(parser: argparse._ActionsContainer) -> None:
    """Add the options; PICTURES is the verb's own."""
    parser.add_argument(
        "--rig",
        choices=RIGS,
        default="auto",
        help="how the pictures belong together: one after the other (sequence), all at once "
        "(surround), a single one (monocular); auto takes subfolders for a surround rig and "
        "several pictures for a sequence",
    )
    parser.add_argument(
        "--model", default="default", help="weights: a .safetensors file, or 'default'"
    )
    parser.add_argument(
        "--calibration",
        metavar="FILE",
        type=Path,
        help="JSON with K and rig_from_cam per camera (docs/conventions.md)",
    )
    parser.add_argument(
        "--masks",
        metavar="FOLDER",
        type=Path,
        help="one picture per camera, CAMERA.png: pixels that are not black show the vehicle "
        "itself and are ignored",
    )


def find(paths: list[Path], arguments: argparse.Namespace) -> Pictures:
    """Arrange pictures, and read what is known of their cameras.

    Raises:
        InputError: Paths, calibration or masks that cannot be used.
    """
    files = view_sets(paths, arguments.rig)
    found = Pictures(files, {}, {})
    calibration, masks = arguments.calibration, arguments.masks
    return Pictures(
        files,
        {} if calibration is None else load_calibration(calibration, found.cameras),
        {} if masks is None else read_masks(masks, found.cameras),
    )
