# SPDX-License-Identifier: Apache-2.0
"""A tiny network that sees a street end at a wall in every picture, and pictures for it."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from occany_core.checkpoints import save_model
from occany_core.network import NetworkConfig, OccAnyNetwork
from occany_core.network.config import TransformerDims
from occany_core.network.point_heads import ConvolutionalPointHead

SMALL = (
    "voxels.shape=[20, 20, 8]",
    "voxels.origin=[-4, -4, -1]",
    "voxels.resolution=1.0",
    "runtime.device=cpu",
)
"""Settings that keep a prediction short."""


def small_network() -> OccAnyNetwork:
    torch.manual_seed(0)
    dims = TransformerDims(width=32, depth=1, heads=2)
    config = NetworkConfig(
        encoder=dims,
        decoder=dims,
        novel_view_encoder=dims,
        modality_width=8,
        stem="convolutional",
        point_head="convolutional",
        point_activation="norm_exp",
        segmentation_dims=None,
        rgb_head=False,
        picture_width=48,
    )
    network = OccAnyNetwork(config)
    for module in network.modules():
        if isinstance(module, ConvolutionalPointHead):
            module.prior.copy_(street_with_wall(*module.prior.shape[-2:]))
            torch.nn.init.normal_(module.out.weight, std=1e-3)
    return network


def street_with_wall(rows: int, columns: int) -> torch.Tensor:
    """Raw maps (7, rows, columns): ground 1.6 m below the camera, a wall 9 m ahead, confident."""
    x = (torch.arange(columns) + 0.5 - columns / 2) / (0.8 * columns)
    y = (torch.arange(rows) + 0.5 - rows / 2) / (0.8 * columns)
    rays = torch.stack((x.expand(rows, columns), y[:, None].expand(rows, columns)))
    rays = torch.cat((rays, torch.ones(1, rows, columns)))
    depth = torch.where(rays[1] > 1.6 / 9.0, 1.6 / rays[1], torch.tensor(9.0))
    points = rays * depth
    length = points.norm(dim=0)
    logarithmic = points / length * length.log1p()
    return torch.cat((logarithmic, logarithmic, torch.full((1, rows, columns), 2.0)))


def save_small_model(folder: Path) -> Path:
    path = folder / "random.safetensors"
    save_model(small_network(), {"name": "random", "licence": "Apache-2.0"}, path)
    return path


def write_pictures(folder: Path, count: int, names: list[str] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for index in range(count):
        name = names[index] if names else f"{index}.png"
        Image.fromarray(random.integers(0, 255, (32, 48, 3), np.uint8)).save(folder / name)
    return folder
