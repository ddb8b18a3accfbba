# SPDX-License-Identifier: Apache-2.0
"""Pictures as detectors and segmenters of other projects want them.

`V` views, `H W` pixels.
"""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from occany_core.errors import InputError
from occany_core.images import Normalisation


def check_pictures(rgb: UInt8[Tensor, "V H W 3"]) -> None:
    """Refuse what is not 8-bit colour pictures.

    Raises:
        InputError: Naming what came and what is expected.
    """
    if rgb.dtype != torch.uint8 or rgb.ndim != 4 or rgb.shape[-1] != 3:
        raise InputError(
            f"pictures are {rgb.dtype} of shape {tuple(rgb.shape)}; give uint8 RGB "
            "(views, height, width, 3)"
        )


def normalised(rgb: UInt8[Tensor, "V H W 3"], by: Normalisation) -> Float[Tensor, "V 3 H W"]:
    """Bring colours of 0 to 255 to [0, 1], then to the mean and deviation of a network."""
    channels_first = rgb.movedim(-1, 1).float() / 255
    mean, deviation = (channels_first.new_tensor(v)[:, None, None] for v in (by.mean, by.std))
    return (channels_first - mean) / deviation
