# SPDX-License-Identifier: Apache-2.0
"""Live use: a rolling window of view sets; a new set costs one encoding per new picture.

The tokens of sets that stay in the window are reused; the scene memory is rebuilt from tokens,
which is cheap beside encoding. A set that shows hardly more than the one before it gives way to
the next (keyframes), so that a window spans a path and not a stop. Memory is bounded by the
window.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from occany_core import rigid
from occany_core.checkpoints import Model
from occany_core.config import OccAnyConfig
from occany_core.images import View, check_views
from occany_core.observation import EncodedSet, encode
from occany_core.odometry import Odometry
from occany_core.pipeline import Scene, check_request, look, reconstruct
from occany_core.semantics.labelling import Labeller
from occany_core.stopwatch import Stopwatch

logger = logging.getLogger(__name__)

NOISE_SECONDS = 0.5
"""Within less, errors of the prediction and not the speed of the rig decide about a motion."""
FASTEST = 70.0
"""How fast a rig may go where no limit is set [m/s]."""


@dataclass(frozen=True)
class _Kept:
    """A view set of the window and where the rig was, as known when it came."""

    encoded: EncodedSet
    odometry: Odometry

    @property
    def stamp(self) -> float:
        """Capture time [s]."""
        return self.encoded.views[0].stamp


def _last_motion(scene: Scene) -> torch.Tensor:
    """Return the pose (4, 4) of the newest rig in the frame of the one before it [m]."""
    before, now = scene.world_from_rig[-2], scene.world_from_rig[-1]
    return torch.linalg.inv(before) @ now


class Stream:
    """Feeds view sets to the pipeline one after the other.

    Args:
        model: Network and card.
        config: Settings; they may be replaced between two view sets, but for what `Labeller`
            keeps.
        labeller: Names pixels and cells; if None, one is made.
        looks: Gives view sets what was found in their pictures, at every cycle; if None, the
            pictures of a new set are looked at as it comes, however long that takes.

    Raises:
        InputError, ConfigError: Something else than a model or settings.
        ConfigError, CheckpointError: As `Labeller`.
    """

    def __init__(
        self,
        model: Model,
        config: OccAnyConfig,
        labeller: Labeller | None = None,
        looks: Callable[[EncodedSet], EncodedSet] | None = None,
    ) -> None:
        check_request(model, config)
        self.model = model
        self.config = config
        self.labeller = labeller or Labeller(model, config.labels)
        self._looks = looks
        if looks is None and self.labeller.models.look_at_pictures:
            self._looks = lambda encoded: look(self.labeller, encoded, self.config)
        self._window: list[_Kept] = []
        self._odometry = Odometry()

    @property
    def num_sets(self) -> int:
        """View sets in the window."""
        return len(self._window)

    @property
    def sets(self) -> list[EncodedSet]:
        """View sets in the window, oldest first: those of the last scene."""
        return [kept.encoded for kept in self._window]

    @property
    def odometry(self) -> Odometry | None:
        """Path of the rig since the reset; None for a window of one set."""
        return self._odometry if self.config.window.view_sets > 1 else None

    @property
    def odom_from_rig(self) -> torch.Tensor | None:
        """Pose of the newest rig since the reset (4, 4) [m]; None for a window of one set."""
        return None if self.odometry is None else self.odometry.odom_from_rig

    def add(self, views: list[View]) -> Scene:
        """Add one synchronised view set and return the scene of the window.

        A failure leaves the window as it was.

        Raises:
            InputError: A picture or calibration that cannot be used.
            DegenerateGeometryError: The prediction determines no cameras.
        """
        check_views(views)
        watch = Stopwatch()
        with watch.stage("encode"):
            new = encode(self.model, views, self.config)
        past = self._past_for(new)
        if self._looks is not None:
            with watch.stage("look"):
                new = self._looks(new)
                past = [replace(kept, encoded=self._looks(kept.encoded)) for kept in past]
        scene, reason = self._reconstruct(past, new, watch)
        if reason:
            past = []
            odometry = self._odometry.broken(reason, self._unseen_metres(new))
            if odometry.segment != self._odometry.segment:
                logger.warning("odometry: segment %d begins: %s", odometry.segment, reason)
        elif past:
            odometry = past[-1].odometry.linked(
                _last_motion(scene), new.views[0].stamp - past[-1].stamp
            )
        else:
            odometry = self._odometry
        self._window = [*past, _Kept(new, odometry)]
        self._odometry = odometry
        return scene

    def _reconstruct(
        self, past: list[_Kept], new: EncodedSet, watch: Stopwatch
    ) -> tuple[Scene, str]:
        """Return the scene of the window, or of the new set alone and why it stands alone.

        A window that is wrongly joined shows everything twice, so it is given up.
        """
        before = dict(watch.seconds)
        sets = [*(kept.encoded for kept in past), new]
        scene = reconstruct(self.model, sets, self.config, before, self.labeller)
        if not past:
            return scene, self._why_alone(new)
        seconds = new.views[0].stamp - past[-1].stamp
        reason = self._implausible(_last_motion(scene), seconds)
        if reason:
            scene = reconstruct(self.model, [new], self.config, before, self.labeller)
        return scene, reason

    def _implausible(self, motion: torch.Tensor, seconds: float) -> str:
        """Say why a motion between two sets cannot be true; empty when it can."""
        limit = self.config.window.max_speed
        metres = motion[:3, 3].norm().item()
        if limit == 0 or seconds <= 0 or metres <= limit * max(seconds, NOISE_SECONDS):
            return ""
        return (
            f"the pictures show a motion of {metres:.1f} m in {seconds:.2f} s and "
            f"window.max_speed is {limit:g} m/s"
        )

    def _why_alone(self, new: EncodedSet) -> str:
        """Say why no earlier set can be joined with a new one; empty where none has to be."""
        if not self._window or (self.config.window.view_sets == 1 and not self._odometry.links):
            return ""
        if self.config.window.view_sets == 1:
            return "window.view_sets is 1"
        if self._window[-1].encoded.tokens.grid != new.tokens.grid:
            return "the picture size changed"
        gap = abs(new.views[0].stamp - self._window[-1].stamp)
        limit = self.config.window.seconds
        return f"no view set came for {gap:.1f} s and window.seconds is {limit:g}"

    def _unseen_metres(self, new: EncodedSet) -> float:
        """Bound how far the rig went since the last set."""
        gap = abs(new.views[0].stamp - self._window[-1].stamp)
        return (self.config.window.max_speed or FASTEST) * (gap or 1.0)

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
            window = [kept for kept in window if abs(stamp - kept.stamp) <= limits.seconds]
        return window

    def _has_moved(self, before: _Kept, after: _Kept) -> bool:
        """Whether the later of two neighbouring sets is a keyframe, by the rig's own motion."""
        distance, angle = (
            self.config.window.keyframe_distance,
            self.config.window.keyframe_angle_deg,
        )
        if distance == 0 and angle == 0:
            return True
        motion = torch.linalg.inv(before.odometry.odom_from_rig) @ after.odometry.odom_from_rig
        moved, turned = motion[:3, 3].norm().item(), rigid.angle_deg(motion).item()
        return (distance > 0 and moved >= distance) or (angle > 0 and turned >= angle)

    def reset(self) -> None:
        """Forget the window and the path."""
        self._window = []
        self._odometry = Odometry()
