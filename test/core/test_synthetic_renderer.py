# SPDX-License-Identifier: Apache-2.0
"""The ray caster against brute force, between views, and against stored pictures."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from occany_core.synthetic.classes import SemanticClass
from occany_core.synthetic.ground_rays import ground_depth
from occany_core.synthetic.intersections import NEAR, in_body_axes, intersect
from occany_core.synthetic.primitives import Shape
from occany_core.synthetic.ragged import expand_ranges, expand_rectangles
from occany_core.synthetic.renderer import render
from occany_core.synthetic.rigs import named_rig
from occany_core.synthetic.scene import Scene
from occany_core.synthetic.visibility import FARTHEST_GROUND, FARTHEST_PRIMITIVE, SKY, cast
from occany_core.synthetic.world import StreetWorld

GOLDEN = Path(__file__).resolve().parents[1] / "golden/synthetic_street_7.npz"
WIDTH, HEIGHT = 64, 40


def surround(world, second=0.0, width=WIDTH, height=HEIGHT):
    """K, world_from_cam and seconds of the six cameras at one moment."""
    rig = named_rig("surround6", width, height)
    world_from_rig = world.ego_poses([second])[0]
    poses = np.stack([world_from_rig @ camera.rig_from_cam for camera in rig])
    K = torch.tensor(np.stack([camera.K for camera in rig])).float()
    return K, torch.tensor(poses).float(), torch.full((6,), second)


def brute_force_depth(scene, seen, world_from_cam):
    """Depth by testing every ray against every primitive, one primitive at a time."""
    origins, rays = world_from_cam[:, :3, 3], seen.rays
    start = tuple(part[:, None] for part in origins.unbind(-1))
    flat = tuple(part.reshape(len(origins), -1) for part in rays.unbind(-1))
    depth = ground_depth(scene.ground, start, flat, FARTHEST_GROUND).view(seen.depth.shape)
    for p in range(len(scene)):
        for frame, origin in enumerate(origins):
            offset = origin - seen.centers[frame, p]
            if (offset[:2] ** 2).sum() >= FARTHEST_PRIMITIVE**2:
                continue
            turn, shear = (scene.cos[p], scene.sin[p]), seen.shears[frame, p].unbind()
            hit = intersect(
                Shape(int(scene.shape[p])),
                scene.half_extent[p].unbind(),
                in_body_axes(offset.unbind(), turn, shear),
                in_body_axes(rays[frame].unbind(-1), turn, shear),
                bool(scene.pierced[p]),
            )
            depth[frame] = torch.minimum(depth[frame], hit)
    return depth


@pytest.mark.parametrize(("seed", "second"), [(0, 0.0), (5, 1.5)])
def test_tile_lists_equal_brute_force(seed, second):
    world = StreetWorld(seed)
    scene = Scene(world)
    K, world_from_cam, seconds = surround(world, second)
    seen = cast(scene, K, world_from_cam, seconds, HEIGHT, WIDTH)
    expected = brute_force_depth(scene, seen, world_from_cam)
    # Holes are drawn from a hash: on a border between two clumps rounding decides.
    same = (seen.depth == expected) | ((seen.depth - expected).abs() < 1e-5 * (1 + expected))
    assert same.float().mean() > 0.9995


def test_cast_handles_sizes_that_are_no_multiple_of_a_tile():
    world = StreetWorld(2)
    scene = Scene(world)
    K, world_from_cam, seconds = surround(world)
    whole = cast(scene, K, world_from_cam, seconds, HEIGHT, WIDTH)
    part = cast(scene, K, world_from_cam, seconds, 37, 51)
    assert part.depth.shape == (6, 37, 51)
    torch.testing.assert_close(part.depth, whole.depth[:, :37, :51])
    assert torch.equal(part.primitive, whole.primitive[:, :37, :51])


def test_static_points_reproject_into_the_next_view():
    world = StreetWorld(104)
    scene = Scene(world)
    scene.velocity.zero_()
    camera = named_rig("front", 256, 144)[0]
    poses = world.ego_poses([0.0, 0.5], speed=6.0) @ camera.rig_from_cam
    world_from_cam = torch.tensor(poses).float()
    K = torch.tensor(camera.K).float().expand(2, 3, 3)
    seen = cast(scene, K, world_from_cam, torch.tensor([0.0, 0.5]), 144, 256)

    known = torch.isfinite(seen.depth[0])
    points = world_from_cam[0, :3, 3] + (seen.depth[0][..., None] * seen.rays[0])[known]
    second_from_world = torch.linalg.inv(world_from_cam[1])
    in_second = points @ second_from_world[:3, :3].T + second_from_world[:3, 3]
    in_second = in_second[in_second[:, 2] > 0.5]
    pixel = in_second @ K[1].T
    u, v = (pixel[:, :2] / pixel[:, 2:]).round().long().unbind(-1)
    inside = (u >= 0) & (u < 256) & (v >= 0) & (v < 144)
    depth = torch.nan_to_num(seen.depth[1], posinf=1e4)[None]
    nearest = -torch.nn.functional.max_pool2d(-depth, 3, 1, 1)[0, v[inside], u[inside]]
    farthest = torch.nn.functional.max_pool2d(depth, 3, 1, 1)[0, v[inside], u[inside]]
    expected = in_second[inside, 2]
    agrees = (expected > 0.97 * nearest) & (expected < 1.03 * farthest)
    assert inside.float().mean() > 0.5
    assert agrees.float().mean() > 0.93  # the rest is hidden in the second view
    assert (expected < 0.97 * nearest).float().mean() < 0.005  # nothing that was seen vanishes


def test_pixels_name_what_they_show():
    world = StreetWorld(7)
    scene = Scene(world)
    frames = render(scene, *surround(world), HEIGHT, WIDTH)
    sky = torch.isinf(frames.depth)
    assert ((frames.semantics == int(SemanticClass.FREE)) == sky).all()
    assert (frames.instance[sky] == 0).all()
    length = frames.normal.norm(dim=-1)
    torch.testing.assert_close(length[~sky], torch.ones_like(length[~sky]))
    facing = (frames.normal * frames.rays).sum(-1)
    on_boxes = frames.semantics == int(SemanticClass.MANMADE)
    assert (facing[on_boxes] < 0).float().mean() > 0.95
    assert ((frames.rgb >= 0) & (frames.rgb <= 1)).all()
    assert frames.rgb_uint8().dtype == torch.uint8


def test_movers_move_and_the_street_stays():
    world = StreetWorld(7)
    scene = Scene(world)
    K, world_from_cam, seconds = surround(world)
    now = cast(scene, K, world_from_cam, seconds, HEIGHT, WIDTH)
    later = cast(scene, K, world_from_cam, seconds + 1.0, HEIGHT, WIDTH)
    changed = now.depth != later.depth
    assert 0 < changed.float().mean() < 0.5
    moving = torch.cat([scene.velocity.norm(dim=-1) > 0, torch.tensor([False, False])])
    involved = moving[now.primitive] | moving[later.primitive]
    assert involved[changed].all()


def test_stored_pictures_are_reproduced():
    world = StreetWorld(7)
    frames = render(Scene(world), *surround(world), HEIGHT, WIDTH)
    with np.load(GOLDEN) as golden:
        rgb, depth = golden["rgb"].astype(int), golden["depth"].astype(float)
        semantics = golden["semantics"]
    difference = np.abs(frames.rgb_uint8().numpy().astype(int) - rgb)
    assert (difference <= 3).mean() > 0.99
    ours = torch.nan_to_num(frames.depth, posinf=0.0).numpy()
    assert (np.abs(ours - depth) <= 1e-3 * depth + 1e-3).mean() > 0.995
    assert (frames.semantics.numpy() == semantics).mean() > 0.995


def test_noise_seed_changes_noise_only():
    world = StreetWorld(3)
    scene = Scene(world)
    first = render(scene, *surround(world), HEIGHT, WIDTH, noise_seed=0)
    again = render(scene, *surround(world), HEIGHT, WIDTH, noise_seed=0)
    other = render(scene, *surround(world), HEIGHT, WIDTH, noise_seed=1)
    assert torch.equal(first.rgb, again.rgb)
    assert not torch.equal(first.rgb, other.rgb)
    assert (first.rgb - other.rgb).abs().mean() < 0.05
    assert torch.equal(first.depth, other.depth)


def test_a_camera_may_see_only_sky():
    world = StreetWorld(3)
    scene = Scene(world)
    upwards = torch.eye(4)[None].clone()
    upwards[0, :3, :3] = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
    upwards[0, 2, 3] = 500.0
    K = torch.tensor([[[60.0, 0, 31.5], [0, 60, 19.5], [0, 0, 1]]])
    frames = render(scene, K, upwards, torch.zeros(1), HEIGHT, WIDTH)
    assert torch.isinf(frames.depth).all()
    assert (frames.semantics == int(SemanticClass.FREE)).all()
    assert (cast(scene, K, upwards, torch.zeros(1), HEIGHT, WIDTH).primitive == SKY).all()


axis = st.floats(-3, 3, width=32)


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(list(Shape)), st.tuples(axis, axis, axis), st.tuples(axis, axis, axis))
def test_hits_lie_on_the_surface(shape, origin, ray):
    half_extent = torch.tensor([1.0, 0.5, 0.75])
    start, direction = torch.tensor(origin), torch.tensor(ray)
    if direction.norm() < 0.1:
        return
    t = intersect(shape, half_extent.unbind(), start.unbind(), direction.unbind())
    if not torch.isfinite(t):
        return
    assert t > NEAR
    reach = ((start + t * direction) / half_extent).abs()
    level = {
        Shape.BOX: reach.max(),
        Shape.ELLIPSOID: reach.norm(),
        Shape.CYLINDER: torch.maximum(reach[:2].norm(), reach[2]),
    }[shape]
    assert float(level) == pytest.approx(1.0, abs=2e-2)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 5), max_size=8))
def test_ranges_expand_like_loops(counts):
    owner, index = expand_ranges(torch.tensor(counts, dtype=torch.long))
    expected = [(n, i) for n, count in enumerate(counts) for i in range(count)]
    assert list(zip(owner.tolist(), index.tolist())) == expected


def test_rectangles_expand_like_loops():
    low = torch.tensor([[0, 0], [3, 2], [5, 5]])
    high = torch.tensor([[1, 2], [3, 2], [4, 9]])  # the last one is empty
    owner, x, y = expand_rectangles(low, high)
    expected = [(0, i, j) for j in range(3) for i in range(2)] + [(1, 3, 2)]
    assert list(zip(owner.tolist(), x.tolist(), y.tolist())) == expected
