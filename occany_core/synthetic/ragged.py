# SPDX-License-Identifier: Apache-2.0
"""Ragged ranges: counts per owner -> one flat list of (owner, index within the owner)."""

import torch


def expand_ranges(counts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Flat owners and local indices, both (sum of counts,) int64, of `counts` (N,) ranges."""
    owner = torch.repeat_interleave(torch.arange(counts.numel(), device=counts.device), counts)
    start = torch.cumsum(counts, 0) - counts
    return owner, torch.arange(owner.numel(), device=counts.device) - start[owner]


def expand_rectangles(
    low: torch.Tensor, high: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """All integer cells of N rectangles [low, high] (N,2), both ends included.

    Returns owner, first and second cell coordinate, each (cells,) int64; the first coordinate
    runs fastest. Empty rectangles (high < low) give no cell.
    """
    size = (high - low + 1).clamp_min(0)
    owner, index = expand_ranges(size[:, 0] * size[:, 1])
    width = size[owner, 0]
    return (
        owner,
        low[owner, 0] + index % width,
        low[owner, 1] + torch.div(index, width, rounding_mode="floor"),
    )
