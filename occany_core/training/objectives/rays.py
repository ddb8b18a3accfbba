# SPDX-License-Identifier: Apache-2.0
"""The ray term of the plus model (training page 5)."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from occany_core import camera
from occany_core.errors import ConfigError
from occany_core.training.objectives.regression import Distance, distance, with_confidence

DIRECTION_WEIGHT = 10.0
"""Weight of a unit of direction beside a metre of origin."""


@dataclass(frozen=True, kw_only=True)
class RaySettings:
    """How ray maps are compared; the defaults are those of the plus recipes."""

    alpha: float = 1.0
    """Weight of log C; 0 leaves the confidence out."""
    distance: Distance = "l1"

    def __post_init__(self) -> None:
        if self.alpha < 0:
            raise ConfigError(f"alpha is {self.alpha}; the weight of log C must not be negative")


@dataclass(frozen=True)
class RayLoss:
    """The term and what to report of it."""

    total: Float[Tensor, ""]
    direction_error: Float[Tensor, ""]
    """Mean error of directions, without confidence and gradient."""
    origin_error: Float[Tensor, ""]
    """The same of origins [m]."""


def ray_map(
    K: Float[Tensor, "*batch 3 3"],
    reference_from_cam: Float[Tensor, "*batch 4 4"],
    size: tuple[int, int],
) -> Float[Tensor, "*batch height width 6"]:
    """Return direction and origin [m] of every pixel's ray in the reference frame.

    Directions reach depth 1, so point = origin + depth * direction.

    Args:
        K: Intrinsics [px].
        reference_from_cam: Poses [m].
        size: Height and width [px].
    """
    rotation, origin = reference_from_cam[..., :3, :3], reference_from_cam[..., :3, 3]
    direction = camera.rays(K, *size) @ rotation.transpose(-1, -2)[..., None, :, :]
    return torch.cat((direction, origin[..., None, None, :].expand_as(direction)), dim=-1)


def ray_loss(
    rays: Float[Tensor, "B N H W 6"],
    confidence: Float[Tensor, "B N H W"],
    truth: Float[Tensor, "B N H W 6"],
    settings: RaySettings,
) -> RayLoss:
    """Compare ray maps; every pixel has a ray, so every pixel counts.

    Args:
        rays: Predicted direction and origin [m].
        confidence: Ray confidence, above 1.
        truth: As `ray_map` gives it.
        settings: Distance and weight of the confidence.

    Raises:
        ConfigError: Unknown distance.
    """
    everywhere = torch.ones_like(confidence, dtype=torch.bool)
    difference = rays - truth
    direction = distance(difference[..., :3], everywhere, settings.distance)
    origin = distance(difference[..., 3:], everywhere, settings.distance)
    weights = confidence if settings.alpha > 0 else None
    error = DIRECTION_WEIGHT * direction + origin
    return RayLoss(
        with_confidence(error, weights, settings.alpha).mean(),
        direction.mean().detach(),
        origin.mean().detach(),
    )
