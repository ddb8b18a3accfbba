# SPDX-License-Identifier: Apache-2.0
"""Random inputs for property tests. Metres and pixels in everyday ranges."""

import numpy as np
import torch
from hypothesis import strategies as st

from occany_core import rigid

seeds = st.integers(0, 2**32 - 1)


def rotation(rng: np.random.Generator, *batch: int) -> torch.Tensor:
    """Uniform random rotations (*batch, 3, 3), float64."""
    quaternion = rng.normal(size=(*batch, 4))
    w, x, y, z = np.moveaxis(
        quaternion / np.linalg.norm(quaternion, axis=-1, keepdims=True), -1, 0
    )
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    matrix = np.stack([np.stack(np.broadcast_arrays(*row), -1) for row in rows], -2)
    return torch.from_numpy(matrix)


def motion(rng: np.random.Generator, *batch: int) -> torch.Tensor:
    """Random motions (*batch, 4, 4) of up to about 10 m, float64."""
    return rigid.compose(rotation(rng, *batch), torch.from_numpy(rng.normal(0, 5, (*batch, 3))))


def intrinsics(rng: np.random.Generator, width: int, height: int) -> torch.Tensor:
    """A plausible K (3, 3), float64, that is neither square nor centred."""
    focal = rng.uniform(0.4, 1.5, 2) * width
    centre = np.array([width, height]) * rng.uniform(0.4, 0.6, 2)
    return torch.tensor(
        [[focal[0], 0, centre[0]], [0, focal[1], centre[1]], [0, 0, 1]], dtype=torch.float64
    )
