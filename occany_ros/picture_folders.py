# SPDX-License-Identifier: Apache-2.0
"""Pictures on disk -> a recording: CompressedImage on camera/NAME/image/compressed.

JPEG and PNG files go out as they are. Capture times are made up from a period. With a calibration
file also camera/NAME/camera_info and /tf_static.
"""

import array
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, TypeVar

import numpy as np
import PIL.Image
import PIL.ImageOps
from builtin_interfaces.msg import Time
from rclpy.serialization import serialize_message
from sensor_msgs.msg import CameraInfo, CompressedImage
from std_msgs.msg import Header

from occany_core.cli.calibration_file import CameraCalibration
from occany_core.cli.picture_files import (
    SINGLE_CAMERA,
    SUFFIXES,
    check_names,
    pictures_by_camera,
)
from occany_core.errors import InputError
from occany_ros.pose_messages import transform_from_matrix
from occany_ros.recording import Entry, Topic
from occany_ros.transforms import transforms_message

SURROUND_CAMERAS = ("front", "front_left", "front_right", "back", "back_left", "back_right")
"""The order that six loose pictures of a rig are taken in where their names do not say it."""

BASE_FRAME = "base_link"
EXIF_ORIENTATION = 0x0112
Rig = Literal["auto", "surround", "sequence"]
T = TypeVar("T")


def camera_pictures(path: Path, rig: Rig) -> dict[str, list[Path]]:
    """Assign the pictures under a path to cameras.

    Raises:
        InputError: No picture, names that two cameras share, or a rig whose number of pictures
            does not fit.
    """
    if path.is_file() and path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path} is neither a bag (.mcap, .db3) nor a picture")
    by_camera = pictures_by_camera([path], rig)
    if list(by_camera) != [SINGLE_CAMERA]:
        return in_rig_order(_named_as_topics(by_camera))
    loose = by_camera[SINGLE_CAMERA]
    if rig != "surround" or path.is_file():
        return by_camera
    check_names(loose)
    if all(picture.stem.isidentifier() for picture in loose):
        return in_rig_order({picture.stem: [picture] for picture in loose})
    if len(loose) != len(SURROUND_CAMERAS):
        raise InputError(
            f"{path} holds {len(loose)} pictures; a surround rig of loose pictures needs one per "
            f"camera with its name, or exactly {len(SURROUND_CAMERAS)} in the order "
            f"{', '.join(SURROUND_CAMERAS)}, or one subfolder per camera"
        )
    return {camera: [picture] for camera, picture in zip(SURROUND_CAMERAS, loose, strict=True)}


def _named_as_topics(by_camera: dict[str, T]) -> dict[str, T]:
    """Replace in the names of cameras what a topic's name cannot hold."""
    named: dict[str, T] = {}
    for camera, pictures in by_camera.items():
        name = re.sub(r"\W", "_", camera)
        if name in named:
            raise InputError(
                f"two subfolders become the camera {name}, {camera} among them, for topics have "
                "no other signs; rename one"
            )
        named[name] = pictures
    return named


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

    def __init__(
        self,
        path: Path,
        cameras: dict[str, list[Path]],
        period_ns: int,
        calibration: dict[str, CameraCalibration],
    ) -> None:
        """Check every picture.

        Args:
            path: Where they are from, for messages.
            cameras: Pictures by camera; cameras with fewer pictures end earlier.
            period_ns: Time from one picture to the next.
            calibration: What is known, by camera; may be empty. K at the size of the pictures.
        """
        for pictures in cameras.values():
            for picture in pictures:
                check_picture(picture)
        self.name = str(path)
        self.cameras = tuple(cameras)
        self.picture_count = max(len(pictures) for pictures in cameras.values())
        self.start_ns = period_ns
        self.duration_ns = period_ns * self.picture_count
        self._pictures = cameras
        self._period_ns = period_ns
        self._calibration = calibration
        self.topics = tuple(self._list_topics())

    def _list_topics(self) -> Iterator[Topic]:
        for camera in self.cameras:
            yield Topic(f"camera/{camera}/image/compressed", "sensor_msgs/msg/CompressedImage")
            if self._K_of(camera) is not None:
                yield Topic(f"camera/{camera}/camera_info", "sensor_msgs/msg/CameraInfo")
        if self._mountings():
            yield Topic("/tf_static", "tf2_msgs/msg/TFMessage", is_latched=True)

    def _K_of(self, camera: str) -> np.ndarray | None:  # noqa: N802
        known = self._calibration.get(camera)
        return known.K if known else None

    def _mountings(self) -> dict[str, np.ndarray]:
        return {
            camera: known.rig_from_cam
            for camera, known in self._calibration.items()
            if known.rig_from_cam is not None
        }

    def entries(self) -> Iterator[Entry]:
        """See `Recording.entries`."""
        if mountings := self._mountings():
            transforms = [
                transform_from_matrix(matrix, Header(frame_id=BASE_FRAME), optical_frame(camera))
                for camera, matrix in mountings.items()
            ]
            message = transforms_message(transforms)
            yield Entry(self.start_ns, "/tf_static", serialize_message(message))
        for step in range(self.picture_count):
            for camera, pictures in self._pictures.items():
                if step < len(pictures):
                    yield from self._view(camera, pictures[step], step)

    def _view(self, camera: str, path: Path, step: int) -> Iterator[Entry]:
        """Give out one picture, its calibration first."""
        stamp_ns = self.start_ns + step * self._period_ns
        stamp = Time(sec=stamp_ns // 1_000_000_000, nanosec=stamp_ns % 1_000_000_000)
        header = Header(stamp=stamp, frame_id=optical_frame(camera))
        K = self._K_of(camera)
        if K is not None:
            with PIL.Image.open(path) as picture:
                width, height = picture.size
            info = CameraInfo(header=header, width=width, height=height, k=K.reshape(-1))
            yield Entry(stamp_ns, f"camera/{camera}/camera_info", serialize_message(info))
        image = picture_message(path, header)
        yield Entry(stamp_ns, f"camera/{camera}/image/compressed", serialize_message(image))


def optical_frame(camera: str) -> str:
    """Return the name of a camera's optical frame."""
    return f"{camera}_optical_frame"


def picture_message(path: Path, header: Header) -> CompressedImage:
    """Wrap a file; other formats than JPEG and PNG, and pictures that lie on their side, anew."""
    with PIL.Image.open(path) as picture:
        kind = (picture.format or "").lower()
        is_upright = picture.getexif().get(EXIF_ORIENTATION, 1) == 1
        if kind in ("jpeg", "png") and is_upright:
            data = path.read_bytes()
        else:
            kind, buffer = "png", io.BytesIO()
            upright = PIL.ImageOps.exif_transpose(picture).convert("RGB")
            upright.save(buffer, "PNG", compress_level=1)
            data = buffer.getvalue()
    return CompressedImage(header=header, format=kind, data=array.array("B", data))
