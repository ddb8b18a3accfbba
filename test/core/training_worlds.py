# SPDX-License-Identifier: Apache-2.0
"""Four small rendered worlds, pools of them, and recipes short enough for a test."""

import functools

import torch
from tiny_networks import tiny_config

from occany_core.synthetic.samples import Sample, training_sample
from occany_core.training.error_budget import ErrorBudget
from occany_core.training.pack import Pack, pack_sample, write_shard
from occany_core.training.pool import Pool
from occany_core.training.recipe import Draw, Objective, Optimiser, Phase, Recipe, Stage
from occany_core.training.recipes import NOVEL_PARTS, POSE_IS_GIVEN
from occany_core.training.supply import HELD_BACK, Supply

HEIGHT, WIDTH = 32, 48
PICTURES, ALL_VIEWS = 15, 33
CPU = torch.device("cpu")

FROM_SCRATCH = Objective(
    space="log", alpha=0.4, plain=1.0, sky=1.0, pose=0.1, forcing=0.0, both_passes=False
)
AVERAGED = Optimiser(clip=1.0, average=0.99, warmup=0.0)


@functools.cache
def samples() -> list[Sample]:
    rendered = (training_sample(seed, 96, 64) for seed in range(100))
    usable = (sample for sample in rendered if sample is not None)
    return [next(usable) for _ in range(4)]


def stored_world(seed: int) -> Sample | None:
    """Stands for a renderer; other processes import it."""
    if seed % 8 == 3:
        raise ValueError("a world that cannot be built")
    return samples()[seed % 4] if seed % 8 < 4 else None


def no_world(seed: int) -> None:
    raise ValueError(f"no world {seed}")


@functools.cache
def pack(block: int = 4, *, with_labels: bool = False) -> Pack:
    return Pack.joined(
        [
            pack_sample(sample, HEIGHT, WIDTH, block, with_labels=with_labels)
            for sample in samples()
        ]
    )


def pool(of: Pack | None = None, *, most_errors: int = 0) -> Pool:
    of = pack() if of is None else of
    filled = Pool(len(of), CPU, ErrorBudget(most_errors), with_labels=of.has_labels)
    filled.add(of)
    return filled


def supply(folder, of: Pack | None = None, *, most_errors: int = 0) -> Supply:
    return Supply(pool(of, most_errors=most_errors), pool(of), folder)


def write_folder(folder) -> None:
    """What `occany train --data` reads."""
    write_shard(pack(with_labels=True), folder / "shard_000000")
    write_shard(pack(with_labels=True), folder / HELD_BACK / "shard_000000")


RECONSTRUCTION = ("encoder.", "decoder.", "heads.")
MIXED = (
    Draw(kind="single"),
    Draw(kind="sequence", views=(2, 3)),
    Draw(kind="surround", weight=0.3),
)


def stage(steps: int, draws=MIXED, **changes) -> Stage:
    values = {"name": "reconstruction", "trained": RECONSTRUCTION} | changes
    return Stage(steps=steps, peak_rate=1e-3, phases=(Phase(draws=draws),), **values)


def rendering(steps: int, draws=MIXED, novel: str = "nearby") -> Stage:
    return stage(
        steps, draws, name="rendering", novel=novel, num_novel=2, trained=NOVEL_PARTS,
        frozen=POSE_IS_GIVEN,
    )  # fmt: skip


def recipe(*stages: Stage, **changes) -> Recipe:
    values = {
        "name": "test",
        "network": tiny_config("convolutional"),
        "picture": (HEIGHT, WIDTH),
        "views_per_step": 6,
        "objective": FROM_SCRATCH,
        "optimiser": AVERAGED,
    }
    return Recipe(stages=stages, **(values | changes))


def released_like(*stages: Stage, **changes) -> Recipe:
    """The released recipe's network, losses and freezing, with tiny dimensions."""
    network = tiny_config("patch")
    objective = Objective(forcing=changes.pop("forcing", 0.0), distillation=1.0)
    return recipe(*stages, network=network, objective=objective, optimiser=Optimiser(), **changes)
