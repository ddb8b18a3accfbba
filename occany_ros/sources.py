# SPDX-License-Identifier: Apache-2.0
"""A path -> the recording it holds, whatever it is."""

from pathlib import Path

from occany_core.cli.calibration_file import load_calibration
from occany_core.errors import InputError
from occany_ros.bags import BagRecording
from occany_ros.picture_folders import PictureRecording, Rig, camera_pictures
from occany_ros.share import share_folder

DEMO = "demo"
"""Stands for the bundled recording."""


def open_recording(
    place: str, period_s: float = 0.5, rig: Rig = "auto", calibration: str = ""
) -> BagRecording | PictureRecording:
    """Find out what a path holds and open it.

    Args:
        place: A bag, a picture, a folder of pictures, a folder with one subfolder per camera, or
            `demo` for the bundled recording.
        period_s: Time between two pictures of a camera.
        rig: How loose pictures are meant: views of one moment (`surround`) or of one camera over
            time (`sequence`). `auto` is `sequence`. Subfolders are always cameras of one rig.
        calibration: File with K and mounting of the cameras of pictures (docs/conventions.md), or
            empty.

    Raises:
        InputError: Nothing there, nothing usable in it, or a damaged file; names it.
    """
    path = share_folder() / "recordings" / "surround" if place == DEMO else Path(place)
    if not place or not path.exists():
        raise InputError(
            f"{path if place else repr(place)} does not exist; give a bag, a picture or a folder"
        )
    if path.suffix in (".mcap", ".db3") or (path / "metadata.yaml").exists():
        if calibration:
            raise InputError(f"{path} is a bag; a calibration file goes with pictures only")
        return BagRecording(path)
    cameras = camera_pictures(path, rig)
    known = load_calibration(Path(calibration), list(cameras)) if calibration else {}
    return PictureRecording(path, cameras, round(period_s * 1e9), known)
