# SPDX-License-Identifier: Apache-2.0
"""Tokens of novel views against those of a frozen encoder that saw the true picture."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def encoder_distillation(
    student: Float[Tensor, "*batch tokens width"], teacher: Float[Tensor, "*batch tokens width"]
) -> Float[Tensor, ""]:
    """Return `L_enc`, the mean squared difference of tokens (training page 4.5).

    Args:
        student: Tokens of the rendering encoder.
        teacher: Tokens of the image encoder for the held-out picture; they get no gradient.
    """
    return F.mse_loss(student, teacher.detach())


def feature_matching(
    student: Float[Tensor, "*batch tokens width"], teacher: Float[Tensor, "*batch tokens width"]
) -> Float[Tensor, ""]:
    """Return the mean absolute difference of backbone features, for plus rendering (page 5).

    Args:
        student: Features of the trained backbone for the given rays.
        teacher: Features of the frozen backbone for the held-out picture; no gradient.
    """
    return F.l1_loss(student, teacher.detach())
