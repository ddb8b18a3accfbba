# SPDX-License-Identifier: Apache-2.0
"""Pictures of found things: masks where they belong, nothing lost, names that can be read."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from occany_core.datasets.class_tables import load_classes
from occany_core.errors import InputError
from occany_core.picture.instances import (
    LABEL_HEIGHT,
    LEAST_LUMINANCE,
    Box,
    compose_instances_picture,
    draw_things,
    drawn_colour,
    place_labels,
)
from occany_core.semantics import Detections
from occany_core.semantics.things import FoundThings
from occany_core.synthetic.classes import SemanticClass

CLASSES = load_classes("occ3d_nuscenes").classes
CAR, CONE, PERSON = SemanticClass.CAR, SemanticClass.TRAFFIC_CONE, SemanticClass.PEDESTRIAN
SIDE, SIZE = 8, (320, 160)
"""Of the masks, and width and height of the drawn picture."""
GREY = np.full((40, 80, 3), 100, np.uint8)


def things_at(*named):
    """Rectangles (left, top, right, bottom) on a grid of 8 x 8 cells, with class and score."""
    masks = torch.full((len(named), SIDE, SIDE), -5.0)
    for mask, ((left, top, right, bottom), _, _) in zip(masks, named, strict=True):
        mask[top:bottom, left:right] = 5
    boxes = torch.tensor([cells for cells, _, _ in named]).reshape(-1, 4) / SIDE
    scores = torch.tensor([score for _, _, score in named])
    labels = torch.tensor([int(label) for _, label, _ in named], dtype=torch.long)
    return FoundThings(Detections(boxes, scores, labels), masks)


def is_colour(picture, label):
    return (np.asarray(picture) == drawn_colour(CLASSES[label])).all(axis=-1)


def test_a_mask_is_tinted_and_outlined_where_it_is_and_nowhere_else():
    drawn = np.asarray(draw_things(GREY, things_at(((2, 4, 6, 7), CAR, 0.5)), CLASSES, SIZE))
    assert drawn.shape == (160, 320, 3)
    left, top, right, bottom = 80, 80, 240, 140
    changed = (drawn != 100).any(axis=-1)
    outside = changed.copy()
    outside[top - 2 : bottom + 2, left - 2 : right + 2] = False
    outside[top - LABEL_HEIGHT - 2 : top] = False  # the name
    assert not outside.any()
    inside = drawn[top + 12 : bottom - 12, left + 12 : right - 12].reshape(-1, 3)
    tint = 0.64 * 100 + 0.36 * np.array(drawn_colour(CLASSES[CAR]))
    assert np.abs(inside - tint).max() <= 1
    outline = is_colour(drawn, CAR)
    for row, column in ((top + 30, left + 1), (top + 30, right - 2), (bottom - 2, left + 70)):
        assert outline[row, column]
    assert (drawn[top + 30, [left - 1, right]] < 60).all(), "a dark line around the outline"


def test_every_thing_is_drawn_and_the_best_lies_on_top():
    named = [
        ((0, 0, 2, 2), PERSON, 0.4),
        ((6, 1, 8, 3), CONE, 0.2),
        ((2, 4, 6, 8), CAR, 0.3),
        ((3, 5, 5, 7), SemanticClass.BUS, 0.9),
    ]
    for order in ([0, 1, 2, 3], [3, 2, 1, 0]):
        things = things_at(*(named[i] for i in order))
        drawn = draw_things(GREY, things, CLASSES, SIZE)
        for _, label, _ in named:
            assert is_colour(drawn, label).sum() > 200
        bus = np.asarray(drawn)[115:125, 122]  # its left outline lies within the car
        assert (bus == drawn_colour(CLASSES[SemanticClass.BUS])).all()


def test_the_order_of_colour_channels_is_red_green_blue():
    red, green, blue = drawn_colour(CLASSES[CAR])
    assert (red, green, blue) == CLASSES[CAR].colour == (255, 158, 0)
    picture = np.zeros((40, 80, 3), np.uint8)
    picture[..., 0] = 200
    drawn = np.asarray(draw_things(picture, things_at(), CLASSES, SIZE))
    assert (drawn == (200, 0, 0)).all()


def test_colours_stand_out_and_differ():
    colours = [drawn_colour(one) for one in CLASSES[1:]]
    assert len(set(colours)) == len(colours)
    for colour in colours:
        assert np.dot(colour, (0.299, 0.587, 0.114)) >= LEAST_LUMINANCE - 1


corners = st.tuples(
    st.integers(0, 300), st.integers(0, 150), st.integers(1, 80), st.integers(1, 60)
)


@given(st.lists(st.tuples(corners, st.integers(20, 150)), max_size=20))
def test_names_stay_inside_and_never_cover_each_other(cases):
    boxes = [Box(x, y, x + width, y + height) for (x, y, width, height), _ in cases]
    places = place_labels(boxes, [width for _, width in cases], SIZE)
    assert len(places) == len(cases)
    shown = [place for place in places if place is not None]
    for place, (_, width) in zip(places, cases, strict=True):
        if place is not None:
            assert place.left >= 0 and place.right <= SIZE[0] and place.right - place.left == width
            assert place.top >= 0 and place.bottom <= SIZE[1]
    for index, one in enumerate(shown):
        assert not any(one.meets(other) for other in shown[index + 1 :])
    assert not cases or places[0] is not None


def test_names_of_the_same_box_stand_above_within_and_below():
    places = place_labels([Box(100, 50, 200, 120)] * 4, [100] * 4, SIZE)
    assert [place.top for place in places] == [28, 52, 121, 75]


def test_pages_hold_every_picture_with_its_own_things():
    pictures = [np.full((40, 80, 3), value, np.uint8) for value in (60, 120, 180)]
    things = [things_at(), things_at(((1, 1, 7, 7), CAR, 0.7)), things_at()]
    page = compose_instances_picture(pictures, things, CLASSES, "Found", ["a", "b", "c"])
    areas = [(page == value).all(axis=-1).sum() for value in (60, 120, 180)]
    assert areas[0] == areas[2] > 300_000
    assert areas[1] < 0.6 * areas[0], "most of the second picture is tinted"
    where = np.argwhere(is_colour(page, CAR))
    second = np.argwhere((page == 120).all(axis=-1))
    in_second = (where >= second.min(0)).all(1) & (where <= second.max(0)).all(1)
    legend = where[~in_second]
    assert len(legend) > 200 and (legend[:, 0] > second.max(0)[0]).all()
    assert page.shape[1] <= 1920


@pytest.mark.parametrize("number", [1, 2, 5, 6])
@pytest.mark.parametrize("shape", [(90, 160, 3), (37, 122, 3), (160, 90, 3)])
def test_pages_of_any_number_and_shape_of_pictures(number, shape):
    pictures = [np.full(shape, 77, np.uint8)] * number
    page = compose_instances_picture(
        pictures, [things_at()] * number, CLASSES, "", ["name " * 80] * number
    )
    shown = (page == 77).all(axis=-1)
    tiles = shown.sum() / number
    assert tiles > 300 * 300 * shape[0] / shape[1]
    rows, columns = np.nonzero(shown)
    for side, most in ((rows, page.shape[0]), (columns, page.shape[1])):
        assert side.min() >= 20 and side.max() < most - 15


def test_pictures_findings_and_captions_must_fit():
    with pytest.raises(InputError, match="1 pictures came with findings of 0 and 1"):
        compose_instances_picture([GREY], [], CLASSES, "", ["a"])
    with pytest.raises(InputError, match="0 pictures"):
        compose_instances_picture([], [], CLASSES, "", [])
