# SPDX-License-Identifier: Apache-2.0
"""Motions between view sets -> one path of the rig, with how far it can be trusted.

Every new view set is a link: its motion against the newest set that stayed in the window, for
which both are seen in one prediction. Where no link is possible the path goes on from the last
pose in a new segment, and what may have happened meanwhile is added to the doubt. Metres,
radians.
"""

import math
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Float
from torch import Tensor

START_DEVIATION = 0.05
"""Standard deviation of the first pose of a path [m]."""
LINK_DEVIATION = 0.01
"""What each link adds, even where the rig stands [m]."""
RADIANS_PER_METRE = 0.02
"""Rotation error that goes with one metre of position error."""


@dataclass(frozen=True, slots=True)
class Drift:
    """How wrong the motions of a network are: standard deviation of the position."""

    per_metre: float
    """Of the predicted path; from a wrong scale."""
    per_second: float
    """Metres; from motion that the network does not see."""


@dataclass(frozen=True, slots=True)
class Odometry:
    """Where the rig is, as far as the path of its view sets tells."""

    odom_from_rig: Float[Tensor, "4 4"] = field(default_factory=lambda: torch.eye(4))
    segment: int = 1
    """Counts the parts of the path that are not linked to each other."""
    break_reason: str = ""
    """Why this segment began; empty for the first."""
    links: int = 0
    """Links from the first pose to this one, all segments."""
    links_before: int = 0
    """Those before this segment."""
    metres: float = 0.0
    """Length of these links."""
    seconds: float = 0.0
    """Time that these links took."""
    unseen_metres: float = 0.0
    """How far the rig may have gone between segments."""

    def linked(self, motion: Float[Tensor, "4 4"], seconds: float) -> "Odometry":
        """Go on by a motion in the rig's own frame that took so long."""
        return replace(
            self,
            odom_from_rig=self.odom_from_rig @ motion,
            links=self.links + 1,
            metres=self.metres + motion[:3, 3].norm().item(),
            seconds=self.seconds + abs(seconds),
        )

    def broken(self, reason: str, unseen_metres: float) -> "Odometry":
        """Begin a new segment at this pose, unless this one has no link yet and the same reason.

        Args:
            reason: Why no link is possible.
            unseen_metres: How far the rig may have gone meanwhile.
        """
        is_going_on = reason == self.break_reason and self.links == self.links_before
        return replace(
            self,
            segment=self.segment + (not is_going_on),
            break_reason=reason,
            unseen_metres=math.hypot(self.unseen_metres, unseen_metres),
            links_before=self.links,
        )

    def position_deviation(self, drift: Drift) -> float:
        """Return the standard deviation of the position [m]."""
        return math.hypot(
            START_DEVIATION,
            LINK_DEVIATION * math.sqrt(self.links),
            drift.per_metre * self.metres,
            drift.per_second * self.seconds,
            self.unseen_metres,
        )

    def rotation_deviation(self, drift: Drift) -> float:
        """Return the standard deviation of the rotation [rad]."""
        turn = RADIANS_PER_METRE * self.position_deviation(drift)
        return min(math.pi, turn if self.segment == 1 else math.pi)
