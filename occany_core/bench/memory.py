# SPDX-License-Identifier: Apache-2.0
"""The most memory that was in use."""

import resource
import sys

import torch


def peak_resident_gb() -> float:
    """Return the largest resident memory of this process since it started [GB]."""
    scale = 1 if sys.platform == "darwin" else 1024  # Linux counts kibibytes
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * scale / 1e9


def peak_gpu_gb(device: torch.device) -> float:
    """Return the most memory that PyTorch's tensors had on a GPU [GB], since it was reset."""
    return torch.cuda.max_memory_allocated(device) / 1e9
