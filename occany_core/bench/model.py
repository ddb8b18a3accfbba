# SPDX-License-Identifier: Apache-2.0
"""How long one reconstruction takes, stage by stage, beside the arithmetic it needs.

Random weights: time and memory do not depend on their values. What the machine can do at best is
measured in the same run, as the rate of one large matrix product.
"""

import statistics
import time
from dataclasses import asdict, dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from occany_core.bench.memory import peak_gpu_gb, peak_resident_gb
from occany_core.checkpoints import Model
from occany_core.checkpoints.store import choose_device
from occany_core.config import OccAnyConfig, from_flat
from occany_core.errors import ConfigError
from occany_core.images import View
from occany_core.network import NetworkConfig, OccAnyNetwork, tiny
from occany_core.novel_views import propose_views
from occany_core.pipeline import Scene, predict

SIZES = {"full": NetworkConfig, "tiny": tiny}
PEAK_SHAPE = (2304, 1024, 4096)
"""Rows, inner and outer width of the product that stands for the machine's peak."""
DEPTH = 10.0
"""Mean depth that the random weights predict [m], so that points fall into novel views."""


@dataclass(frozen=True)
class Stage:
    """One stage of the pipeline."""

    seconds: float
    """Median over the repetitions."""
    gflop: float
    """Arithmetic of matrix products, convolutions and attention; 0 for pure geometry."""
    weights_gb: float
    """Weights that the stage reads."""

    @property
    def gflop_per_s(self) -> float:
        """Rate of the stage."""
        return self.gflop / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class ModelTiming:
    """What `measure` found."""

    size: str
    dtype: str
    device: str
    threads: int
    frames: int
    views: int
    height: int
    width: int
    total_s: float
    """Median wall time of pictures to grid."""
    peak_gb: float
    """Largest memory of the process (of PyTorch, on a GPU), weights included."""
    peak_gflop_per_s: float
    """Rate of one large matrix product, in the same number format."""
    stages: dict[str, Stage]

    def to_dict(self) -> dict:
        """Return plain JSON data."""
        return asdict(self)


def measure(
    size: str,
    frames_and_views: tuple[int, int],
    height_width: tuple[int, int] = (288, 512),
    config: OccAnyConfig | None = None,
    repeats: int = 1,
) -> ModelTiming:
    """Time whole reconstructions with random weights.

    Args:
        size: full (the released architecture) or tiny.
        frames_and_views: Observed views, taken by one rig at one instant, and rendered views.
        height_width: Of the network's pictures [px], multiples of 16.
        config: Number format, device, grid; picture size and novel views are set here.
        repeats: Runs; medians are reported.

    Raises:
        ConfigError: A size, count or setting that cannot be.
    """
    frames, views = frames_and_views
    if size not in SIZES:
        raise ConfigError(f"model size is {size!r}; it must be one of {', '.join(SIZES)}")
    if frames < 1 or views < 0 or repeats < 1:
        raise ConfigError(
            f"frames {frames}, views {views} and repeats {repeats}: frames and repeats must be "
            "at least 1, views 0 or more"
        )
    config = _config(frames, views, height_width, config)
    device = choose_device(config.runtime.device)
    model = random_model(SIZES[size](), device)
    rig = _rig(frames, *height_width)
    proposed = propose_views(torch.eye(4).expand(frames, 4, 4), config.novel_views)
    if len(proposed.owner) != views:
        raise ConfigError(f"{frames} frames cannot spawn exactly {views} views")
    walls, scenes = [], []
    for _ in range(repeats):
        started = time.perf_counter()
        scenes.append(predict(model, [rig], config))
        walls.append(time.perf_counter() - started)
    return ModelTiming(
        size=size,
        dtype=config.runtime.dtype,
        device=device.type,
        threads=torch.get_num_threads(),
        frames=frames,
        views=views,
        height=height_width[0],
        width=height_width[1],
        total_s=statistics.median(walls),
        peak_gb=peak_gpu_gb(device) if device.type == "cuda" else peak_resident_gb(),
        peak_gflop_per_s=matrix_rate(device, getattr(torch, config.runtime.dtype)),
        stages=_stages(scenes, model.network, frames, views, height_width),
    )


def _config(
    frames: int, views: int, height_width: tuple[int, int], config: OccAnyConfig | None
) -> OccAnyConfig:
    if any(side < 16 or side % 16 for side in height_width):
        raise ConfigError(
            f"the picture is {height_width[1]}x{height_width[0]}; both sides must be multiples "
            "of 16"
        )
    ours = {
        "images.width": max(height_width),
        "novel_views.steps": -(-views // frames),
        "novel_views.max_views": views,
        "novel_views.forward_step": 1.0,
    }
    return from_flat(ours, config)


def random_model(config: NetworkConfig, device: torch.device) -> Model:
    """Return a network with random weights that predicts points some metres ahead."""
    with torch.device("meta"):
        network = OccAnyNetwork(config)
    network = network.to_empty(device=device)
    generator = torch.Generator(device).manual_seed(0)
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            if tensor.dim() > 1:
                fan_in = tensor[0].numel()
                tensor.normal_(
                    0, fan_in**-0.5 if "token" not in name else 0.02, generator=generator
                )
            else:
                tensor.fill_(float("norm" in name and name.endswith("weight")))
        for heads in network.modules():
            if hasattr(heads, "point_token"):
                _look_ahead(heads.points, config)
    card = {"name": "random", "licence": "none", "files": [{"sha256": "none"}]}
    return Model(network.eval().requires_grad_(False), card, device)


def _look_ahead(head: nn.Module, config: NetworkConfig) -> None:
    """Make a point head predict small deviations from a depth."""
    depth = DEPTH if config.point_activation == "linear" else float(np.log1p(DEPTH))
    last = head.proj if config.point_head == "linear" else head.out
    last.weight.mul_(0.01)
    last.bias.view(7, -1)[[2, 5]] = depth
    if config.point_head == "convolutional":
        head.prior.zero_()


def _rig(frames: int, height: int, width: int) -> list[View]:
    """Views of a rig whose cameras look around evenly."""
    random = np.random.default_rng(0)
    K = np.array([[0.6 * width, 0, width / 2], [0, 0.6 * width, height / 2], [0, 0, 1]])
    views = []
    for index in range(frames):
        angle = 2 * np.pi * index / frames
        forward = np.array([np.cos(angle), np.sin(angle), 0])
        right = np.array([np.sin(angle), -np.cos(angle), 0])
        rig_from_cam = np.eye(4)
        rig_from_cam[:3, :3] = np.stack((right, [0, 0, -1], forward), axis=1)
        rig_from_cam[2, 3] = 1.6
        rgb = random.integers(0, 256, (height, width, 3), np.uint8)
        views.append(View(rgb=rgb, camera=str(index), K=K, rig_from_cam=rig_from_cam))
    return views


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Return the rate of one large matrix product [GFLOP/s], the best of five."""
    rows, inner, outer = PEAK_SHAPE
    a = torch.randn(rows, inner, device=device).to(dtype)
    b = torch.randn(outer, inner, device=device).to(dtype)
    best = float("inf")
    for _ in range(5):
        _wait_for(device)
        started = time.perf_counter()
        nn.functional.linear(a, b)
        _wait_for(device)
        best = min(best, time.perf_counter() - started)
    return 2 * rows * inner * outer / best / 1e9


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _stages(
    scenes: list[Scene],
    network: OccAnyNetwork,
    frames: int,
    views: int,
    height_width: tuple[int, int],
) -> dict[str, Stage]:
    """Put medians beside the arithmetic of each stage."""
    gflop = count_gflop(network.config, frames, views, height_width)
    modules = {
        "encode": [network.encoder],
        "memory": [network.decoder],
        "render": [network.decoder, network.heads],
        "tokenize": [network.novel_view_encoder.tokenizers, network.novel_view_encoder.merge],
        "render_novel": [network.novel_view_decoder, network.novel_view_heads],
    }
    stages = {}
    for name in scenes[-1].timings:
        seconds = statistics.median(scene.timings[name] for scene in scenes)
        stages[name] = Stage(seconds, gflop.get(name, 0.0), _gigabytes(modules.get(name, [])))
    return stages


def _gigabytes(modules: list[nn.Module]) -> float:
    return sum(p.numel() * p.element_size() for m in modules for p in m.parameters()) / 1e9


def count_gflop(
    config: NetworkConfig, frames: int, views: int, height_width: tuple[int, int]
) -> dict[str, float]:
    """Count the arithmetic of every network stage, without computing anything [GFLOP]."""
    counted = {}

    def count(stage: str, call: object, *arguments: object) -> object:
        with FlopCounterMode(display=False) as counter:
            result = call(*arguments)
        counted[stage] = counter.get_total_flops() / 1e9
        return result

    with torch.device("meta"), torch.inference_mode():
        network = OccAnyNetwork(config)
        images = torch.empty(1, frames, 3, *height_width)
        tokens = count("encode", network.encode, images)
        memory = count("memory", network.update_memory, tokens)
        raw = count("render", network.render, tokens, memory)
        if views:
            levels = network.conditioning(raw.segmentation)
            channels = 10 + sum(level.shape[2] for level in levels)
            projected: Tensor = torch.empty(1, views, channels, *height_width)
            novel = count("tokenize", network.tokenize, projected)
            count("render_novel", network.render_novel, novel, tokens, memory)
    return counted
