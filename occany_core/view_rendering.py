# SPDX-License-Identifier: Apache-2.0
"""Encoded view sets and wanted cameras -> what these cameras would see.

The wanted cameras stand in the grid frame (body axes x forward, y left, z up) of the scene that
the same view sets give. Metres. `R` wanted views, `H W` pixels of the wanted pictures.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from occany_core import camera, rigid
from occany_core.checkpoints import Model
from occany_core.config import OccAnyConfig, from_flat
from occany_core.errors import InputError
from occany_core.observation import EncodedSet, observe, render_chunk
from occany_core.pipeline import label_scene, locate_sets
from occany_core.poses import Cameras
from occany_core.projection import nearest_points
from occany_core.semantics.class_prompts import UNLABELLED
from occany_core.semantics.labelling import Labeller
from occany_core.stopwatch import Stopwatch

SIDES = (16, 4096)
"""Least and most pixels of a wanted picture's sides."""
FIELD_OF_VIEW_DEG = (5.0, 150.0)
"""Least and most of a wanted camera."""
MOST_STRETCH = 2.0
"""How much the aspect of a wanted picture may differ from that of the network's."""


@dataclass(frozen=True)
class WantedCamera:
    """A pinhole camera; the same for all wanted views."""

    K: Float[Tensor, "3 3"]
    """Pixels."""
    height: int
    width: int


@dataclass(frozen=True)
class RenderedViews:
    """The wanted views, in host memory."""

    camera: WantedCamera
    depth: Float[Tensor, "R H W"]
    """Metres along the optical axis."""
    confidence: Float[Tensor, "R H W"]
    """In (1, inf)."""
    labels: UInt8[Tensor, "R H W"] | None
    """Classes of the observed points that fall on a pixel, 255 where none does; None without."""


@torch.inference_mode()
def render_views(
    model: Model,
    sets: list[EncodedSet],
    config: OccAnyConfig,
    grid_from_cam: Float[Tensor, "R 4 4"],
    wanted: WantedCamera | None = None,
    labeller: Labeller | None = None,
) -> RenderedViews:
    """Render views of a scene from where no camera was.

    Args:
        model: Network and card.
        sets: Those of the scene, oldest first.
        config: The settings that the scene was made with.
        grid_from_cam: Poses of the optical frames.
        wanted: The reference camera as the network sees it, if None.
        labeller: Names what is seen; if None, one is made for this call.

    Raises:
        InputError: The weights render nothing, the camera is absurd, or a view shows nothing that
            was seen.
        DegenerateGeometryError: The prediction determines no cameras.
    """
    if not model.network.renders_novel_views:
        raise InputError(f"the weights {model.name} render no views; load others")
    rows, columns = sets[0].batch.images.shape[-2:]
    if wanted is not None:
        check_camera(wanted, rows, columns)
    watch = Stopwatch()
    labeller = labeller or Labeller(model, config.labels)
    observed = observe(
        model, sets, from_flat({"novel_views.steps": 1}, config), watch, with_segmentation=True
    )
    located = locate_sets(sets, observed.raw, config)
    if wanted is None:
        wanted = WantedCamera(located.cameras.K[0].cpu(), rows, columns)
    grid_from_world = located.grid_from_world(config.window.anchor)
    device = grid_from_world.device
    K = camera.resize(wanted.K.to(device), columns / wanted.width, rows / wanted.height)
    cameras = Cameras(
        K.expand(len(grid_from_cam), 3, 3),
        rigid.invert(grid_from_world) @ grid_from_cam.to(device, grid_from_world.dtype),
    )
    drawn = observed.drawn(located.seen.points_world)
    shown = _shown_points(drawn, cameras, (rows, columns))
    _check_shown(shown, grid_from_cam)
    maps = render_chunk(model, (observed, located), cameras, config, watch).maps
    labels = label_scene(labeller, sets, observed, config)
    if labels is not None:
        of_points = labels.pixels.flatten()[shown.clamp_min(0)]
        labels = of_points.where(shown >= 0, UNLABELLED)
    size = (wanted.height, wanted.width)
    return RenderedViews(
        wanted,
        _resized(maps.points_cam[..., 2], size),
        _resized(maps.confidence, size),
        None if labels is None else _resized(labels.float(), size).to(torch.uint8),
    )


def check_camera(wanted: WantedCamera, rows: int, columns: int) -> None:
    """Refuse cameras that the network cannot render.

    Args:
        wanted: As asked for.
        rows: Height of the network's picture [px].
        columns: Its width [px].

    Raises:
        InputError: Naming what is absurd, and what is possible.
    """
    size = f"{wanted.width} x {wanted.height} px"
    if not all(SIDES[0] <= side <= SIDES[1] for side in (wanted.height, wanted.width)):
        raise InputError(
            f"a picture of {size} is wanted; its sides must be {SIDES[0]} to {SIDES[1]} px"
        )
    stretch = wanted.width / wanted.height / (columns / rows)
    if not 1 / MOST_STRETCH <= stretch <= MOST_STRETCH:
        raise InputError(
            f"a picture of {size} is wanted, and the network's is {columns} x {rows} px; "
            f"its aspect may differ by a factor of {MOST_STRETCH:g}"
        )
    (fx, skew, x0), (zero, fy, y0), last = wanted.K.tolist()
    usable = bool(wanted.K.isfinite().all()) and min(fx, fy) > 0
    if not (usable and skew == zero == 0 and last == [0, 0, 1]):
        raise InputError(
            f"K is {wanted.K.tolist()}; it must be finite, of the form fx 0 cx, 0 fy cy, 0 0 1, "
            "with positive focal lengths [px]"
        )
    angles = [
        math.degrees(2 * math.atan(side / 2 / focal))
        for side, focal in ((wanted.width, fx), (wanted.height, fy))
    ]
    least, most = FIELD_OF_VIEW_DEG
    if not all(least <= angle <= most for angle in angles):
        raise InputError(
            f"K and the size {size} give a field of view of {angles[0]:.1f} x {angles[1]:.1f} "
            f"degrees; it must be {least:g} to {most:g}"
        )
    if not (0 <= x0 <= wanted.width and 0 <= y0 <= wanted.height):
        raise InputError(
            f"the principal point ({x0:g}, {y0:g}) of K lies outside of a picture of {size}"
        )


def _check_shown(shown: Int[Tensor, "R H W"], grid_from_cam: Float[Tensor, "R 4 4"]) -> None:
    for index, pixels in enumerate(shown):
        if not (pixels >= 0).any():
            place = ", ".join(f"{value:.1f}" for value in grid_from_cam[index, :3, 3].tolist())
            raise InputError(
                f"view {index} at ({place}) m shows nothing that the cameras saw; "
                "turn it to where they look, or move it nearer"
            )


def _shown_points(
    points_world: Float[Tensor, "V H W 3"], cameras: Cameras, size: tuple[int, int]
) -> Int[Tensor, "R H W"]:
    """Return the index of the observed point on each pixel (R, H, W), -1 where there is none."""
    points = points_world.flatten(0, 2)
    return torch.stack(
        [
            nearest_points(points, K, world_from_cam, *size)[0]
            for K, world_from_cam in zip(cameras.K, cameras.world_from_cam, strict=True)
        ]
    )


def _resized(maps: Float[Tensor, "R h w"], size: tuple[int, int]) -> Float[Tensor, "R H W"]:
    """Take the nearest pixel: depth between two surfaces is on neither."""
    return F.interpolate(maps[:, None], size, mode="nearest-exact")[:, 0].cpu()
