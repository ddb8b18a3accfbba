# SPDX-License-Identifier: Apache-2.0
"""Which samples, sizes and views make up the batches of an epoch (training page 3.2).

Everything is a function of seed, epoch and rank, so a run can go on in the middle of an epoch, and
all ranks agree without talking. The draws are those of the released code, number for number.
"""

from dataclasses import dataclass

import numpy as np

from occany_core.errors import ConfigError, InputError

SEED = 777
"""The released runs start every epoch's generator from this plus the epoch."""


@dataclass(frozen=True, kw_only=True)
class HeldOutRule:
    """Which views of a sample are kept from reconstruction, to be rendered."""

    probability: float
    """Of every view but the first."""
    most: int = 5
    """If more are drawn, this many of them stay."""

    def __post_init__(self) -> None:
        if not 0 <= self.probability <= 1 or self.most < 1:
            raise ConfigError(
                f"held-out views: probability {self.probability} must lie in [0, 1] and "
                f"most {self.most} be at least 1"
            )


@dataclass(frozen=True, kw_only=True)
class BatchRule:
    """What is drawn per batch; all samples of a batch share it."""

    batch: int
    """Samples per batch of one rank."""
    ranks: int = 1
    num_resolutions: int
    views: tuple[int, int]
    """Fewest and most views of a sample."""
    held_out: HeldOutRule

    def __post_init__(self) -> None:
        least, most = self.views
        if min(self.batch, self.ranks, self.num_resolutions) < 1 or not 2 <= least <= most:
            raise ConfigError(
                f"batch {self.batch}, ranks {self.ranks} and num_resolutions "
                f"{self.num_resolutions} must be at least 1, and views {self.views} hold at "
                "least two, fewest first: one stays in reconstruction and one is held out"
            )


@dataclass(frozen=True)
class BatchPlan:
    """One batch of one rank."""

    samples: tuple[int, ...]
    resolution: int
    """Index into the list of resolutions."""
    num_views: int
    held_out: tuple[int, ...]
    """Positions of the held-out views among the `num_views`, ascending, never 0."""


def plan_epoch(
    length: int, rule: BatchRule, epoch: int, rank: int = 0, seed: int = SEED
) -> list[BatchPlan]:
    """Return the batches of one rank in one epoch.

    The samples are shuffled and cut to whole batches of all ranks; each rank has one contiguous
    part of them.

    Args:
        length: Samples of the concatenated data sets.
        rule: What is drawn per batch.
        epoch: Index of the epoch.
        rank: This process.
        seed: Of the run.

    Raises:
        InputError: There is no such rank, or not one batch for each.
    """
    if not 0 <= rank < rule.ranks:
        raise InputError(f"rank {rank} of {rule.ranks}: count from 0 to {rule.ranks - 1}")
    per_rank = length // (rule.batch * rule.ranks)
    if per_rank < 1:
        raise InputError(
            f"{length} samples do not fill one batch of {rule.batch} on each of {rule.ranks} "
            "ranks; give more samples, a smaller batch or fewer ranks"
        )
    rng = np.random.default_rng(seed + epoch)
    samples = rng.permutation(length)
    plans = _draw_batches(samples, per_rank * rule.ranks, rule, rng)
    return plans[rank * per_rank : (rank + 1) * per_rank]


def _draw_batches(
    samples: np.ndarray, batches: int, rule: BatchRule, rng: np.random.Generator
) -> list[BatchPlan]:
    resolutions = rng.integers(0, rule.num_resolutions, size=batches).tolist()
    counts = rng.integers(rule.views[0], rule.views[1] + 1, size=batches).tolist()
    chosen = samples[: batches * rule.batch].reshape(batches, rule.batch).tolist()
    return [
        BatchPlan(tuple(members), resolution, count, choose_held_out(count, rule.held_out, rng))
        for members, resolution, count in zip(chosen, resolutions, counts, strict=True)
    ]


def choose_held_out(
    num_views: int, rule: HeldOutRule, rng: np.random.Generator
) -> tuple[int, ...]:
    """Draw the views that are held out: at least one, never the first, at most `rule.most`.

    Raises:
        InputError: A sample of one view has none to spare.
    """
    if num_views < 2:
        raise InputError(f"{num_views} view has none to hold out; give at least two")
    chosen = (np.flatnonzero(rng.random(num_views - 1) < rule.probability) + 1).tolist()
    if not chosen:
        chosen = [int(rng.integers(1, num_views))]
    if len(chosen) > rule.most:
        chosen = sorted(rng.choice(chosen, rule.most, replace=False).tolist())
    return tuple(chosen)


def draw_from_set(length: int, count: int, epoch: int, seed: int = SEED) -> list[int]:
    """Return the `count` samples that a data set adds to an epoch ("count @ set").

    The set is permuted, repeated as often as needed and cut.

    Raises:
        InputError: The set is empty.
    """
    if length < 1:
        raise InputError("the data set has no samples; check its folder and its index")
    order = np.random.default_rng(seed + epoch).permutation(length)
    return np.resize(order, count).tolist()


def choose_frames(
    available: int, wanted: int, rng: np.random.Generator, reverse_probability: float = 0.5
) -> list[int]:
    """Choose neighbouring frames of a sequence, forwards or backwards in time.

    Raises:
        InputError: The sequence is shorter than wanted.
    """
    if not 1 <= wanted <= available:
        raise InputError(f"{wanted} of {available} frames wanted; choose 1 to {available}")
    start = int(rng.integers(0, available - wanted + 1))
    frames = list(range(start, start + wanted))
    return frames[::-1] if rng.random() < reverse_probability else frames


def choose_cameras(
    available: int, rng: np.random.Generator, wanted: int | None = None
) -> list[int]:
    """Choose cameras of a rig in random order, so that any of them can be the reference.

    Args:
        available: Cameras of the rig.
        rng: Draws.
        wanted: None takes each camera once. The released runs ask surround samples for as many
            views as sequences have, and repeat random cameras where there are too few.

    Raises:
        InputError: No cameras.
    """
    wanted = available if wanted is None else wanted
    if min(available, wanted) < 1:
        raise InputError(f"{wanted} of {available} cameras wanted; at least one is needed")
    once = rng.permutation(available)[:wanted]
    repeated = rng.choice(available, wanted - len(once))
    return rng.permutation(np.sort(np.concatenate((once, repeated)))).tolist()


def reconstruction_first(num_views: int, held_out: tuple[int, ...]) -> list[int]:
    """Return the order in which views are given out: reconstruction views, then held-out ones."""
    return [view for view in range(num_views) if view not in held_out] + list(held_out)
