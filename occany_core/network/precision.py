# SPDX-License-Identifier: Apache-2.0
"""Where the network computes in float32, whatever its layers compute in."""

from contextlib import AbstractContextManager, nullcontext

import torch


def full_precision(device: torch.device) -> AbstractContextManager:
    """Return a context without autocast; devices that know none (meta) need none."""
    if not torch.amp.is_autocast_available(device.type):
        return nullcontext()
    return torch.autocast(device.type, enabled=False)
