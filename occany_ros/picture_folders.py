# SPDX-License-Identifier: Apache-2.0
"""Pictures on disk -> a recording: CompressedImage on camera/NAME/image/compressed.

JPEG and PNG files go out as they are. Capture times are made up from a period.
"""

import array
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TypeVar

import PIL.Image
from builtin_interfaces.msg import Time
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CompressedImage
from std_msgs.msg import Header

from occany_core.errors import InputError
from occany_ros.recording import Entry, Topic

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff")
SURROUND_CAMERAS = ("front", "front_right", "front_left", "back", "back_left", "back_right")
"""The order that six loose pictures of a rig are taken in, by file name."""

SINGLE_CAMERA = "camera"
Rig = Literal["auto", "surround", "sequence"]
T = TypeVar("T")


def _natural_order(path: Path) -> list[tuple[int, str]]:
    """Sort key under which picture 10 follows picture 9."""
    parts = re.split(r"(\d+)", path.name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]


def pictures_in(folder: Path) -> list[Path]:
    """List the pictures of a folder in natural order."""
    found = [path for path in folder.iterdir() if path.suffix.lower() in PICTURE_SUFFIXES]
    return sorted(found, key=_natural_order)


def camera_pictures(path: Path, rig: Rig) -> dict[str, list[Path]]:
    """Assign the pictures under a path to cameras.

    Raises:
        InputError: No picture, or a rig whose number of pictures does not fit.
    """
    if path.is_file():
        if path.suffix.lower() not in PICTURE_SUFFIXES:
            raise InputError(f"{path} is neither a bag (.mcap, .db3) nor a picture")
        return {SINGLE_CAMERA: [path]}
    loose = pictures_in(path)
    folders = {
        re.sub(r"\W", "_", folder.name): pictures_in(folder)
        for folder in sorted(path.iterdir())
        if folder.is_dir()
    }
    folders = {name: pictures for name, pictures in folders.items() if pictures}
    if folders and not loose:
        return in_rig_order(folders)
    if not loose:
        kinds = ", ".join(PICTURE_SUFFIXES)
        raise InputError(
            f"{path} holds no pictures ({kinds}), no subfolders with pictures, no bag"
        )
    if rig != "surround":
        return {SINGLE_CAMERA: loose}
    if len(loose) != len(SURROUND_CAMERAS):
        raise InputError(
            f"{path} holds {len(loose)} pictures; a surround rig of loose pictures needs exactly "
            f"{len(SURROUND_CAMERAS)} in the order {', '.join(SURROUND_CAMERAS)}, or one "
            "subfolder per camera"
        )
    return {camera: [picture] for camera, picture in zip(SURROUND_CAMERAS, loose, strict=True)}


def in_rig_order(by_camera: dict[str, T]) -> dict[str, T]:
    """Put cameras with known names first, front before all: the first is the reference view."""
    known = [name for name in SURROUND_CAMERAS if name in by_camera]
    others = [name for name in by_camera if name not in SURROUND_CAMERAS]
    return {name: by_camera[name] for name in known + others}


def check_picture(path: Path) -> None:
    """Decode a picture once.

    Raises:
        InputError: It cannot be decoded; names the file.
    """
    try:
        with PIL.Image.open(path) as picture:
            picture.load()
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
        raise InputError(
            f"{path} is not a readable picture ({error}); replace or remove it"
        ) from error


class PictureRecording:
    """Pictures on disk, with times made up from a period."""

    def __init__(self, path: Path, cameras: dict[str, list[Path]], period_ns: int) -> None:
        """Check every picture.

        Args:
            path: Where they are from, for messages.
            cameras: Pictures by camera; cameras with fewer pictures end earlier.
            period_ns: Time from one picture to the next.
        """
        for pictures in cameras.values():
            for picture in pictures:
                check_picture(picture)
        self.name = str(path)
        self.cameras = tuple(cameras)
        self.picture_count = max(len(pictures) for pictures in cameras.values())
        self.topics = tuple(
            Topic(f"camera/{camera}/image/compressed", "sensor_msgs/msg/CompressedImage")
            for camera in cameras
        )
        self.start_ns = period_ns
        self._pictures = cameras
        self._period_ns = period_ns
        self.duration_ns = period_ns * self.picture_count

    def entries(self) -> Iterator[Entry]:
        """See `Recording.entries`."""
        for step in range(self.picture_count):
            stamp_ns = self.start_ns + step * self._period_ns
            for camera, pictures in self._pictures.items():
                if step < len(pictures):
                    message = _picture_message(pictures[step], camera, stamp_ns)
                    yield Entry(
                        stamp_ns, f"camera/{camera}/image/compressed", serialize_message(message)
                    )


def _picture_message(path: Path, camera: str, stamp_ns: int) -> CompressedImage:
    suffix = path.suffix.lower()
    kind = {".jpg": "jpeg", ".jpeg": "jpeg"}.get(suffix, "png")
    data = path.read_bytes()
    if suffix not in (".jpg", ".jpeg", ".png"):
        buffer = io.BytesIO()
        with PIL.Image.open(path) as picture:
            picture.convert("RGB").save(buffer, "PNG", compress_level=1)
        data = buffer.getvalue()
    stamp = Time(sec=stamp_ns // 1_000_000_000, nanosec=stamp_ns % 1_000_000_000)
    header = Header(stamp=stamp, frame_id=f"{camera}_optical_frame")
    return CompressedImage(header=header, format=kind, data=array.array("B", data))
