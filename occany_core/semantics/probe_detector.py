# SPDX-License-Identifier: Apache-2.0
"""The detector of the default weights: connected regions of the class probe -> boxes.

It needs no other network (`detector: builtin`). A region is a set of cells with the same likeliest
class that hang together; things of one class that touch in the picture are one region.

`V` views, `C` classes, `s` side of the class map: a quarter of the square picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from occany_core.errors import ConfigError, InputError
from occany_core.network.prompt_decoder import ClassProbe
from occany_core.semantics.class_prompts import PromptTable
from occany_core.semantics.detections import Detections
from occany_core.semantics.features import PromptableFeatures

SIDES = ((0, 1), (1, 0))
CORNERS = ((1, 1), (1, -1))
"""Steps (rows, columns) to half of the neighbours of a cell; the others come by symmetry."""


@dataclass(frozen=True, kw_only=True)
class RegionSettings:
    """Which regions become boxes."""

    least_cells: int = 6
    """Smaller regions are left out. On tuning streets the default weights found as many things
    with 6 as with 1, in half as many boxes."""
    across_corners: bool = False
    """Whether cells that only touch at a corner hang together."""

    def __post_init__(self) -> None:
        if self.least_cells < 1:
            raise ConfigError(f"least_cells is {self.least_cells}; a region has at least one cell")


@dataclass(frozen=True)
class Regions:
    """Those of one view."""

    found: Detections
    masks: Bool[Tensor, "M s s"]
    """Cells of each."""

    def __getitem__(self, chosen: Tensor) -> "Regions":
        """Return some of them."""
        return Regions(self.found[chosen], self.masks[chosen])


class ProbeDetector:
    """Finds regions of the classes that a probe knows."""

    def __init__(self, probe: ClassProbe, settings: RegionSettings | None = None) -> None:
        self.probe = probe
        self.settings = settings or RegionSettings()

    def find(self, features: PromptableFeatures, prompts: PromptTable) -> list[Regions]:
        """Return what each view shows of the classes that the prompts stand for.

        Args:
            features: Of V views, as the probe was trained for.
            prompts: Only their classes matter; leave out `empty` and `other` by
                `PromptTable.without`.

        Raises:
            InputError: A class that the probe does not know.
        """
        logits = self.probe(*(level.float() for level in features.levels))
        return find_regions(logits, prompts.labels, self.settings)


def detect_regions(
    logits: Float[Tensor, "V C s s"],
    wanted: Sequence[int],
    settings: RegionSettings | None = None,
) -> list[Detections]:
    """Return the boxes of `find_regions`.

    Raises:
        InputError: As there.
    """
    return [one.found for one in find_regions(logits, wanted, settings)]


@torch.no_grad()
def find_regions(
    logits: Float[Tensor, "V C s s"],
    wanted: Sequence[int],
    settings: RegionSettings | None = None,
) -> list[Regions]:
    """Return the connected regions of some classes in each view, the best score first.

    The box of a region is its extent, 0 to 1 of the square; its score is the mean probability of
    its class over its cells.

    Args:
        logits: Of the class probe.
        wanted: Class ids.
        settings: Which regions count.

    Raises:
        InputError: Logits of another shape, or a class that they do not have.
    """
    if logits.ndim != 4 or logits.shape[-1] != logits.shape[-2]:
        raise InputError(
            f"logits have shape {tuple(logits.shape)}; give (views, classes, side, side)"
        )
    settings = settings or RegionSettings()
    views, classes, side, _ = logits.shape
    if unknown := sorted({label for label in wanted if not 0 <= label < classes}):
        raise InputError(
            f"the class probe knows the classes 0 to {classes - 1}, and not "
            f"{', '.join(map(str, unknown))}"
        )
    best, label = logits.softmax(dim=1).max(dim=1)
    is_wanted = torch.isin(label, label.new_tensor(sorted(set(wanted))))
    region = connected_regions(label, is_wanted, across_corners=settings.across_corners)
    chosen = is_wanted.flatten().nonzero()[:, 0]
    first, which = region.flatten()[chosen].unique(return_inverse=True)
    size = torch.bincount(which, minlength=len(first))
    score = best.new_zeros(len(first)).index_add_(0, which, best.flatten()[chosen]) / size
    row, column = chosen % side**2 // side, chosen % side
    corners = torch.stack((column, row, -column - 1, -row - 1), dim=1)
    extent = corners.new_full((len(first), 4), side)
    extent.scatter_reduce_(0, which[:, None].expand_as(corners), corners, "amin")
    found = Detections(
        extent * extent.new_tensor([1, 1, -1, -1]) / side, score, label.flatten()[first]
    )
    kept = size >= settings.least_cells
    parts = []
    for view in range(views):
        one = (kept & (first // side**2 == view)).nonzero()[:, 0]
        one = one[score[one].argsort(descending=True, stable=True)]
        parts.append(Regions(found[one], region[view] == first[one][:, None, None]))
    return parts


def connected_regions(
    label: Int[Tensor, "V s s2"],
    is_wanted: Bool[Tensor, "V s s2"],
    *,
    across_corners: bool = False,
) -> Int[Tensor, "V s s2"]:
    """Give each cell the number of the first cell of its region; all views are numbered through.

    Every cell points at an earlier one of its region. In each round the cells at which a cell and
    its neighbours point are made to point at the earliest of them, and pointers are followed once
    more, so that the number of rounds grows with the logarithm of the longest way.

    Args:
        label: Classes; a region has one.
        is_wanted: Other cells are regions of their own.
        across_corners: Whether cells hang together that only touch at a corner.
    """
    number = torch.arange(label.numel(), device=label.device).view_as(label)
    pairs = [
        _joined_neighbours(number, label, is_wanted, step)
        for step in SIDES + (CORNERS if across_corners else ())
    ]
    here, there = torch.cat(pairs, dim=1)
    parent = number.flatten()
    while True:
        mine, theirs = parent[here], parent[there]
        earliest = torch.minimum(mine, theirs)
        hooked = parent.scatter_reduce(0, torch.cat((mine, theirs)), earliest.repeat(2), "amin")
        hooked = hooked[hooked]
        if torch.equal(hooked, parent):
            return parent.view_as(label)
        parent = hooked


def _joined_neighbours(
    number: Int[Tensor, "V s s2"],
    label: Int[Tensor, "V s s2"],
    is_wanted: Bool[Tensor, "V s s2"],
    step: tuple[int, int],
) -> Int[Tensor, "2 P"]:
    """Return the pairs of cells, a step apart, that have the same wanted class."""
    rows, columns = step
    height, width = label.shape[-2:]
    start, end = max(-columns, 0), width - max(columns, 0)

    def here(values: Tensor) -> Tensor:
        return values[:, : height - rows, start:end]

    def there(values: Tensor) -> Tensor:
        return values[:, rows:, start + columns : end + columns]

    same = (here(label) == there(label)) & here(is_wanted) & there(is_wanted)
    return torch.stack((here(number)[same], there(number)[same]))
