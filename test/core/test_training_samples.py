# SPDX-License-Identifier: Apache-2.0
"""Samples for training: packed worlds match the rendered ones, also mirrored and drawn again;
pools are bounded, survive bad samples, and workers fill them."""

import dataclasses
import time

import numpy as np
import pytest
import torch
from training_worlds import (
    ALL_VIEWS,
    CPU,
    HEIGHT,
    PICTURES,
    WIDTH,
    no_world,
    pack,
    pool,
    recipe,
    rendering,
    samples,
    stage,
    stored_world,
)

from occany_core import camera, rigid
from occany_core.errors import InputError
from occany_core.images import fit
from occany_core.projection import project_points, source_features
from occany_core.training.batches import BatchSampler, Turn, points_on_rays
from occany_core.training.error_budget import ErrorBudget
from occany_core.training.novel_pictures import draw_points
from occany_core.training.pack import Pack, read_shard, shard_folders, write_shard
from occany_core.training.pool import Pool
from occany_core.training.recipe import Draw
from occany_core.training.supply import Supply
from occany_core.training.views import FRONT, SURROUND
from occany_core.training.workers import RenderWorkers, ShardJob, render_all

BLOCK = 4


# --- packs --------------------------------------------------------------------------------------


def part(of: Pack, picked) -> Pack:
    return Pack(**{name: array[picked] for name, array in of.parts().items()})


@pytest.mark.parametrize("with_labels", [False, True])
def test_shards_round_trip(with_labels, tmp_path):
    written = pack(with_labels=with_labels)
    write_shard(written, tmp_path / "shard_000003")
    (tmp_path / ".shard_000004").mkdir()  # an interrupted one
    assert [shard.name for shard in shard_folders(tmp_path)] == ["shard_000003"]
    found = read_shard(tmp_path / "shard_000003")
    assert found.parts().keys() == written.parts().keys()
    for name, array in written.parts().items():
        np.testing.assert_array_equal(getattr(found, name), array, err_msg=name)


@pytest.mark.parametrize("block", [1, 4])
def test_shapes_and_types(block):
    rows, columns = HEIGHT // block, WIDTH // block
    expected = {
        "rgb": ((4, PICTURES, HEIGHT, WIDTH, 3), np.uint8),
        "depth": ((4, ALL_VIEWS, rows, columns), np.float16),
        "rays": ((4, ALL_VIEWS, rows, columns, 2), np.float16),
        "focal_px": ((4, ALL_VIEWS), np.float32),
        "reference_from_cam": ((4, ALL_VIEWS, 4, 4), np.float32),
        "rig_from_cam": ((4, PICTURES, 4, 4), np.float32),
        "semantics": ((4, PICTURES, HEIGHT // 2, WIDTH // 2), np.uint8),
        "instance": ((4, PICTURES, HEIGHT // 2, WIDTH // 2), np.uint8),
        "normal": ((4, PICTURES, HEIGHT // 2, WIDTH // 2, 3), np.int8),
        "centres": ((4, PICTURES, 256, 3), np.float16),
    }
    parts = pack(block, with_labels=True).parts()
    found = {name: (array.shape, array.dtype) for name, array in parts.items()}
    assert found == expected


@pytest.mark.parametrize("block", [1, 4])
def test_packed_depth_and_rays_belong_to_the_pixels_they_stand_for(block):
    for index, sample in enumerate(samples()):
        picture, scale, left, top = fit(sample.rgb[0], HEIGHT, WIDTH)
        np.testing.assert_array_equal(pack(block).rgb[index, 0], picture)
        K = torch.from_numpy(sample.K)
        rays = torch.from_numpy(pack(block).rays[index]).float()
        points = points_on_rays(rays, torch.ones(rays.shape[:-1])).flatten(1, 2)
        # In the rendered picture: on whole pixels, with their depth.
        pixels = camera.project(K, points)
        columns, rows = pixels.round().long().unbind(-1)
        torch.testing.assert_close(pixels, pixels.round(), rtol=0, atol=0.1)
        view = np.arange(ALL_VIEWS)[:, None]
        depth = sample.depth[view, rows.numpy(), columns.numpy()]
        np.testing.assert_array_equal(depth, pack(block).depth[index].reshape(ALL_VIEWS, -1))
        # In the packed picture: at the centres of blocks, to half a rendered pixel.
        fitted = camera.project(camera.crop(camera.resize(K, scale, scale), left, top), points)
        grid = camera.pixel_grid(HEIGHT // block, WIDTH // block).flatten(0, 1)
        centres = grid * block + (block - 1) / 2
        assert (fitted - centres).abs().max() <= scale / 2 + 0.1
        np.testing.assert_allclose(pack(block).focal_px[index], sample.K[:, 0, 0] * scale)


def test_a_damaged_shard_is_refused_and_named(tmp_path):
    write_shard(pack(), tmp_path / "shard_000000")
    (tmp_path / "shard_000000" / "depth.npy").write_bytes(b"\x93NUMPY broken")
    with pytest.raises(InputError, match=r"shard_000000.*delete"):
        read_shard(tmp_path / "shard_000000")


# --- pools --------------------------------------------------------------------------------------


def spoilt(count: int) -> Pack:
    """The pack with the poses of the first samples broken."""
    poses = pack().reference_from_cam.copy()
    poses[:count, 3, 0, 0] = np.nan
    return dataclasses.replace(pack(), reference_from_cam=poses)


def test_a_full_pool_gives_up_its_oldest_samples():
    small = Pool(3, CPU, ErrorBudget(0))
    small.add(part(pack(), slice(0, 2)))
    assert len(small) == 2
    small.add(part(pack(), slice(2, 4)))
    assert len(small) == 3
    order = [3, 1, 2]
    np.testing.assert_array_equal(small.parts["rgb"].numpy(), pack().rgb[order])


def test_bad_samples_are_left_out_and_counted():
    forgiving = Pool(8, CPU, ErrorBudget(3))
    forgiving.add(spoilt(2))
    assert len(forgiving) == 2
    assert forgiving.budget.spent == 2
    np.testing.assert_array_equal(forgiving.parts["rgb"][:2].numpy(), pack().rgb[2:])
    with pytest.raises(InputError, match=r"4 faults, more than the 3 .* samples 0, 1 hold"):
        forgiving.add(spoilt(2))


def test_damaged_shards_cost_budget_too(tmp_path):
    write_shard(pack(), tmp_path / "shard_000000")
    (tmp_path / "shard_000001").mkdir()
    reading = Pool(8, CPU, ErrorBudget(1))
    assert reading.read_folder(tmp_path) == 2
    assert (len(reading), reading.budget.spent) == (4, 1)
    assert reading.read_folder(tmp_path) == 0, "known shards are not read again"


def test_samples_of_another_size_are_refused():
    filled = pool()
    with pytest.raises(InputError, match="depth of shape"):
        filled.add(pack(block=1))


def test_a_folder_makes_room_once_its_samples_were_used_often_enough(tmp_path):
    for place in range(3):
        write_shard(pack(), tmp_path / f"shard_{place:06d}")
    following = Supply(Pool(12, CPU, ErrorBudget(0)), pool(), tmp_path, most_shards=3)
    for _ in range(3):
        following.refresh(reuse=2.0)
    assert len(following.pool) == 12, "one shard at a time"
    assert len(shard_folders(tmp_path)) == 3
    following.pool.used_views = 2 * following.pool.added_views
    following.looked = 0.0
    following.refresh(reuse=2.0)
    assert [shard.name[-1] for shard in shard_folders(tmp_path)] == ["1", "2"]
    assert not list(tmp_path.glob(".retired*"))
    assert len(following.pool) == 12, "what is in memory stays until something new comes"


# --- workers ------------------------------------------------------------------------------------


def job(folder, **changes) -> ShardJob:
    return ShardJob(folder, (HEIGHT, WIDTH), BLOCK, stored_world, **changes)


def test_rendering_leaves_out_what_fails_and_goes_on_where_it_stopped(tmp_path):
    seen = []
    render_all(job(tmp_path, shards=2), 0, lambda *numbers: seen.append(numbers))
    assert seen == [(1, 2), (2, 2)]
    found = read_shard(tmp_path / "shard_000001")
    assert len(found) == 6  # of 16 seeds 8 are blocked and 2 fail
    np.testing.assert_array_equal(found.rgb[:3], pack().rgb[:3])
    render_all(job(tmp_path, shards=3), 0, lambda *numbers: seen.append(numbers))
    assert seen[2:] == [(3, 3)]
    assert job(tmp_path).next_place() == 3


@pytest.mark.slow
def test_workers_render_in_the_background_and_pause_when_the_folder_is_full(tmp_path):
    with RenderWorkers(job(tmp_path, most_waiting=2), 1) as running:
        deadline = time.monotonic() + 120
        while len(shard_folders(tmp_path)) < 2 and time.monotonic() < deadline:
            running.check()
            time.sleep(0.1)
        assert len(shard_folders(tmp_path)) == 2
        assert running.is_running
    assert not running.is_running


@pytest.mark.slow
def test_too_many_failing_worlds_end_a_worker_and_the_run_hears_of_it(tmp_path, capfd):
    broken = dataclasses.replace(job(tmp_path, shards=9), render=no_world)
    with pytest.raises(InputError, match="rendering processes ended with code 1"):
        render_all(broken, 1, lambda *_: None)
    assert "no world 20" in capfd.readouterr().err


# --- batches ------------------------------------------------------------------------------------

SINGLE, SEQUENCE, RIG = (
    Draw(kind="single"),
    Draw(kind="sequence", views=(3, 3)),
    Draw(kind="surround"),
)
CASES = [
    (SINGLE, "none"),
    (SEQUENCE, "none"),
    (RIG, "none"),
    (SINGLE, "nearby"),
    (SEQUENCE, "nearby"),
    (RIG, "nearby"),
    (SEQUENCE, "held_out"),
    (RIG, "held_out"),
]


def batch_of(draw: Draw, novel: str, seed: int = 3, views: int = 40):
    one = stage(1, (draw,)) if novel == "none" else rendering(1, (draw,), novel)
    sampler = BatchSampler(pool(), recipe(one, views_per_step=views), CPU)
    return sampler.draw_kind(draw, one, np.random.default_rng(seed))


def recognised(batch) -> list[tuple[int, list[int], bool]]:
    """(sample, observed views, mirrored) of each scene, by its pictures."""
    found = []
    for images in batch.images:
        views, mirrored_all = [], set()
        for image in images:
            matches = [
                (sample, view, mirrored)
                for sample in range(4)
                for view in range(PICTURES)
                for mirrored in (False, True)
                if looks_like(image, pack().rgb[sample, view], mirrored)
            ]
            assert len(matches) == 1, matches
            views.append(matches[0][1])
            mirrored_all.add((matches[0][0], matches[0][2]))
        assert len(mirrored_all) == 1, "one scene, one decision"
        found.append((mirrored_all.copy().pop()[0], views, mirrored_all.pop()[1]))
    return found


def looks_like(image: torch.Tensor, rgb: np.ndarray, mirrored: bool) -> bool:
    """Gain, tint and gamma are a straight line between logarithms, where nothing is clipped."""
    rgb = (rgb[:, ::-1] if mirrored else rgb) / 255
    ours = (image.permute(1, 2, 0).numpy() + 1) / 2
    for channel in range(3):
        one, other = ours[..., channel].ravel(), rgb[..., channel].ravel()
        inside = (one > 0.01) & (one < 0.999)
        if np.corrcoef(np.log(one[inside]), np.log(other[inside].clip(1e-3)))[0, 1] < 0.9999:
            return False
    return True


def mirror(points: torch.Tensor) -> torch.Tensor:
    """Flip the columns of maps (..., h, w, 3) and x."""
    return points.flip(-2) * points.new_tensor([-1, 1, 1])


@pytest.mark.parametrize(("draw", "novel"), CASES)
def test_targets_follow_the_pictures_also_when_mirrored(draw, novel):
    batch = batch_of(draw, novel)
    scenes = recognised(batch)
    assert {mirrored for *_, mirrored in scenes} == {False, True}
    for scene, (sample, picked, mirrored) in enumerate(scenes):
        rays = torch.from_numpy(pack().rays[sample, picked]).float()
        depth = torch.from_numpy(pack().depth[sample, picked]).float()
        points = points_on_rays(rays, depth)
        poses = torch.from_numpy(pack().reference_from_cam[sample, picked])
        world_from_cam = torch.linalg.inv(poses[0]) @ poses
        world = rigid.apply(world_from_cam, points.flatten(1, 2)).view_as(points)
        if mirrored:
            points, world, depth = mirror(points), mirror(world), depth.flip(-1)
        targets = batch.observed
        torch.testing.assert_close(targets.points_cam[scene], points)
        torch.testing.assert_close(targets.points_world[scene], world, rtol=1e-3, atol=2e-2)
        assert torch.equal(targets.valid[scene], (depth > 0.3) & (depth < 80))
        assert torch.equal(targets.sky[scene], depth == 0)


@pytest.mark.parametrize(("draw", "novel"), CASES)
def test_world_points_project_into_their_views(draw, novel):
    batch = batch_of(draw, novel, seed=4)
    for targets in (batch.observed, *([batch.novel] if batch.novel else [])):
        poses = targets.world_from_cam
        assert (torch.det(poses[..., :3, :3]) > 0.99).all(), "mirrored poses must stay rigid"
        back = rigid.apply(rigid.invert(poses), targets.points_world.flatten(2, 3))
        torch.testing.assert_close(back, targets.points_cam.flatten(2, 3), rtol=1e-3, atol=2e-2)
        pixels = camera.project(camera.pinhole(targets.focal_px, HEIGHT, WIDTH), back)
        grid = camera.pixel_grid(HEIGHT // BLOCK, WIDTH // BLOCK).flatten(0, 1)
        error = pixels - (grid * BLOCK + (BLOCK - 1) / 2)
        # Principal points vary by a few pixels; a forgotten mirroring is off by the picture.
        assert error[targets.valid.flatten(2)].abs().max() < 6
    first = batch.observed.world_from_cam[:, 0]
    assert torch.equal(first.round(decimals=3), torch.eye(4).expand_as(first))


def test_views_are_those_of_the_kind():
    for _, views, _ in recognised(batch_of(SEQUENCE, "none")):
        assert views in [FRONT[start : start + 3].tolist() for start in range(3)]
    rigs = {tuple(views) for _, views, _ in recognised(batch_of(RIG, "none", views=60))}
    assert rigs == {tuple(SURROUND), tuple(SURROUND + 6)}
    held = batch_of(RIG, "held_out")
    assert held.novel_images is not None
    assert held.images.shape[1] + held.novel_images.shape[1] == 6
    assert batch_of(RIG, "nearby").novel_images is None
    assert batch_of(SINGLE, "nearby").novel.valid.shape[1] == 2


def test_a_batch_depends_on_its_turn_alone_and_processes_share_it():
    drawing = BatchSampler(pool(), recipe(stage(9), views_per_step=12), CPU)
    one, same, other = (drawing.draw(Turn(0, number, 0.0)) for number in (5, 5, 6))
    assert torch.equal(one.images, same.images)
    assert one.images.shape != other.images.shape or not torch.equal(one.images, other.images)
    assert one.images.abs().max() <= 1
    doubled = BatchSampler(pool(), recipe(stage(9), views_per_step=24), CPU)
    for number in range(6):
        whole = doubled.draw(Turn(0, number, 0.0))
        halves = [drawing.draw(Turn(0, number, 0.0, rank, 2)) for rank in range(2)]
        if len(whole.images) % 2 == 0:
            assert torch.equal(torch.cat([half.images for half in halves]), whole.images)


def test_points_are_drawn_into_many_scenes_as_into_one():
    torch.manual_seed(0)
    batch = batch_of(RIG, "nearby", views=16)
    points = torch.nn.functional.interpolate(
        batch.observed.points_world.flatten(0, 1).permute(0, 3, 1, 2), scale_factor=4
    )
    points = points.permute(0, 2, 3, 1).unflatten(0, batch.images.shape[:2])
    confidence = 1 + torch.rand(points.shape[:-1])
    levels = (torch.randn(*points.shape[:2], 5, 4, 4), torch.randn(*points.shape[:2], 3, 8, 8))
    features = source_features(batch.images, confidence, levels)
    K = camera.pinhole(batch.novel.focal_px, HEIGHT, WIDTH)
    arguments = (points, features, K, batch.novel.world_from_cam)
    one_by_one, at_once = project_points(*arguments), draw_points(*arguments)
    assert (one_by_one[:, :, 2] > 0).float().mean() > 0.01  # blocks of 16 pixels share a point
    torch.testing.assert_close(at_once, one_by_one, rtol=1e-4, atol=1e-4)
