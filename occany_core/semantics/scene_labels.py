# SPDX-License-Identifier: Apache-2.0
"""The labels of one scene while it is made: pixels first, then cells as points come."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from occany_core.config import OccAnyConfig
from occany_core.novel_views import ProposedViews
from occany_core.semantics.cell_labels import CellLabels
from occany_core.semantics.class_prompts import UNLABELLED
from occany_core.semantics.features import PromptableFeatures
from occany_core.semantics.labelling import Labeller, ViewLabels
from occany_core.semantics.painting import LabelledMasks
from occany_core.semantics.rendered_labels import RenderedLabels, TrackingRules, wanted_views
from occany_core.voxels import ViewPoints, VoxelGrid


class SceneLabels:
    """Pixels of observed views have labels from the start; cells gather votes.

    Args:
        labeller: Says what is labelled.
        views: Labels of the observed views.
        features: The network's promptable features of them, or nothing.
        ignored: Pixels that show nothing of the scene; they stay unlabelled.
        config: All settings.
    """

    def __init__(
        self,
        labeller: Labeller,
        views: ViewLabels,
        features: Sequence[Float[Tensor, "V C s s"]],
        ignored: Bool[Tensor, "V H W"],
        config: OccAnyConfig,
    ) -> None:
        self.classes = labeller.classes(config.labels)
        self.objects: tuple[LabelledMasks, ...] = views.objects
        self._labeller, self._views, self._features = labeller, views, features
        self._ignored, self._config = ignored, config
        self._convention = labeller.vocabulary(config.labels).convention
        self._cells = CellLabels(config.voxels, self._convention, views.pixels.device)
        self._rendered: RenderedLabels | None = None

    @property
    def pixels(self) -> UInt8[Tensor, "V H W"]:
        """Labels of the observed views; where masks were tracked, as the tracker has them."""
        pixels = self._views.pixels if self._rendered is None else self._rendered.pixels
        return pixels.masked_fill(self._ignored, UNLABELLED)

    def follow(self, proposed: ProposedViews) -> bool:
        """Prepare for rendered views, and say whether their promptable features are needed."""
        config = self._config.labels
        if not self._labeller.tracks(config):
            return False
        rules = TrackingRules(
            owner=proposed.owner,
            is_wanted=wanted_views(config.rendered, proposed.unturned),
            chunk=self._config.novel_views.chunk,
            min_score=config.min_score_tracked,
            classes=self._convention,
        )
        tracker = self._labeller.models.tracker
        observed = PromptableFeatures(*self._features)
        self._rendered = RenderedLabels(tracker, observed, self._views, rules)
        return True

    def render(
        self, start: int, points: list[ViewPoints], levels: Sequence[Float[Tensor, "R C s s"]]
    ) -> None:
        """Take in some rendered views, where masks are tracked.

        Args:
            start: Index of the first of them among all rendered views.
            points: In the grid frame.
            levels: Their promptable features.
        """
        if self._rendered is None:
            return
        threshold = self._config.voxels.min_confidence_novel
        for view in self._rendered.add(start, points, levels):
            self._cells.add([view.points], view.pixels[None], threshold)

    def see(self, points: list[ViewPoints]) -> None:
        """Take in the observed views, after all rendered ones."""
        self._cells.add(points, self.pixels, self._config.voxels.min_confidence)

    def labelled(self, grid: VoxelGrid) -> VoxelGrid:
        """Return the grid with labels, of what was asked for alone."""
        labelled, other = self._cells.labelled(grid), self._convention.other
        if any(one.id == other for one in self.classes):
            return labelled
        labels = np.where(labelled.labels == other, np.uint8(UNLABELLED), labelled.labels)
        return replace(labelled, labels=labels)
