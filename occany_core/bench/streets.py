# SPDX-License-Identifier: Apache-2.0
"""How fast synthetic streets are rendered: pictures with depth, and depth alone."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from occany_core.errors import InputError
from occany_core.synthetic.renderer import render
from occany_core.synthetic.rigs import named_rig
from occany_core.synthetic.scene import Scene
from occany_core.synthetic.visibility import cast
from occany_core.synthetic.world import StreetWorld

SIZES = ((256, 144), (512, 288))
"""Widths and heights [px]."""
RIG = "surround6"
Views = tuple[Tensor, Tensor, Tensor]


@dataclass(frozen=True)
class RenderRate:
    """Frames per second at one picture size, the median over worlds."""

    width: int
    height: int
    pictures: float
    """Colour, depth and ids."""
    depth: float
    """Visibility only, as novel views need."""


@dataclass(frozen=True)
class StreetTiming:
    """What `measure` found."""

    device: str
    threads: int
    worlds: int
    build_s: float
    """Median seconds to make a world and bring it to the device."""
    rates: list[RenderRate]


def measure(worlds: int = 5, device: str | torch.device = "cpu") -> StreetTiming:
    """Render the surround rig of some worlds, six frames at a time.

    Args:
        worlds: How many.
        device: cpu or cuda.

    Raises:
        InputError: No worlds.
    """
    if worlds < 1:
        raise InputError(f"{worlds} worlds cannot be timed; give at least 1")
    device = torch.device(device)
    build, pictures, depth = [], {s: [] for s in SIZES}, {s: [] for s in SIZES}
    for seed in range(worlds):
        started = time.perf_counter()
        world = StreetWorld(seed)
        scene = Scene(world, device)
        build.append(time.perf_counter() - started)
        for size in SIZES:
            views = _views(world, size, device)
            pictures[size].append(_rate(render, scene, views, size))
            depth[size].append(_rate(cast, scene, views, size))
    rates = [
        RenderRate(*size, statistics.median(pictures[size]), statistics.median(depth[size]))
        for size in SIZES
    ]
    return StreetTiming(
        device.type, torch.get_num_threads(), worlds, statistics.median(build), rates
    )


def _views(world: StreetWorld, size: tuple[int, int], device: torch.device) -> Views:
    """Return K, world_from_cam and seconds of a rig at the start."""
    rig = named_rig(RIG, *size)
    world_from_rig = torch.as_tensor(world.ego_poses(np.zeros(1))[0]).float()
    K = torch.stack([torch.as_tensor(camera.K).float() for camera in rig])
    mounted = torch.stack([torch.as_tensor(camera.rig_from_cam).float() for camera in rig])
    return (
        K.to(device),
        (world_from_rig @ mounted).to(device),
        torch.zeros(len(rig), device=device),
    )


def _rate(draw: Callable[..., object], scene: Scene, views: Views, size: tuple[int, int]) -> float:
    """Return frames per second of the second of two runs."""
    seconds = 0.0
    for _ in range(2):
        started = time.perf_counter()
        draw(scene, *views, size[1], size[0])
        if views[0].is_cuda:
            torch.cuda.synchronize()
        seconds = time.perf_counter() - started
    return len(views[0]) / seconds
