# SPDX-License-Identifier: Apache-2.0
"""Denser points on surfaces that pixels sample coarsely.

Metres, grid axes (x forward, y left, z up).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class FilledGaps:
    """Points between neighbouring pixels."""

    points: Float[Tensor, "P 3"]
    pixel: Int[Tensor, " P"]
    """Index into the H x W pixels of the nearer neighbour."""


def fill_flat_gaps(
    points: Float[Tensor, "H W 3"], kept: Bool[Tensor, "H W"], resolution: float
) -> FilledGaps:
    """Place points between vertically neighbouring pixels of flat surfaces.

    Points are relative to the camera, in grid axes.

    Far ground is seen at a grazing angle: from one picture row to the next it skips several cells.
    Where two kept neighbours differ little in height (under one cell) and in range (under 1.7
    times), points are placed between them at most half a cell apart.
    """
    near, far = points[1:].reshape(-1, 3), points[:-1].reshape(-1, 3)
    gap = (far - near).norm(dim=-1)
    rises = (far[:, 2] - near[:, 2]).abs()
    flat = (rises < resolution) & (gap > resolution / 2) & (gap < 0.7 * near.norm(dim=-1))
    flat &= (kept[1:] & kept[:-1]).flatten()
    start, step, gap = near[flat], (far - near)[flat], gap[flat]
    num = (gap / (resolution / 2)).long()
    owner = torch.arange(len(num), device=points.device).repeat_interleave(num)
    place = torch.arange(len(owner), device=points.device) - (num.cumsum(0) - num)[owner] + 1
    pixel = flat.nonzero()[:, 0] + points.shape[1]
    return FilledGaps(
        start[owner] + step[owner] * (place / (num[owner] + 1))[:, None], pixel[owner]
    )


def double_columns(
    points: Float[Tensor, "H W 3"], kept: Bool[Tensor, "H W"]
) -> tuple[Float[Tensor, "H W2 3"], Bool[Tensor, "H W2"]]:
    """Insert the midpoint between horizontal neighbours, kept where they are on one surface.

    That is where both are kept and lie within 15 % of their range of each other. Points are
    relative to the camera, in grid axes.
    """
    left, right = points[:, :-1], points[:, 1:]
    near = (right - left).norm(dim=-1) < 0.15 * torch.minimum(
        left.norm(dim=-1), right.norm(dim=-1)
    )
    height, width = kept.shape
    doubled = points.new_empty(height, 2 * width - 1, 3)
    doubled[:, ::2], doubled[:, 1::2] = points, (left + right) / 2
    doubled_kept = kept.new_empty(height, 2 * width - 1)
    doubled_kept[:, ::2], doubled_kept[:, 1::2] = kept, kept[:, :-1] & kept[:, 1:] & near
    return doubled, doubled_kept
