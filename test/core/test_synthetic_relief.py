# SPDX-License-Identifier: Apache-2.0
"""Relief: slopes, kerbs, rays that meet them, and things that stand on them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from occany_core.synthetic.carriageways import FARTHEST
from occany_core.synthetic.classes import SemanticClass
from occany_core.synthetic.ground_rays import ground_depth
from occany_core.synthetic.primitives import Material
from occany_core.synthetic.relief import STEEPEST, STEEPEST_TILT, draw_relief, standing_frame
from occany_core.synthetic.renderer import render
from occany_core.synthetic.rigs import named_rig
from occany_core.synthetic.scene import Scene
from occany_core.synthetic.visibility import FARTHEST_GROUND
from occany_core.synthetic.world import StreetWorld

STEEP_SEED = 8
REACH = 300.0
seeds = st.integers(0, 10**6)
place = st.floats(-80, 250)


def relief_of(seed):
    return draw_relief(np.random.default_rng(seed))


@settings(max_examples=50, deadline=None)
@given(seeds, place, place)
def test_gradient_is_the_slope_of_the_height(seed, x, y):
    relief, step = relief_of(seed), 1e-3
    at = np.array([x]), np.array([y])
    rise_x, rise_y = relief.gradient(*at)
    along_x = relief.height(at[0] + step, at[1]) - relief.height(at[0] - step, at[1])
    along_y = relief.height(at[0], at[1] + step) - relief.height(at[0], at[1] - step)
    np.testing.assert_allclose([rise_x, rise_y], [along_x / 2e-3, along_y / 2e-3], atol=1e-5)
    assert np.hypot(rise_x, rise_y) <= relief.steepest() + 1e-9
    assert relief.steepest() <= np.hypot(STEEPEST, STEEPEST_TILT) + 1e-9


def test_worlds_are_flat_or_steep_and_most_have_kerbs():
    reliefs = [relief_of(seed) for seed in range(300)]
    flat = np.mean([relief.steepest() == 0 for relief in reliefs])
    assert 0.1 < flat < 0.4
    assert np.mean([relief.steepest() > 0.03 for relief in reliefs]) > 0.3
    kerbs = np.array([relief.kerb for relief in reliefs])
    assert 0.03 < (kerbs == 0).mean() < 0.25
    assert ((kerbs == 0) | ((kerbs >= 0.10) & (kerbs <= 0.16))).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 400), st.integers(0, 2**31))
def test_rays_end_on_the_first_ground_they_meet(seed, draw):
    ground = StreetWorld(seed).ground
    rng = np.random.default_rng(draw)
    start = np.array([rng.uniform(-20, 150), rng.uniform(-20, 20), 0.0])
    x, y = torch.tensor(start[:2, None]).float()
    start[2] = float(ground.height(x, y)) + rng.uniform(0.5, 4)
    directions = rng.normal(0, 1, (64, 3)) * [1, 1, 0.12]
    origins = tuple(torch.tensor([[part]]).float() for part in start)
    rays = tuple(torch.tensor(directions.T[:, None]).float())
    depth = ground_depth(ground, origins, rays, FARTHEST_GROUND)[0]

    length = torch.linalg.norm(torch.tensor(directions).float()[:, :2], dim=-1)
    ends = torch.minimum(depth, (REACH / length).clamp(max=FARTHEST_GROUND))
    shares = torch.linspace(0.002, 0.998, 400)[:, None] * ends
    points = [(o + shares * r[0]).reshape(-1) for o, r in zip(origins, rays)]
    above = points[2] - ground.height(points[0], points[1])
    # Nothing on the way lies below the ground, except for slivers of kerb far away.
    assert (above < -0.01).float().mean() < 1e-3
    assert above.min() > -0.17
    met = torch.isfinite(depth)
    x, y, z = ((o + depth * r)[0, met] for o, r in zip(origins, rays))
    level = ground.relief.height(x, y)
    on_top = (z - ground.height(x, y)).abs() < 0.01
    on_face = (ground.edges.at(x, y).abs() < 0.02) & (z > level - 0.01)
    assert (on_top | on_face & (z < level + ground.relief.kerb + 0.01)).all()


def test_the_map_of_edges_agrees_with_the_roads():
    world = StreetWorld(STEEP_SEED)
    rng = np.random.default_rng(0)
    points = rng.uniform([-60, -60], [180, 60], (4000, 2))
    expected = np.min([road.distance(points) - road.half_width for road in world.roads], 0)
    points = torch.tensor(points).float()
    found = world.ground.edges.at(points[:, 0], points[:, 1]).numpy()
    near = np.abs(expected) < 5
    assert np.quantile(np.abs(found - expected)[near], 0.98) < 0.1
    assert (found[expected > FARTHEST + 2] >= FARTHEST - 1e-3).all()


def test_wheels_stand_on_the_ground_while_they_drive():
    world = StreetWorld(STEEP_SEED)
    wheels = world.primitives.material == int(Material.WHEEL)
    for second in (0.0, 1.5):
        center, _ = world.placed_at(second)
        x, y, _ = torch.from_numpy(np.ascontiguousarray(center[wheels].T))
        lowest = center[wheels, 2] - world.primitives.half_extent[wheels, 2]
        gap = lowest - world.ground.relief.height(x, y).numpy()
        gap = np.minimum(np.abs(gap), np.abs(gap - world.ground.relief.kerb))
        assert gap.max() < 0.02


def test_scene_and_world_place_bodies_alike():
    world = StreetWorld(STEEP_SEED)
    centers, shears = Scene(world).placed_at(torch.tensor([0.0, 1.5]))
    expected = world.placed_at(1.5)
    np.testing.assert_allclose(centers[1], expected[0], atol=1e-3)
    np.testing.assert_allclose(shears[1], expected[1], atol=1e-5)
    assert not torch.equal(centers[0], centers[1])


def test_standing_frame_is_rigid_and_looks_along_the_heading():
    relief = relief_of(STEEP_SEED)
    frame = standing_frame(relief, 30.0, 4.0, 0.7)
    np.testing.assert_allclose(frame[:3, :3] @ frame[:3, :3].T, np.eye(3), atol=1e-12)
    assert np.arctan2(frame[1, 0], frame[0, 0]) == pytest.approx(0.7)
    assert np.linalg.det(frame[:3, :3]) == pytest.approx(1)


def test_kerb_faces_look_at_the_road_and_count_as_sidewalk():
    world = StreetWorld(STEEP_SEED)
    camera = named_rig("surround6", 256, 144)[1]
    pose = world.ego_poses([0.0])[0] @ camera.rig_from_cam
    world_from_cam = torch.tensor(pose)[None].float()
    K = torch.tensor(camera.K)[None].float()
    frames = render(Scene(world), K, world_from_cam, torch.zeros(1), 144, 256)
    faces = (frames.normal[0, ..., 2].abs() < 0.01) & (frames.instance[0] == 0)
    faces &= torch.isfinite(frames.depth[0])
    assert faces.sum() > 50
    assert (frames.semantics[0][faces] == int(SemanticClass.SIDEWALK)).all()
    facing = (frames.normal[0] * frames.rays[0]).sum(-1)[faces]
    assert (facing < 0.05).all()
