# SPDX-License-Identifier: Apache-2.0
"""The depth term of the plus model (training page 5)."""

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from occany_core.errors import ConfigError
from occany_core.training.objectives.regression import (
    LEAST_SCALE,
    step_error,
    valid_mean,
    with_confidence,
)


@dataclass(frozen=True, kw_only=True)
class DepthSettings:
    """How depth is compared; the defaults are those of the plus recipes: plain metres."""

    alpha: float = 0.0
    """Weight of log C; 0 leaves the confidence out."""
    step_weight: float = 0.0
    """Weight of the error of depth steps between neighbours, always in metres."""
    is_relative: bool = False
    """Divide by the mean true depth of each view."""
    trains_confidence: bool = True

    def __post_init__(self) -> None:
        if min(self.alpha, self.step_weight) < 0:
            raise ConfigError(
                f"alpha is {self.alpha}, step_weight {self.step_weight}; weights must not be "
                "negative"
            )


def depth_loss(
    depth: Float[Tensor, "B N H W"],
    confidence: Float[Tensor, "B N H W"],
    truth: Float[Tensor, "B N H W"],
    valid: Bool[Tensor, "B N H W"],
    settings: DepthSettings,
) -> Float[Tensor, ""]:
    """Compare depth along z with the truth, averaged over all valid pixels of the batch.

    Args:
        depth: Predicted [m].
        confidence: Above 1.
        truth: Metres; any value where not valid.
        valid: Where the truth is known.
        settings: Weights and units.
    """
    truth = truth.where(valid, 0.0)
    error = (depth - truth).where(valid, 0.0).abs()
    if settings.is_relative:
        mean = truth.sum(dim=(2, 3), keepdim=True) / valid.sum(dim=(2, 3), keepdim=True).clamp_min(
            1
        )
        error = error / mean.clamp_min(LEAST_SCALE)
    weights = confidence if settings.trains_confidence else confidence.detach()
    weighted = with_confidence(error, weights if settings.alpha > 0 else None, settings.alpha)
    total = valid_mean(weighted, valid)
    if settings.step_weight > 0:
        total = total + settings.step_weight * step_error(depth - truth, valid)
    return total
