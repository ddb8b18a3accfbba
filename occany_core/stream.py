# SPDX-License-Identifier: Apache-2.0
"""Live use: a rolling window of view sets; a new set costs one encoding per new picture.

The tokens of sets that stay in the window are reused; the scene memory is rebuilt from tokens,
which is cheap beside encoding. Memory is bounded by the window.
"""

import logging

import torch

from occany_core.checkpoints import Model
from occany_core.config import OccAnyConfig
from occany_core.images import View
from occany_core.pipeline import EncodedSet, Scene, Stopwatch, encode, reconstruct

logger = logging.getLogger(__name__)


class Stream:
    """Feeds view sets to the pipeline one after the other."""

    def __init__(self, model: Model, config: OccAnyConfig) -> None:
        self.model = model
        self.config = config
        self._window: list[EncodedSet] = []
        self._odom_from_rig = torch.eye(4)

    @property
    def num_sets(self) -> int:
        """View sets in the window."""
        return len(self._window)

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
        window = self._window
        if window and window[-1].tokens.grid != new.tokens.grid:
            logger.warning("picture size changed: the window starts anew")
            window = []
        window = [*window, new][-self.config.window.view_sets :]
        limit = self.config.window.seconds
        if limit > 0:
            window = [
                one for one in window if abs(new.views[0].stamp - one.views[0].stamp) <= limit
            ]
        scene = reconstruct(self.model, window, self.config, watch.seconds)
        if len(window) > 1:
            before, now = scene.world_from_rig[-2], scene.world_from_rig[-1]
            self._odom_from_rig = self._odom_from_rig @ torch.linalg.inv(before) @ now
        self._window = window
        return scene

    def reset(self) -> None:
        """Forget the window and the path."""
        self._window = []
        self._odom_from_rig = torch.eye(4)
