# SPDX-License-Identifier: Apache-2.0
"""Where metres come from: each rung of the ladder, what it is doubted for, and what it moves."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from street_views import FRONT, K, picture, sequence, small_street_model, street_config, turned

from occany_core import Stream, View, predict, rigid
from occany_core.errors import ConfigError, InputError
from occany_core.location import locate
from occany_core.network import RawMaps
from occany_core.scale import compare, determine

TRUE = 1.7
"""Metres per metre of the network in these tests."""


def pose(x=0.0, y=0.0, yaw_deg=0.0):
    """A rig on the ground, in the odometry's frame."""
    angle = math.radians(yaw_deg)
    found = np.eye(4)
    found[:2, :2] = [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    found[:2, 3] = x, y
    return found


DRIVE = [pose(), pose(1.0, 0.1, 5.0), pose(2.1, 0.4, 12.0)]
MOUNTINGS = {"front": FRONT.astype(np.float64), "left": turned(60).astype(np.float64)}
MOUNTINGS["left"][:3, 3] += 0.3, 0.9, 0.1


def rig_sets(drive=DRIVE, mountings=MOUNTINGS, odometry=True):
    return [
        [
            View(
                rgb=picture(0), camera=name, stamp=0.5 * step, K=K, rig_from_cam=mounting,
                odom_from_rig=odom_from_rig if odometry else None,
            )
            for name, mounting in mountings.items()
        ]
        for step, odom_from_rig in enumerate(drive)
    ]  # fmt: skip


def predicted_poses(drive=DRIVE, mountings=MOUNTINGS, factor=TRUE):
    """world_from_cam as a network sees it whose metres are too short by `factor`."""
    odom_from_cam = np.stack([rig @ cam for rig in drive for cam in mountings.values()])
    world_from_cam = np.linalg.inv(odom_from_cam[0]) @ odom_from_cam
    return rigid.scaled(torch.as_tensor(world_from_cam), 1 / factor)


def scale_of(sets, poses, focal=(None, None), **settings):
    return determine(sets, poses, focal, street_config(**{"scale__use": "odometry"} | settings))


def test_odometry_tells_the_factor_of_a_rig_that_turns():
    scale = scale_of(rig_sets(), predicted_poses())
    assert scale.source == "odometry"
    assert scale.factor == pytest.approx(TRUE, rel=1e-5)
    assert scale.spread == pytest.approx(0, abs=1e-5)
    assert scale.doubts == ()


def test_mountings_tell_the_factor_where_they_may():
    sets = rig_sets(DRIVE[:1])
    poses = predicted_poses(DRIVE[:1])
    measured = scale_of(sets, poses)
    assert (measured.source, measured.factor) == ("model", 1.0)
    assert [(rung.source, rung.pairs) for rung in measured.rungs] == [("extrinsics", 1)]
    assert measured.rungs[0].factor == pytest.approx(TRUE, rel=1e-5)
    corrected = scale_of(sets, poses, scale__use="auto")
    assert corrected.source == "extrinsics"
    assert corrected.factor == pytest.approx(TRUE, rel=1e-5)


def test_the_higher_rung_holds_and_all_are_reported():
    focal = (40.0, 38.0)
    everything = {"scale__use": "auto"}
    assert scale_of(rig_sets(), predicted_poses(), focal, **everything).source == "odometry"
    without = scale_of(rig_sets(odometry=False), predicted_poses(), focal, **everything)
    assert without.source == "extrinsics"
    given = scale_of(rig_sets(), predicted_poses(), focal, scale__factor=2.5)
    assert (given.source, given.factor) == ("user", 2.5)
    assert math.isnan(given.spread)
    assert [rung.source for rung in given.rungs] == ["odometry", "extrinsics", "camera_info"]


def test_nothing_corrects_unless_it_is_asked_for_and_all_rungs_are_reported():
    assert street_config().scale.use == "model"
    scale = scale_of(rig_sets(), predicted_poses(), scale__use="model")
    assert (scale.source, scale.factor, scale.doubts) == ("model", 1.0, ())
    assert [rung.source for rung in scale.rungs] == ["odometry", "extrinsics"]
    assert scale.rungs[0].factor == pytest.approx(TRUE, rel=1e-5)


def test_a_focal_length_that_agrees_confirms_and_corrects_nothing():
    sets, poses = [[View(rgb=picture(0), K=K)]], torch.eye(4)[None]
    confirmed = scale_of(sets, poses, (40.0, 38.0))
    assert (confirmed.source, confirmed.factor) == ("camera_info", 1.0)
    assert confirmed.spread == pytest.approx(2 / 38)
    doubted = scale_of(sets, poses, (60.0, 38.0))
    assert doubted.source == "model"
    assert doubted.doubts == (
        "scale: the focal length of camera_info and what the pictures show disagree by 58 %, "
        "scale.max_spread allows 20 %; it is not used: check that camera_info belongs to these "
        "pictures",
    )
    assert scale_of(sets, poses).source == "model"


def test_a_prediction_that_points_elsewhere_is_doubted():
    sideways = [pose(), pose(0.0, 1.0), pose(0.0, 2.0)]
    scale = scale_of(rig_sets(), predicted_poses(sideways))
    assert (scale.source, scale.factor) == ("model", 1.0)
    assert "how far the odometry says that the rig drove" in scale.doubts[0]
    assert "check its child frame and stamps" in scale.doubts[0]


@pytest.mark.parametrize("factor", [0.4, 31.0])
def test_a_motion_that_is_far_too_short_or_long_corrects_nothing(factor):
    scale = scale_of(rig_sets(DRIVE[:2]), predicted_poses(DRIVE[:2], factor=factor))
    assert (scale.source, scale.factor) == ("model", 1.0)
    assert scale.rungs[0].spread < 1e-5
    assert scale.doubts[0] == (
        "scale: how far the odometry says that the rig drove and what the pictures show differ by "
        f"a factor of {factor:.2f}, scale.max_correction allows 2; it is not used: check its "
        "child frame and stamps, and the mounting of the cameras, or set scale.use to model"
    )
    patient = scale_of(
        rig_sets(DRIVE[:2]), predicted_poses(DRIVE[:2], factor=factor), scale__max_correction=50.0
    )
    assert patient.factor == pytest.approx(factor, rel=1e-5)


def test_noise_shows_in_the_spread_and_hardly_in_the_factor():
    random = torch.Generator().manual_seed(0)
    poses = predicted_poses(factor=TRUE)
    poses[:, :3, 3] += 0.02 * torch.randn(len(poses), 3, generator=random, dtype=torch.float64)
    scale = scale_of(rig_sets(), poses)
    assert scale.source == "odometry"
    assert 0.02 < scale.spread < 0.2
    assert scale.factor == pytest.approx(TRUE, rel=0.15)


def test_a_rig_that_stands_says_nothing():
    still = [pose(), pose(0.05), pose(0.1)]
    scale = scale_of(rig_sets(still, odometry=True), predicted_poses(still))
    assert [rung.source for rung in scale.rungs] == ["extrinsics"]
    assert compare("odometry", [], predicted_poses()) is None


def test_no_motion_in_the_prediction_is_beyond_any_factor():
    scale = scale_of(rig_sets(), torch.eye(4).expand(6, 4, 4))
    assert scale.source == "model"
    assert "disagree beyond any factor" in scale.doubts[0]


def test_the_camera_of_an_unmounted_rig_is_taken_as_assumed():
    mountings = {"front": FRONT.astype(np.float64)}
    sets = rig_sets(mountings=mountings)
    bare = [[replace(view, rig_from_cam=None) for view in views] for views in sets]
    scale = scale_of(bare, predicted_poses(mountings=mountings))
    assert scale.source == "odometry"
    assert scale.factor == pytest.approx(TRUE, rel=1e-5)


# --- what a factor moves ------------------------------------------------------------------------


def street_maps(poses, factor):
    """Raw maps of a plane of random depth before every camera, as a network sees them."""
    random = torch.Generator().manual_seed(1)
    height, width = picture(0).shape[:2]
    depth = 4 + 4 * torch.rand(len(poses), height, width, generator=random)
    x = (torch.arange(width) - K[0, 2]) / K[0, 0]
    y = (torch.arange(height) - K[1, 2]) / K[1, 1]
    rays = torch.stack((x.expand(height, width), y[:, None].expand(height, width)), dim=-1)
    rays = torch.cat((rays, torch.ones(height, width, 1)), dim=-1).float()
    points_cam = rays * depth[..., None] / factor
    points_world = rigid.apply(poses.float(), points_cam.flatten(1, 2)).view_as(points_cam)
    confidence = torch.full(depth.shape, 3.0)
    return RawMaps(
        points_world[None], points_cam[None], confidence[None], torch.zeros(1, len(poses), 7), ()
    )


@pytest.mark.parametrize("calibrated", [True, False])
def test_a_window_with_odometry_is_metric(calibrated):
    mountings = MOUNTINGS if calibrated else {"front": MOUNTINGS["front"]}
    sets = rig_sets(mountings=mountings)
    if not calibrated:
        sets = [[replace(view, K=None, rig_from_cam=None) for view in one] for one in sets]
    intrinsics = [None if v.K is None else torch.as_tensor(v.K).float() for s in sets for v in s]
    raw = street_maps(predicted_poses(mountings=mountings), TRUE)
    found = locate(sets, intrinsics, raw, street_config(scale__use="odometry"))
    assert found.scale.source == "odometry"
    assert found.scale.factor == pytest.approx(TRUE, rel=1e-4)
    depth = found.seen.points_cam[..., 2]
    torch.testing.assert_close(depth, TRUE * raw.points_cam[0, ..., 2], rtol=1e-3, atol=1e-3)
    drive = rigid.invert(found.world_from_rig[0]) @ found.world_from_rig[-1]
    np.testing.assert_allclose(drive.numpy(), DRIVE[-1], atol=5e-3)


def test_a_factor_of_the_user_scales_everything_but_the_rendering_network_sees_its_own_metres():
    model = small_street_model()
    plain = predict(model, sequence(2), street_config())
    twice = predict(model, sequence(2), street_config(scale__factor=2.0))
    assert (plain.scale_source, twice.scale_source) == ("model", "user")
    torch.testing.assert_close(twice.observed.points_world, 2 * plain.observed.points_world)
    torch.testing.assert_close(
        twice.cameras.world_from_cam[:, :3, 3], 2 * plain.cameras.world_from_cam[:, :3, 3]
    )
    steps = {"novel_views__forward_step": 6.0, "novel_views__lateral": 4.0}
    same_places = predict(model, sequence(2), street_config(scale__factor=2.0, **steps))
    torch.testing.assert_close(
        same_places.novel.points_world, 2 * plain.novel.points_world, rtol=1e-4, atol=1e-4
    )


def test_a_stream_takes_metres_from_odometry_only_where_it_agrees():
    config = street_config(window__view_sets=3, scale__use="odometry")
    stream = Stream(small_street_model(), config)
    for views in rig_sets():
        scene = stream.add(views)
    assert scene.scale_source == "camera_info"  # the small network sees the same picture always
    assert scene.scale.doubts


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"scale__factor": -1.0}, "scale.factor is -1.0; it must be 0, or between 0.01 and 100"),
        ({"scale__use": "gps"}, "scale.use is 'gps'"),
        (
            {"scale__max_correction": 0.5},
            "scale.max_correction is 0.5; it must be at least 1",
        ),
        ({"scale__max_spread": 0.0}, "scale.max_spread is 0.0; it must be above 0, at most 1"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, says):
    with pytest.raises(ConfigError, match=says.replace(".", r"\.")):
        street_config(**settings)


def test_an_odometry_that_is_no_motion_is_refused():
    view = View(rgb=picture(0), odom_from_rig=np.zeros((4, 4)))
    with pytest.raises(InputError, match=r"(?s)odom_from_rig is .* rigid motion"):
        predict(small_street_model(), [[view]], street_config())
