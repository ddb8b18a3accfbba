# SPDX-License-Identifier: Apache-2.0
"""Pictures to scenes with a small network: every kind of input, with and without calibration."""

import dataclasses
import re

import numpy as np
import pytest
import torch
from street_views import (
    FRONT,
    HEIGHT,
    WIDTH,
    K,
    picture,
    probed_model,
    sequence,
    small_street_model,
    street_config,
    surround,
)

from occany_core import OccAnyConfig, Scene, View, camera, predict, rigid
from occany_core.checkpoints import Model
from occany_core.errors import ConfigError, DegenerateGeometryError, InputError
from occany_core.network import NetworkConfig, OccAnyNetwork
from occany_core.rig_poses import grid_from_reference

STAGES = "encode memory render labels cameras project tokenize render_novel voxels".split()
CALIBRATED = {"K": K, "rig_from_cam": FRONT}


@pytest.fixture(scope="module")
def model():
    return small_street_model()


INPUTS = {
    "surround": [surround()],
    "surround twice": [surround(0), surround(1, stamp=0.5)],
    "surround without calibration": [surround(calibrated=False)],
    "sequence": sequence(4),
    "sequence with calibration": sequence(3, **CALIBRATED),
    "sequence with K": sequence(3, K=K),
    "sequence with mounting": sequence(3, rig_from_cam=FRONT),
    "monocular": sequence(1),
    "monocular with calibration": sequence(1, **CALIBRATED),
    "portrait": [[View(rgb=picture(0, 48, 32)), View(rgb=picture(1, 48, 32))]],
    "mixed sizes in a set": [[View(rgb=picture(0)), View(rgb=picture(1, 90, 70))]],
    "large pictures": [[View(rgb=picture(0, 360, 640))]],
}


@pytest.mark.parametrize("name", INPUTS)
def test_every_kind_of_input_gives_a_whole_scene(model, name):
    sets = INPUTS[name]
    views = [view for one in sets for view in one]
    number = len(views)
    scene = predict(model, sets, street_config())
    height, width = scene.rgb.shape[1:3]
    assert max(height, width) == 48
    assert (height > width) == (name == "portrait")
    assert scene.rgb.shape == (number, height, width, 3)
    assert scene.rgb.dtype == np.uint8
    assert scene.camera_names == tuple(view.camera for view in views)
    assert scene.stamps == tuple(view.stamp for view in views)
    assert scene.set_index == tuple(i for i, one in enumerate(sets) for _ in one)
    assert scene.cameras.K.shape == (number, 3, 3)
    assert scene.cameras.world_from_cam.shape == (number, 4, 4)
    assert scene.observed.points_world.shape == (number, height, width, 3)
    assert scene.observed.confidence.shape == (number, height, width)
    assert scene.novel.points_cam.shape == (number, height, width, 3)
    assert scene.novel_cameras.world_from_cam.shape == (number, 4, 4)
    assert scene.world_from_rig.shape == (len(sets), 4, 4)
    assert scene.grid.probability.shape == scene.grid.completed.shape == (24, 32, 8)
    assert scene.grid.probability.dtype == np.int8
    assert scene.grid.occupied.any()
    assert scene.grid.free.any()
    assert list(scene.timings) == STAGES
    assert all(seconds > 0 for seconds in scene.timings.values())
    has_K = views[0].K is not None  # the small network sees the focal length of K
    assert scene.scale_source == ("camera_info" if has_K else "model")
    has_mounting = all(view.rig_from_cam is not None for view in views)
    assert scene.frame_source == ("extrinsics" if has_mounting else "assumed level")
    for tensor in (
        scene.observed.points_world,
        scene.cameras.world_from_cam,
        scene.grid_from_world,
    ):
        assert tensor.dtype == torch.float32
        assert torch.isfinite(tensor).all()


def cell(scene: Scene, x: float, y: float, z: float) -> int:
    """Probability at a point of the grid frame."""
    spec = scene.grid.spec
    ijk = np.floor((np.array([x, y, z]) - spec.origin) / spec.resolution).astype(int)
    return int(scene.grid.probability[tuple(ijk)])


@pytest.mark.parametrize("known", [{}, {"K": K}, CALIBRATED], ids=["nothing", "K", "all"])
def test_the_street_is_where_the_network_sees_it(model, known):
    """Ground 1.6 m below the camera, a wall 9 m ahead; the camera stands at the grid's origin."""
    scene = predict(model, sequence(1, **known), street_config(novel_views__steps=0))
    for y in (-2.2, 0.2, 2.2):
        assert cell(scene, 6.2, y, 0.0) >= 50, "no ground"
        assert cell(scene, 8.75, y, 1.6) >= 50, "no wall"
        assert cell(scene, 5.2, y, 1.3) in range(50), "no free space before the wall"
        assert cell(scene, 9.7, y, 1.3) == -1, "knows what is behind the wall"
    assert cell(scene, -1.0, 0.0, 1.0) == -1, "knows what is behind the camera"
    assert not scene.grid.completed.any()


def test_known_mountings_turn_what_cameras_see(model):
    scene = predict(model, [surround()], street_config(novel_views__steps=0))
    left, right = (scene.observed.points_world[view, 0, WIDTH // 2] for view in (1, 2))
    in_grid = rigid.apply(scene.grid_from_world, torch.stack((left, right)))
    assert in_grid[0, 1] > 5
    assert in_grid[1, 1] < -5


# --- calibration --------------------------------------------------------------------------------


def test_known_intrinsics_are_kept_and_points_lie_on_their_rays(model):
    scene = predict(model, sequence(2, K=K), street_config())
    torch.testing.assert_close(scene.cameras.K, torch.tensor(K).float().expand(2, 3, 3))
    pixels = camera.project(scene.cameras.K, scene.observed.points_cam.flatten(1, 2))
    grid = camera.pixel_grid(HEIGHT, WIDTH).flatten(0, 1).expand_as(pixels)
    torch.testing.assert_close(pixels, grid, rtol=0, atol=1e-3)


def test_unknown_intrinsics_are_estimated(model):
    scene = predict(model, sequence(2), street_config())
    focal = scene.cameras.K[0, 0, 0].item()
    assert focal == pytest.approx(0.8 * WIDTH, rel=0.1)
    expected = camera.pinhole(torch.tensor(focal), HEIGHT, WIDTH)
    torch.testing.assert_close(scene.cameras.K, expected.expand(2, 3, 3))


def test_known_mountings_are_kept(model):
    views = surround()
    scene = predict(model, [views], street_config())
    mountings = torch.stack([torch.from_numpy(view.rig_from_cam) for view in views])
    torch.testing.assert_close(scene.cameras.world_from_cam[0], torch.eye(4))
    rig_from_world = rigid.invert(scene.world_from_rig[0])
    found = rig_from_world @ scene.cameras.world_from_cam
    torch.testing.assert_close(found, mountings, rtol=0, atol=1e-5)
    torch.testing.assert_close(scene.grid_from_world, rig_from_world)


def test_an_unknown_mounting_is_assumed_level_at_the_given_height_and_pitch(model):
    changes = {"calibration__camera_height": 2.5, "calibration__camera_pitch_deg": 10.0}
    scene = predict(model, sequence(1), street_config(**changes))
    found = scene.grid_from_world @ scene.cameras.world_from_cam[0]
    torch.testing.assert_close(found, grid_from_reference(2.5, 10.0), rtol=0, atol=1e-4)


@pytest.mark.parametrize("anchor", ["newest", "oldest"])
def test_the_grid_stands_at_the_chosen_set(model, anchor):
    scene = predict(model, sequence(3, **CALIBRATED), street_config(window__anchor=anchor))
    rig = scene.world_from_rig[-1 if anchor == "newest" else 0]
    torch.testing.assert_close(scene.grid_from_world @ rig, torch.eye(4), rtol=0, atol=1e-5)


def test_calibration_off_ignores_what_is_given(model):
    config = street_config(calibration__use="off")
    given = predict(model, [surround()], config)
    bare = predict(model, [surround(calibrated=False)], config)
    assert given.frame_source == "assumed level"
    assert torch.equal(given.cameras.K, bare.cameras.K)
    np.testing.assert_array_equal(given.grid.probability, bare.grid.probability)


def test_one_camera_without_k_makes_all_estimated(model):
    views = surround()
    views[1] = dataclasses.replace(views[1], K=None)
    scene = predict(model, [views], street_config())
    torch.testing.assert_close(scene.cameras.K[0], scene.cameras.K[2])
    assert scene.cameras.K[0, 0, 2] == WIDTH / 2
    assert scene.frame_source == "extrinsics"


@pytest.mark.parametrize("missing", ["K", "rig_from_cam"])
def test_required_calibration_that_is_missing_is_named(model, missing):
    views = surround()
    views[1] = dataclasses.replace(views[1], **{missing: None})
    config = street_config(calibration__use="required")
    with pytest.raises(InputError, match=rf"view 1 \(left\) has no {missing},.*auto"):
        predict(model, [views], config)
    assert predict(model, [surround()], config).frame_source == "extrinsics"


# --- novel views --------------------------------------------------------------------------------


def test_rendering_in_chunks_changes_nothing(model):
    at_once = predict(model, [surround()], street_config(novel_views__steps=2))
    chunked = street_config(novel_views__steps=2, novel_views__chunk=1)
    one_by_one = predict(model, [surround()], chunked)
    assert at_once.novel.confidence.shape[0] == 6
    for name in ("points_world", "points_cam", "confidence"):
        torch.testing.assert_close(
            getattr(one_by_one.novel, name), getattr(at_once.novel, name), rtol=1e-4, atol=1e-4
        )
    torch.testing.assert_close(
        one_by_one.novel_cameras.world_from_cam, at_once.novel_cameras.world_from_cam
    )


def test_number_of_novel_views(model):
    config = street_config(novel_views__steps=2, novel_views__yaw_deg=30.0)
    scene = predict(model, [surround()], config)
    assert len(scene.novel.confidence) == 3 * 2 * 3
    limited = street_config(
        novel_views__steps=2, novel_views__yaw_deg=30.0, novel_views__max_views=5
    )
    scene = predict(model, [surround()], limited)
    assert len(scene.novel.confidence) == len(scene.novel_cameras.K) == 5


def test_novel_views_have_the_camera_of_the_view_they_belong_to(model):
    views = surround()
    views[2] = dataclasses.replace(views[2], K=K * [[0.5], [0.5], [1]])
    scene = predict(model, [views], street_config(novel_views__steps=2))
    expected = scene.cameras.K.repeat_interleave(2, dim=0)
    assert not torch.equal(expected[0], expected[5])
    assert torch.equal(scene.novel_cameras.K, expected)


def test_no_novel_views_where_none_are_wanted_or_possible(model):
    with_rendering = model.network.config.to_dict()
    config = NetworkConfig.from_dict(with_rendering | {"novel_view_encoder": None})
    plain_network = OccAnyNetwork(config).eval()
    weights = model.network.state_dict()
    plain_network.load_state_dict({k: weights[k] for k in plain_network.state_dict()})
    plain = Model(plain_network, model.card, model.device)
    without = predict(model, sequence(1), street_config(novel_views__steps=0))
    for scene in (without, predict(plain, sequence(1), street_config())):
        assert scene.novel is None
        assert scene.novel_cameras is None
        assert not scene.grid.completed.any()
    assert torch.equal(without.observed.points_world, scene.observed.points_world)


def test_rendered_cells_are_flagged_and_never_seen_ones(model):
    as_predicted = {"voxels__ground_tolerance": 0.0}
    seen = predict(model, [surround()], street_config(novel_views__steps=0, **as_predicted)).grid
    both = predict(model, [surround()], street_config(novel_views__steps=2, **as_predicted)).grid
    assert both.completed.any()
    assert (seen.probability[both.completed] == -1).all()
    unchanged = ~both.completed
    np.testing.assert_array_equal(both.probability[unchanged], seen.probability[unchanged])


# --- settings -----------------------------------------------------------------------------------


def test_a_higher_confidence_keeps_fewer_points(model):
    grid = predict(model, sequence(1), street_config(voxels__min_confidence=1e5)).grid
    assert not (grid.occupied & ~grid.completed).any()


def test_far_points_are_dropped(model):
    config = street_config(voxels__max_range=6.0, novel_views__steps=0)
    scene = predict(model, sequence(1, **CALIBRATED), config)
    assert np.linalg.norm(scene.grid.occupied_centres() - [0, 0, 1.6], axis=1).max() < 6.6


def test_published_voxels_are_never_free_where_seen(model):
    grid = predict(model, sequence(1), street_config(voxels__method="trilinear")).grid
    assert set(np.unique(grid.probability)) <= {-1, 0, 100}
    assert grid.occupied.any()


def test_pictures_may_be_larger_than_the_weights_were_trained_for(model):
    scene = predict(model, sequence(1), street_config(images__width=96))
    assert scene.rgb.shape[1:3] == (64, 96)


def test_the_same_pictures_give_the_same_scene(model):
    views = [surround()]
    before = [view.rgb.copy() for view in views[0]]
    one, other = predict(model, views, street_config()), predict(model, views, street_config())
    assert torch.equal(one.observed.points_world, other.observed.points_world)
    np.testing.assert_array_equal(one.grid.probability, other.grid.probability)
    for view, rgb in zip(views[0], before):
        np.testing.assert_array_equal(view.rgb, rgb)
    assert not one.observed.points_world.requires_grad


def test_default_settings_serve(model):
    assert predict(model, sequence(1)).grid.probability.shape == OccAnyConfig().voxels.shape


# --- what cannot work ---------------------------------------------------------------------------


def test_nothing_is_refused(model):
    with pytest.raises(InputError, match="at least one"):
        predict(model, [], street_config())
    with pytest.raises(InputError, match="at least one"):
        predict(model, [[]], street_config())


def test_view_sets_of_two_shapes_are_refused(model):
    sets = [[View(rgb=picture(0))], [View(rgb=picture(1, 48, 32))]]
    words = r"view set 1 \(unnamed camera, 32x48\) .* view set 0 \(unnamed camera, 48x32\); bring"
    with pytest.raises(InputError, match=words):
        predict(model, sets, street_config())


def test_what_is_no_model_view_sets_or_settings_is_refused_with_an_example(model):
    view = View(rgb=picture(0))
    example = re.escape("predict(model, [[View(rgb)]])")
    for wrong in (view, view.rgb, [view], [[view], view], [[view.rgb]], [None], None):
        with pytest.raises(InputError, match=example):
            predict(model, wrong, street_config())
    with pytest.raises(InputError, match="the model is str; give what `load_model` returns"):
        predict("default", [[view]])
    with pytest.raises(ConfigError, match=r"the config is dict; give .*from_flat\("):
        predict(model, [[view]], {"voxels.resolution": 0.2})


def test_a_prediction_without_geometry_is_refused():
    model = small_street_model()
    model.network.heads.points.out.bias.fill_(float("nan"))
    for sets in (sequence(2), sequence(2, K=K), sequence(2, **CALIBRATED)):
        with pytest.raises(DegenerateGeometryError):
            predict(model, sets, street_config())


# --- pixels to be ignored ------------------------------------------------------------------------


def lower_half() -> np.ndarray:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[HEIGHT // 2 :] = True
    return mask


def masked(views: list[View]) -> list[View]:
    return [dataclasses.replace(view, ignored=lower_half()) for view in views]


@pytest.mark.parametrize("method", ["cell", "trilinear"])
def test_ignored_pixels_give_no_points_and_no_rays(model, method):
    config = street_config(
        novel_views__steps=0, voxels__method=method, voxels__ground_tolerance=0.0
    )
    plain = predict(model, [surround()], config)
    scene = predict(model, [masked(surround())], config)
    below = scene.grid.spec.origin[2] + 0.5 * (1 + np.arange(8)) < 1.0
    # All of the ground is seen by the lower half of the pictures.
    assert plain.grid.occupied[:, :, below].sum() > 20
    assert not scene.grid.occupied[:, :, below].any()
    known = scene.grid.probability[:, :, below] >= 0
    assert known.sum() < 0.2 * (plain.grid.probability[:, :, below] >= 0).sum()
    assert scene.grid.occupied.any()
    assert (scene.observed.confidence[:, HEIGHT // 2 :] == 1).all()
    upper = slice(0, HEIGHT // 2)
    torch.testing.assert_close(
        scene.observed.confidence[:, upper], plain.observed.confidence[:, upper]
    )


def test_ignored_pixels_are_not_drawn_into_other_views_nor_labelled(model):
    config = street_config(voxels__ground_tolerance=0.0)
    plain = predict(model, [surround()], config)
    scene = predict(model, [masked(surround())], config)
    assert not torch.equal(scene.novel.points_cam, plain.novel.points_cam)
    assert scene.novel.points_cam.isfinite().all()
    labels = predict(probed_model(4), [masked(surround())], config).labels
    assert (labels[:, : HEIGHT // 2] == 4).all()
    assert (labels[:, HEIGHT // 2 :] == 255).all()


def test_some_sets_of_a_window_may_have_masks(model):
    first, second = sequence(2)
    scene = predict(model, [masked(first), second], street_config(window__view_sets=2))
    assert (scene.observed.confidence[0, HEIGHT // 2 :] == 1).all()
    assert (scene.observed.confidence[1] > 1).all()
