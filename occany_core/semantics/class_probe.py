# SPDX-License-Identifier: Apache-2.0
"""Promptable features -> class of every pixel, with weights that have a class probe.

They know the classes of Occ3D-nuScenes. `V` views, `H W` pixels, `C` classes.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from occany_core.checkpoints import Model
from occany_core.datasets.class_tables import SemanticClass, load_classes
from occany_core.errors import ConfigError
from occany_core.semantics.class_prompts import TABLE


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
    model: Model, levels: Sequence[Float[Tensor, "V C s s"]], size: tuple[int, int]
) -> UInt8[Tensor, "V H W"]:
    """Return the class of every pixel; `free` is sky.

    Args:
        model: With a class probe.
        levels: Promptable features, coarse, middle and fine.
        size: Height and width of the pictures.
    """
    return classes_of_logits(model.network.class_probe(*(one.float() for one in levels)), size)


def classes_of_logits(
    logits: Float[Tensor, "V C s s"], size: tuple[int, int]
) -> UInt8[Tensor, "V H W"]:
    """Stretch the square maps to the picture's (height, width), and take the likeliest class."""
    full = F.interpolate(logits, tuple(size), mode="bilinear", align_corners=False)
    return full.argmax(dim=1).to(torch.uint8)
