# SPDX-License-Identifier: Apache-2.0
"""Metres of the network -> metres: a factor, where it comes from, and how far that can be trusted.

A ladder; the first rung that can be determined holds:

* `user`: the factor that was given;
* `odometry`: how far the rig drove between the view sets of the window, against the prediction;
* `extrinsics`: how far apart the mounted cameras of a set are, against the prediction;
* `camera_info`: no correction, but the focal length that the network sees is the calibrated one;
* `model`: no correction.

Known and predicted distances are compared as vectors in the frame of a camera, so a prediction
that points elsewhere speaks against a rung. One that points well and is far too short or long
speaks against it too: a network that sees no motion would otherwise have all depths multiplied.
`V` views.
"""

import itertools
import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from occany_core import rigid
from occany_core.config import OccAnyConfig, ScaleConfig
from occany_core.images import View
from occany_core.rig_poses import grid_from_reference

LEAST_BASELINE = 0.05
"""Cameras nearer to each other say nothing about metres [m]."""
LEAST_DRIVE = 0.5
"""The rig must have driven this far within the window [m]."""
CORRECTING = {"model": (), "odometry": ("odometry",), "auto": ("odometry", "extrinsics")}
"""Rungs that `scale.use` lets correct."""


@dataclass(frozen=True, slots=True)
class Rung:
    """What one source says."""

    source: str
    factor: float
    """Metres per metre of the network."""
    spread: float
    """Root mean square of what remains between known and corrected distances, as a share."""
    pairs: int
    """Pairs of views that were compared."""


@dataclass(frozen=True, slots=True)
class Scale:
    """What was decided for one scene."""

    source: str = "model"
    """One of `grid_fields.SCALE_SOURCES`."""
    factor: float = 1.0
    """By which the network's metres were multiplied."""
    spread: float = math.nan
    """Of the rung that holds; not a number where nothing was compared."""
    rungs: tuple[Rung, ...] = ()
    """Everything that could be compared, whether it holds or not."""
    doubts: tuple[str, ...] = ()
    """Why rungs do not hold that the settings ask for, one sentence each."""


Matrix = Float[np.ndarray, "4 4"]


@dataclass(frozen=True, slots=True)
class Motion:
    """A known rigid motion between two views."""

    before: int
    after: int
    before_from_after: Matrix
    """Between the optical frames of the two views [m]."""


def _mounting(view: View, is_first: bool, config: OccAnyConfig) -> Matrix | None:
    """Return rig_from_cam; the assumed one for the first camera of a set without extrinsics."""
    if view.rig_from_cam is not None and config.calibration.use != "off":
        return np.asarray(view.rig_from_cam, np.float64)
    if not is_first:
        return None
    calibration = config.calibration
    assumed = grid_from_reference(calibration.camera_height, calibration.camera_pitch_deg)
    return assumed.double().numpy()


def _mounted_apart(sets: list[list[View]], config: OccAnyConfig) -> list[Motion]:
    """List the pairs of mounted cameras within each set."""
    motions, start = [], 0
    for views in sets:
        mounted = [
            (start + index, np.asarray(view.rig_from_cam, np.float64))
            for index, view in enumerate(views)
            if view.rig_from_cam is not None and config.calibration.use != "off"
        ]
        for (one, rig_from_one), (other, rig_from_other) in itertools.combinations(mounted, 2):
            one_from_other = np.linalg.inv(rig_from_one) @ rig_from_other
            if np.linalg.norm(one_from_other[:3, 3]) >= LEAST_BASELINE:
                motions.append(Motion(one, other, one_from_other))
        start += len(views)
    return motions


def _driven(sets: list[list[View]], config: OccAnyConfig) -> list[Motion]:
    """List how each camera moved from one set to the next, as the odometry has it."""
    motions, start, drive = [], 0, 0.0
    for earlier, later in itertools.pairwise(sets):
        names = {view.camera: index for index, view in reversed([*enumerate(later)])}
        for index, view in enumerate(earlier):
            there = later[names[view.camera]] if view.camera in names else None
            mounting = _mounting(view, index == 0, config)
            if there is None or mounting is None:
                continue
            if view.odom_from_rig is None or there.odom_from_rig is None:
                continue
            step = np.linalg.inv(view.odom_from_rig) @ np.asarray(there.odom_from_rig, np.float64)
            drive += float(np.linalg.norm(step[:3, 3])) / len(earlier)
            after = start + len(earlier) + names[view.camera]
            motions.append(Motion(start + index, after, np.linalg.inv(mounting) @ step @ mounting))
        start += len(earlier)
    return motions if drive >= LEAST_DRIVE else []


def compare(
    source: str, motions: list[Motion], world_from_cam: Float[Tensor, "V 4 4"]
) -> Rung | None:
    """Return what known motions say about predicted poses; None where they say nothing.

    The known distances are taken for exact and the predicted ones for noisy, so the factor is
    the inverse of the slope that explains the predicted by the known.
    """
    if not motions:
        return None
    poses = world_from_cam.detach().double().cpu()
    before = torch.stack([poses[motion.before] for motion in motions])
    after = torch.stack([poses[motion.after] for motion in motions])
    predicted = (rigid.invert(before) @ after)[:, :3, 3].numpy()
    known = np.stack([motion.before_from_after[:3, 3] for motion in motions])
    agreement, size = float((known * predicted).sum()), float((known**2).sum())
    if not (math.isfinite(agreement) and agreement > 1e-6 * size):
        return Rung(source, math.nan, math.inf, len(motions))
    factor = size / agreement
    remains = float(((factor * predicted - known) ** 2).sum())
    return Rung(source, factor, math.sqrt(remains / size), len(motions))


def _focal_rung(known_px: float | None, predicted_px: float | None) -> Rung | None:
    if known_px is None or predicted_px is None or not predicted_px > 0:
        return None
    return Rung("camera_info", 1.0, abs(known_px / predicted_px - 1), 1)


SAYS = {
    "odometry": "how far the odometry says that the rig drove",
    "extrinsics": "how far apart the cameras are mounted",
    "camera_info": "the focal length of camera_info",
}
REMEDY = {
    "odometry": "check its child frame and stamps, and the mounting of the cameras, or set "
    "scale.use to model",
    "extrinsics": "check the mounting, or set scale.use to odometry",
    "camera_info": "check that camera_info belongs to these pictures",
}


def _doubt(rung: Rung, settings: ScaleConfig) -> str:
    """Say why a rung does not hold; empty where it does."""
    what = f"scale: {SAYS[rung.source]} and what the pictures show"
    remedy = f"it is not used: {REMEDY[rung.source]}"
    if not rung.spread <= settings.max_spread:
        far = "beyond any factor" if math.isinf(rung.spread) else f"by {100 * rung.spread:.0f} %"
        allowed = f"scale.max_spread allows {100 * settings.max_spread:.0f} %"
        return f"{what} disagree {far}, {allowed}; {remedy}"
    if not 1 / settings.max_correction <= rung.factor <= settings.max_correction:
        allowed = f"scale.max_correction allows {settings.max_correction:g}"
        return f"{what} differ by a factor of {rung.factor:.2f}, {allowed}; {remedy}"
    return ""


def determine(
    sets: list[list[View]],
    world_from_cam: Float[Tensor, "V 4 4"],
    focal_px: tuple[float | None, float | None],
    config: OccAnyConfig,
) -> Scale:
    """Climb the ladder for one window.

    Args:
        sets: View sets, oldest first.
        world_from_cam: Of all views as predicted, in metres of the network.
        focal_px: Of the reference view at network size: calibrated and predicted; None where not
            known.
        config: All settings.
    """
    settings = config.scale
    rungs = [
        compare("odometry", _driven(sets, config), world_from_cam),
        compare("extrinsics", _mounted_apart(sets, config), world_from_cam),
        _focal_rung(*focal_px),
    ]
    rungs = tuple(rung for rung in rungs if rung is not None)
    if settings.factor:
        return Scale("user", settings.factor, math.nan, rungs)
    wanted = (*CORRECTING[settings.use], "camera_info")
    doubts = []
    for rung in rungs:
        if rung.source not in wanted:
            continue
        doubt = _doubt(rung, settings)
        if not doubt:
            return Scale(rung.source, rung.factor, rung.spread, rungs, tuple(doubts))
        doubts.append(doubt)
    return Scale(rungs=rungs, doubts=tuple(doubts))
