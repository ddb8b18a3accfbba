# SPDX-License-Identifier: Apache-2.0
"""Predicted against true point clouds, without any alignment (evaluation page 14)."""

from collections.abc import Iterable
from dataclasses import astuple, dataclass

import numpy as np
from jaxtyping import Bool, Float
from torch import Tensor

from occany_core import camera, rigid
from occany_core.errors import InputError
from occany_core.evaluation.nearest_neighbours import nearest_distances

MAX_DEPTH = 50.0
"""Points beyond this are left out of both clouds [m]."""
THRESHOLD = 0.5
"""A point with a neighbour nearer than this counts as matched [m]."""


@dataclass(frozen=True)
class CloudErrors:
    """How far two clouds are apart."""

    accuracy: float
    """Mean distance from predicted to true points [m]; infinite where a cloud is empty."""
    completeness: float
    """Mean distance from true to predicted points [m]; infinite where a cloud is empty."""
    overall: float
    """Mean of the two [m]."""
    precision: float
    """Share of predicted points with a true one nearby."""
    recall: float
    """Share of true points with a predicted one nearby."""
    f_score: float
    """Harmonic mean of precision and recall, 0 if both are."""


def true_points(
    depth: Float[Tensor, "*views H W"],
    K: Float[Tensor, "*views 3 3"],
    world_from_cam: Float[Tensor, "*views 4 4"],
) -> Float[Tensor, "*views H W 3"]:
    """Back-project sparse depth [m] to the frame of the first camera [m], one point a pixel."""
    points_cam = camera.backproject(K, depth).flatten(-3, -2)
    return rigid.apply(world_from_cam, points_cam).unflatten(-2, depth.shape[-2:])


def has_true_point(
    depth: Float[Tensor, "*views H W"], max_depth: float = MAX_DEPTH
) -> Bool[Tensor, "*views H W"]:
    """Tell which pixels of sparse depth [m] belong to the true cloud."""
    return (depth > 0) & (depth <= max_depth)


def predicted_cloud(
    points: Float[Tensor, "*views 3"],
    points_cam: Float[Tensor, "*views 3"],
    confidence: Float[Tensor, "*views"],
    max_depth: float = MAX_DEPTH,
) -> Float[Tensor, "P 3"]:
    """Select the predicted points that are judged: not beyond `max_depth`, all values finite.

    Points behind the camera pass, and so does any confidence that is a number. Where no pose is
    estimated (the published recipe of OccAny+), `points_cam` is `points`.

    Args:
        points: In the frame of the first camera [m].
        points_cam: The same points in the frame whose z is limited [m].
        confidence: Of the points.
        max_depth: Largest z in that frame [m].
    """
    finite = points.isfinite().all(dim=-1) & points_cam.isfinite().all(dim=-1)
    finite &= confidence.isfinite()
    return points[finite & (points_cam[..., 2] <= max_depth)]


def cloud_errors(
    predicted: Float[np.ndarray, "P 3"],
    truth: Float[np.ndarray, "T 3"],
    threshold: float = THRESHOLD,
) -> CloudErrors:
    """Compare the clouds of one sample by nearest neighbours both ways; both in one frame [m]."""
    return errors_of_distances(
        nearest_distances(predicted, truth), nearest_distances(truth, predicted), threshold
    )


def errors_of_distances(
    to_truth: Float[np.ndarray, " P"],
    to_prediction: Float[np.ndarray, " T"],
    threshold: float = THRESHOLD,
) -> CloudErrors:
    """Form the errors from nearest-neighbour distances [m], for example for several thresholds."""
    if not (to_truth.size and to_prediction.size):
        return CloudErrors(np.inf, np.inf, np.inf, 0.0, 0.0, 0.0)
    accuracy, completeness = float(to_truth.mean()), float(to_prediction.mean())
    precision = float((to_truth < threshold).mean())
    recall = float((to_prediction < threshold).mean())
    matched = precision + recall
    return CloudErrors(
        accuracy=accuracy,
        completeness=completeness,
        overall=(accuracy + completeness) / 2,
        precision=precision,
        recall=recall,
        f_score=2 * precision * recall / matched if matched else 0.0,
    )


def mean_cloud_errors(samples: Iterable[CloudErrors]) -> CloudErrors:
    """Average over samples; infinite distances count as missing, shares of empty clouds as zero.

    Raises:
        InputError: There is no sample.
    """
    rows = np.array([astuple(errors) for errors in samples])
    if not rows.size:
        raise InputError("no samples to average; evaluate at least one")
    finite = np.isfinite(rows)
    count = finite.sum(axis=0)
    total = np.where(finite, rows, 0.0).sum(axis=0)
    means = np.where(count > 0, total / np.maximum(count, 1), np.inf)
    return CloudErrors(*(float(value) for value in means))
