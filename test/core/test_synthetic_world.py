# SPDX-License-Identifier: Apache-2.0
"""A seed names one world: layout, instances, ego path, and what a primitive may be."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from occany_core.errors import ConfigError
from occany_core.synthetic.classes import SemanticClass
from occany_core.synthetic.lean import MOST_DEG, ROCKING_DEG, draw_lean
from occany_core.synthetic.primitives import Material, PrimitiveBuilder, Shape
from occany_core.synthetic.rigs import (
    RIG_NAMES,
    jittered_surround,
    mounted_camera,
    named_rig,
    novel_view_pose,
)
from occany_core.synthetic.street_filling import EGO_START
from occany_core.synthetic.world import StreetWorld

MOST_LEAN_DEG = 1.5 * (MOST_DEG + ROCKING_DEG)
"""More than pitch and roll at their ends together."""
GOLDEN = Path(__file__).resolve().parents[1] / "golden/synthetic_street_7.npz"
LAYOUT_HASHES = {
    0: "5ca8d87a7a42728b",
    1: "5c2d025da8dac4b2",
    7: "a40ffc2fb2dcc3df",
    1000000: "be2dbde3da9a75fa",
    2000015: "63a0726237c32bb2",
}


def layout_hash(seed):
    """Hash of everything that is a whole number, free of rounding."""
    primitives = StreetWorld(seed).primitives
    digest = hashlib.sha256()
    for field in (
        primitives.shape,
        primitives.material,
        primitives.semantics,
        primitives.instance,
    ):
        digest.update(field.astype("<i8").tobytes())
    return digest.hexdigest()[:16]


def test_seed_fixes_the_layout():
    assert {seed: layout_hash(seed) for seed in LAYOUT_HASHES} == LAYOUT_HASHES


def test_seed_fixes_every_position_and_colour():
    primitives = StreetWorld(7).primitives
    with np.load(GOLDEN) as golden:
        for field in ("center", "half_extent", "color", "velocity"):
            stored = golden[field]
            np.testing.assert_allclose(getattr(primitives, field), stored, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("seed", [0, 11, 1_000_003])
def test_worlds_are_sound(seed):
    world = StreetWorld(seed)
    primitives = world.primitives
    assert 100 < len(primitives) < 5000
    assert np.isfinite(primitives.center).all()
    assert (primitives.half_extent > 0).all()
    assert set(primitives.shape.tolist()) <= {int(shape) for shape in Shape}
    assert set(primitives.material.tolist()) <= {int(material) for material in Material}
    assert set(primitives.semantics.tolist()) <= {int(label) for label in SemanticClass}
    assert primitives.semantics.max() < SemanticClass.FREE
    assert ((primitives.variation >= 0) & (primitives.variation < 1)).all()
    same = primitives.instance[1:] == primitives.instance[:-1]
    assert (np.diff(primitives.instance) >= 0).all()
    assert (primitives.semantics[1:][same] == primitives.semantics[:-1][same]).all()


def test_buildings_stand_beside_the_roads():
    world = StreetWorld(3)
    primitives = world.primitives
    facades = primitives.center[primitives.material == int(Material.FACADE)][:, :2]
    assert len(facades) > 5
    for road in world.roads:
        assert (road.distance(facades) > road.half_width).all()


def test_bodies_move_with_constant_velocity():
    primitives = StreetWorld(1).primitives
    moved = primitives.centers_at(2.0) - primitives.center
    np.testing.assert_allclose(moved[:, :2], 2 * primitives.velocity, atol=1e-4)
    assert (moved[:, 2] == 0).all()
    assert (np.abs(moved[:, :2]).max(-1) > 1).any()


def test_vehicles_lean_and_rock_a_little():
    leans = [draw_lean(np.random.default_rng(seed)) for seed in range(300)]
    ups = np.stack([lean.at(0.0)[:3, 2] for lean in leans])
    degrees = np.degrees(np.arccos(ups[:, 2]))
    assert degrees.max() < MOST_LEAN_DEG
    assert 0.4 < np.median(degrees) < 1.0
    np.testing.assert_allclose(ups.mean(0)[:2], 0, atol=0.002)  # to all sides alike
    still = leans[0].at(0.3)
    np.testing.assert_allclose(leans[0].at(0.3 + leans[0].period), still, atol=1e-12)
    assert not np.allclose(leans[0].at(0.3 + leans[0].period / 2), still)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.floats(0, 12), st.floats(0, 4))
def test_ego_stands_on_the_right_lane_along_the_slope(seed, speed, second):
    world = StreetWorld(seed)
    first, later = world.ego_poses([0.0, second], speed=speed)
    road = world.roads[0]
    for pose in (first, later):
        np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-12)
        x, y = torch.tensor(pose[:2, 3:]).float()
        assert pose[2, 3] == pytest.approx(float(world.ground.height(x, y)), abs=1e-3)
        rise = np.array([float(part) for part in world.ground.relief.gradient(x, y)])
        normal = np.array([*-rise, 1]) / np.linalg.norm([*-rise, 1])
        assert np.degrees(np.arccos(normal @ pose[:3, 2])) < MOST_LEAN_DEG
        assert road.distance(pose[:2, 3]) < road.half_width
    start, heading = road.at(EGO_START)
    right = np.array([np.sin(heading), -np.cos(heading)])
    assert (first[:2, 3] - start) @ right > 0
    travelled = np.linalg.norm(later[:2, 3] - first[:2, 3])
    assert travelled <= speed * second * 1.1 + 0.5


def test_rigs_look_where_their_names_say():
    cameras = {camera.name: camera for camera in named_rig("surround6", 256, 144)}
    assert [camera.name for camera in named_rig("front", 256, 144)] == ["front"]
    assert len(cameras) == 6
    for name, camera in cameras.items():
        forward, down = camera.rig_from_cam[:3, 2], camera.rig_from_cam[:3, 1]
        np.testing.assert_allclose(np.linalg.det(camera.rig_from_cam[:3, :3]), 1)
        assert down[2] == pytest.approx(-1)
        if "left" in name:
            assert forward[1] > 0.5
        if "right" in name:
            assert forward[1] < -0.5
        assert (forward[0] > 0) == name.startswith("front")
        assert camera.K[0, 2] == 127.5
        assert camera.K[1, 2] == 71.5


def test_unknown_rig_is_refused_with_the_choices():
    with pytest.raises(ConfigError, match=", ".join(RIG_NAMES)):
        named_rig("surround9", 256, 144)


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_drawn_cameras_are_rigid_and_moved_ahead(seed):
    rng = np.random.default_rng(seed)
    for camera in jittered_surround(rng, 192, 112):
        pose = camera.rig_from_cam
        np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-12)
        moved = np.linalg.inv(pose) @ novel_view_pose(pose, rng)
        assert 0.5 <= moved[2, 3] <= 9
        assert abs(moved[0, 3]) <= 2
        assert moved[1, 3] == pytest.approx(0, abs=1e-9)


def test_field_of_view_spans_the_picture():
    camera = mounted_camera("front", 0, 90, (0, 0, 1), 0, (200, 100))
    half_width = (199.5 - camera.K[0, 2]) / camera.K[0, 0]
    assert half_width == pytest.approx(1.0)  # tan 45 degrees at the outer edge


def test_builder_keeps_fields_apart():
    builder = PrimitiveBuilder(np.random.default_rng(0))
    instance = builder.new_instance()
    builder.add(
        Shape.CYLINDER,
        (1, 2, 3),
        (4, 5, 6),
        0.5,
        Material.BARK,
        SemanticClass.VEGETATION,
        instance,
        (0.1, 0.2, 0.3),
        velocity=(7, 8),
        pattern=(9, 10, 11, 12),
    )
    primitives = builder.pack()
    assert primitives.center.tolist() == [[1, 2, 3]]
    assert primitives.half_extent.tolist() == [[4, 5, 6]]
    assert primitives.yaw.tolist() == [0.5]
    assert primitives.velocity.tolist() == [[7, 8]]
    assert primitives.pattern.tolist() == [[9, 10, 11, 12]]
    assert primitives.instance.tolist() == [1]
    np.testing.assert_array_equal(primitives.color, primitives.second_color)
