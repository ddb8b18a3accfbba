# SPDX-License-Identifier: Apache-2.0
"""Pictures reach the network at a legal size, K moves with the pixels, bad input is refused."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from occany_core import camera
from occany_core.calibrated_images import EVALUATION_SIZES, crop_calibrated, plan_calibrated
from occany_core.errors import InputError
from occany_core.images import (
    IMAGENET,
    INPUT_SIZES,
    STRIDE,
    View,
    fit,
    network_size,
    network_tensor,
    prepare,
    released_orientation,
    segmentation_tensor,
)

sides = st.integers(STRIDE, 300)
CAMERA = "front_left"
GREY = np.full((40, 60, 3), 127, np.uint8)
K = np.array([[50.0, 0, 30], [0, 50, 20], [0, 0, 1]])


@given(sides, sides, st.integers(1, 12))
def test_sizes_are_multiples_of_the_patch_and_keep_the_shape(height, width, patches):
    long_side = patches * STRIDE
    rows, columns = network_size(height, width, long_side)
    assert rows % STRIDE == columns % STRIDE == 0
    assert max(rows, columns) == long_side
    assert (columns >= rows) == (width >= height) or rows == columns
    short = min(height, width) * long_side / max(height, width)
    assert abs(min(rows, columns) - short) <= STRIDE / 2 or min(rows, columns) == STRIDE


@given(sides, sides, sides, sides)
def test_all_pictures_of_a_scene_get_the_size_of_the_first(
    height, width, other_height, other_width
):
    views = [
        View(rgb=np.zeros((height, width, 3), np.uint8)),
        View(rgb=np.zeros((other_height, other_width, 3), np.uint8)),
    ]
    batch = prepare(views, 64)
    size = network_size(height, width, 64)
    assert batch.images.shape == (2, 3, *size)
    assert batch.rgb.shape == (2, *size, 3)


def test_values_span_minus_one_to_one():
    rgb = np.zeros((32, 48, 3), np.uint8)
    rgb[:, :, 0], rgb[:, :, 2] = 255, 51
    batch = prepare([View(rgb=rgb)], 48)
    assert batch.images.dtype == torch.float32
    channels = batch.images.amax((0, 2, 3)), batch.images.amin((0, 2, 3))
    for channel in channels:
        torch.testing.assert_close(channel, torch.tensor([1.0, -1.0, -0.6]))


def centre_of_brightness(rgb: np.ndarray) -> np.ndarray:
    """(u, v) of the only bright spot."""
    bright = rgb[..., 0].astype(float)
    rows, columns = np.indices(bright.shape)
    return np.array([(bright * columns).sum(), (bright * rows).sum()]) / bright.sum()


@given(
    height=st.integers(100, 240),
    width=st.integers(100, 240),
    first=st.sampled_from([(80, 120), (120, 80), (100, 100)]),
    where=st.tuples(st.floats(-0.15, 0.15), st.floats(-0.15, 0.15)),
    long_side=st.sampled_from([96, 192, 320]),
)
def test_a_dot_is_where_k_projects_it(height, width, first, where, long_side):
    """A dot is drawn at a pixel; the point behind it must project onto the dot of the result."""
    u, v = round(width * (0.5 + where[0])), round(height * (0.5 + where[1]))
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[v - 2 : v + 3, u - 2 : u + 3] = 255
    source = torch.tensor(
        [[0.8 * width, 0, 0.47 * width], [0, 0.9 * width, 0.52 * height], [0, 0, 1]]
    )
    views = [View(rgb=np.zeros((*first, 3), np.uint8)), View(rgb=rgb, K=source.numpy())]
    batch = prepare(views, long_side)
    assert batch.K[0] is None
    point = 7 * camera.rays(source, height, width)[v, u]
    expected = camera.project(batch.K[1], point[None])[0]
    found = centre_of_brightness(batch.rgb[1])
    # The picture's size is rounded down to whole pixels, K's is not: up to a pixel at the border.
    np.testing.assert_allclose(found, expected, atol=1)


@given(
    factor=st.sampled_from([1, 2, 4, 8]),
    extra=st.tuples(st.integers(0, 9), st.integers(0, 9)),
    where=st.tuples(st.integers(-3, 3), st.integers(-3, 3)),
)
def test_a_dot_is_exact_where_no_size_is_rounded(factor, extra, where):
    """Half a pixel of disagreement between K and the pixels would show here."""
    height, width = 48 * factor, (64 + 2 * extra[0]) * factor
    if extra[1] % 2:
        height, width = (48 + 2 * extra[0]) * factor, 64 * factor
    v, u = height // 2 + where[0] * factor, width // 2 + where[1] * factor
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[v : v + factor, u : u + factor] = 255
    source = torch.tensor([[50.0 * factor, 0, 0], [0, 40 * factor, 0], [0, 0, 1]])
    source[:2, 2] = torch.tensor([u, v]) + (factor - 1) / 2  # the dot is straight ahead
    first = View(rgb=np.zeros((48, 64, 3), np.uint8))
    batch = prepare([first, View(rgb=rgb, K=source.numpy())], 64)
    np.testing.assert_allclose(
        centre_of_brightness(batch.rgb[1]), batch.K[1][:2, 2], rtol=0, atol=0.02
    )


def test_k_is_exact_where_nothing_is_resized():
    batch = prepare([View(rgb=GREY[:32, :48], K=K)], 48)
    np.testing.assert_allclose(batch.K[0], K, atol=1e-5)


@given(sides, sides, st.integers(1, 6), st.integers(1, 6))
def test_fitted_pictures_are_covered_and_cropped_in_the_middle(height, width, rows, columns):
    size = STRIDE * rows, STRIDE * columns
    picture, scale, left, top = fit(np.full((height, width, 3), 200, np.uint8), *size)
    assert picture.shape == (*size, 3)
    # As released, rounding can leave a black last column or row (spec 2).
    assert (picture[:-1, :-1] == 200).all(), "the crop reaches beyond the picture"
    assert left >= 0 and top >= 0
    for side, target, cut in ((width, size[1], left), (height, size[0], top)):
        assert abs(side * scale - target - 2 * cut) < 2.1


BAD_PICTURES = {
    "no array": ([[1, 2], [3, 4]], "list"),
    "None": (None, "NoneType"),
    "float": (np.zeros((40, 60, 3)), "float64"),
    "grey": (np.zeros((40, 60), np.uint8), "(40, 60)"),
    "with alpha": (np.zeros((40, 60, 4), np.uint8), "(40, 60, 4)"),
    "channels first": (np.zeros((3, 40, 60), np.uint8), "(3, 40, 60)"),
    "empty": (np.zeros((0, 0, 3), np.uint8), "0x0"),
    "too low": (np.zeros((15, 60, 3), np.uint8), "60x15"),
    "huge": (np.broadcast_to(np.uint8(0), (20_000, 20_000, 3)), "20000x20000"),
}


@pytest.mark.parametrize("case", BAD_PICTURES)
def test_bad_pictures_are_refused(case):
    rgb, named = BAD_PICTURES[case]
    with pytest.raises(InputError) as error:
        prepare([View(rgb=GREY), View(rgb=rgb, camera=CAMERA)], 48)
    text = str(error.value)
    assert "view 1" in text and CAMERA in text and named in text
    assert "expected" in text or "must be" in text


BAD_K = {
    "shape": np.eye(4),
    "flat": np.arange(9.0),
    "not finite": np.diag([50.0, np.nan, 1]),
    "infinite": np.diag([np.inf, 50.0, 1]),
    "no focal length": np.diag([0.0, 50.0, 1]),
    "negative": np.diag([50.0, -50.0, 1]),
    "text": "pinhole",
    "ragged": [[1, 2], [3]],
}


@pytest.mark.parametrize("case", BAD_K)
def test_bad_intrinsics_are_refused(case):
    with pytest.raises(InputError) as error:
        prepare([View(rgb=GREY, K=K), View(rgb=GREY, camera=CAMERA, K=BAD_K[case])], 48)
    text = str(error.value)
    assert "view 1" in text and CAMERA in text and "K is" in text
    assert "3 x 3" in text and "None" in text


def changed(**entries: float) -> np.ndarray:
    """K with other entries, for example `k02` in the first row, third column."""
    matrix = K.copy()
    for name, value in entries.items():
        matrix[int(name[1]), int(name[2])] = value
    return matrix


WRONG_K = {
    "transposed": (K.T, "it must be [[fx, 0, cx], [0, fy, cy], [0, 0, 1]]"),
    "last row": (changed(k22=0), "row by row"),
    "singular": (changed(k10=50, k01=50), "row by row"),
    "turned": (changed(k10=1), "row by row"),
    "skewed": (changed(k01=1), "without skew"),
    "in picture widths": (changed(k00=0.8, k11=0.8, k02=0.5, k12=0.5), "(0.8, 0.8) do not go"),
    "half in picture widths": (changed(k11=1.2), "(50, 1.2) do not go with a picture 60 px wide"),
    "in micrometres": (changed(k00=50_000), "give K in pixels of this picture"),
    "of a wider picture": (changed(k02=61), "principal point (61, 20) lies outside the 60x40"),
    "of a higher picture": (changed(k12=40), "principal point (30, 40) lies outside the 60x40"),
    "left of the picture": (changed(k02=-1), "principal point (-1, 20) lies outside the 60x40"),
    "beyond 64 bits": ([[10**400, 0, 0], [0, 1, 0], [0, 0, 1]], "finite 3 x 3"),
}


@pytest.mark.parametrize("case", WRONG_K)
def test_intrinsics_that_cannot_be_those_of_the_picture_are_refused(case):
    matrix, words = WRONG_K[case]
    with pytest.raises(InputError) as error:
        prepare([View(rgb=GREY, K=K), View(rgb=GREY, camera=CAMERA, K=matrix)], 48)
    text = str(error.value)
    assert f"view 1 ({CAMERA}): K" in text and words in text and "\n" not in text


@pytest.mark.parametrize(
    "matrix",
    [
        changed(k00=6.0, k11=6.0),  # 157 degrees wide
        changed(k00=3000, k11=2900),  # a degree wide
        changed(k01=0.02, k10=1e-9, k22=1 + 1e-9),  # rounded
        changed(k02=0, k12=0),
        K.astype(np.float32),
    ],
)
def test_unusual_intrinsics_are_fine(matrix):
    prepare([View(rgb=GREY, K=matrix)], 48)


def mounting(*, scale: float = 1.0, mirror: float = 1.0, at: float = 1.5) -> np.ndarray:
    matrix = np.diag([scale, scale, scale * mirror, 1.0])
    matrix[2, 3] = at
    return matrix


BAD_MOUNTINGS = {
    "shape": np.eye(3),
    "not finite": mounting(at=np.nan),
    "scaled": mounting(scale=2),
    "mirrored": mounting(mirror=-1),
    "no homogeneous row": np.ones((4, 4)),
    "text": "base_link",
}


@pytest.mark.parametrize("case", BAD_MOUNTINGS)
def test_bad_mountings_are_refused(case):
    views = [
        View(rgb=GREY, rig_from_cam=mounting()),
        View(rgb=GREY, camera=CAMERA, rig_from_cam=BAD_MOUNTINGS[case]),
    ]
    with pytest.raises(InputError) as error:
        prepare(views, 48)
    text = str(error.value)
    assert "view 1" in text and CAMERA in text and "rig_from_cam" in text and "None" in text


def test_rounded_mountings_are_fine():
    """Extrinsics from files carry few digits."""
    angle = 0.3
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    prepare([View(rgb=GREY, rig_from_cam=turn.round(3))], 48)


def test_no_pictures_are_refused():
    with pytest.raises(InputError, match="at least one"):
        prepare([], 48)


def test_unnamed_cameras_are_still_found():
    with pytest.raises(InputError, match=r"view 0 \(unnamed camera\)"):
        prepare([View(rgb=GREY[0])], 48)


# --- the released demo and evaluation -----------------------------------------------------------

NUSCENES_K = np.array([[1266.4172, 0, 816.267], [0, 1266.4172, 491.5071], [0, 0, 1]])


@pytest.mark.parametrize(
    ("family", "expected"), [("occany", (512, 288)), ("occany_plus", (518, 294))]
)
def test_both_families_have_their_sizes(family, expected):
    long_side, patch = INPUT_SIZES[family]
    width, height = expected
    assert network_size(900, 1600, long_side, patch) == (height, width)
    assert network_size(1600, 900, long_side, patch) == (width, height)
    for size in EVALUATION_SIZES[family].values():
        assert all(side % patch == 0 for side in size) and max(size) == long_side


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ((90, 160), (64, 96), (64, 96)),
        ((160, 90), (64, 96), (96, 64)),  # portrait in a landscape scene
        ((160, 90), (96, 64), (96, 64)),
        ((98, 100), (64, 96), (96, 64)),  # near square: the generator's first toss swaps
        ((98, 100), (96, 64), (64, 96)),
        ((100, 100), (96, 96), (96, 96)),
        ((110, 100), (64, 96), (64, 96)),  # neither portrait nor near square
        ((111, 100), (64, 96), (96, 64)),
    ],
)
def test_the_released_demo_turns_targets(source, target, expected):
    assert released_orientation(source, target) == expected


def test_another_toss_leaves_near_square_pictures_alone():
    tosses = {seed: released_orientation((98, 100), (64, 96), seed) for seed in range(8)}
    assert set(tosses.values()) == {(64, 96), (96, 64)}


@given(st.integers(40, 90), st.integers(40, 90), st.floats(-9, 9), st.floats(-9, 9))
def test_the_evaluation_crop_keeps_pixels_under_their_rays(height, width, du, dv):
    """A bright spot at the principal point stays there, and the focal length follows the size."""
    spot_u, spot_v = round(width / 2 + du), round(height / 2 + dv)
    intrinsics = np.array([[60.0, 0, spot_u], [0, 60.0, spot_v], [0, 0, 1]])
    rgb = np.zeros((height, width, 3), np.uint8)
    rgb[spot_v - 2 : spot_v + 3, spot_u - 2 : spot_u + 3] = 255
    crop = plan_calibrated(intrinsics, (height, width), (48, 64))
    picture = crop_calibrated(rgb, crop)
    assert picture.shape == (48, 64, 3)
    np.testing.assert_allclose(centre_of_brightness(picture), crop.K[:2, 2], atol=0.35)
    np.testing.assert_allclose(crop.K[0, 0], 60 * crop.plan.scale, rtol=1e-12)
    left, top, right, bottom = crop.box
    assert left + right == 2 * spot_u and top + bottom == 2 * spot_v


def test_the_evaluation_crop_of_a_real_sensor():
    crop = plan_calibrated(NUSCENES_K, (900, 1600), (288, 512))
    np.testing.assert_allclose(crop.K[:2, 2], (256, 144), atol=1)
    assert crop.box == (32, 84, 1600, 900)


@pytest.mark.parametrize("where", [(20, 50), (80.5, 50), (50, 20), (50, 81), (-3, 50)])
def test_principal_points_near_a_border_are_refused(where):
    intrinsics = np.array([[60.0, 0, where[0]], [0, 60.0, where[1]], [0, 0, 1]])
    with pytest.raises(InputError, match=r"principal point at .* 100x100 .*check that K"):
        plan_calibrated(intrinsics, (100, 100), (48, 64))


@pytest.mark.parametrize("wrong", [np.eye(4), np.diag([60.0, np.nan, 1])])
def test_the_evaluation_crop_needs_intrinsics(wrong):
    with pytest.raises(InputError, match="finite 3 x 3"):
        plan_calibrated(wrong, (100, 100), (48, 64))


def test_an_evaluation_crop_serves_one_picture_size():
    crop = plan_calibrated(K, GREY.shape[:2], (32, 48))
    with pytest.raises(InputError, match=r"61x40.*60x40"):
        crop_calibrated(np.zeros((40, 61, 3), np.uint8), crop)
    with pytest.raises(InputError, match="uint8"):
        crop_calibrated(GREY.astype(np.float32), crop)


def test_imagenet_statistics_normalise():
    rgb = np.full((2, 4, 6, 3), [255, 0, 51], np.uint8)
    images = network_tensor(rgb, IMAGENET)
    assert images.shape == (2, 3, 4, 6)
    expected = torch.tensor([(1 - 0.485) / 0.229, -0.456 / 0.224, (0.2 - 0.406) / 0.225])
    torch.testing.assert_close(images[1, :, 2, 3], expected)


def test_segmentation_sees_the_whole_picture_squashed():
    rgb = np.random.default_rng(0).integers(0, 256, (20, 60, 3), dtype=np.uint8)
    square = segmentation_tensor(rgb[None], 10)[0]
    assert square.shape == (3, 10, 10)
    resized = np.asarray(Image.fromarray(rgb).resize((10, 10), Image.Resampling.BILINEAR))
    # Pillow rounds to grey levels in between.
    torch.testing.assert_close(square, network_tensor(resized, IMAGENET), rtol=0, atol=0.02)


def test_ignored_pixels_follow_the_picture_and_spread_when_it_shrinks():
    mask = np.zeros((96, 160), bool)
    mask[90, 80] = True  # one pixel of sixteen that become one
    masked = View(rgb=np.zeros((96, 160, 3), np.uint8), ignored=mask)
    batch = prepare([masked, View(rgb=np.zeros((96, 160, 3), np.uint8))], 48)
    assert batch.ignored.dtype == torch.bool
    assert batch.ignored.shape == (2, *batch.images.shape[-2:]) == (2, 32, 48)
    assert not batch.ignored[1].any()
    rows, columns = batch.ignored[0].nonzero().T
    # 160 x 96 px become 53 x 32 px, of which the middle 48 columns are kept.
    assert (rows >= 29).all() and (rows <= 31).all() and len(rows) <= 4
    assert ((columns - (80 * 53 / 160 - 2)).abs() < 2).all() and len(columns) >= 1


@pytest.mark.parametrize(
    ("mask", "words"),
    [
        (np.zeros((4, 4), bool), "ignored is bool (4, 4); expected a bool array"),
        (np.zeros((32, 48), np.uint8), "ignored is uint8 (32, 48)"),
        ([[True]], "ignored is list"),
        (np.ones((32, 48), bool), "ignored leaves 0 of the 1536 pixels that the network sees"),
        (np.arange(1536).reshape(32, 48) >= 2, "ignored leaves 2 of the 1536 pixels"),
    ],
)
def test_bad_masks_are_refused(mask, words):
    view = View(rgb=np.zeros((32, 48, 3), np.uint8), camera=CAMERA, ignored=mask)
    with pytest.raises(InputError) as refusal:
        prepare([view], 48)
    assert words in str(refusal.value) and CAMERA in str(refusal.value)
