# SPDX-License-Identifier: Apache-2.0
"""Views for the network of `small_model`, which sees the same street in every picture."""

import dataclasses

import numpy as np
import torch
from small_model import small_network

from occany_core import View
from occany_core.checkpoints import Model
from occany_core.config import OccAnyConfig, from_flat
from occany_core.network import OccAnyNetwork
from occany_core.rig_poses import grid_from_reference

HEIGHT, WIDTH = 32, 48
K = np.array([[0.8 * WIDTH, 0, WIDTH / 2 - 0.5], [0, 0.8 * WIDTH, HEIGHT / 2 - 0.5], [0, 0, 1]])
"""The camera that the small network's street was drawn for."""
FRONT = grid_from_reference(1.6, 0.0).numpy()
"""A camera 1.6 m above the ground, looking ahead."""


def small_street_model() -> Model:
    network = small_network().eval().requires_grad_(False)
    return Model(network, {"name": "small", "files": [{"sha256": "0"}]}, torch.device("cpu"))


def probed_model(always: int, classes: int = 18, dims=(16, 8, 4), size: int = 64) -> Model:
    """The small street model with promptable features, and a probe that knows one answer."""
    plain = small_street_model()
    config = dataclasses.replace(
        plain.network.config,
        segmentation_dims=dims,
        segmentation_size=size,
        prompt_classes=classes,
    )
    torch.manual_seed(0)
    network = OccAnyNetwork(config)
    known = {
        name: weights
        for name, weights in plain.network.state_dict().items()
        if weights.shape == network.state_dict()[name].shape  # its tokens carry more channels
    }
    network.load_state_dict(network.state_dict() | known)
    for weights in network.class_probe.parameters():
        weights.data.zero_()
    network.class_probe.fine.bias.data[always] = 1
    return Model(network.eval().requires_grad_(False), plain.card, plain.device)


def street_config(**changes) -> OccAnyConfig:
    """Half-metre cells, 12 m ahead; dotted names with `__` for the dot."""
    values = {
        "voxels.resolution": 0.5,
        "voxels.origin": [-2.0, -8.0, -1.25],
        "voxels.shape": [24, 32, 8],
        "runtime.device": "cpu",
    }
    return from_flat(values | {key.replace("__", "."): value for key, value in changes.items()})


def picture(seed: int, height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def turned(degrees: float) -> np.ndarray:
    """The front camera's mounting after a turn of the rig to the left."""
    angle = np.radians(degrees)
    turn = np.eye(4, dtype=np.float32)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turn @ FRONT


def surround(seed: int = 0, *, stamp: float = 0.0, calibrated: bool = True) -> list[View]:
    """Three cameras of one rig at one instant."""
    known = {"K": K} if calibrated else {}
    return [
        View(
            rgb=picture(3 * seed + index),
            camera=name,
            stamp=stamp,
            rig_from_cam=turned(degrees) if calibrated else None,
            **known,
        )
        for index, (name, degrees) in enumerate({"front": 0, "left": 60, "right": -60}.items())
    ]


def sequence(number: int, **known) -> list[list[View]]:
    """One camera over time, twice a second."""
    return [
        [View(rgb=picture(50 + index), camera="front", stamp=0.5 * index, **known)]
        for index in range(number)
    ]
