# SPDX-License-Identifier: Apache-2.0
"""Promptable features -> class of every pixel -> class of every cell.

Weights with a class probe know the classes of Occ3D-nuScenes. `V` views, `H W` pixels, `C`
classes, `X Y Z` cells.
"""

from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from occany_core.checkpoints import Model
from occany_core.datasets.class_tables import SemanticClass, load_classes
from occany_core.errors import ConfigError
from occany_core.voxels import (
    ClassTable,
    LabelGrid,
    ViewPoints,
    VoxelGrid,
    VoxelGridSpec,
    fill_flat_gaps,
    lattice_coordinates,
)
from occany_core.voxels.grid import cell_or_none

UNLABELLED = 255
"""Class id of what has none."""
TABLE = "occ3d_nuscenes"


def known_classes(model: Model) -> tuple[SemanticClass, ...]:
    """Return the classes that weights can name, by id; none without a probe.

    Raises:
        ConfigError: The probe has other classes than this version knows.
    """
    number = model.network.config.prompt_classes
    if number is None:
        return ()
    classes = load_classes(TABLE).classes
    if number != len(classes):
        raise ConfigError(
            f"the weights {model.name} name {number} classes, and this version knows the "
            f"{len(classes)} of {TABLE}; set labels.use to false"
        )
    return classes


def classify_pixels(
    model: Model, fine: Float[Tensor, "V C3 s s"], size: tuple[int, int]
) -> UInt8[Tensor, "V H W"]:
    """Return the class of every pixel; `free` is sky.

    Args:
        model: With a class probe.
        fine: The finest promptable level.
        size: Height and width of the pictures.
    """
    return classes_of_logits(model.network.class_probe(fine.float()), size)


def classes_of_logits(
    logits: Float[Tensor, "V C s s"], size: tuple[int, int]
) -> UInt8[Tensor, "V H W"]:
    """Stretch the square maps to the picture's (height, width), and take the likeliest class."""
    full = F.interpolate(logits, tuple(size), mode="bilinear", align_corners=False)
    return full.argmax(dim=1).to(torch.uint8)


def label_cells(
    views: list[ViewPoints],
    pixels: UInt8[Tensor, "V H W"],
    grid: VoxelGrid,
    min_confidence: float,
) -> VoxelGrid:
    """Give occupied cells the class that the points of observed views vote for (`LabelGrid`).

    Points of sky and of `other` do not vote: a cell with no other points is `other`. Where a gap
    between pixels was filled, they vote. Cells without points, such as those that only rendered
    views fill, are `UNLABELLED`, and so are all that are not occupied.

    Args:
        views: In the grid frame.
        pixels: Class of each of their points; `UNLABELLED` ones are left out.
        grid: Made of these points.
        min_confidence: Points count above it.
    """
    table = load_classes(TABLE)
    convention = ClassTable(len(table.classes), table.other, table.convention.empty)
    votes = LabelGrid(grid.spec, convention, views[0].points.device)
    for view, classes in zip(views, pixels, strict=True):
        kept = view.kept(min_confidence) & (classes != UNLABELLED)
        votes.add(view.points[kept], view.confidence[kept], classes[kept])
    labels = votes.grid()
    occupied = torch.from_numpy(grid.occupied).to(labels.device)
    labels[~occupied | (labels == convention.empty)] = UNLABELLED
    lacks = occupied & (labels == UNLABELLED) & torch.from_numpy(~grid.completed).to(labels.device)
    labels[lacks] = _labels_of_gaps(lacks, views, pixels, grid.spec, min_confidence)
    return replace(grid, labels=labels.cpu().numpy())


def _labels_of_gaps(
    lacks: Bool[Tensor, "X Y Z"],
    views: list[ViewPoints],
    pixels: UInt8[Tensor, "V H W"],
    spec: VoxelGridSpec,
    min_confidence: float,
) -> UInt8[Tensor, " P"]:
    """Return the classes of cells that hold no pixel's point, but what is filled in between.

    The pixels beside a filled gap vote, by the same rules.
    """
    table, lacking = load_classes(TABLE), lacks.flatten()
    place = lacking.cumsum(0) - 1
    votes = torch.zeros(int(lacking.sum()), len(table.classes), device=lacks.device)
    for view, classes in zip(views, pixels, strict=True):
        kept = view.kept(min_confidence) & (classes != UNLABELLED)
        gaps = fill_flat_gaps(view.points - view.centre, kept, spec.resolution)
        cells = cell_or_none(lattice_coordinates(gaps.points + view.centre, spec), spec)
        named = classes.flatten()[gaps.pixel].long()
        cells, named = cells[cells < spec.num_cells], named[cells < spec.num_cells]
        cells, named = cells[lacking[cells]], named[lacking[cells]]
        votes.index_put_((place[cells], named), votes.new_ones(()), accumulate=True)
    has_points = votes.sum(dim=1) > 0
    votes[:, [table.other, table.convention.empty]] = 0
    best = votes.argmax(dim=1).masked_fill(votes.amax(dim=1) == 0, table.other)
    return best.masked_fill(~has_points, UNLABELLED).to(torch.uint8)
