# SPDX-License-Identifier: Apache-2.0
"""The pool: samples in memory from which training draws while new ones arrive.

It knows shards in a folder and nothing of who writes them. A full pool gives its oldest sample's
place away as soon as what it holds was used often enough.
"""

import shutil
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from occany_core.errors import InputError
from occany_core.training.error_budget import ErrorBudget
from occany_core.training.pack import LABELS, Pack, bad_samples, read_shard, shard_folders


class Pool:
    """A ring of samples in the memory of one device.

    Args:
        capacity: Most samples it holds.
        device: Where they are kept. Draws are fastest where training runs; host memory is larger.
        budget: Bad samples are counted here and left out.
        with_labels: Whether labels are needed; otherwise they are left out.
    """

    def __init__(
        self,
        capacity: int,
        device: torch.device,
        budget: ErrorBudget,
        *,
        with_labels: bool = False,
    ) -> None:
        self.capacity, self.device, self.budget = capacity, device, budget
        self.with_labels = with_labels
        self.parts: dict[str, Tensor] = {}
        self.size = 0
        self.used_views = 0
        self.added_views = 0
        self._next = 0
        self._known: set[str] = set()

    def __len__(self) -> int:
        return self.size

    @property
    def reuse(self) -> float:
        """How often a view that ever came in was used on average."""
        return self.used_views / max(self.added_views, 1)

    def add(self, pack: Pack, place: str = "samples") -> None:
        """Put samples in, in the places of the oldest where the pool is full.

        Raises:
            InputError: Too many bad samples, samples of another size than before, or without the
                labels that are needed.
        """
        if self.with_labels and not pack.has_labels:
            raise InputError(
                f"{place} has no labels ({', '.join(LABELS)}), which segmentation is trained on; "
                "have streets rendered into another folder, or leave segmentation out: "
                "--set objective.forcing=0 --set network.prompt_classes=null "
                "--stages reconstruction rendering"
            )
        bad = bad_samples(pack)
        if bad.any():
            which = ", ".join(map(str, np.flatnonzero(bad)))
            self.budget.spend(f"{place}: samples {which} hold unusable numbers", int(bad.sum()))
        good = np.flatnonzero(~bad)[-self.capacity :]
        if len(good) == 0:
            return
        where = (self._next + torch.arange(len(good))) % self.capacity
        for name, array in pack.parts().items():
            if name in LABELS and not self.with_labels:
                continue
            new = torch.from_numpy(np.ascontiguousarray(array[good]))
            self._room(name, new, place)[where.to(self.device)] = new.to(self.device)
        self._next = int(where[-1] + 1) % self.capacity
        self.size = min(self.size + len(good), self.capacity)
        self.added_views += len(good) * pack.rgb.shape[1]

    def _room(self, name: str, like: Tensor, place: str) -> Tensor:
        if name not in self.parts:
            shape = (self.capacity, *like.shape[1:])
            pinned = self.device.type == "cpu" and torch.cuda.is_available()
            self.parts[name] = torch.zeros(
                shape, dtype=like.dtype, device=self.device, pin_memory=pinned
            )
        room = self.parts[name]
        if room.shape[1:] != like.shape[1:]:
            raise InputError(
                f"{place} has {name} of shape {tuple(like.shape[1:])}, but training needs "
                f"{tuple(room.shape[1:])}; empty the folder, or choose the same picture size"
            )
        return room

    def read_folder(self, folder: Path, most: int | None = None) -> int:
        """Put in shards of a folder that are new since the last call.

        Args:
            folder: Holds the shards.
            most: Shards at once; None for all.

        Returns:
            The number of shards.

        Raises:
            InputError: Too many bad samples, or some without the labels that are needed.
        """
        new = [shard for shard in shard_folders(folder) if shard.name not in self._known][:most]
        for shard in new:
            self._known.add(shard.name)
            if not shard.exists():  # retired by another process since
                continue
            try:
                pack = read_shard(shard)
            except InputError as error:
                self.budget.spend(str(error))
                continue
            self.add(pack, str(shard))
        return len(new)

    def take(self, name: str, samples: Tensor, views: Tensor) -> Tensor:
        """Return one part (`Pack`) of some views: samples (B,), views (B, V)."""
        samples, views = samples.to(self.device), views.to(self.device)
        return self.parts[name][samples[:, None], views]

    def samples(self, most: int) -> dict[str, Tensor]:
        """Return the first samples, part by part."""
        return {name: part[: min(most, self.size)] for name, part in self.parts.items()}


def retire(folder: Path, keep: int) -> None:
    """Delete the oldest shards of a folder until `keep` are left, so that new ones find room."""
    shards = shard_folders(folder)
    for shard in shards[: max(len(shards) - keep, 0)]:
        hidden = shard.with_name(f".retired_{shard.name}")
        shard.rename(hidden)
        shutil.rmtree(hidden)
