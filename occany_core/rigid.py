# SPDX-License-Identifier: Apache-2.0
"""Rigid motions as 4 x 4 matrices named `a_from_b`: apply, invert, align. Metres, right-handed."""

import torch
from jaxtyping import Float
from torch import Tensor

from occany_core.errors import DegenerateGeometryError


def apply(
    a_from_b: Float[Tensor, "*batch 4 4"], points_b: Float[Tensor, "*batch P 3"]
) -> Float[Tensor, "*batch P 3"]:
    """Map points from frame b to frame a [m]."""
    rotation, translation = a_from_b[..., :3, :3], a_from_b[..., :3, 3]
    return points_b @ rotation.transpose(-1, -2) + translation[..., None, :]


def invert(a_from_b: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """Return `b_from_a`."""
    rotation = a_from_b[..., :3, :3].transpose(-1, -2)
    return compose(rotation, -(rotation @ a_from_b[..., :3, 3:])[..., 0])


def compose(
    rotation: Float[Tensor, "*batch 3 3"], translation: Float[Tensor, "*batch 3"]
) -> Float[Tensor, "*batch 4 4"]:
    """Put a rotation and a translation [m] into one matrix."""
    top = torch.cat((rotation, translation[..., None]), dim=-1)
    bottom = top.new_tensor([0.0, 0.0, 0.0, 1.0]).expand(*top.shape[:-2], 1, 4)
    return torch.cat((top, bottom), dim=-2)


def scaled(a_from_b: Float[Tensor, "*batch 4 4"], factor: float) -> Float[Tensor, "*batch 4 4"]:
    """Multiply the distance between the two frames."""
    return compose(a_from_b[..., :3, :3], a_from_b[..., :3, 3] * factor)


def yaw(angle: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch 4 4"]:
    """Turn a camera about its y axis; a positive angle [rad] turns its view to the right."""
    cosine, sine, zero, one = angle.cos(), angle.sin(), angle * 0, angle * 0 + 1
    rows = (cosine, zero, sine, zero, one, zero, -sine, zero, cosine)
    rotation = torch.stack(rows, dim=-1).unflatten(-1, (3, 3))
    return compose(rotation, torch.zeros_like(rotation[..., 0]))


def turn(vector: Float[Tensor, "*batch 3"]) -> Float[Tensor, "*batch 4 4"]:
    """Turn about the vector by its length [rad], right-handed."""
    x, y, z = vector.unbind(dim=-1)
    zero = torch.zeros_like(x)
    rows = (zero, -z, y, z, zero, -x, -y, x, zero)
    rotation = torch.linalg.matrix_exp(torch.stack(rows, dim=-1).unflatten(-1, (3, 3)))
    return compose(rotation, torch.zeros_like(vector))


def shift(x: float = 0.0, y: float = 0.0, z: float = 0.0) -> Float[Tensor, "4 4"]:
    """Move along the own axes [m]."""
    return compose(torch.eye(3), torch.tensor([x, y, z], dtype=torch.float32))


def angle_deg(a_from_b: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch"]:
    """Return by how much a motion turns, about whatever axis [deg], 0 to 180."""
    trace = a_from_b[..., :3, :3].diagonal(dim1=-2, dim2=-1).sum(dim=-1)
    return ((trace - 1) / 2).clamp(-1, 1).acos().rad2deg()


def align(
    points_a: Float[Tensor, "*batch P 3"],
    points_b: Float[Tensor, "*batch P 3"],
    weights: Float[Tensor, "*batch P"],
) -> Float[Tensor, "*batch 4 4"]:
    """Return the `a_from_b` that best maps points_b onto points_a (weighted Kabsch, no scale).

    Solved in float64; the result never mirrors. Source: spec 9.

    Raises:
        DegenerateGeometryError: A point is not finite, or no point has weight.
    """
    a, b, w = points_a.double(), points_b.double(), weights.double()
    w = (w / w.sum(dim=-1, keepdim=True))[..., None]
    centre_a, centre_b = (w * a).sum(dim=-2), (w * b).sum(dim=-2)
    covariance = (w * (a - centre_a[..., None, :])).transpose(-1, -2) @ (
        b - centre_b[..., None, :]
    )
    if not bool(torch.isfinite(covariance).all()):
        raise DegenerateGeometryError(
            "cannot align two point sets: a point is not finite, or all confidences are 1; "
            "check the pictures and weights"
        )
    u, _, vt = torch.linalg.svd(covariance)
    handed = torch.ones_like(centre_a)
    handed[..., 2] = torch.det(u @ vt).sign()
    rotation = (u * handed[..., None, :]) @ vt
    translation = centre_a - (rotation @ centre_b[..., None])[..., 0]
    return compose(rotation, translation).to(points_a.dtype)
