# SPDX-License-Identifier: Apache-2.0
"""The ground under a rig: how it is tilted against the rig, and which points belong to it.

Metres, grid axes (x forward, y left, z up); the rig's wheels stand at the origin.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

NEAREST, FARTHEST = 2.0, 30.0
"""Points in this range of the rig tell the tilt [m]."""
LEAST_CONFIDENCE = 1.5
HALF_BAND, BAND_GROWTH = 0.25, 0.02
"""Points this near to the ground found so far, in metres and per metre of range, count."""
ROUNDS = 5
PRIOR = 0.02
"""What speaks for level ground against one view, of the weight of all points that count, 20 m
away: as much as 12 points with an error of 0.15 m leave open where the tilt is 1.5 % by nature.
Errors of neighbouring points are alike, so more of them do not say more; more views do, and ground
of a few metres says little."""
ARM = 20.0
LEAST_POINTS = 30


@dataclass(frozen=True)
class Ground:
    """The plane z = rise_x * x + rise_y * y."""

    rise_x: float = 0.0
    rise_y: float = 0.0

    def height_of(self, points: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch"]:
        """Return how high points are above the plane [m]."""
        return points[..., 2] - self.rise_x * points[..., 0] - self.rise_y * points[..., 1]

    def attract(
        self,
        points: Float[Tensor, "P 3"],
        centre: Float[Tensor, "3"],
        tolerance: float,
        growth: float = 0.0,
        kerb: float = 0.0,
    ) -> tuple[Float[Tensor, "P 3"], Bool[Tensor, " P"]]:
        """Move points near or below the ground along their viewing ray onto it.

        Nothing is seen below the ground, so a point there is too far away; one less than
        `tolerance` above it is most likely ground whose distance is a little off. Ground is the
        plane and what stands up to a kerb higher: points between the two stay. A camera at or
        below the ground moves no point.

        Args:
            points: Seen from `centre`.
            centre: Of the camera.
            tolerance: At the camera [m].
            growth: Of the tolerance, per metre of range: an error of the angle at which ground is
                seen lifts it by as much as it is far away.
            kerb: Height of the ground beside the carriageway [m].

        Returns:
            The points, and which of them are ground.
        """
        height = self.height_of(points)
        level = height.clamp(0, kerb)
        mount = self.height_of(centre) - level
        drop = mount + level - height
        allowed = tolerance + growth * (points - centre).norm(dim=-1)
        on_ground = (height - level < allowed) & (drop > 0.2 * mount) & (mount > 0)
        scale = torch.where(on_ground, mount / drop.clamp_min(1e-6), 1.0)
        return centre + (points - centre) * scale[:, None], on_ground


LEVEL = Ground()


def estimate_ground(
    points: Float[Tensor, "V P 3"], confidence: Float[Tensor, "V P"], *, knows_height: bool = False
) -> Ground:
    """Fit a tilted ground to what all cameras see of it.

    Least squares over the points in a narrow band around the ground found so far, beginning with
    the level; points weigh what their confidence exceeds 1 by. Depth that is off by a factor lifts
    or lowers all ground by the same amount, whatever its range; so an offset is fitted along and
    then forgotten, for the wheels stand on the ground. Too few points leave the ground level.

    Args:
        points: Observed, of every view.
        confidence: In (1, inf).
        knows_height: The points come from a network that knew how high the cameras are, so that no
            factor is to be expected and no offset is fitted.
    """
    prior = PRIOR / len(points)
    points, confidence = points.flatten(0, 1), confidence.flatten()
    reach = points[:, :2].norm(dim=-1)
    counts = (reach > NEAREST) & (reach < FARTHEST) & (confidence > LEAST_CONFIDENCE)
    points, reach = points[counts].double(), reach[counts].double()
    weights = (confidence[counts].double() - 1)[:, None]
    columns = torch.cat([torch.ones_like(points[:, :1]), points[:, :2] / ARM], dim=-1)
    ease = points.new_tensor([1e-6, prior, prior])
    if knows_height:
        columns, ease = columns[:, 1:], ease[1:]
    found = torch.zeros_like(ease)
    for _ in range(ROUNDS):
        band = HALF_BAND + BAND_GROWTH * reach
        near = (points[:, 2] - columns @ found).abs() < band
        if near.sum() < LEAST_POINTS:
            return LEVEL
        chosen, weighed = columns[near], columns[near] * weights[near]
        pull = weights[near].sum() * torch.diag(ease)
        found = torch.linalg.solve(weighed.T @ chosen + pull, weighed.T @ points[near, 2])
    return Ground(float(found[-2]) / ARM, float(found[-1]) / ARM)
