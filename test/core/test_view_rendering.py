# SPDX-License-Identifier: Apache-2.0
"""Views of a scene from where no camera was: they fit the scene, and nonsense is refused."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from street_views import (
    FRONT,
    K,
    probed_model,
    sequence,
    small_street_model,
    street_config,
    surround,
)

from occany_core import camera, rigid
from occany_core.checkpoints import Model
from occany_core.errors import InputError
from occany_core.network import OccAnyNetwork
from occany_core.observation import encode
from occany_core.pipeline import reconstruct
from occany_core.synthetic.classes import SemanticClass
from occany_core.view_rendering import WantedCamera, render_views

POSE = torch.from_numpy(FRONT)[None]


def scene_of(model, views, config):
    sets = [encode(model, views, config)]
    return sets, reconstruct(model, sets, config)


def test_the_novel_views_of_a_scene_are_rendered_again():
    """The same poses and intrinsics as view augmentation chose give the same depth."""
    model, config = small_street_model(), street_config()
    sets, scene = scene_of(model, surround(), config)
    poses = scene.grid_from_world @ scene.novel_cameras.world_from_cam
    rendered = render_views(model, sets, config, poses)
    torch.testing.assert_close(rendered.depth, scene.novel.points_cam[..., 2])
    torch.testing.assert_close(rendered.confidence, scene.novel.confidence)
    assert rendered.labels is None
    torch.testing.assert_close(rendered.camera.K, scene.cameras.K[0])


def test_rendered_views_are_in_the_metres_of_the_scene():
    """A corrected scale gives the novel views of the scene again, as far away as in the scene."""
    model = small_street_model()
    sets, plain = scene_of(model, surround(), street_config(scale__factor=1.0))
    config = street_config(scale__factor=1.5)
    scene = reconstruct(model, sets, config)
    assert scene.scale.factor == 1.5
    assert not torch.allclose(scene.novel.points_cam, plain.novel.points_cam, rtol=0.05)
    poses = scene.grid_from_world @ scene.novel_cameras.world_from_cam
    rendered = render_views(model, sets, config, poses)
    torch.testing.assert_close(rendered.depth, scene.novel.points_cam[..., 2])


def test_another_size_and_intrinsics_show_the_same_points():
    model, config = small_street_model(), street_config(novel_views__steps=0)
    sets, scene = scene_of(model, surround(), config)
    plain = render_views(model, sets, config, POSE)
    double = WantedCamera(camera.resize(scene.cameras.K[0], 2.0, 2.0), 64, 96)
    larger = render_views(model, sets, config, POSE, double)
    assert larger.depth.shape == larger.confidence.shape == (1, 64, 96)
    torch.testing.assert_close(larger.depth[:, ::2, ::2], plain.depth, rtol=1e-3, atol=1e-3)
    # A shift of the principal point moves what is seen by as many pixels.
    shifted = WantedCamera(scene.cameras.K[0].clone(), 32, 48)
    shifted.K[0, 2] += 6
    labels = [
        render_views(probed_model(SemanticClass.CAR), sets, config, POSE, one).labels
        for one in (None, shifted)
    ]
    seen = [one[0] == SemanticClass.CAR for one in labels]
    agrees = (seen[0][:, :-6] == seen[1][:, 6:]).float().mean()
    assert agrees > 0.99 > (seen[0][:, :-6] == seen[1][:, :-6]).float().mean()


def test_labels_are_those_of_the_observed_points_that_fall_on_a_pixel():
    model, config = probed_model(SemanticClass.CAR), street_config()
    sets, _ = scene_of(model, surround(), config)
    side = POSE.clone()
    side[0, 0, 3] -= 3.0  # three metres behind the camera
    rendered = render_views(model, sets, config, side)
    assert set(rendered.labels.unique().tolist()) == {SemanticClass.CAR, 255}
    off = render_views(model, sets, street_config(labels__use=False), side)
    assert off.labels is None
    torch.testing.assert_close(off.depth, rendered.depth)


def test_what_an_uncalibrated_sequence_knows_can_be_rendered():
    model, config = small_street_model(), street_config(window__view_sets=3)
    sets = [encode(model, one, config) for one in sequence(3)]
    rendered = render_views(model, sets, config, POSE)
    assert rendered.depth.shape == (1, 32, 48)
    assert rendered.depth.isfinite().all() and (rendered.confidence > 1).all()


def test_a_view_of_nothing_is_refused_with_its_place():
    model, config = small_street_model(), street_config()
    sets, _ = scene_of(model, sequence(1, K=K, rig_from_cam=FRONT)[0], config)
    far = POSE.clone()
    far[0, :3, 3] = torch.tensor([1000.0, 0.0, 1.6])
    with pytest.raises(InputError, match=r"view 1 at \(1000\.0, 0\.0, 1\.6\) m shows nothing"):
        render_views(model, sets, config, torch.cat((POSE, far)))
    behind = POSE @ rigid.yaw(torch.tensor(np.pi, dtype=torch.float32))
    with pytest.raises(InputError, match="turn it to where they look"):
        render_views(model, sets, config, behind)


@pytest.mark.parametrize(
    ("change", "size", "words"),
    [
        ({(0, 0): float("nan")}, (32, 48), "it must be finite"),
        ({(1, 1): -1.0}, (32, 48), "positive focal lengths"),
        ({(0, 1): 3.0}, (32, 48), "of the form fx 0 cx"),
        ({(0, 0): 1.0}, (32, 48), "a field of view of 175.2 x"),
        ({(0, 0): 1e5, (1, 1): 1e5}, (32, 48), "it must be 5 to 150"),
        ({(0, 2): 100.0}, (32, 48), "the principal point (100, 15.5) of K lies outside"),
        ({}, (32, 480), "its aspect may differ by a factor of 2"),
        ({}, (5000, 7500), "its sides must be 16 to 4096 px"),
        ({}, (0, 0), "its sides must be 16 to 4096 px"),
    ],
)
def test_absurd_cameras_are_refused_in_words(change, size, words):
    model, config = small_street_model(), street_config()
    sets, _ = scene_of(model, surround(), config)
    intrinsics = torch.from_numpy(K).float()
    for place, value in change.items():
        intrinsics[place] = value
    with pytest.raises(InputError) as refusal:
        render_views(model, sets, config, POSE, WantedCamera(intrinsics, *size))
    assert words in str(refusal.value)


def test_weights_that_render_nothing_say_so():
    plain = small_street_model()
    network = OccAnyNetwork(replace(plain.network.config, novel_view_encoder=None)).eval()
    model, config = Model(network, plain.card, plain.device), street_config()
    sets = [encode(model, surround(), config)]
    with pytest.raises(InputError, match="the weights small render no views; load others"):
        render_views(model, sets, config, POSE)
