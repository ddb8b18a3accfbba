# SPDX-License-Identifier: Apache-2.0
"""Hashing and value noise on tensors: coordinates (M,) -> numbers in [0,1)."""

import torch

X_FACTOR, Y_FACTOR, LAYER_FACTOR = 12.9898, 78.233, 37.719
AMPLITUDE = 43758.5453


def lattice_hash(x: torch.Tensor, y: torch.Tensor, z: torch.Tensor | float = 0.0) -> torch.Tensor:
    """Pseudo-random number in [0,1) for each coordinate triple."""
    return _scramble(x * X_FACTOR + y * Y_FACTOR, z * LAYER_FACTOR)


def value_noise(
    x: torch.Tensor, y: torch.Tensor, layer: torch.Tensor | None = None
) -> torch.Tensor:
    """Smoothly interpolated lattice hash over (x, y); `layer` (M,) picks independent planes."""
    x0, y0 = torch.floor(x), torch.floor(y)
    fx, fy = x - x0, y - y0
    fx = fx * fx * (3 - 2 * fx)
    fy = fy * fy * (3 - 2 * fy)
    x_terms = (x0 * X_FACTOR, (x0 + 1) * X_FACTOR)
    y_terms = (y0 * Y_FACTOR, (y0 + 1) * Y_FACTOR)
    layer_term = None if layer is None else torch.floor(layer) * LAYER_FACTOR
    a, c, b, d = (_scramble(xt + yt, layer_term) for xt in x_terms for yt in y_terms)
    return a + (b - a) * fx + (c - a) * fy + (a - b - c + d) * fx * fy


def _scramble(value: torch.Tensor, layer_term: torch.Tensor | float | None) -> torch.Tensor:
    value = torch.sin(value if layer_term is None else value + layer_term) * AMPLITUDE
    return value - torch.floor(value)
