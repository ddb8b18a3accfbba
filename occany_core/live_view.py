# SPDX-License-Identifier: Apache-2.0
"""Grids, pictures, cameras, path and map -> Rerun, in a window or in an .rrd file.

World is where the rig started (or the grid's frame, for a single result): x forward, y left, z up.
Metres, seconds. Needs the package rerun-sdk.
"""

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
from jaxtyping import Float, Int8, UInt8

from occany_core.errors import InputError
from occany_core.picture.colours import colours_of_heights
from occany_core.results import SavedScene
from occany_core.voxels import VoxelGrid

MOST_BOXES = 100_000
"""More are thinned evenly: viewers get slow beyond."""
TIMELINE = "capture time"
JPEG_QUALITY = 80
FRUSTUM_DEPTH = 1.0  # metres
FREE_GREY, OCCUPIED_GREY, UNKNOWN_GREY = 230, 30, 128


def _rerun() -> ModuleType:
    if importlib.util.find_spec("rerun") is None:
        raise InputError(
            "the package rerun-sdk is not installed; run `pip install 'rerun-sdk>=0.23'`"
        )
    return importlib.import_module("rerun")


class LiveView:
    """Shows what it is given until it is closed."""

    def __init__(self, file: Path | None = None) -> None:
        """Open a window, or a file.

        Args:
            file: The .rrd file to write; None opens the viewer of Rerun.

        Raises:
            InputError: Rerun is not installed, or the file cannot be written.
        """
        self._rr = _rerun()
        if file is not None and (file.suffix != ".rrd" or not file.parent.is_dir()):
            raise InputError(f"{file} must end in .rrd and lie in a folder that exists")
        self._recording = self._rr.RecordingStream("occany")
        if file is None:
            self._recording.spawn()
        else:
            self._recording.save(file)
        self._recording.log("world", self._rr.ViewCoordinates.RIGHT_HAND_Z_UP, static=True)
        self._known_cameras: set[str] = set()

    def at(self, seconds: float) -> None:
        """Set the capture time of all that follows [s]."""
        self._recording.set_time(TIMELINE, timestamp=seconds)

    def rig(self, world_from_rig: Float[np.ndarray, "4 4"]) -> None:
        """Move the rig, with its voxels and cameras."""
        self._recording.log("world/rig", self._transform(world_from_rig))

    def voxels(self, grid: VoxelGrid, rig_from_grid: Float[np.ndarray, "4 4"]) -> None:
        """Show the occupied cells as boxes, coloured by height; completed ones in warm colours."""
        ijk = np.argwhere(grid.occupied)
        ijk = ijk[:: max(1, -(-len(ijk) // MOST_BOXES))]
        centres = np.asarray(grid.spec.origin) + (ijk + 0.5) * grid.spec.resolution
        completed = grid.completed[tuple(ijk.T)]
        colours = colours_of_heights(centres[:, 2], completed).astype(np.uint8)
        self._recording.log("world/rig/voxels", self._transform(rig_from_grid))
        boxes = self._rr.Boxes3D(
            centers=centres.astype(np.float32),
            half_sizes=np.full((len(ijk), 3), grid.spec.resolution / 2, np.float32),
            colors=colours,
            fill_mode="solid",
        )
        self._recording.log("world/rig/voxels", boxes)

    def camera(self, name: str, rig_from_cam: Float[np.ndarray, "4 4"]) -> None:
        """Place a camera: optical axes x right, y down, z forward."""
        self._recording.log(f"world/rig/cameras/{name}", self._transform(rig_from_cam))

    def lens(self, name: str, K: Float[np.ndarray, "3 3"], width_height: tuple[int, int]) -> None:
        """Tell intrinsics [px] of pictures of this size, from which a frustum is drawn."""
        self._known_cameras.add(name)
        pinhole = self._rr.Pinhole(
            image_from_camera=K,
            resolution=width_height,
            camera_xyz=self._rr.ViewCoordinates.RDF,
            image_plane_distance=FRUSTUM_DEPTH,
        )
        self._recording.log(f"world/rig/cameras/{name}/picture", pinhole)

    def picture(self, name: str, rgb: UInt8[np.ndarray, "H W 3"]) -> None:
        """Show a picture, in the frustum of its camera where intrinsics are known."""
        image = self._rr.Image(rgb).compress(jpeg_quality=JPEG_QUALITY)
        self._recording.log(self._place_of_picture(name), image)

    def encoded_picture(self, name: str, data: bytes, media_type: str) -> None:
        """Show a JPEG or PNG as it is."""
        image = self._rr.EncodedImage(contents=data, media_type=media_type)
        self._recording.log(self._place_of_picture(name), image)

    def _place_of_picture(self, name: str) -> str:
        known = name in self._known_cameras
        return f"world/rig/cameras/{name}/picture" if known else f"pictures/{name}"

    def path(self, points_world: Float[np.ndarray, "P 3"]) -> None:
        """Show where the rig went [m]."""
        strip = self._rr.LineStrips3D([np.asarray(points_world, np.float32)])
        self._recording.log("world/path", strip)

    def floor_map(self, name: str, columns: Int8[np.ndarray, "Y X"]) -> None:
        """Show a height band from above, forward up; -1 unknown, 0 to 100 percent."""
        percent = np.asarray(columns, np.float32)
        grey = FREE_GREY + (OCCUPIED_GREY - FREE_GREY) * percent / 100
        grey = np.where(percent < 0, UNKNOWN_GREY, grey).astype(np.uint8)
        self._recording.log(
            f"map/{name}", self._rr.Image(np.ascontiguousarray(grey.T[::-1, ::-1]))
        )

    def text(self, line: str) -> None:
        """Add a line to the log."""
        self._recording.log("log", self._rr.TextLog(line))

    def close(self) -> None:
        """Write everything that is still on its way."""
        self._recording.flush()
        self._recording.disconnect()

    def _transform(self, parent_from_child: Float[np.ndarray, "4 4"]) -> object:
        matrix = np.asarray(parent_from_child, np.float32)
        return self._rr.Transform3D(translation=matrix[:3, 3], mat3x3=matrix[:3, :3])


def show_scene(view: LiveView, scene: SavedScene) -> None:
    """Show a result folder: world is the grid's frame."""
    grid_from_world = np.asarray(scene.poses["grid_from_world"])
    view.at(max(one["stamp"] for one in scene.poses["views"]))
    view.voxels(scene.grid, np.eye(4))
    rigs = grid_from_world @ np.asarray(scene.poses["world_from_rig"])
    view.path(rigs[:, :3, 3])
    for index, (one, rgb) in enumerate(zip(scene.poses["views"], scene.pictures, strict=True)):
        name = f"{index:03d}_{one['camera']}" if one["camera"] else f"{index:03d}"
        view.camera(name, grid_from_world @ np.asarray(one["world_from_cam"]))
        view.lens(name, np.asarray(one["K"]), (one["width"], one["height"]))
        view.picture(name, rgb)
    view.text(f"{scene.title or 'result'}: metres from {scene.poses['scale_source']}")
