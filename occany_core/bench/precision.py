# SPDX-License-Identifier: Apache-2.0
"""What bfloat16 costs: error of every stage against float32, and what becomes of the voxels.

Measured on the held-back streets that `occany evaluate synthocc` scores.
"""

import statistics
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from occany_core.checkpoints import Model
from occany_core.config import OccAnyConfig, from_flat
from occany_core.evaluation.metrics import OccupancyCounts, count_occupancy
from occany_core.evaluation.synthocc import check_grid, view_sets
from occany_core.network import Tokens
from occany_core.observation import EncodedSet, compute_dtype, encode
from occany_core.pipeline import Scene, reconstruct
from occany_core.synthetic.classes import SemanticClass
from occany_core.synthetic.synthocc import OccupancyScene, scenes

DTYPES = ("float32", "bfloat16")
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class StageError:
    """Difference of one stage, relative to the root mean square of its float32 values."""

    rms: float
    """Root mean square of the difference; the median over scenes."""
    largest: float
    """Largest difference; the median over scenes."""


@dataclass(frozen=True)
class PrecisionReport:
    """What `measure` found."""

    scenes: int
    stages: dict[str, StageError]
    iou: dict[str, float]
    """Against the truth, in percent, by number format."""
    agreement: float
    """IoU of the two occupancies with each other, in percent."""

    def to_dict(self) -> dict:
        """Return plain JSON data."""
        return asdict(self)


def measure(
    model: Model,
    limit: int,
    config: OccAnyConfig | None = None,
    progress: Progress | None = None,
) -> PrecisionReport:
    """Compare both number formats on the surround scenes of SynthOcc.

    Args:
        model: From `load_model`.
        limit: Number of scenes.
        config: Settings; the grid must stay the one of SynthOcc.
        progress: Called with scenes done and scenes in all.

    Raises:
        ConfigError: The grid is another one.
    """
    config = config or OccAnyConfig()
    check_grid(config)
    errors: dict[str, list[tuple[float, float]]] = {}
    counts = dict.fromkeys((*DTYPES, "agreement"), OccupancyCounts())
    for done, truth in enumerate(scenes("surround", limit)):
        runs = [_run(model, truth, config, dtype) for dtype in DTYPES]
        for (name, wide), (_, half) in zip(*(_stages(*run) for run in runs), strict=True):
            errors.setdefault(name, []).append(_difference(wide, half))
        occupied = truth.semantics != SemanticClass.FREE
        grids = [scene.grid.occupied for *_, scene in runs]
        for dtype, grid in zip(DTYPES, grids, strict=True):
            counts[dtype] += count_occupancy(grid, occupied, truth.mask_camera)
        counts["agreement"] += count_occupancy(grids[1], grids[0], truth.mask_camera)
        if progress:
            progress(done + 1, limit)
    return PrecisionReport(
        scenes=limit,
        stages={
            name: StageError(*(statistics.median(column) for column in zip(*found, strict=True)))
            for name, found in errors.items()
        },
        iou={dtype: round(counts[dtype].iou, 2) for dtype in DTYPES},
        agreement=round(counts["agreement"].iou, 2),
    )


def _run(
    model: Model, truth: OccupancyScene, config: OccAnyConfig, dtype: str
) -> tuple[list[EncodedSet], dict[str, Tensor], Scene]:
    """Run the pipeline once, and look into the memory that it builds."""
    config = from_flat({"window.anchor": "oldest", "runtime.dtype": dtype}, config)
    sets = [encode(model, views, config) for views in view_sets(truth)]
    with torch.inference_mode(), compute_dtype(model, config):
        memory = model.network.update_memory(Tokens.joined([one.tokens for one in sets]))
    inside = {
        "memory keys": torch.stack(memory.keys),
        "memory values": torch.stack(memory.values),
    }
    return sets, inside, reconstruct(model, sets, config)


def _stages(
    sets: list[EncodedSet], inside: dict[str, Tensor], scene: Scene
) -> Iterator[tuple[str, Tensor]]:
    """Yield what each stage hands on."""
    yield "encoder tokens", torch.cat([one.tokens.tokens for one in sets], dim=1)
    yield from inside.items()
    for kind, maps in (("observed", scene.observed), ("rendered", scene.novel)):
        if maps is not None:
            yield f"{kind} points", maps.points_world
            yield f"{kind} log confidence", (maps.confidence - 1).log()


def _difference(wide: Tensor, half: Tensor) -> tuple[float, float]:
    wide, half = wide.double(), half.double()
    scale = wide.square().mean().sqrt()
    difference = half - wide
    return (
        (difference.square().mean().sqrt() / scale).item(),
        (difference.abs().max() / scale).item(),
    )
