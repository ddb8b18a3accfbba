# SPDX-License-Identifier: Apache-2.0
"""Properties of the network at the weights of the tiny golden set.

That its numbers are those of the released function is shown by `test_bench_golden`.
"""

import golden_set as golden
import pytest
import torch

from occany_core.network import OccAnyNetwork, Tokens

pytestmark = golden.needs_reference


@pytest.fixture(scope="module")
def network() -> OccAnyNetwork:
    return golden.golden_network(golden.tiny_config(), golden.tiny_parts())


@pytest.fixture(scope="module")
def tokens(network) -> Tokens:
    with torch.inference_mode():
        return network.encode(golden.tensors("tiny_recon")["img"])


def test_memory_grown_group_by_group_is_the_same(network, tokens):
    with torch.inference_mode():
        whole = network.update_memory(tokens)
        memory = network.update_memory(tokens.views(slice(0, 2)))
        before = memory.num_tokens
        grown = network.update_memory(tokens.views(slice(2, 4)), memory)
    assert memory.num_tokens == before, "update changed the old memory"
    for ours, expected in zip(grown.keys + grown.values, whole.keys + whole.values):
        torch.testing.assert_close(ours, expected)


def test_rendering_views_together_or_one_by_one(network, tokens):
    with torch.inference_mode():
        memory = network.update_memory(tokens)
        together = network.render(tokens, memory)
        alone = network.render(tokens.views(slice(2, 3)), memory)
    torch.testing.assert_close(
        alone.points_world[:, 0], together.points_world[:, 2], rtol=1e-4, atol=1e-4
    )
