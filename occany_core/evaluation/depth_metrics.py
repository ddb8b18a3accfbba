# SPDX-License-Identifier: Apache-2.0
"""Predicted depth against sparse LiDAR depth, without any alignment (evaluation page 14)."""

from collections.abc import Iterable
from dataclasses import astuple, dataclass

import numpy as np
from jaxtyping import Float

from occany_core.errors import InputError

MAX_DEPTH = 80.0
"""Truth from this depth on is not judged [m]."""
SMALLEST_LOG_DEPTH = 1e-5
"""Predictions are raised to this before the logarithm [m]."""
RATIO = 1.25


@dataclass(frozen=True)
class DepthErrors:
    """Errors over the judged pixels of one sample, or their mean over samples."""

    abs_rel: float
    sq_rel: float
    """[m]"""
    rmse: float
    """[m]"""
    rmse_log: float
    within_1: float
    within_2: float
    within_3: float
    """Share of pixels whose ratio, the larger to the smaller, is below 1.25 to this power."""


def depth_errors(
    predicted: Float[np.ndarray, "*pixels"],
    truth: Float[np.ndarray, "*pixels"],
    max_depth: float = MAX_DEPTH,
) -> DepthErrors | None:
    """Compare all pixels of a sample; None without a pixel that can be judged.

    Args:
        predicted: Depth along z [m]; pixels that are not positive or not finite are left out.
        truth: The same, 0 where there is no value.
        max_depth: Truth below this is judged [m].

    Raises:
        InputError: The shapes differ.
    """
    if predicted.shape != truth.shape:
        raise InputError(
            f"predicted depth {predicted.shape} and truth {truth.shape} differ in shape; draw the "
            "truth at the size of the prepared pictures"
        )
    predicted, truth = predicted.astype(np.float64), truth.astype(np.float64)
    valid = np.isfinite(predicted) & np.isfinite(truth)
    valid[valid] = (truth[valid] > 0) & (truth[valid] < max_depth) & (predicted[valid] > 0)
    p, t = predicted[valid], truth[valid]
    if not p.size:
        return None
    difference = np.abs(p - t)
    logs = np.log(np.maximum(p, SMALLEST_LOG_DEPTH)) - np.log(t)
    ratio = np.maximum(p / t, t / p)
    return DepthErrors(
        abs_rel=float((difference / t).mean()),
        sq_rel=float((difference**2 / t).mean()),
        rmse=float(np.sqrt((difference**2).mean())),
        rmse_log=float(np.sqrt((logs**2).mean())),
        within_1=float((ratio < RATIO).mean()),
        within_2=float((ratio < RATIO**2).mean()),
        within_3=float((ratio < RATIO**3).mean()),
    )


def mean_depth_errors(samples: Iterable[DepthErrors | None]) -> DepthErrors:
    """Average over samples, each with the same weight; those without a pixel are left out.

    Raises:
        InputError: No sample has a pixel that can be judged.
    """
    rows = [astuple(errors) for errors in samples if errors is not None]
    if not rows:
        raise InputError(
            "no sample has a pixel with both a true and a predicted depth; check the LiDAR files "
            "and the calibration"
        )
    return DepthErrors(*(float(value) for value in np.mean(rows, axis=0)))
