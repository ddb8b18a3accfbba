# SPDX-License-Identifier: Apache-2.0
"""Classes of cells from the class probe: pixels are classified, and their points carry the class.

`V` views, `H W` pixels, `C` classes, `X Y Z` cells.
"""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from occany_core.checkpoints import Model
from occany_core.config import OccAnyConfig
from occany_core.network import Tokens
from occany_core.pipeline import EncodedSet, Scene, compute_dtype, in_grid
from occany_core.synthetic.classes import SemanticClass
from occany_core.voxels import ClassTable, LabelGrid

CLASSES = ClassTable(
    num_classes=len(SemanticClass), other=SemanticClass.OTHER, empty=SemanticClass.FREE
)


def has_probe(model: Model) -> bool:
    """Whether a network can name classes."""
    return model.network.config.prompt_classes is not None


@torch.inference_mode()
def classify_pixels(
    model: Model, sets: list[EncodedSet], config: OccAnyConfig
) -> UInt8[Tensor, "V H W"]:
    """Return the class of every pixel of the observed views; `FREE` is sky."""
    tokens = Tokens.joined([one.tokens for one in sets])
    with compute_dtype(model, config):
        memory = model.network.update_memory(tokens)
        fine = model.network.render(tokens, memory).segmentation[-1][0]
    size = sets[0].batch.images.shape[-2:]
    return classes_of_logits(model.network.class_probe(fine.float()), size).cpu()


def classes_of_logits(
    logits: Float[Tensor, "V C s s"], size: tuple[int, int]
) -> UInt8[Tensor, "V H W"]:
    """Stretch the square maps to the picture's (height, width), and take the likeliest class."""
    full = F.interpolate(logits, tuple(size), mode="bilinear", align_corners=False)
    return full.argmax(dim=1).to(torch.uint8)


def label_cells(
    scene: Scene, pixels: UInt8[Tensor, "V H W"], config: OccAnyConfig
) -> UInt8[np.ndarray, "X Y Z"]:
    """Give every occupied cell a class, and `FREE` to all others.

    The points of the observed views vote (`LabelGrid`). Cells without a vote, such as those that
    only rendered views fill, are `OTHER`.
    """
    grid = LabelGrid(scene.grid.spec, CLASSES)
    frame = (scene.grid_from_world, scene.ground)
    views = in_grid(scene.observed, scene.cameras, frame, config.voxels)
    for view, classes in zip(views, pixels, strict=True):
        kept = view.kept(config.voxels.min_confidence)
        grid.add(view.points[kept], view.confidence[kept], classes[kept])
    labels = grid.grid().numpy()
    labels = np.where(labels == SemanticClass.FREE, np.uint8(SemanticClass.OTHER), labels)
    return np.where(scene.grid.occupied, labels, np.uint8(SemanticClass.FREE))
