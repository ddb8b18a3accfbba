# SPDX-License-Identifier: Apache-2.0
"""Golden files of training data: crops, colours, LiDAR depth, windows, batches, schedule."""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch

from occany_core.bench.golden.checklist import Checklist, Stage
from occany_core.bench.golden.preparation_sets import GREY_LEVELS, PILLOW
from occany_core.bench.golden.training_cases import MANIFEST, read_json
from occany_core.calibrated_images import crop_calibrated
from occany_core.datasets import windows
from occany_core.datasets.lidar_depth import depth_last_wins
from occany_core.images import network_tensor
from occany_core.training.augmentation import (
    ColourJitter,
    ColourRanges,
    CropDraws,
    CropRanges,
    plan_training_crop,
)
from occany_core.training.depth_targets import depth_targets, points_in_picture, redraw_depth
from occany_core.training.sampling import BatchPlan, BatchRule, HeldOutRule, plan_epoch
from occany_core.training.schedule import RateSchedule, parameter_groups

DEPTH = 1e-4
"""Metres, as for the evaluation sets."""
RATE = 1e-9
"""Part of the highest learning rate."""
SIGMAS = 6.0
"""Two honest samples of draws differ by more than this once in a thousand million."""
STATISTICS_EPOCH = 0
SEQUENCE_NAME = re.compile(r"epoch(\d+)_rank(\d+)")


def check_data_pipeline(path: Path) -> list[Stage]:
    """Compare crops of pictures, depth and intrinsics with `data_pipeline`."""
    checklist = Checklist.of(path)
    for case, settings in read_json(path.with_name(MANIFEST))["data_pipeline"].items():
        _check_crop(checklist, case, settings)
    return checklist.report()


def _check_crop(checklist: Checklist, case: str, settings: Mapping[str, Any]) -> None:
    picture, depth, K = (
        checklist.given(f"{case}.{name}").numpy() for name in ("image", "depth", "K")
    )
    ranges = CropRanges(
        least_part=settings["aug_focal"] or 1.0, size_jitter=settings["aug_crop"] or 0
    )
    draws = CropDraws(
        np.random.default_rng(settings["generator_seed"]),
        np.random.RandomState(settings["np_global_seed"]),
    )
    target = tuple(settings["resolution"][::-1])
    crop = plan_training_crop(K, picture.shape[:2], target, ranges, draws)
    checklist.within(f"{case}.out_K", crop.K)
    _check_pixels(checklist, f"{case}.out_image", crop_calibrated(picture, crop))
    size = (crop.height, crop.width)
    redrawn = redraw_depth(depth, K, crop.K, size, nearest_wins=False)
    checklist.within(f"{case}.out_depth", redrawn, DEPTH)
    reference_from_cam = checklist.given(f"{case}.c2w")
    targets = depth_targets(
        torch.from_numpy(redrawn), torch.from_numpy(crop.K), reference_from_cam
    )
    checklist.within(f"{case}.pts3d", targets.points_reference)
    checklist.exact(f"{case}.valid", targets.valid)


def _check_pixels(checklist: Checklist, name: str, ours: np.ndarray) -> None:
    if PIL.__version__ == PILLOW:
        checklist.exact(name, ours)
    else:
        checklist.within(name, ours, GREY_LEVELS)


def check_colour_jitter(path: Path) -> list[Stage]:
    """Compare one change of colours on two pictures with `color_jitter`."""
    checklist = Checklist.of(path)
    seed = read_json(path.with_name(MANIFEST))["seed"]
    jitter = ColourJitter.draw(ColourRanges(), torch.Generator().manual_seed(seed))
    tolerance = None if PIL.__version__ == PILLOW else GREY_LEVELS / 127.5
    for name in [name for name in checklist.arrays if not name.startswith("out_")]:
        picture = jitter.apply(checklist.given(name).numpy())
        checklist.within(f"out_{name}", network_tensor(picture), tolerance)
    return checklist.report()


def check_lidar_projection(path: Path) -> list[Stage]:
    """Compare a drawn point cloud with `lidar_projection`."""
    checklist = Checklist.of(path)
    points, world_from_cam, K = (
        checklist.given(name).double().numpy() for name in ("points", "c2w", "K")
    )
    cam_from_world = np.linalg.inv(world_from_cam)
    size = tuple(checklist.arrays["depth"].shape)
    checklist.within("depth", depth_last_wins(points, cam_from_world, K, size), DEPTH)
    checklist.exact("kept", points_in_picture(points, cam_from_world, K, size))
    return checklist.report()


def check_index(path: Path) -> list[Stage]:
    """Compare windows of a processed data set with `index.json`."""
    content = read_json(path)
    tree = content["tree"]
    cameras = windows.cameras_of(tree)
    stages = []
    for name, ours in (
        ("temporal", windows.temporal_windows(tree)),
        ("surround", windows.surround_windows(tree, cameras)),
    ):
        golden = content[name]
        sequences = [
            [window.scene, list(window.frames), list(window.stamps)] for window in ours.windows
        ]
        for part, found in (
            ("scenes", list(ours.scenes)),
            ("frames", list(ours.frames)),
            ("seqs", sequences),
        ):
            stages.append(_same(path, f"{name}.{part}", found, golden[part]))
        stages += _unread(path, name, golden, ("scenes", "frames", "seqs"))
    return stages + _unread(path, "", content, ("tree", "temporal", "surround"))


def check_sampler(path: Path) -> list[Stage]:
    """Compare planned batches, and how often what is drawn, with `sampler.json`."""
    stages = []
    for name, golden in read_json(path).items():
        for key, expected in golden["sequences"].items():
            epoch, rank = map(int, SEQUENCE_NAME.fullmatch(key).groups())
            plans = plan_epoch(golden["length"], _rule(golden), epoch, rank)
            rows = [
                [sample, plan.resolution, plan.num_views, list(plan.held_out)]
                for plan in plans
                for sample in plan.samples
            ]
            stages.append(_same(path, f"{name}.{key}", rows, expected))
        statistics = next(value for key, value in golden.items() if key.startswith("stats"))
        stages += _check_statistics(path, name, golden, statistics)
    return stages


def _rule(golden: Mapping[str, Any], *, one_by_one: bool = False) -> BatchRule:
    return BatchRule(
        batch=1 if one_by_one else golden["batch"],
        ranks=1 if one_by_one else golden["world"],
        num_resolutions=golden["num_resolutions"],
        views=(golden["min_views"], golden["max_views"]),
        held_out=HeldOutRule(probability=golden["heldout_prob"]),
    )


def _check_statistics(
    path: Path, name: str, golden: Mapping[str, Any], statistics: Mapping[str, dict[str, int]]
) -> list[Stage]:
    """Compare counts in units of what two samples of this size differ by."""
    total = sum(statistics["num_views"].values())
    plans = plan_epoch(total, _rule(golden, one_by_one=True), STATISTICS_EPOCH)
    described = [_describe(plan) for plan in plans]
    stages = []
    for key, counts in statistics.items():
        ours = Counter(words[key] for words in described)
        sigmas = max(_sigmas(ours[case], counts.get(case, 0), total) for case in {*ours, *counts})
        stages.append(Stage(path.name, f"{name}.{key} of {total} draws", sigmas, SIGMAS))
    return stages


def _describe(plan: BatchPlan) -> dict[str, str]:
    """Return a plan in the words of the statistics."""
    held_out = len(plan.held_out)
    return {
        "num_views": str(plan.num_views),
        "recon_views": str(plan.num_views - held_out),
        "views_heldout": f"{plan.num_views}_{held_out}",
    }


def _sigmas(ours: int, golden: int, total: int) -> float:
    share = (ours + golden) / (2 * total)
    deviation = (2 * total * share * (1 - share)) ** 0.5
    return abs(ours - golden) / deviation if deviation else 0.0


def check_manifest(path: Path) -> list[Stage]:
    """Compare learning rates and parameter groups with `meta.json`, and that its cases exist."""
    content = read_json(path)
    missing = [case for case in content["cases"] if not _has_file(path, case)]
    stages = [Stage(path.name, "cases with files", float(len(missing)), 0.0, ", ".join(missing))]
    stages += _check_schedule(path, content["lr_schedule"])
    stages += _check_groups(path, content["param_groups"])
    known = ("seed", "torch", "cases", "lr_schedule", "param_groups", "data_pipeline")
    return stages + _unread(path, "", content, known)


def _has_file(path: Path, case: str) -> bool:
    return path.with_name(f"{case}.safetensors").is_file()


def _check_schedule(path: Path, golden: Mapping[str, Any]) -> list[Stage]:
    schedule = RateSchedule(
        highest=golden["lr"],
        lowest=golden["min_lr"],
        warmup_epochs=golden["warmup_epochs"],
        epochs=golden["epochs"],
    )
    ours = np.array([schedule.rate(epoch) for epoch in golden["epoch"]])
    checklist = Checklist(path.name, {}, {})
    for name in [name for name in golden if name.startswith("lr_group_scale_")]:
        scales = [float(scale) for scale in re.findall(r"\d+(?:\.\d+)?", name)]
        table = torch.tensor(golden[name], dtype=torch.float64)
        checklist.arrays = {name: table}
        checklist.within(
            name, torch.from_numpy(np.outer(ours, scales)), RATE * table.abs().max().item()
        )
    return checklist.stages


def _check_groups(path: Path, golden: list[dict[str, Any]]) -> list[Stage]:
    names = chain.from_iterable(group["names"] for group in golden)
    decay = max(group["weight_decay"] for group in golden)
    scaled = {
        name: group["lr_scale"]
        for group in golden
        if group["lr_scale"] != 1
        for name in group["names"]
    }
    ours = [
        [list(group.names), group.weight_decay, group.rate_scale]
        for group in parameter_groups(names, decay, scaled)
    ]
    expected = [[group["names"], group["weight_decay"], group["lr_scale"]] for group in golden]
    return [_same(path, "param_groups", ours, expected)]


def _same(path: Path, name: str, ours: list, golden: list) -> Stage:
    """Count the entries that differ."""
    pairs = zip(ours, golden, strict=False)
    different = sum(one != other for one, other in pairs) + abs(len(ours) - len(golden))
    return Stage(path.name, name, float(different), 0.0)


def _unread(path: Path, place: str, content: Mapping[str, Any], known: tuple) -> list[Stage]:
    """Say which entries nobody looked at."""
    left = [name for name in content if name not in known]
    prefix = f"{place}." if place else ""
    return [Stage(path.name, prefix + name, None, 0.0) for name in left]


CHECKS: dict[str, Callable[[Path], list[Stage]]] = {
    "data_pipeline.safetensors": check_data_pipeline,
    "color_jitter.safetensors": check_colour_jitter,
    "lidar_projection.safetensors": check_lidar_projection,
    "index.json": check_index,
    "sampler.json": check_sampler,
    MANIFEST: check_manifest,
}
