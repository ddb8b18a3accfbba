# SPDX-License-Identifier: Apache-2.0
"""For all tests: one CPU thread, repeatable examples, and tiny networks with random weights."""

import pytest
import torch
from hypothesis import settings
from tiny_networks import random_network, tiny_config

from occany_core.network import OccAnyNetwork

torch.set_num_threads(1)
settings.register_profile(
    "repeatable", max_examples=30, deadline=None, derandomize=True, database=None
)
settings.load_profile("repeatable")


@pytest.fixture(scope="session", params=["patch", "convolutional"])
def network(request) -> OccAnyNetwork:
    """Both kinds of network, one after the other."""
    return random_network(tiny_config(request.param)).requires_grad_(False)
