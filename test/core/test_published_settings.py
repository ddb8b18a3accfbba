# SPDX-License-Identifier: Apache-2.0
"""With the published settings, the whole pipeline is the published chain, step by step."""

from pathlib import Path

import numpy as np
import pytest
import torch
from street_views import picture, small_street_model

from occany_core import View, predict
from occany_core.config import from_flat, load_config
from occany_core.images import prepare
from occany_core.novel_views import propose_views
from occany_core.poses import estimate_cameras
from occany_core.projection import project_points, source_features
from occany_core.voxels import VoxelGridSpec, mark_trilinear

PUBLISHED = Path(__file__).resolve().parents[2] / "examples" / "published.yaml"
VOXEL_FROM_CAM = torch.tensor([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]])


def published_chain(model, pictures: list[np.ndarray], config) -> np.ndarray:
    """Encoder, memory, second pass, registration, view augmentation, rendering, voxels."""
    network = model.network
    images = prepare([View(rgb) for rgb in pictures], network.config.picture_width).images[None]
    tokens = network.encode(images)
    memory, _ = network.update_memory_online(tokens)
    seen = network.render(tokens, memory)
    cameras = estimate_cameras(seen.points_world[0], seen.points_cam[0], seen.confidence[0])
    poses = propose_views(cameras.world_from_cam, config.novel_views).world_from_cam
    features = source_features(images, seen.confidence, seen.segmentation)
    K = cameras.K[:1].expand(len(poses), 3, 3)
    projected = project_points(seen.points_world, features, K[None], poses[None])
    novel = network.render_novel(network.tokenize(projected), tokens, memory)
    points = torch.cat(
        [
            maps.points_world[maps.confidence > threshold]
            for maps, threshold in (
                (seen, config.voxels.min_confidence),
                (novel, config.voxels.min_confidence_novel),
            )
        ]
    )
    spec = VoxelGridSpec.of(config.voxels)
    return mark_trilinear(points @ VOXEL_FROM_CAM.T, spec).numpy()


@pytest.mark.parametrize("number", [1, 3])
@torch.inference_mode()
def test_pipeline_with_published_settings(number):
    model = small_street_model()
    config = load_config(PUBLISHED)
    pictures = [picture(seed) for seed in range(number)]
    expected = published_chain(model, pictures, config)
    scene = predict(model, [[View(rgb)] for rgb in pictures], config)
    assert len(scene.novel_cameras.K) == 6 * number
    assert expected.sum() > 100
    np.testing.assert_array_equal(scene.grid.occupied, expected)


@pytest.mark.parametrize("thresholds", [(1.5, 1.5), (2.0, 8.0), (8.5, 1.1)])
def test_any_pair_of_thresholds_from_one_run(thresholds):
    """Spec 7 and 8: filtering first, or asking the highest confidence afterwards, is the same."""
    model, published = small_street_model(), load_config(PUBLISHED)
    published = from_flat({"novel_views.chunk": 2, "novel_views.keep_points": False}, published)
    sets = [[View(rgb=picture(seed))] for seed in range(2)]
    once = predict(model, sets, published)
    names = ("voxels.min_confidence", "voxels.min_confidence_novel")
    again = predict(model, sets, from_flat(dict(zip(names, thresholds)), published))
    assert once.novel is None
    np.testing.assert_array_equal(
        once.highest_confidence.occupied(*thresholds), again.grid.occupied
    )


def test_every_published_line_matters():
    """Any setting left at its default gives another grid, or is the default."""
    model, pictures = small_street_model(), [picture(seed) for seed in range(2)]
    published = load_config(PUBLISHED)
    sets = [[View(rgb)] for rgb in pictures]
    grid = predict(model, sets, published).grid
    for change in (
        {"calibration.camera_height": 1.6},
        {"voxels.method": "cell"},
        {"voxels.ground_tolerance": 0.6, "calibration.camera_height": 1.6},
        {"voxels.carve_free": True},
        {"novel_views.yaw_deg": 0.0, "novel_views.forward_step": -3.0},
        {"voxels.min_confidence": 1e9},
    ):
        other = predict(model, sets, from_flat(change, published)).grid
        assert not np.array_equal(other.probability, grid.probability), change
