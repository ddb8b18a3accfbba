# SPDX-License-Identifier: Apache-2.0
"""Weather, night, camera faults, and pictures that stay on one device."""

import dataclasses

import numpy as np
import pytest
import torch

from occany_core.synthetic.imaging import (
    Imaging,
    developed,
    distorted,
    draw_imaging,
    jpeg_like,
    motion_blurred,
)
from occany_core.synthetic.light import NIGHT_SHARE, RAIN_SHARE, draw_light
from occany_core.synthetic.renderer import render
from occany_core.synthetic.rigs import named_rig
from occany_core.synthetic.scene import Scene
from occany_core.synthetic.world import StreetWorld

NIGHT_SEED, RAIN_SEED, DRY_DAY_SEED = 102, 114, 109
CLEAN = Imaging(0.0, 0, (), 0.0, 0.0)
WIDTH, HEIGHT = 64, 40


def front_view(seed, **changes):
    """Scene and rendered front view of a seed, with fields of the scene replaced."""
    world = StreetWorld(seed)
    scene = Scene(world)
    for name, value in changes.items():
        setattr(scene, name, value)
    camera = named_rig("front", WIDTH, HEIGHT)[0]
    pose = torch.tensor(world.ego_poses([0.0])[0] @ camera.rig_from_cam)[None].float()
    K = torch.tensor(camera.K)[None].float()
    return render(scene, K, pose, torch.zeros(1), HEIGHT, WIDTH)


def test_shares_of_night_and_rain():
    lights = [draw_light(seed, torch.device("cpu")) for seed in range(400)]
    assert np.mean([light.lamps > 0 for light in lights]) == pytest.approx(NIGHT_SHARE, abs=0.05)
    assert np.mean([light.rain > 0 for light in lights]) == pytest.approx(RAIN_SHARE, abs=0.05)
    assert all(light.overcast for light in lights if light.rain)


def test_night_is_dark_but_lamps_and_headlights_shine():
    world = StreetWorld(NIGHT_SEED)
    lit = front_view(NIGHT_SEED)
    dark = front_view(NIGHT_SEED, night_lights=None)
    by_day = front_view(DRY_DAY_SEED)
    assert Scene(world).night_lights is not None
    assert Scene(StreetWorld(DRY_DAY_SEED)).night_lights is None
    assert dark.rgb.mean() < lit.rgb.mean() < by_day.rgb.mean()
    ahead = lit.rgb[0, -10:, 24:40].mean() - dark.rgb[0, -10:, 24:40].mean()
    assert ahead > 0.05  # the road before the vehicle
    assert torch.equal(lit.depth, dark.depth)


def test_faults_change_pictures_but_not_depth():
    clean = front_view(DRY_DAY_SEED, imaging=CLEAN)
    for fault in (
        {"exposure_time": 0.03},
        {"jpeg_quality": 30},
        {"dirt": ((0.5, 0.3, 0.05, 0.6),)},
        {"bonnet": 0.1},
        {"shot_noise": 0.001},
    ):
        changed = front_view(DRY_DAY_SEED, imaging=dataclasses.replace(CLEAN, **fault))
        assert not torch.equal(changed.rgb, clean.rgb), fault
        assert torch.equal(changed.depth, clean.depth)
        assert ((changed.rgb >= 0) & (changed.rgb <= 1)).all()


def test_bonnet_covers_only_the_bottom_of_views_ahead():
    light = draw_light(DRY_DAY_SEED, torch.device("cpu"))
    field = torch.full((2, HEIGHT, WIDTH, 3), 0.5)
    ahead = torch.tensor([True, False])
    bare = developed(field, light, CLEAN, 1, ahead)
    covered = developed(field, light, dataclasses.replace(CLEAN, bonnet=0.1), 1, ahead)
    assert torch.equal(bare[1], covered[1])
    differs = (bare[0] != covered[0]).any(-1)
    assert differs[-3:, WIDTH // 2].all()
    assert not differs[: HEIGHT * 8 // 10].any()


def test_jpeg_keeps_flat_pictures_and_loses_detail_with_quality():
    flat = torch.full((1, 20, 30, 3), 0.5)
    torch.testing.assert_close(jpeg_like(flat, 90), flat, atol=0.01, rtol=0)
    noisy = torch.rand((1, 40, 64, 3), generator=torch.Generator().manual_seed(0))
    losses = [float((jpeg_like(noisy, quality) - noisy).abs().mean()) for quality in (95, 60, 20)]
    assert losses == sorted(losses)
    assert losses[0] < 0.06 < losses[2]


def test_blur_spreads_a_point_along_its_shift():
    picture = torch.zeros(1, 32, 64, 3)
    picture[0, 16, 30] = 1
    shift = torch.zeros(1, 32, 64, 2)
    torch.testing.assert_close(motion_blurred(picture, shift), picture)
    shift[..., 0] = 4
    blurred = motion_blurred(picture, shift)[0, :, :, 0]
    assert torch.nonzero(blurred > 0.1)[:, 0].unique().tolist() == [16]
    assert torch.nonzero(blurred > 0.1)[:, 1].tolist() == [28, 29, 30, 31, 32]
    assert float(blurred.sum()) == pytest.approx(1)


def test_distortion_moves_points_as_the_model_says():
    K = torch.tensor([[[60.0, 0, 31.5], [0, 60, 31.5], [0, 0, 1]]])
    picture = torch.zeros(1, 64, 64, 3)
    picture[0, 31:33, 50:52] = 1
    radial = (-0.3, 0.05)
    bent = distorted(picture, K, radial)[0, :, :, 0]
    x = (50.5 - 31.5) / 60
    expected = 31.5 + 60 * x * (1 + radial[0] * x**2 + radial[1] * x**4)
    columns = torch.arange(64.0)
    assert float((bent.sum(0) * columns).sum() / bent.sum()) == pytest.approx(expected, abs=0.2)
    assert torch.equal(distorted(picture, K, (0.0, 0.0)).round(), picture)


def test_draws_are_a_function_of_the_seed_and_differ():
    assert draw_imaging(5, False) == draw_imaging(5, False)
    drawn = [draw_imaging(seed, False) for seed in range(200)]
    assert 0.3 < np.mean([one.jpeg_quality > 0 for one in drawn]) < 0.7
    assert 0.2 < np.mean([one.exposure_time > 0 for one in drawn]) < 0.5
    assert np.mean([bool(one.dirt) for one in drawn]) > 0.04


@pytest.mark.parametrize("seed", [NIGHT_SEED, RAIN_SEED, DRY_DAY_SEED])
def test_every_tensor_is_made_on_the_device_of_the_scene(seed):
    world = StreetWorld(seed)
    scene = Scene(world)
    scene.imaging = Imaging(0.02, 50, ((0.5, 0.2, 0.05, 0.5),), 0.1, 0.001)
    camera = named_rig("front", WIDTH, HEIGHT)[0]
    pose = torch.tensor(world.ego_poses([0.0])[0] @ camera.rig_from_cam)[None].float()
    K, seconds = torch.tensor(camera.K)[None].float(), torch.zeros(1)
    expected = render(scene, K, pose, seconds, HEIGHT, WIDTH)
    with torch.device("meta"):  # what is made without a device lands here and fails
        found = render(scene, K, pose, seconds, HEIGHT, WIDTH)
    assert torch.equal(found.rgb, expected.rgb)
