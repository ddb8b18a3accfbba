# SPDX-License-Identifier: Apache-2.0
"""sensor_msgs/Image and CompressedImage <-> uint8 RGB pictures (H, W, 3); CameraInfo -> K.

Needs neither cv_bridge nor OpenCV. Row padding and byte order are respected. Bayer mosaics become
pictures of half the size, one pixel per 2x2 block: more than the network looks at. `K` goes with
the picture's own size, pixel centres at whole numbers.
"""

import array
import io
import sys
from dataclasses import dataclass

import numpy as np
import PIL.Image
from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from occany_core.errors import InputError
from occany_core.view_checks import intrinsics_fault

MAX_PIXELS = 64_000_000
"""Larger pictures are refused before any memory is taken."""

MAX_BYTES = 200_000_000
"""Messages with more image data are refused on arrival: a raw picture of `MAX_PIXELS` has less."""

MAX_DISTORTION_COEFFICIENTS = 14
"""As many as the longest known model has."""

MAX_FOCAL_WIDTHS = 100
"""A focal length beyond so many picture widths, or below the inverse, is no calibration."""

STRONG_DISTORTION = 0.1
"""A plumb_bob coefficient beyond this bends rays by more than the network's accuracy."""


@dataclass(frozen=True, slots=True)
class Layout:
    """How the items of one pixel lie in memory."""

    item: str
    """NumPy type code without byte order."""
    channels: int
    order: tuple[int, ...] = (0, 1, 2)
    """Where red, green and blue are among the channels."""


COLOUR_LAYOUTS = {
    "rgb8": Layout("u1", 3),
    "bgr8": Layout("u1", 3, (2, 1, 0)),
    "rgba8": Layout("u1", 4),
    "bgra8": Layout("u1", 4, (2, 1, 0)),
    "rgb16": Layout("u2", 3),
    "bgr16": Layout("u2", 3, (2, 1, 0)),
    "rgba16": Layout("u2", 4),
    "bgra16": Layout("u2", 4, (2, 1, 0)),
    "8UC3": Layout("u1", 3, (2, 1, 0)),
    "8UC4": Layout("u1", 4, (2, 1, 0)),
    "mono8": Layout("u1", 1, (0, 0, 0)),
    "8UC1": Layout("u1", 1, (0, 0, 0)),
    "mono16": Layout("u2", 1, (0, 0, 0)),
    "16UC1": Layout("u2", 1, (0, 0, 0)),
}
# Position of the first luma, and of U and V, among the four bytes of two pixels.
YUV422_LAYOUTS = {
    "yuv422": (1, 0, 2),
    "uyvy": (1, 0, 2),
    "yuv422_yuy2": (0, 1, 3),
    "yuyv": (0, 1, 3),
}
# (row, column) of red and of blue in a 2x2 block; the other two are green.
BAYER_LAYOUTS = {
    "bayer_rggb": ((0, 0), (1, 1)),
    "bayer_bggr": ((1, 1), (0, 0)),
    "bayer_gbrg": ((1, 0), (0, 1)),
    "bayer_grbg": ((0, 1), (1, 0)),
}
ENCODINGS = (
    *COLOUR_LAYOUTS,
    *YUV422_LAYOUTS,
    *(f"{pattern}{bits}" for pattern in BAYER_LAYOUTS for bits in (8, 16)),
)
"""Every encoding that `image_to_rgb` understands."""


def bytes_field(values: np.ndarray) -> array.array:
    """Pack an array for a large `uint8[]` field; lists and arrays cost up to 1000 times more."""
    data = array.array("B")
    data.frombytes(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)
    return data


def _check_size(width: int, height: int, topic: str) -> None:
    if not 0 < width * height <= MAX_PIXELS:
        raise InputError(
            f"{topic}: a picture of {width} x {height} pixels; expected between 1 and "
            f"{MAX_PIXELS // 1_000_000} million pixels, check the driver"
        )


def _items(msg: Image, item: str, columns: int, topic: str) -> np.ndarray:
    """Return the rows without padding as (height, columns), a view where rows have none."""
    dtype = np.dtype((">" if msg.is_bigendian else "<") + item)
    row_bytes = columns * dtype.itemsize
    if msg.step < row_bytes or len(msg.data) < msg.step * msg.height:
        raise InputError(
            f"{topic}: {len(msg.data)} bytes with rows of {msg.step} bytes do not hold "
            f"{msg.width} x {msg.height} pixels of {msg.encoding}; check the driver"
        )
    rows = np.frombuffer(msg.data, np.uint8)[: msg.step * msg.height].reshape(msg.height, msg.step)
    return np.ascontiguousarray(rows[:, :row_bytes]).view(dtype)


def _as_uint8(items: np.ndarray) -> np.ndarray:
    """Keep the high byte of 16-bit items."""
    return items if items.dtype.itemsize == 1 else (items >> 8).astype(np.uint8)


def _rgb_from_yuv(luma: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Convert full-range BT.601, as JPEG and UVC cameras use it."""
    y, u, v = luma.astype(np.float32), u.astype(np.float32) - 128, v.astype(np.float32) - 128
    rgb = np.stack((y + 1.402 * v, y - 0.344136 * u - 0.714136 * v, y + 1.772 * u), axis=-1)
    return np.clip(np.rint(rgb), 0, 255).astype(np.uint8)


def _rgb_from_yuv422(msg: Image, topic: str) -> np.ndarray:
    if msg.width % 2:
        raise InputError(f"{topic}: {msg.encoding} needs an even width, not {msg.width}")
    luma_at, u_at, v_at = YUV422_LAYOUTS[msg.encoding]
    pairs = _items(msg, "u1", 2 * msg.width, topic).reshape(msg.height, msg.width // 2, 4)
    luma = pairs[..., luma_at::2].reshape(msg.height, msg.width)
    return _rgb_from_yuv(luma, *(np.repeat(pairs[..., k], 2, axis=1) for k in (u_at, v_at)))


def _rgb_from_bayer(msg: Image, topic: str) -> np.ndarray:
    if msg.width < 2 or msg.height < 2:
        raise InputError(f"{topic}: {msg.encoding} needs at least 2 x 2 pixels")
    pattern = msg.encoding.rstrip("0123456789")
    mosaic = _as_uint8(
        _items(msg, "u2" if msg.encoding.endswith("16") else "u1", msg.width, topic)
    )
    mosaic = mosaic[: msg.height // 2 * 2, : msg.width // 2 * 2]
    red, blue = BAYER_LAYOUTS[pattern]
    greens = [place for place in ((0, 0), (0, 1), (1, 0), (1, 1)) if place not in (red, blue)]
    samples = [mosaic[row::2, column::2] for row, column in greens]
    green = ((samples[0].astype(np.uint16) + samples[1] + 1) // 2).astype(np.uint8)
    return np.stack(
        (mosaic[red[0] :: 2, red[1] :: 2], green, mosaic[blue[0] :: 2, blue[1] :: 2]), -1
    )


def image_to_rgb(msg: Image, topic: str, least_width: int = 0) -> np.ndarray:
    """Convert a raw image.

    Args:
        msg: The message.
        topic: Named in errors.
        least_width: The picture is shrunk by a whole number where it stays at least this wide; 0
            keeps all pixels.

    Returns:
        uint8 (height, width, 3) RGB; half that size for Bayer encodings.

    Raises:
        InputError: Unknown encoding, absurd size, or data that does not fit the size; names the
        topic.
    """
    _check_size(msg.width, msg.height, topic)
    if msg.encoding in YUV422_LAYOUTS:
        return _shrunk(_rgb_from_yuv422(msg, topic), least_width)
    if msg.encoding in ENCODINGS and msg.encoding.startswith("bayer_"):
        return _shrunk(_rgb_from_bayer(msg, topic), least_width)
    if msg.encoding not in COLOUR_LAYOUTS:
        raise InputError(
            f"{topic}: unknown encoding {msg.encoding!r}; publish one of {', '.join(ENCODINGS)}"
        )
    layout = COLOUR_LAYOUTS[msg.encoding]
    items = _as_uint8(_items(msg, layout.item, msg.width * layout.channels, topic))
    pixels = items.reshape(msg.height, msg.width, layout.channels)
    if layout.channels != 3:
        return _shrunk(np.ascontiguousarray(pixels[..., list(layout.order)]), least_width)
    pixels = _shrunk(pixels, least_width)  # first, which leaves less to put in order
    return pixels if layout.order == (0, 1, 2) else np.ascontiguousarray(pixels[..., ::-1])


def _shrunk(pixels: np.ndarray, least_width: int) -> np.ndarray:
    """Apply `reduced` to an array (H, W, 3)."""
    if pixels.shape[1] < 2 * least_width or not least_width:
        return pixels
    return np.asarray(reduced(PIL.Image.fromarray(pixels), least_width))


def compressed_to_rgb(msg: CompressedImage, topic: str, least_width: int = 0) -> np.ndarray:
    """Decode a JPEG or PNG image.

    Args:
        msg: The message.
        topic: Named in errors.
        least_width: The picture is shrunk by a whole number where it stays at least this wide, a
        JPEG
            while it is decoded, which saves most of the time; 0 keeps all pixels.

    Returns:
        uint8 (height, width, 3) RGB.

    Raises:
        InputError: Not a picture, truncated, or of absurd size; names the topic.
    """
    if "compressedDepth" in msg.format:
        raise InputError(
            f"{topic}: {msg.format!r} is a depth image; connect the colour camera's topic"
        )
    try:
        with PIL.Image.open(io.BytesIO(msg.data)) as picture:
            _check_size(*picture.size, topic)
            if least_width:
                ratio = least_width / picture.width
                picture.draft("RGB", (least_width, max(1, round(picture.height * ratio))))
            if picture.mode.startswith("I"):
                return np.repeat(_as_uint8(np.asarray(picture, np.uint16))[..., None], 3, axis=-1)
            return np.asarray(reduced(picture.convert("RGB"), least_width))
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
        raise InputError(
            f"{topic}: cannot decode {len(msg.data)} bytes of format {msg.format!r} ({error}); "
            "check the compressing publisher"
        ) from error


def reduced(picture: PIL.Image.Image, least_width: int) -> PIL.Image.Image:
    """Shrink by a whole number, averaging blocks, to the smallest size at least this wide [px]."""
    factor = picture.width // least_width if least_width else 1
    return picture.reduce(factor) if factor > 1 else picture


def rgb_to_image(rgb: np.ndarray, header: Header) -> Image:
    """Wrap a uint8 (H, W, 3) picture as an rgb8 message."""
    height, width, _ = rgb.shape
    return Image(
        header=header,
        height=height,
        width=width,
        encoding="rgb8",
        is_bigendian=0,
        step=3 * width,
        data=bytes_field(rgb),
    )


def plane_to_image(plane: np.ndarray, header: Header) -> Image:
    """Wrap a map (H, W) of float32 or uint8 as a 32FC1 or mono8 message."""
    height, width = plane.shape
    return Image(
        header=header,
        height=height,
        width=width,
        encoding={"float32": "32FC1", "uint8": "mono8"}[plane.dtype.name],
        is_bigendian=sys.byteorder == "big",
        step=plane.dtype.itemsize * width,
        data=bytes_field(plane),
    )


def calibration_fault(info: CameraInfo) -> str:
    """Say why a calibration cannot be used; empty when it can, or when there is none.

    A focal length of 0 means uncalibrated, which is no fault.
    """
    if len(info.d) > MAX_DISTORTION_COEFFICIENTS:
        return (
            f"its D holds {len(info.d)} numbers, more than the {MAX_DISTORTION_COEFFICIENTS} of "
            "any model; check the driver's calibration"
        )
    if has_strong_distortion(info):
        return (
            f"the {info.distortion_model} distortion is too strong for a pinhole camera; publish "
            "rectified images"
        )
    K = np.array(info.k, np.float64).reshape(3, 3)
    if not K.any():
        return ""
    widths = K[0, 0] / max(info.width, 1)
    is_sane = np.isfinite(K).all() and 1 / MAX_FOCAL_WIDTHS < widths < MAX_FOCAL_WIDTHS
    if info.width and not is_sane:
        return (
            f"its focal length of {K[0, 0]:g} px does not go with pictures {info.width} px wide; "
            "calibrate the camera, or set calibration.use to off"
        )
    size = _calibrated_size(info)
    K = intrinsics(info, *size)
    return "" if K is None else intrinsics_fault(K, size)


def _calibrated_size(info: CameraInfo) -> tuple[int, int]:
    """Return (height, width) of the pictures that a calibration is for, full resolution."""
    part = info.roi if info.roi.width and info.roi.height else info
    return part.height, part.width


def intrinsics(info: CameraInfo, height: int, width: int) -> np.ndarray | None:
    """Return K (3, 3) [px] for a picture of this size, or None when the camera is uncalibrated.

    K is scaled from the size the calibration was made at (its region of interest, where one is
    set).
    """
    K = np.array(info.k, np.float64).reshape(3, 3)
    if not (K[0, 0] > 0 and K[1, 1] > 0) or info.width == 0 or info.height == 0:
        return None
    full_height, full_width = _calibrated_size(info)
    if info.roi.width and info.roi.height:
        K[0, 2] -= info.roi.x_offset
        K[1, 2] -= info.roi.y_offset
    for row, scale in ((0, width / full_width), (1, height / full_height)):
        K[row, :2] *= scale
        K[row, 2] = (K[row, 2] + 0.5) * scale - 0.5
    return K


def has_strong_distortion(info: CameraInfo) -> bool:
    """Tell whether a pinhole K does not describe the picture (fisheye, or a bent lens)."""
    if info.distortion_model in ("equidistant", "fisheye"):
        return True
    return any(abs(coefficient) > STRONG_DISTORTION for coefficient in info.d)
