# SPDX-License-Identifier: Apache-2.0
"""Pictures of features: what is equal looks equal, whatever the view, the run and the scale."""

import numpy as np
import pytest

from occany_core.errors import InputError
from occany_core.picture.features import colours_of_features, compose_features_picture


def regions(seed=0, channels=8):
    """Two views of four regions with a feature each, and the map of regions (2, 6, 10)."""
    random = np.random.default_rng(seed)
    where = random.integers(0, 4, (2, 6, 10))
    return np.moveaxis(random.normal(size=(4, channels))[where], -1, 1), where


def test_equal_features_have_equal_colours_in_all_views_and_others_differ():
    features, where = regions()
    colours = colours_of_features(features)
    assert colours.shape == (2, 6, 10, 3) and colours.dtype == np.uint8
    found = [np.unique(colours[where == region], axis=0) for region in range(4)]
    assert [len(values) for values in found] == [1, 1, 1, 1]
    assert len({tuple(values[0]) for values in found}) == 4


def test_scale_and_offset_of_features_do_not_show():
    features, _ = regions(1)
    offset = np.arange(8.0)[:, None, None]
    moved = colours_of_features(features * 30 + offset).astype(int)
    assert np.abs(moved - colours_of_features(features)).max() <= 1


def test_strongest_directions_come_first_and_span_the_range():
    random = np.random.default_rng(2)
    values = random.normal(size=(1, 5, 40, 40)) * np.array([0.1, 9, 0.1, 3, 1])[:, None, None]
    colours = colours_of_features(values)
    for part, channel in enumerate((1, 3, 4)):
        agreement = np.corrcoef(colours[0, ..., part].flat, values[0, channel].flat)[0, 1]
        assert agreement > 0.95
        assert colours[..., part].min() == 0 and colours[..., part].max() == 255


def test_features_without_any_change_are_one_colour():
    colours = colours_of_features(np.ones((1, 4, 3, 3), np.float32))
    assert len(np.unique(colours.reshape(-1, 3), axis=0)) == 1


def test_pages_show_each_view_beside_its_levels():
    coarse, _ = regions(3)
    fine = coarse.repeat(2, axis=2).repeat(2, axis=3)
    pictures = [np.full((36, 64, 3), value, np.uint8) for value in (200, 90)]
    page = compose_features_picture(pictures, {"coarse": coarse, "fine": fine}, "Features")
    assert page.dtype == np.uint8
    assert (page == 200).all(axis=-1).sum() > 10_000
    assert (page == 90).all(axis=-1).sum() > 10_000
    strongest = {tuple(colour) for colour in colours_of_features(coarse).reshape(-1, 3).tolist()}
    shown = {tuple(colour) for colour in page.reshape(-1, 3).tolist()}
    assert strongest <= shown
    wider = compose_features_picture(pictures, {"coarse": coarse} | {"a": fine, "b": fine}, "")
    assert wider.shape[1] > page.shape[1] and wider.shape[0] == page.shape[0]


@pytest.mark.parametrize(
    "features", [np.zeros((1, 2, 4, 4)), np.zeros((4, 4, 4)), np.full((1, 3, 2, 2), np.nan)]
)
def test_features_that_cannot_be_shown_are_named(features):
    with pytest.raises(InputError, match="feature"):
        colours_of_features(features)


def test_pictures_and_features_must_be_of_the_same_views():
    features, _ = regions()
    with pytest.raises(InputError, match="1 pictures came with features of"):
        compose_features_picture([np.zeros((4, 4, 3), np.uint8)], {"coarse": features}, "")
    with pytest.raises(InputError, match="0 pictures"):
        compose_features_picture([], {}, "")
