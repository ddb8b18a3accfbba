# SPDX-License-Identifier: Apache-2.0
"""Live use: a rolling window of view sets; a new set costs one encoding per new picture.

The tokens of sets that stay in the window are reused; the scene memory is rebuilt from tokens,
which is cheap beside encoding. A set that shows hardly more than the one before it gives way to
the next (keyframes), so that a window spans a path and not a stop. Memory is bounded by the
window.
"""

import logging
from dataclasses import dataclass

import torch

from occany_core import rigid
from occany_core.checkpoints import Model
from occany_core.config import OccAnyConfig
from occany_core.images import View
from occany_core.pipeline import EncodedSet, Scene, encode, reconstruct
from occany_core.stopwatch import Stopwatch

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Kept:
    """A view set of the window and where the rig was, as known when it came."""

    encoded: EncodedSet
    odom_from_rig: torch.Tensor


class Stream:
    """Feeds view sets to the pipeline one after the other."""

    def __init__(self, model: Model, config: OccAnyConfig) -> None:
        self.model = model
        self.config = config
        self._window: list[_Kept] = []
        self._odom_from_rig = torch.eye(4)

    @property
    def num_sets(self) -> int:
        """View sets in the window."""
        return len(self._window)

    @property
    def sets(self) -> list[EncodedSet]:
        """View sets in the window, oldest first: those of the last scene."""
        return [kept.encoded for kept in self._window]

    @property
    def odom_from_rig(self) -> torch.Tensor | None:
        """Pose of the newest rig since the reset (4, 4) [m]; None for a window of one set."""
        return self._odom_from_rig if self.config.window.view_sets > 1 else None

    def add(self, views: list[View]) -> Scene:
        """Add one synchronised view set and return the scene of the window.

        A failure leaves the window as it was.

        Raises:
            InputError: A picture or calibration that cannot be used.
            DegenerateGeometryError: The prediction determines no cameras.
        """
        watch = Stopwatch()
        with watch.stage("encode"):
            new = encode(self.model, views, self.config)
        past = self._past_for(new)
        sets = [*(kept.encoded for kept in past), new]
        scene = reconstruct(self.model, sets, self.config, watch.seconds)
        odom_from_rig = self._odom_from_rig
        if past:
            before, now = scene.world_from_rig[-2], scene.world_from_rig[-1]
            odom_from_rig = past[-1].odom_from_rig @ torch.linalg.inv(before) @ now
        self._window = [*past, _Kept(new, odom_from_rig)]
        self._odom_from_rig = odom_from_rig
        return scene

    def _past_for(self, new: EncodedSet) -> list[_Kept]:
        """Choose what stays in the window beside a new view set."""
        limits = self.config.window
        window = self._window
        if window and window[-1].encoded.tokens.grid != new.tokens.grid:
            logger.warning("picture size changed: the window starts anew")
            window = []
        if len(window) > 1 and not self._has_moved(*window[-2:]):
            window = window[:-1]
        window = window[max(len(window) + 1 - limits.view_sets, 0) :]
        stamp = new.views[0].stamp
        if limits.seconds > 0:
            window = [
                kept
                for kept in window
                if abs(stamp - kept.encoded.views[0].stamp) <= limits.seconds
            ]
        return window

    def _has_moved(self, before: _Kept, after: _Kept) -> bool:
        """Whether the later of two neighbouring sets is a keyframe, by the rig's own motion."""
        distance, angle = (
            self.config.window.keyframe_distance,
            self.config.window.keyframe_angle_deg,
        )
        if distance == 0 and angle == 0:
            return True
        motion = torch.linalg.inv(before.odom_from_rig) @ after.odom_from_rig
        moved, turned = motion[:3, 3].norm().item(), rigid.angle_deg(motion).item()
        return (distance > 0 and moved >= distance) or (angle > 0 and turned >= angle)

    def reset(self) -> None:
        """Forget the window and the path."""
        self._window = []
        self._odom_from_rig = torch.eye(4)
