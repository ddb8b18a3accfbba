# SPDX-License-Identifier: Apache-2.0
"""Training recipes: everything that decides what a run computes, apart from the data."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Draw:
    """One kind of batch and how often it is drawn."""

    kind: str
    """single, sequence or surround (`BatchSampler.draw`)."""
    num_views: int
    weight: float
    """Relative frequency."""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A stretch of training with one mixture of batches."""

    until: float
    """Ends at this share of the stage's time budget."""
    draws: tuple[Draw, ...]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Reconstruction, or novel-view rendering with the reconstruction frozen (paper 3)."""

    name: str
    minutes: float
    """Time budget; the learning-rate schedule follows the share of it that has passed."""
    peak_rate: float
    phases: tuple[Phase, ...]
    num_novel: int = 0
    """Novel views per scene; 0 trains reconstruction, more trains rendering only."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A whole run."""

    name: str
    stages: tuple[Stage, ...]
    views_per_step: int
    warmup_steps: int = 200
    weight_decay: float = 0.05
    clip: float = 1.0
    ema: float = 0.999
    alpha: float = 0.4
    """`losses.point_loss`."""
    seed: int = 0
    validation_samples: int = 48
    """Last samples of the pack, kept out of training."""


_SINGLE = Draw(kind="single", num_views=1, weight=1.0)
_PAIR = Draw(kind="sequence", num_views=2, weight=0.35)
_SEQUENCE = Draw(kind="sequence", num_views=5, weight=0.6)
_SURROUND = Draw(kind="surround", num_views=6, weight=0.6)


def tiny(reconstruction_minutes: float, rendering_minutes: float) -> Recipe:
    """Return the shipped weights' recipe: single views first, then rigs and sequences."""
    return Recipe(
        name="tiny",
        views_per_step=8,
        stages=(
            Stage(
                name="reconstruction",
                minutes=reconstruction_minutes,
                peak_rate=5e-4,
                phases=(
                    Phase(until=0.5, draws=(_SINGLE, _PAIR)),
                    Phase(until=1.0, draws=(_SINGLE, _SEQUENCE, _SURROUND)),
                ),
            ),
            Stage(
                name="rendering",
                minutes=rendering_minutes,
                peak_rate=5e-4,
                phases=(Phase(until=1.0, draws=(_SINGLE, _SEQUENCE, _SURROUND)),),
                num_novel=6,
            ),
        ),
    )
