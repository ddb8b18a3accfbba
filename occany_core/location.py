# SPDX-License-Identifier: Apache-2.0
"""Raw maps of a window -> where its points, cameras and rigs are, in metres.

World is the optical frame of the reference view, the first of the first set. `V` views, `S` view
sets.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from occany_core import pointmaps, rigid
from occany_core.config import CalibrationConfig, OccAnyConfig
from occany_core.images import View
from occany_core.network import RawMaps
from occany_core.pointmaps import Pointmaps
from occany_core.poses import Cameras, estimate_cameras, estimate_focal, register
from occany_core.rig_poses import grid_from_reference, known_cameras
from occany_core.scale import Scale, determine

THINNING = 4
"""Every so many pixels, along both sides, tell how far cameras are from each other."""

ViewSets = Sequence[Sequence[View]]


@dataclass(frozen=True)
class Located:
    """Where everything of a window is."""

    seen: Pointmaps
    """Observed points; on the true rays where the cameras are known."""
    cameras: Cameras
    world_from_rig: Float[Tensor, "S 4 4"]
    frame_source: str
    rig_from_reference: Float[Tensor, "4 4"]
    """Mounting of the reference view's camera, known or assumed."""
    scale: Scale
    is_calibrated: bool = False
    """Whether intrinsics and mounting of all cameras are known and used."""

    def grid_from_world(self, anchor: str) -> Float[Tensor, "4 4"]:
        """Place the grid at a rig, or where the network believes the reference view is.

        Parity: the published grids stand at the predicted world frame, from which the estimated
        pose of the reference view differs a little (spec 9).
        """
        if anchor == "reference":
            return self.rig_from_reference
        return rigid.invert(self.world_from_rig[0 if anchor == "oldest" else -1])


def locate(
    sets: ViewSets, intrinsics: list[Tensor | None], raw: RawMaps, config: OccAnyConfig
) -> Located:
    """Find all cameras: from calibration where known and wanted, else as predicted.

    Args:
        sets: Views by set, oldest first.
        intrinsics: K (3, 3) [px] at network size of each view, None where unknown.
        raw: What the network makes of them.
        config: All settings.

    Raises:
        DegenerateGeometryError: The prediction determines no cameras.
    """
    predicted = pointmaps.of_scene(raw)
    device = predicted.points_cam.device
    views = [view for one in sets for view in one]
    use = config.calibration.use != "off"
    has_K = use and all(K is not None for K in intrinsics)
    has_mounting = use and has_K and all(view.rig_from_cam is not None for view in views)
    scale = _scale(sets, intrinsics[0] if use else None, predicted, config)
    predicted = pointmaps.scaled(predicted, scale.factor)
    if not has_K:
        cameras = estimate_cameras(
            predicted.points_world, predicted.points_cam, predicted.confidence
        )
        rigs = _rigs_from_first_cameras(sets, cameras, config.calibration)
        return Located(predicted, cameras, *rigs, scale)
    K = torch.stack(intrinsics).to(device)
    if not has_mounting:
        seen = pointmaps.calibrate(predicted, K, None)
        poses = estimate_cameras(
            seen.points_world, seen.points_cam, seen.confidence
        ).world_from_cam
        cameras = Cameras(K, poses)
        rigs = _rigs_from_first_cameras(sets, cameras, config.calibration)
        return Located(seen, cameras, *rigs, scale)
    rig_from_cam = torch.stack(
        [torch.as_tensor(np.asarray(view.rig_from_cam, dtype=np.float32)) for view in views]
    ).to(device)
    set_index = torch.tensor([i for i, one in enumerate(sets) for _ in one], device=device)
    on_rays = pointmaps.calibrate(predicted, K, None)
    world_from_cam, world_from_rig = known_cameras(on_rays, rig_from_cam, set_index)
    seen = pointmaps.calibrate(predicted, K, world_from_cam)
    cameras = Cameras(K, world_from_cam)
    return Located(
        seen, cameras, world_from_rig, "extrinsics", rig_from_cam[0], scale, is_calibrated=True
    )


def _scale(sets: ViewSets, K: Tensor | None, predicted: Pointmaps, config: OccAnyConfig) -> Scale:
    """Compare what is known about distances with the prediction, where anything is known."""
    views = [view for one in sets for view in one]
    has_distances = any(
        known is not None for view in views for known in (view.rig_from_cam, view.odom_from_rig)
    )
    thin = (slice(None), slice(None, None, THINNING), slice(None, None, THINNING))
    points_cam = predicted.points_cam[thin]
    if len(views) > 1 and has_distances:
        poses = register(predicted.points_world[thin], points_cam, predicted.confidence[thin])
    else:
        poses = torch.eye(4).expand(len(views), 4, 4)
    focals = (None, None)
    if K is not None:
        focals = float(K[0, 0]), THINNING * float(estimate_focal(points_cam[:1]))
    return determine([list(one) for one in sets], poses, focals, config)


def _rigs_from_first_cameras(
    sets: ViewSets, cameras: Cameras, calibration: CalibrationConfig
) -> tuple[Float[Tensor, "S 4 4"], str, Float[Tensor, "4 4"]]:
    """Take the first camera of every set, at its known or assumed mounting, for the rig's pose."""
    assumed = grid_from_reference(calibration.camera_height, calibration.camera_pitch_deg)
    known = [one[0].rig_from_cam for one in sets]
    is_known = calibration.use != "off" and all(mounting is not None for mounting in known)
    rig_from_cam = torch.stack(
        [
            torch.as_tensor(np.asarray(mounting, np.float32)) if is_known else assumed
            for mounting in known
        ]
    )
    firsts = torch.tensor([0, *np.cumsum([len(one) for one in sets])[:-1]])
    rig_from_cam = rig_from_cam.to(cameras.world_from_cam.device)
    world_from_rig = cameras.world_from_cam[firsts] @ rigid.invert(rig_from_cam)
    return world_from_rig, "extrinsics" if is_known else "assumed level", rig_from_cam[0]
