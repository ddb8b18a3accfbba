# SPDX-License-Identifier: Apache-2.0
"""Paths -> pictures by view set and camera, in the order they were taken."""

import re
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image, ImageOps

from occany_core.errors import InputError
from occany_core.view_checks import check_size

Rig = Literal["auto", "sequence", "surround", "monocular"]
RIGS: tuple[Rig, ...] = ("auto", "sequence", "surround", "monocular")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
SINGLE_CAMERA = "camera"
MOST_PICTURES = 60
"""Reconstructed together: work grows with the square, and a long drive leaves the grid."""

UNREADABLE = (OSError, SyntaxError, ValueError, Image.DecompressionBombError)
"""What Pillow raises on files that are damaged or no pictures."""

SIXTEEN_BITS = re.compile(r";16[BLN]")
"""In Pillow's name of how a file's channels are stored, of which it keeps 8 bits of each."""


@dataclass(frozen=True)
class PictureFile:
    """A picture that is yet to be read."""

    path: Path
    camera: str


def natural_order(path: Path) -> list[tuple[int, str]]:
    """Return a sort key under which picture 10 follows picture 9."""
    parts = re.split(r"(\d+)", path.name.casefold())
    # Every second part is a number.
    return [(int(part), "") if index % 2 else (-1, part) for index, part in enumerate(parts)]


def view_sets(paths: list[Path], rig: Rig) -> list[list[PictureFile]]:
    """Arrange pictures as view sets, oldest first.

    Args:
        paths: One folder (of pictures, or of one subfolder of pictures per camera), or picture
            files in the order they were taken.
        rig: `sequence`: one camera, one picture after the other. `surround`: all pictures at once,
            or a subfolder per camera whose n-th pictures belong together. `monocular`: one
            picture. `auto`: monocular for one picture, surround for subfolders, else sequence.

    Raises:
        InputError: A path is missing or no picture, there are none or too many, or they do not fit
            the rig.
    """
    by_camera = pictures_by_camera(paths, rig)
    place = ", ".join(str(path) for path in paths[:3]) + (" ..." if len(paths) > 3 else "")
    loose = by_camera.get(SINGLE_CAMERA, []) if len(by_camera) == 1 else []
    _check_rig(rig, by_camera, bool(loose), place)
    if loose and rig == "surround":
        check_names(loose)
        return [_front_first([PictureFile(path, path.stem) for path in loose])]
    if loose:
        return [[PictureFile(path, SINGLE_CAMERA)] for path in loose]
    _check_counts(by_camera, place)
    return [
        _front_first(
            [PictureFile(path, camera) for camera, path in zip(by_camera, together, strict=True)]
        )
        for together in zip(*by_camera.values(), strict=True)
    ]


def _check_rig(rig: Rig, by_camera: dict[str, list[Path]], is_loose: bool, place: str) -> None:
    total = sum(len(pictures) for pictures in by_camera.values())
    if total > MOST_PICTURES:
        raise InputError(
            f"{place} gives {total} pictures; at most {MOST_PICTURES} are reconstructed together: "
            "name the files of one part of the drive instead"
        )
    if rig == "monocular" and total != 1:
        raise InputError(
            f"{place} gives {total} pictures; rig monocular takes one, rig sequence several"
        )
    if rig == "sequence" and not is_loose:
        raise InputError(
            f"{place} has a subfolder per camera ({', '.join(by_camera)}); rig sequence takes the "
            "pictures of one camera: name its folder, or use rig surround"
        )


def _check_counts(by_camera: dict[str, list[Path]], place: str) -> None:
    counts = {camera: len(pictures) for camera, pictures in by_camera.items()}
    if len(set(counts.values())) > 1:
        shown = ", ".join(f"{camera} {count}" for camera, count in counts.items())
        raise InputError(
            f"the cameras in {place} have different numbers of pictures ({shown}); the n-th "
            "pictures of all cameras belong together, so give each camera as many"
        )


def check_names(loose: list[Path]) -> None:
    """See that pictures of a rig, named after their cameras, are of different ones.

    Raises:
        InputError: Two have the same name.
    """
    stems = [path.stem for path in loose]
    twice = [stem for stem in stems if stems.count(stem) > 1]
    if twice:
        raise InputError(
            f"{stems.count(twice[0])} pictures are named {twice[0]}; put each camera in a folder "
            "of its name and give the folder above"
        )


def pictures_by_camera(paths: list[Path], rig: Rig) -> dict[str, list[Path]]:
    """List pictures by camera, in natural order; loose ones belong to `SINGLE_CAMERA`.

    Args:
        paths: As `view_sets` takes them.
        rig: `auto` and `surround` want loose pictures or subfolders, not both.

    Raises:
        InputError: A path is missing or no picture, there are none, or both kinds.
    """
    for path in paths:
        if not path.exists():
            raise InputError(f"there is no file or folder {path}; check the path")
    folders = [path for path in paths if path.is_dir()]
    if folders and len(paths) > 1:
        raise InputError(
            f"{folders[0]} is a folder among several paths; give one folder, or only picture files"
        )
    if not folders:
        for path in paths:
            if path.suffix.lower() not in SUFFIXES:
                raise InputError(f"{path} is no picture file; known are {', '.join(SUFFIXES)}")
        return {SINGLE_CAMERA: paths}
    loose = _pictures_in(folders[0])
    subfolders = sorted(
        (path for path in folders[0].iterdir() if path.is_dir()), key=natural_order
    )
    by_camera = {path.name: _pictures_in(path) for path in subfolders}
    by_camera = {camera: pictures for camera, pictures in by_camera.items() if pictures}
    if loose and by_camera and rig in ("auto", "surround"):
        raise InputError(
            f"{folders[0]} holds {loose[0].name} beside subfolders of pictures "
            f"({', '.join(by_camera)}); move it away to use these, or name the picture files"
        )
    if loose:
        return {SINGLE_CAMERA: loose}
    if not by_camera:
        raise InputError(
            f"{folders[0]} holds no pictures and no subfolders with pictures; known endings are "
            f"{', '.join(SUFFIXES)}"
        )
    return by_camera


def _pictures_in(folder: Path) -> list[Path]:
    found = [
        path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file()
    ]
    return sorted(found, key=natural_order)


def _front_first(pictures: list[PictureFile]) -> list[PictureFile]:
    """Put a camera called front before the others: the first view is the reference view."""
    return sorted(
        pictures, key=lambda picture: not re.fullmatch(r"(.*_)?front", picture.camera.casefold())
    )


def read_picture(path: Path) -> UInt8[np.ndarray, "H W 3"]:
    """Read an 8-bit picture as RGB, upright as its camera noted it.

    Raises:
        InputError: It cannot be decoded, is too small or too large, or has more than 8 bits per
            channel.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            file = Image.open(path)
        with file:
            check_size(*file.size, str(path))
            if file.mode.startswith(("I", "F")) or SIXTEEN_BITS.search(str(file.tile)):
                raise InputError(
                    f"{path} has more than 8 bits per channel; convert it to 8-bit RGB"
                )
            return np.asarray(ImageOps.exif_transpose(file).convert("RGB"))
    except UNREADABLE as error:
        raise InputError(
            f"{path} is not a readable picture ({error}); replace or remove it"
        ) from error


def read_masks(folder: Path, cameras: list[str]) -> dict[str, Bool[np.ndarray, "H W"]]:
    """Read CAMERA.png and the like: pixels that are not black are to be ignored.

    Raises:
        InputError: No folder, a mask of no camera, or one that cannot be read.
    """
    if not folder.is_dir():
        raise InputError(f"there is no folder of masks {folder}; check the path")
    masks = {path.stem: path for path in _pictures_in(folder)}
    foreign = sorted(masks.keys() - set(cameras))
    if foreign or not masks:
        raise InputError(
            f"{folder} holds masks of {', '.join(foreign) or 'no camera'}; name them after the "
            f"cameras, which are {', '.join(cameras)}"
        )
    return {camera: read_picture(path).any(axis=2) for camera, path in masks.items()}
