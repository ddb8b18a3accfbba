# SPDX-License-Identifier: Apache-2.0
"""The teacher of rendered streets: the same between views, blind to numbering, normalised."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from occany_core.errors import ConfigError, InputError
from occany_core.synthetic.classes import SemanticClass
from occany_core.synthetic.primitives import Material, PrimitiveBuilder, Shape
from occany_core.synthetic.scene import Scene
from occany_core.synthetic.teacher import (
    CLASS_CODE,
    FIELD_CHANNELS,
    MOST_CHANNELS,
    StreetTeacher,
    field,
    instance_centres,
)
from occany_core.synthetic.teacher_statistics import measured_moments, surround_views
from occany_core.synthetic.world import StreetWorld

WIDTH, HEIGHT = 96, 56
DIMS, SIZE = (128, 32, 16), 128
BAND = CLASS_CODE
OFFSET = slice(BAND + 1, BAND + 3)
CENTRE = slice(BAND + 3, BAND + 15)
NORMAL = slice(BAND + 15, BAND + 18)


@pytest.fixture(scope="module")
def seen():
    return surround_views(3, WIDTH, HEIGHT)


def renumbered(seen, seed=0):
    """The same views with other instance ids."""
    number = seen.centres.shape[1]
    order = np.random.default_rng(seed).permutation(number - 1) + 1
    new = torch.from_numpy(np.concatenate(([0], order)))
    centres = torch.empty_like(seen.centres)
    centres[:, new] = seen.centres
    return replace(seen, instance=new[seen.instance], centres=centres)


def test_levels_have_the_contract_of_the_network(seen):
    levels = StreetTeacher(DIMS, SIZE)(seen)
    side = SIZE // 16
    assert [tuple(level.shape) for level in levels] == [
        (6, 128, side, side),
        (6, 32, 2 * side, 2 * side),
        (6, 16, 4 * side, 4 * side),
    ]
    assert all(level.dtype == torch.float32 for level in levels)


def test_features_do_not_depend_on_how_instances_are_numbered(seen):
    teacher = StreetTeacher(DIMS, SIZE)
    for ours, theirs in zip(teacher(seen), teacher(renumbered(seen))):
        torch.testing.assert_close(ours, theirs)


def test_features_of_a_view_do_not_depend_on_the_others(seen):
    alone = replace(seen, **{name: values[2:3] for name, values in vars(seen).items()})
    teacher = StreetTeacher(DIMS, SIZE)
    for together, single in zip(teacher(seen), teacher(alone)):
        torch.testing.assert_close(together[2:3], single)


def test_fewer_channels_are_the_first_of_all_and_calls_repeat(seen):
    most, fewer = StreetTeacher(MOST_CHANNELS, SIZE), StreetTeacher(DIMS, SIZE)
    for more, less, again in zip(most(seen), fewer(seen), fewer(seen)):
        torch.testing.assert_close(more[:, : less.shape[1]], less)
        assert torch.equal(less, again)


def test_an_instance_has_one_centre_code_in_all_views_and_others_have_others(seen):
    codes = field(seen)[:, CENTRE]
    shared, found = 0, []
    for instance in seen.instance.unique().tolist()[1:]:
        inside = seen.instance == instance
        values = codes.movedim(1, -1)[inside]
        torch.testing.assert_close(values, values[:1].expand_as(values))
        shared += int(inside.flatten(1).any(dim=1).sum() > 1)
        found.append(values[0])
    assert shared >= 3  # neighbouring cameras overlap
    distance = torch.pdist(torch.stack(found))
    assert distance.median() > 1
    assert not codes.movedim(1, -1)[seen.instance == 0].any()


def test_centres_are_those_of_whole_instances_and_move_with_them():
    world = StreetWorld(3)
    builder = PrimitiveBuilder(np.random.default_rng(0))
    builder.new_instance()
    for x, half in ((0.0, 1.0), (5.0, 2.0)):
        builder.add(
            *(Shape.BOX, (x, 1.0, 2.0), (half, 0.5, 2.0), 0.0, Material.PLAIN),
            *(SemanticClass.CAR, 1, (0.5, 0.5, 0.5)),
            velocity=(2.0, 0.0),
        )
    world.primitives = builder.pack()
    centres = instance_centres(Scene(world), torch.tensor([0.0, 1.5]))
    expected = torch.tensor([[3.0, 1.0, 2.0], [6.0, 1.0, 2.0]])  # x from -1 to 7
    torch.testing.assert_close(centres[:, 1], expected)


def test_channels_follow_the_pixels(seen):
    channels = field(seen)
    assert channels.shape == (6, FIELD_CHANNELS, HEIGHT, WIDTH)
    assert torch.isfinite(channels).all()
    # one code for each class, at least 0.5 apart
    codes = {}
    for label in seen.semantics.unique().tolist():
        values = channels[:, :CLASS_CODE].movedim(1, -1)[seen.semantics == label]
        assert (values == values[0]).all()
        codes[label] = values[0]
    assert torch.pdist(torch.stack(list(codes.values()))).min() > 0.5
    # the band is highest where neighbours differ and absent far from there
    ids = seen.instance * 100 + seen.semantics
    differs = ids[:, :, 1:] != ids[:, :, :-1]
    assert (channels[:, BAND, :, 1:][differs] == 1.5).all()
    assert 0.05 < (channels[:, BAND] == 0).float().mean() < 0.95
    # normals are of the reference camera: the road points up, against its y axis
    road = seen.semantics == SemanticClass.DRIVEABLE_SURFACE
    upward = channels[:, NORMAL].movedim(1, -1)[road].mean(dim=0)
    torch.testing.assert_close(upward, torch.tensor([0.0, -1.0, 0.0]), atol=0.12, rtol=0)


def test_offsets_lead_to_the_centroid_of_what_is_seen(seen):
    view, instance = 0, int(seen.instance[0].flatten().mode().values)
    instance = instance or int(seen.instance[0][seen.instance[0] > 0].mode().values)
    y, x = torch.nonzero(seen.instance[view] == instance, as_tuple=True)
    offset = torch.atanh(field(seen)[view, OFFSET, y, x].double())
    found_x = x + offset[0] * WIDTH / 8
    found_y = y + offset[1] * HEIGHT / 8
    torch.testing.assert_close(found_x, x.double().mean().expand_as(found_x), atol=0.1, rtol=0)
    torch.testing.assert_close(found_y, y.double().mean().expand_as(found_y), atol=0.1, rtol=0)


def test_stored_statistics_fit_streets_that_they_were_not_measured_on():
    teacher = StreetTeacher(DIMS, 256)
    levels = [teacher(surround_views(seed, 128, 72)) for seed in range(2000, 2012)]
    for level in zip(*levels):
        values = torch.cat(level).movedim(1, 0).flatten(1)
        mean, deviation = values.mean(dim=1), values.std(dim=1)
        assert mean.abs().mean() < 0.15
        assert 0.85 < deviation.mean() < 1.15
        assert deviation.min() > 0.5 and deviation.max() < 1.6


def test_measured_moments_are_those_of_the_raw_features(seen):
    raw = StreetTeacher(MOST_CHANNELS, 256, statistics=None)(seen)
    for level, moments in zip(raw, measured_moments([seen])):
        values = level.movedim(1, 0).flatten(1)
        torch.testing.assert_close(torch.from_numpy(moments[0]), values.mean(dim=1))
        deviation = values.std(dim=1, correction=0)
        torch.testing.assert_close(torch.from_numpy(moments[1]), deviation, rtol=1e-4, atol=1e-5)


def test_mixtures_are_the_same_on_every_machine(seen):
    """A change of these numbers makes features of older weights worthless."""
    blank = replace(
        seen,
        rgb=torch.full_like(seen.rgb, 0.5),
        semantics=torch.full_like(seen.semantics, int(SemanticClass.CAR)),
        instance=torch.ones_like(seen.instance),
        normal=torch.zeros_like(seen.normal),
        centres=torch.tensor([0.0, 0.0, 10.0]).expand(6, 2, 3),
    )
    levels = StreetTeacher(DIMS, SIZE, statistics=None)(blank)
    found = [level[0, :3, 0, 0] for level in levels]
    torch.testing.assert_close(torch.cat(found), GOLDEN, atol=1e-4, rtol=0)


GOLDEN = torch.tensor(
    [-0.24684, 0.37261, -0.01757, -0.60269, 0.13618, -0.44099, -0.82127, -0.87898, -0.32719]
)


def test_wrong_input_is_named(seen):
    with pytest.raises(ConfigError, match="segmentation_dims"):
        StreetTeacher((512, 64, 32), SIZE)
    with pytest.raises(InputError, match="same views and pixels"):
        replace(seen, rgb=seen.rgb[:, 1:])
    with pytest.raises(InputError, match="centres end at 1"):
        replace(seen, centres=seen.centres[:, :2])
