# SPDX-License-Identifier: Apache-2.0
"""Flat lists: ragged ranges -> (owner, index within the owner); rows of a tensor by index."""

import torch


def rows(tensor: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """`tensor[index]` for an index (M,) of rows; three times faster than brackets on a CPU."""
    return tensor.index_select(0, index)


def expand_ranges(counts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Flat owners and local indices, both (sum of counts,) int64, of `counts` (N,) ranges."""
    owner = torch.repeat_interleave(torch.arange(counts.numel(), device=counts.device), counts)
    start = torch.cumsum(counts, 0) - counts
    return owner, torch.arange(owner.numel(), device=counts.device) - rows(start, owner)


def expand_rectangles(
    low: torch.Tensor, high: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """All integer cells of N rectangles [low, high] (N,2), both ends included.

    Returns owner, first and second cell coordinate, each (cells,) int64; the first coordinate
    runs fastest. Empty rectangles (high < low) give no cell.
    """
    size = (high - low + 1).clamp_min(0)
    owner, index = expand_ranges(size[:, 0] * size[:, 1])
    width, first = rows(size[:, 0], owner), rows(low, owner)
    row = torch.div(index, width, rounding_mode="floor")
    return owner, first[:, 0] + (index - row * width), first[:, 1] + row
