# SPDX-License-Identifier: Apache-2.0
"""What networks are told of cameras: rays, ground and poses are exact, and nothing is invented."""

import dataclasses

import numpy as np
import pytest
import torch
from tiny_networks import random_network, tiny_config
from training_worlds import HEIGHT, WIDTH, pool, recipe, rendering, stage

from occany_core import camera, rigid
from occany_core.calibration import calibration_of, calibration_of_novel
from occany_core.config import CalibrationConfig
from occany_core.errors import ConfigError
from occany_core.images import View, prepare
from occany_core.network import KnownCameras, NetworkConfig
from occany_core.network.point_heads import KNOWN_CHANNELS
from occany_core.poses import Cameras
from occany_core.rig_poses import grid_from_reference
from occany_core.training.batches import BatchSampler, Turn
from occany_core.training.recipe import Draw

CONFIG = dataclasses.replace(tiny_config("convolutional"), calibration=True)
SAID = KNOWN_CHANNELS - 1
GROUND = 30.0
"""Logit of what is certainly ground."""


def level_cameras(height: float = 1.5, pitch_deg: float = 10.0, views: int = 2) -> KnownCameras:
    """Forward cameras one behind the other."""
    K = camera.pinhole(torch.tensor(40.0), HEIGHT, WIDTH).expand(1, views, 3, 3)
    poses = grid_from_reference(height, pitch_deg).repeat(1, views, 1, 1)
    poses[0, :, 0, 3] = torch.arange(views) * -1.0
    return KnownCameras(K, poses, torch.ones(1, views, dtype=torch.bool))


def pictures(views: int = 2) -> torch.Tensor:
    return torch.rand(1, views, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(1)) - 0.5


def placed(cameras: KnownCameras, said: torch.Tensor, block: int) -> tuple[torch.Tensor, ...]:
    """Points in the reference frame and in the camera frame, (V, h, w, 3) [m]."""
    logs = cameras.place(said, block).permute(0, 2, 3, 1)
    lengths = [part.norm(dim=-1, keepdim=True) for part in logs.split(3, dim=-1)]
    return tuple(
        part / length * length.expm1()
        for part, length in zip(logs.split(3, dim=-1), lengths, strict=True)
    )


@pytest.mark.parametrize("block", [1, 4])
def test_rays_go_through_the_centres_of_blocks(block):
    cameras = level_cameras()
    rows, columns = HEIGHT // block, WIDTH // block
    directions = cameras.directions(rows, columns, block)
    pixels = camera.project(cameras.K[0, 0], directions[0, 0].flatten(0, 1))
    middle = (block - 1) / 2
    expected = camera.pixel_grid(rows, columns) * block + middle
    torch.testing.assert_close(pixels.view(rows, columns, 2), expected, atol=1e-3, rtol=0)


@pytest.mark.parametrize("rise", [0.0, 0.02])
def test_a_slope_gives_the_points_of_a_plane(rise):
    """Ground that rises towards the camera's far end is met earlier, at every pixel at once."""
    cameras = level_cameras()
    directions = cameras.directions(HEIGHT, WIDTH, 1)
    in_rig = directions @ cameras.rig_from_cam[:, :, None, :3, :3].transpose(-1, -2)
    said = torch.zeros(2, SAID, HEIGHT, WIDTH)
    said[:, 3] = rise * in_rig[0, ..., 0] / 0.05  # in SLOPE_UNIT
    said[:, 5] = GROUND
    _, points_cam = placed(cameras, said, 1)
    points = rigid.apply(cameras.rig_from_cam[0], points_cam.flatten(1, 2))
    eye = cameras.rig_from_cam[0, :, None, :3, 3]
    plane = rise * (points[..., 0] - eye[..., 0])
    near = (points - eye).norm(dim=-1) < 60
    assert near.float().mean() > 0.4
    torch.testing.assert_close(points[..., 2][near], plane[near], atol=0.02, rtol=0)


def test_points_in_the_reference_frame_follow_from_the_mounting():
    cameras = level_cameras()
    said = torch.randn(2, SAID, 8, 12, generator=torch.Generator().manual_seed(0))
    said[:, :3] = 0
    world, points_cam = placed(cameras, said, 4)
    reference_from_cam = rigid.invert(cameras.rig_from_cam[0, :1]) @ cameras.rig_from_cam[0]
    expected = rigid.apply(reference_from_cam, points_cam.flatten(1, 2)).view_as(world)
    torch.testing.assert_close(world, expected, atol=1e-3, rtol=1e-4)


def test_unknown_cameras_change_nothing_and_known_ones_do():
    network = random_network(CONFIG)
    images, cameras = pictures(), level_cameras()

    def points(of):
        tokens = network.encode(images, of)
        return network.render(tokens, network.update_memory(tokens)).points_cam

    nothing = points(None)
    unknown = dataclasses.replace(cameras, is_known=torch.zeros(1, 2, dtype=torch.bool))
    torch.testing.assert_close(points(unknown), nothing)
    assert not torch.allclose(points(cameras), nothing)


def test_known_points_lie_on_their_rays():
    network, cameras = random_network(CONFIG), level_cameras()
    tokens = network.encode(pictures(), cameras)
    found = network.render(tokens, network.update_memory(tokens)).points_cam[0]
    rays = camera.rays(cameras.K[0], HEIGHT, WIDTH)
    torch.testing.assert_close(found / found[..., 2:], rays, atol=1e-4, rtol=1e-4)


def test_nothing_hangs_in_the_air_between_two_things(monkeypatch):
    """Where a range jumps from one block to the next, pixels have the one or the other."""
    head = random_network(CONFIG).heads.points
    changes = torch.zeros(2, 14, HEIGHT // 4, WIDTH // 4)
    changes[:, 12] = -50  # no ground
    changes[..., WIDTH // 8 :][:, 11] = 1.0  # log-range
    monkeypatch.setattr(head, "_changes", lambda *_: changes)
    raw = head(torch.zeros(2, 1, 1), (1, 1), [], level_cameras())
    ranges = raw[:, 3:6].norm(dim=1)
    assert {round(float(value), 3) for value in ranges.unique()} == {2.773, 3.773}
    assert (ranges[..., : WIDTH // 2] < 3).all()


def test_other_networks_do_not_look():
    network = random_network(tiny_config("convolutional"))
    tokens = network.encode(pictures(), level_cameras())
    assert tokens.cameras is None
    torch.testing.assert_close(tokens.tokens, network.encode(pictures()).tokens)


def test_calibration_needs_a_network_that_can_use_it():
    with pytest.raises(ConfigError, match="calibration needs stem and point_head to be conv"):
        NetworkConfig(calibration=True)
    with pytest.raises(ConfigError, match="calibration needs point_activation to be norm_exp"):
        dataclasses.replace(CONFIG, point_activation="linear")


@pytest.mark.parametrize("tilt", [0.0, 2.0])
@pytest.mark.parametrize("kind", ["single", "surround"])
def test_batches_tell_the_cameras_that_took_the_pictures(kind, tilt):
    """Mirrored, tilted or not: rays meet the targets, and mountings give the poses of rigs."""
    views = (1, 1)
    draws = (Draw(kind=kind, views=views),)
    made = recipe(rendering(1, draws), calibrated=1.0, views_per_step=24, tilt=tilt)
    for number in range(3):
        batch = BatchSampler(pool(), made, torch.device("cpu")).draw(Turn(0, number, 0.0))
        for cameras, targets in (
            (batch.cameras, batch.observed),
            (batch.novel_cameras, batch.novel),
        ):
            assert cameras.is_known.all()
            directions = cameras.directions(HEIGHT // 4, WIDTH // 4, 4)
            seen = targets.points_cam / targets.points_cam.norm(dim=-1, keepdim=True)
            off = (directions - seen).norm(dim=-1)[targets.valid]
            assert off.max() < 0.03  # depth was taken at the nearest rendered pixel
            reference = cameras.rig_from_reference
            if reference is None:
                reference = cameras.rig_from_cam[:, :1]
            poses = rigid.invert(reference) @ cameras.rig_from_cam
            torch.testing.assert_close(poses, targets.world_from_cam, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("novel", [False, True])
def test_a_rig_is_told_tilted_and_its_ground_stays(novel):
    draws = (Draw(kind="surround"),)
    of = rendering(1, draws) if novel else stage(1, draws)
    upright, tilted = (
        BatchSampler(pool(), recipe(of, views_per_step=240, tilt=tilt), torch.device("cpu")).draw(
            Turn(0, 0, 0.0)
        )
        for tilt in (0.0, 1.5)
    )
    for part in ("observed", "novel") if novel else ("observed",):
        ours, theirs = getattr(tilted, part), getattr(upright, part)
        assert torch.equal(ours.points_cam, theirs.points_cam)
        assert torch.equal(ours.ground, theirs.ground)
        assert 0.2 < theirs.ground.float().mean() < 0.9
    told, true = (batch.novel_cameras if novel else batch.cameras for batch in (tilted, upright))
    turned = told.rig_from_cam @ rigid.invert(true.rig_from_cam)
    torch.testing.assert_close(turned, turned[:, :1].expand_as(turned), atol=1e-5, rtol=0)
    assert turned[:, 0, :3, 3].abs().max() < 1e-5, "about where the rig stands"
    axes = turned[:, 0, :3, 2]  # where up points
    roll, pitch = (axis.asin().rad2deg().std() for axis in (axes[:, 1], axes[:, 0]))
    assert 0.9 < float(roll) < 2.2
    assert 0.9 < float(pitch) < 2.2
    assert turned[:, 0, 1, 0].abs().max() < 0.01, "and never about the vertical"


def test_single_batches_are_told_as_often_as_the_recipe_says():
    made = recipe(stage(1, (Draw(kind="single"),)), calibrated=0.0)
    sampler = BatchSampler(pool(), made, torch.device("cpu"))
    assert not any(sampler.draw(Turn(0, n, 0.0)).cameras.is_known.any() for n in range(8))


def test_the_ground_of_rendered_streets_is_near_the_first_guess():
    draws = (Draw(kind="surround"),)
    made = recipe(stage(1, draws), views_per_step=24)
    batch = BatchSampler(pool(), made, torch.device("cpu")).draw(Turn(0, 0, 0.0))
    guess = batch.cameras.first_guess(batch.cameras.directions(HEIGHT // 4, WIDTH // 4, 4))
    true = batch.observed.points_cam.norm(dim=-1, keepdim=True)
    ratio = (guess / true)[batch.observed.valid].log().abs()
    assert ratio.quantile(0.3) < 0.1  # vehicles lean


def view(**changes) -> View:
    rgb = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    K = np.array([[40.0, 0, WIDTH / 2], [0, 40, HEIGHT / 2], [0, 0, 1]])
    mounting = grid_from_reference(1.5, 0.0).numpy()
    return View(**({"rgb": rgb, "K": K, "rig_from_cam": mounting} | changes))


@pytest.mark.parametrize("missing", ["K", "rig_from_cam"])
def test_nothing_is_told_where_something_is_missing(missing):
    views = [view(), view(**{missing: None})]
    batch = prepare(views, WIDTH)
    assert calibration_of(views, batch, CalibrationConfig()) is None
    full = [view(), view()]
    batch = prepare(full, WIDTH)
    assert calibration_of(full, batch, CalibrationConfig()).is_known.all()
    assert calibration_of(full, batch, CalibrationConfig(use="off")) is None


def test_novel_views_stand_on_the_rig_of_the_reference_view():
    mounting = grid_from_reference(1.5, 5.0)
    ahead = torch.eye(4).repeat(2, 1, 1)
    ahead[1, 2, 3] = 3.0
    K = camera.pinhole(torch.tensor(40.0), HEIGHT, WIDTH).expand(2, 3, 3)
    told = calibration_of_novel(Cameras(K, ahead), mounting)
    torch.testing.assert_close(told.rig_from_cam[0, 0], mounting)
    torch.testing.assert_close(
        rigid.invert(told.rig_from_reference) @ told.rig_from_cam, ahead[None]
    )
