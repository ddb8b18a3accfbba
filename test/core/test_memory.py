# SPDX-License-Identifier: Apache-2.0
"""The scene memory: written once, read without copies, and never changed for who holds it."""

import pytest
import torch

from occany_core.network import SceneMemory

LAYERS, HEADS, WIDTH = 2, 3, 4


def rows(tokens: int, seed: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(1, HEADS, tokens, WIDTH, generator=generator) for _ in range(LAYERS)]


def written(memory: SceneMemory, tokens: int, seed: int) -> SceneMemory:
    return memory.extended(rows(tokens, seed), rows(tokens, seed + 100))


@pytest.mark.parametrize("capacity", [0, 5, 8, 20])
@pytest.mark.parametrize("records_gradients", [True, False])
def test_holds_all_tokens_in_order(capacity, records_gradients):
    with torch.set_grad_enabled(records_gradients):
        memory = written(written(SceneMemory(capacity), 5, 1), 3, 2)
    assert memory.num_tokens == 8
    for layer in range(LAYERS):
        expected = torch.cat((rows(5, 1)[layer], rows(3, 2)[layer]), dim=2)
        assert torch.equal(memory.keys[layer], expected)
        expected = torch.cat((rows(5, 101)[layer], rows(3, 102)[layer]), dim=2)
        assert torch.equal(memory.values[layer], expected)


@torch.no_grad()
def test_room_that_suffices_is_never_moved():
    first = written(SceneMemory(8), 5, 1)
    second = written(first, 3, 2)
    assert second.keys[0].data_ptr() == first.keys[0].data_ptr()
    assert second.values[1].data_ptr() == first.values[1].data_ptr()


@torch.no_grad()
def test_two_futures_of_one_memory_do_not_disturb_each_other():
    past = written(SceneMemory(20), 5, 1)
    one, other = written(past, 3, 2), written(past, 3, 3)
    assert torch.equal(one.keys[0][:, :, 5:], rows(3, 2)[0])
    assert torch.equal(other.keys[0][:, :, 5:], rows(3, 3)[0])
    assert torch.equal(past.keys[0], rows(5, 1)[0])


def test_gradients_flow_through_a_grown_memory():
    leaf = [part.requires_grad_() for part in rows(2, 1)]
    memory = SceneMemory(8).extended(leaf, leaf).extended(rows(3, 2), rows(3, 3))
    memory.keys[1].sum().backward()
    assert torch.equal(leaf[1].grad, torch.ones_like(leaf[1]))
