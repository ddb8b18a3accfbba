# SPDX-License-Identifier: Apache-2.0
"""The processes of a run: one, or several that `torchrun` started.

`replicate` keeps the whole network in each (DistributedDataParallel); `shard` spreads weights,
gradients and optimiser over them (FSDP2).
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from occany_core.network import OccAnyNetwork
from occany_core.training.learner import Learner

Spreading = Literal["replicate", "shard"]
_WHOLE = StateDictOptions(full_state_dict=True, cpu_offload=True)


@dataclass(frozen=True)
class Ranks:
    """This process among all of them."""

    device: torch.device
    index: int = 0
    count: int = 1
    spreading: Spreading = "replicate"

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.index == 0

    def from_first(self, value: float) -> float:
        """Return the first process's value; clocks differ."""
        if self.count == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.broadcast(shared, src=0)
        return float(shared)

    def largest(self, value: float) -> float:
        """Return the largest value of all processes."""
        if self.count == 1:
            return value
        shared = torch.tensor([value], dtype=torch.float64, device=self.device)
        dist.all_reduce(shared, dist.ReduceOp.MAX)
        return float(shared)

    def wait(self) -> None:
        """Wait until all processes are here."""
        if self.count > 1:
            dist.barrier()


@contextmanager
def joined(device: torch.device, spreading: Spreading = "replicate") -> Iterator[Ranks]:
    """Join the processes that `torchrun` started; alone without it.

    Args:
        device: cpu, or cuda for the GPU of this process's place on its machine.
        spreading: What each process holds.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Ranks(device)
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Ranks(device, dist.get_rank(), count, spreading)
    finally:
        dist.destroy_process_group()


def starts_renderers() -> bool:
    """Whether this process is the first on its machine."""
    return os.environ.get("LOCAL_RANK", "0") == "0"


def spread(learner: Learner, ranks: Ranks) -> nn.Module:
    """Wrap what is trained for several processes; one process trains it as it is."""
    if ranks.count == 1:
        return learner
    if ranks.spreading == "replicate":
        return DistributedDataParallel(learner, broadcast_buffers=False)
    mesh = dist.device_mesh.init_device_mesh(ranks.device.type, (ranks.count,))
    for block in _blocks(learner.network):
        fully_shard(block, mesh=mesh)
    # Without a backward pass, as in validation, the outermost part would stay whole.
    return fully_shard(learner, mesh=mesh, reshard_after_forward=True)


def _blocks(network: OccAnyNetwork) -> list[nn.Module]:
    blocks = [*network.encoder.blocks, *network.decoder.blocks]
    if network.renders_novel_views:
        blocks += [*network.novel_view_encoder.blocks, *network.novel_view_decoder.blocks]
    return blocks


@contextmanager
def gradients_shared(wrapped: nn.Module, *, share: bool) -> Iterator[None]:
    """Exchange the gradients of the body, or keep them until a later batch of the same step."""
    if isinstance(wrapped, FSDPModule):
        wrapped.set_requires_gradient_sync(share)
    if isinstance(wrapped, DistributedDataParallel) and not share:
        with wrapped.no_sync():
            yield
        return
    yield


def is_spread(network: nn.Module) -> bool:
    """Whether processes hold parts of the weights."""
    return any(isinstance(parameter, DTensor) for parameter in network.parameters())


def whole_weights(network: nn.Module) -> dict[str, Tensor]:
    """Return all weights in host memory; every process must call this."""
    return whole(network.state_dict())


def whole(values: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return tensors, spread or not, whole and in host memory; every process must call this."""
    return {
        name: (value.full_tensor() if isinstance(value, DTensor) else value).detach().cpu().clone()
        for name, value in values.items()
    }


def spread_like(value: Tensor, like: Tensor) -> Tensor:
    """Bring a whole tensor to where another one is, in the same parts."""
    if isinstance(like, DTensor):
        return distribute_tensor(value.to(like.device), like.device_mesh, like.placements)
    return value.to(like.device, copy=True)


def optimiser_state(network: nn.Module, optimizer: torch.optim.Optimizer) -> dict:
    """Return the optimiser's state, whole; every process must call this."""
    if is_spread(network):
        return get_optimizer_state_dict(network, optimizer, options=_WHOLE)
    return optimizer.state_dict()


def restore_optimiser(network: nn.Module, optimizer: torch.optim.Optimizer, state: dict) -> None:
    """Undo `optimiser_state`."""
    if is_spread(network):
        set_optimizer_state_dict(network, optimizer, state, options=_WHOLE)
    else:
        optimizer.load_state_dict(state)


def agree_on_weights(network: nn.Module, ranks: Ranks) -> None:
    """Give all processes the first one's weights, before they are spread."""
    if ranks.count > 1:
        for value in network.state_dict().values():
            dist.broadcast(value, src=0)
