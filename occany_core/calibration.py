# SPDX-License-Identifier: Apache-2.0
"""What is known of the cameras of views: does it suffice, and what is the network told of it."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from occany_core.config import CalibrationConfig
from occany_core.errors import InputError
from occany_core.images import ImageBatch, View
from occany_core.network import KnownCameras
from occany_core.poses import Cameras


def check_calibration(views: list[View], calibration: CalibrationConfig) -> None:
    """See that calibration which is required is there.

    Raises:
        InputError: A view lacks K or mounting.
    """
    if calibration.use != "required":
        return
    for index, view in enumerate(views):
        missing = [name for name in ("K", "rig_from_cam") if getattr(view, name) is None]
        if missing:
            raise InputError(
                f"view {index} ({view.camera or 'unnamed camera'}) has no "
                f"{' and no '.join(missing)}, but calibration.use is required; give it, or set "
                "calibration.use to auto"
            )


def calibration_of(
    views: list[View], batch: ImageBatch, calibration: CalibrationConfig
) -> KnownCameras | None:
    """Return K and mounting of a view set; None where any is missing, or none is to be used.

    Args:
        views: As they came.
        batch: The same, prepared; K at network size.
        calibration: Whether to use what is known.
    """
    mountings = [view.rig_from_cam for view in views]
    is_known = all(one is not None for one in (*batch.K, *mountings))
    if calibration.use == "off" or not is_known:
        return None
    rig_from_cam = torch.from_numpy(np.stack(mountings).astype(np.float32))
    known = torch.ones(1, len(views), dtype=torch.bool)
    return KnownCameras(torch.stack(batch.K)[None], rig_from_cam[None], known)


def calibration_of_novel(
    cameras: Cameras, rig_from_reference: Float[Tensor, "4 4"]
) -> KnownCameras:
    """Return K and mounting of novel views, as if they stood on the rig of the reference view.

    Args:
        cameras: In the world, the frame of the reference view.
        rig_from_reference: Mounting of the reference view.
    """
    reference = rig_from_reference[None, None]
    known = torch.ones(1, len(cameras.K), dtype=torch.bool, device=cameras.K.device)
    return KnownCameras(
        cameras.K[None], reference @ cameras.world_from_cam[None], known, reference
    )
