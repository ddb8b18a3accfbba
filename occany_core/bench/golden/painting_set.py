# SPDX-License-Identifier: Apache-2.0
"""Golden file of mask painting (`semantic_painting`)."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from occany_core.bench.golden.checklist import Checklist, Stage
from occany_core.semantics import (
    LabelledMasks,
    PromptTable,
    corners_of,
    merge_masks,
    paint_observed,
    paint_prompted,
    paint_tracked,
)
from occany_core.voxels import ClassTable

COLUMNS_PER_VIEW = 3
"""The set's stand-in for a tracker moves masks this far to the right, wrapping round."""
SAME_BOX = 1e-5
"""Part of the largest pixel coordinate by which boxes may differ."""


def check_painting(path: Path) -> list[Stage]:
    """Compare merged and unmerged tracked masks, and prompted masks, with `semantic_painting`."""
    checklist = Checklist.of(path)
    groups = dict.fromkeys(name.split("/")[0] for name in checklist.arrays)
    for group in groups:
        if f"{group}/boxes_cxcywh" in checklist.arrays:
            _check_tracked(checklist, group)
        elif f"{group}/all_prompts" in checklist.arrays:
            _check_prompted(checklist, group)
    return checklist.report()


def _check_tracked(checklist: Checklist, group: str) -> None:
    """Compare one group of boxed objects: merged if its name says so."""
    found = LabelledMasks(
        _unpacked(checklist, f"{group}/masks_packed", f"{group}/shape"),
        checklist.given(f"{group}/conf"),
        checklist.given(f"{group}/labels"),
    )
    height, width = found.masks.shape[1:]
    boxes = corners_of(checklist.given(f"{group}/boxes_cxcywh"))
    boxes = boxes * boxes.new_tensor([width, height, width, height])
    golden = checklist.given(f"{group}/boxes_xyxy_px")
    checklist.within(f"{group}/boxes_xyxy_px", boxes, SAME_BOX * float(golden.abs().max()))
    objects = merge_masks(found) if group.startswith("merged") else found
    checklist.exact(f"{group}/n_tracked", torch.tensor(len(objects.scores)))
    classes = _convention(checklist, group)
    num_views = len(checklist.given(f"{group}/semantic"))
    tracked = torch.stack(
        [objects.masks.roll(COLUMNS_PER_VIEW * view, dims=-1) for view in range(num_views)]
    )
    first = paint_observed(objects, classes)
    others = paint_tracked(tracked[1:], objects, classes)
    checklist.exact(f"{group}/semantic", torch.cat((first[None], others)))


def _check_prompted(checklist: Checklist, group: str) -> None:
    """Compare the views of one group of prompts, which come in chunks."""
    classes = _convention(checklist, f"merged_{group.split('_')[1]}")
    table = PromptTable(
        tuple(str(text) for text in checklist.given(f"{group}/all_prompts")),
        tuple(checklist.given(f"{group}/all_prompt_class").tolist()),
    )
    asked = table.without(classes)
    same = asked.texts == tuple(str(text) for text in checklist.given(f"{group}/prompts"))
    checklist.stages.append(Stage(checklist.file, f"{group}/prompts", float(not same), 0.0))
    golden = checklist.given(f"{group}/semantic")
    painted = torch.full_like(golden, classes.empty)
    chunks = [name.rsplit("/", 1)[0] for name in checklist.arrays if name.endswith("/view_ids")]
    for chunk in [name for name in chunks if name.startswith(f"{group}/")]:
        task = checklist.given(f"{chunk}/task_index")
        found = LabelledMasks(
            _unpacked(checklist, f"{chunk}/masks_packed", f"{chunk}/mask_shape"),
            checklist.given(f"{chunk}/scores"),
            torch.tensor(asked.labels)[task % len(asked.labels)],
        )
        views = checklist.given(f"{chunk}/view_ids")
        view_in_chunk = task // len(asked.labels)
        painted[views] = paint_prompted(found, view_in_chunk, len(views), classes)
    checklist.exact(f"{group}/semantic", painted)


def _convention(checklist: Checklist, group: str) -> ClassTable:
    """Read which ids a group takes for empty and other."""
    empty, other = checklist.given(f"{group}/empty_other").tolist()
    return ClassTable(max(empty, other) + 1, other, empty)


def _unpacked(checklist: Checklist, name: str, shape: str) -> Bool[Tensor, "M H W"]:
    """Unpack masks of one bit per pixel."""
    size = tuple(checklist.given(shape).tolist())
    bits = np.unpackbits(checklist.given(name).numpy(), count=int(np.prod(size)))
    return torch.from_numpy(bits).reshape(size).bool()


CHECKS: dict[str, Callable[[Path], list[Stage]]] = {"semantic_painting.npz": check_painting}
