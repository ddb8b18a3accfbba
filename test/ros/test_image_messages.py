# SPDX-License-Identifier: Apache-2.0
"""Image messages to pictures: every encoding, padding, byte order, and what cannot be decoded."""

import array
import io

import numpy as np
import PIL.Image
import pytest

pytest.importorskip("rclpy")

from sensor_msgs.msg import CameraInfo, CompressedImage, Image
from std_msgs.msg import Header

from occany_core.errors import InputError
from occany_ros.image_messages import (
    COLOUR_LAYOUTS,
    ENCODINGS,
    YUV422_LAYOUTS,
    bytes_field,
    compressed_to_rgb,
    has_strong_distortion,
    image_to_rgb,
    intrinsics,
    rgb_to_image,
)

TOPIC = "/camera/front/image"


def picture(height=6, width=8):
    return np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)


def raw(items, encoding, width, padding=0, big_endian=False):
    """An Image whose rows are `items` (H, N), with garbage after each row."""
    if big_endian:
        items = items.astype(items.dtype.newbyteorder(">"))
    rows = np.ascontiguousarray(items).view(np.uint8).reshape(len(items), -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=170)
    return Image(
        height=len(rows),
        width=width,
        encoding=encoding,
        is_bigendian=int(big_endian),
        step=rows.shape[1],
        data=bytes_field(rows),
    )


@pytest.mark.parametrize("padding", [0, 5])
@pytest.mark.parametrize("big_endian", [False, True])
@pytest.mark.parametrize("encoding", COLOUR_LAYOUTS)
def test_colour_and_grey_encodings(encoding, big_endian, padding):
    layout = COLOUR_LAYOUTS[encoding]
    rgb = picture()
    if layout.channels == 1:
        rgb = np.repeat(rgb[..., :1], 3, axis=-1)
    channels = np.full((6, 8, layout.channels), 99, np.uint8)
    for colour, place in enumerate(layout.order):
        channels[..., place] = rgb[..., colour]
    if layout.item == "u2":
        channels = channels.astype("<u2") * 256 + 77
    message = raw(channels.reshape(6, -1), encoding, 8, padding, big_endian)
    np.testing.assert_array_equal(image_to_rgb(message, TOPIC), rgb)


@pytest.mark.parametrize("encoding", YUV422_LAYOUTS)
def test_yuv422_of_uniform_colours(encoding):
    luma_at, u_at, v_at = YUV422_LAYOUTS[encoding]
    grey = (128, 128, 128)
    expected = {(76, 85, 255): (254, 0, 0), (150, 44, 21): (0, 255, 1), grey: grey}
    for (y, u, v), rgb in expected.items():
        pairs = np.zeros((2, 3, 4), np.uint8)
        pairs[..., luma_at::2], pairs[..., u_at], pairs[..., v_at] = y, u, v
        found = image_to_rgb(raw(pairs.reshape(2, -1), encoding, 6), TOPIC)
        assert found.shape == (2, 6, 3)
        assert np.abs(found.astype(int) - rgb).max() <= 2


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("pattern", ["rggb", "bggr", "gbrg", "grbg"])
def test_bayer_gives_half_the_size(pattern, bits):
    colours = {"r": 200, "g": 100, "b": 30}
    block = np.array([[colours[c] for c in pattern[:2]], [colours[c] for c in pattern[2:]]])
    mosaic = np.tile(block, (3, 4)).astype(np.uint8)
    if bits == 16:
        mosaic = mosaic.astype("<u2") << 8
    found = image_to_rgb(raw(mosaic, f"bayer_{pattern}{bits}", 8), TOPIC)
    np.testing.assert_array_equal(found, np.broadcast_to((200, 100, 30), (3, 4, 3)))


def test_every_listed_encoding_is_decoded():
    for encoding in ENCODINGS:
        item = "<u2" if "16" in encoding else "u1"
        message = raw(np.zeros((4, 4 * 4), item), encoding, 4)
        assert image_to_rgb(message, TOPIC).dtype == np.uint8


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"encoding": "32FC1"}, "unknown encoding '32FC1'"),
        ({"encoding": "bayer_xxxx8"}, "unknown encoding 'bayer_xxxx8'"),
        ({"height": 7}, "do not hold 8 x 7 pixels of rgb8"),
        ({"step": 10}, "rows of 10 bytes"),
        ({"width": 0}, "0 x 6 pixels"),
        ({"width": 2**31, "height": 2**31}, "between 1 and 64 million"),
    ],
)
def test_bad_images_are_refused_in_words(change, sentence):
    message = rgb_to_image(picture(), Header())
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(InputError) as error:
        image_to_rgb(message, TOPIC)
    assert sentence in str(error.value)
    assert TOPIC in str(error.value)


def encoded(rgb, kind, **options):
    buffer = io.BytesIO()
    PIL.Image.fromarray(rgb).save(buffer, kind, **options)
    return CompressedImage(format=kind.lower(), data=array.array("B", buffer.getvalue()))


def test_png_is_exact_and_jpeg_is_close():
    rgb = np.kron(picture(), np.ones((16, 16, 1), np.uint8))
    np.testing.assert_array_equal(compressed_to_rgb(encoded(rgb, "PNG"), TOPIC), rgb)
    found = compressed_to_rgb(encoded(rgb, "JPEG", quality=95, subsampling=0), TOPIC)
    assert np.abs(found.astype(int) - rgb).mean() < 4


def test_grey_and_16_bit_pictures_become_rgb():
    grey = picture()[..., 0]
    found = compressed_to_rgb(encoded(grey, "PNG"), TOPIC)
    np.testing.assert_array_equal(found, np.repeat(grey[..., None], 3, axis=-1))
    deep = encoded(grey.astype(np.uint16) * 256 + 3, "PNG")
    np.testing.assert_array_equal(compressed_to_rgb(deep, TOPIC), found)


def test_large_jpegs_are_decoded_at_a_reduced_size():
    message = encoded(np.zeros((900, 1600, 3), np.uint8), "JPEG")
    assert compressed_to_rgb(message, TOPIC, least_width=256).shape == (225, 400, 3)
    assert compressed_to_rgb(message, TOPIC, least_width=200).shape == (113, 200, 3)
    assert compressed_to_rgb(message, TOPIC).shape == (900, 1600, 3)


def test_large_raw_and_png_pictures_are_shrunk_by_averaging():
    rgb = picture(90, 160)
    expected = rgb[:88, :160].reshape(22, 4, 40, 4, 3).mean(axis=(1, 3))
    for found in (
        compressed_to_rgb(encoded(rgb, "PNG"), TOPIC, least_width=35),
        image_to_rgb(rgb_to_image(rgb, Header()), TOPIC, least_width=35),
    ):
        assert found.shape == (23, 40, 3)
        assert np.abs(found[:22] - expected).max() <= 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_truncated_pictures_are_refused_in_words(kind):
    message = encoded(picture(64, 64), kind)
    message.data = message.data[: len(message.data) // 2]
    with pytest.raises(InputError, match=r"/camera/front/image: cannot decode \d+ bytes"):
        compressed_to_rgb(message, TOPIC)


def test_depth_and_noise_are_refused():
    with pytest.raises(InputError, match="depth image"):
        compressed_to_rgb(CompressedImage(format="32FC1; compressedDepth png"), TOPIC)
    with pytest.raises(InputError, match="cannot decode 4 bytes"):
        compressed_to_rgb(CompressedImage(format="jpeg", data=array.array("B", b"oops")), TOPIC)


def calibration(**changes):
    values = {"width": 1600, "height": 900, "k": [800.0, 0, 799.5, 0, 820.0, 449.5, 0, 0, 1.0]}
    return CameraInfo(**(values | changes))


def test_intrinsics_follow_the_size_of_the_picture():
    K = intrinsics(calibration(), 225, 400)
    np.testing.assert_allclose(K, [[200, 0, 199.5], [0, 205, 112.0], [0, 0, 1]])
    np.testing.assert_allclose(intrinsics(calibration(), 900, 1600)[0, 2], 799.5)


def test_intrinsics_of_a_region_of_interest():
    info = calibration()
    info.roi.x_offset, info.roi.y_offset, info.roi.width, info.roi.height = 400, 200, 800, 400
    K = intrinsics(info, 400, 800)
    np.testing.assert_allclose(K, [[800, 0, 399.5], [0, 820, 249.5], [0, 0, 1]])


def test_zero_focal_length_means_uncalibrated():
    assert intrinsics(CameraInfo(width=640, height=480), 480, 640) is None
    assert intrinsics(calibration(width=0), 900, 1600) is None


def test_strong_distortion_is_noticed():
    assert has_strong_distortion(CameraInfo(distortion_model="equidistant"))
    bent = CameraInfo(distortion_model="plumb_bob", d=[-0.3, 0.1, 0.0, 0.0, 0.0])
    assert has_strong_distortion(bent)
    assert not has_strong_distortion(CameraInfo(distortion_model="plumb_bob", d=[0.0] * 5))
