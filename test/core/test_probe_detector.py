# SPDX-License-Identifier: Apache-2.0
"""Regions of the class probe: equal to a flood fill, in any view, whatever their form."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from occany_core.errors import ConfigError, InputError
from occany_core.network.prompt_decoder import ClassProbe
from occany_core.semantics import PromptableFeatures, PromptTable
from occany_core.semantics.probe_detector import (
    ProbeDetector,
    RegionSettings,
    connected_regions,
    detect_regions,
    find_regions,
)

CLASSES = 4
maps = st.tuples(st.integers(1, 3), st.integers(1, 9)).flatmap(
    lambda size: arrays.arrays(np.int64, (size[0], size[1], size[1]), elements=st.integers(0, 3))
)
wanted_classes = st.sets(st.integers(0, CLASSES - 1))


def flooded(classes, wanted, *, across_corners):
    """The regions of one view as sets of cells, found cell by cell."""
    side = len(classes)
    reach = [(0, 1), (1, 0), (0, -1), (-1, 0)]
    reach += [(1, 1), (1, -1), (-1, 1), (-1, -1)] if across_corners else []
    left = {cell for cell in np.ndindex(side, side) if classes[cell] in wanted}
    regions = []
    while left:
        open_cells = [left.pop()]
        region = set(open_cells)
        while open_cells:
            row, column = open_cells.pop()
            for down, right in reach:
                cell = (row + down, column + right)
                if cell in left and classes[cell] == classes[row, column]:
                    left.remove(cell)
                    region.add(cell)
                    open_cells.append(cell)
        regions.append(region)
    return regions


def logits_of(classes, seed=0):
    """Logits whose likeliest classes are these, with varying certainty."""
    certain = np.random.default_rng(seed).uniform(0.5, 4, classes.shape)
    logits = np.moveaxis(np.eye(CLASSES)[classes], -1, 1) * certain[:, None]
    return torch.from_numpy(logits)


@given(maps, wanted_classes, st.booleans(), st.integers(1, 4), st.integers(0, 9))
def test_regions_are_those_of_a_flood_fill(classes, wanted, across_corners, least, seed):
    logits = logits_of(classes, seed)
    settings = RegionSettings(least_cells=least, across_corners=across_corners)
    views = find_regions(logits, sorted(wanted), settings)
    assert len(views) == len(classes)
    chance = logits.softmax(dim=1).numpy()
    side = classes.shape[-1]
    for view, regions in enumerate(views):
        found, expected, cells = regions.found, [], []
        for region in flooded(classes[view], wanted, across_corners=across_corners):
            if len(region) < least:
                continue
            rows, columns = np.array(sorted(region)).T
            (label,) = set(classes[view, rows, columns])
            box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            score = chance[view, label, rows, columns].mean()
            expected.append([*(np.array(box) / side), score, label])
            cells.append(tuple(sorted(region)))
        got = torch.cat(
            (found.boxes, found.scores[:, None], found.labels[:, None].double()), dim=1
        )
        order = sorted(range(len(got)), key=lambda i: got[i].tolist())
        np.testing.assert_allclose(
            got[order].numpy().reshape(-1, 6),
            np.array(sorted(map(list, expected))).reshape(-1, 6),
            atol=1e-6,
        )
        masks = [tuple(sorted(map(tuple, mask.nonzero().tolist()))) for mask in regions.masks]
        assert sorted(masks) == sorted(cells)
        assert [mask.any(dim=0).int().argmax().item() for mask in regions.masks] == (
            (found.boxes[:, 0] * side).round().int().tolist()
        ), "masks and boxes come in the same order"
        assert (found.scores.diff() <= 0).all(), "the best comes first"


def test_a_spiral_is_one_region_and_views_do_not_touch():
    side = 31
    spiral = np.zeros((side, side), np.int64)
    row, column, (down, right), length = 0, 0, (0, 1), side
    spiral[0, 0] = 1
    for turn in range(side):
        for _ in range(length - 1):
            row, column = row + down, column + right
            spiral[row, column] = 1
        down, right = right, -down
        if turn != 1:
            length -= 2 if turn else 0
        if length < 2:
            break
    classes = torch.from_numpy(np.stack((spiral, spiral.T.copy())))
    region = connected_regions(classes, classes == 1)
    numbers = [set(region[view][classes[view] == 1].tolist()) for view in range(2)]
    assert numbers == [{0}, {side * side}]


def test_no_class_wanted_or_nothing_found_gives_empty_detections():
    logits = logits_of(np.zeros((2, 4, 4), np.int64))
    for wanted in ([], [1, 2]):
        found = detect_regions(logits, wanted)
        assert [(len(one.boxes), one.boxes.shape[1]) for one in found] == [(0, 4)] * 2


def test_the_detector_takes_classes_from_its_prompts():
    probe = ClassProbe((5, 5, CLASSES), CLASSES)
    with torch.no_grad():
        probe.fine.weight.copy_(torch.eye(CLASSES)[..., None, None])
        probe.fine.bias.zero_()
    classes = np.zeros((1, 8, 8), np.int64)
    classes[0, 1:4, 2:7], classes[0, 5:8, 0:2] = 2, 3
    fine = logits_of(classes).float()
    features = PromptableFeatures(torch.zeros(1, 5, 2, 2), torch.zeros(1, 5, 4, 4), fine)
    (found,) = ProbeDetector(probe).find(features, PromptTable(("car", "auto"), (2, 2)))
    assert found.found.labels.tolist() == [2]
    np.testing.assert_allclose(found.found.boxes[0], [2 / 8, 1 / 8, 7 / 8, 4 / 8])


def test_what_cannot_be_is_named():
    with pytest.raises(InputError, match="0 to 3, and not 7"):
        detect_regions(torch.zeros(1, 4, 2, 2), [7, 2])
    with pytest.raises(InputError, match=r"shape \(4, 2, 3\)"):
        detect_regions(torch.zeros(4, 2, 3), [1])
    with pytest.raises(ConfigError, match="least_cells is 0"):
        RegionSettings(least_cells=0)
