# SPDX-License-Identifier: Apache-2.0
"""Which frames of a processed data set belong together in training samples (training page 3.1).

A processed set is a folder per scene with one file per frame and camera, `<frame>_<camera>.npz`
(data set page 2). An index of it lists scenes, frame names and windows; the list of frame names is
shared by all scenes.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from occany_core.errors import InputError

STEP = 5
"""Frame numbers between the frames of a window: 10 Hz recordings, 2 Hz windows."""
WINDOW = 10
"""Frames of a window."""
SKIPPED = "tmp"
"""Scenes whose name contains this are being written."""
SUFFIX = ".npz"


@dataclass(frozen=True)
class Window:
    """Frames of one scene that may form a sample."""

    scene: int
    """Index into the scenes."""
    frames: tuple[int, ...]
    """Indices into the frame names."""
    stamps: tuple[int, ...]
    """Frame numbers since the first."""


@dataclass(frozen=True)
class WindowIndex:
    """All windows of a data set."""

    scenes: tuple[str, ...]
    frames: tuple[str, ...]
    """`<frame>_<camera>`, sorted."""
    windows: tuple[Window, ...]


Tree = Mapping[str, Collection[str]]
"""File names by scene."""


def temporal_windows(tree: Tree, step: int = STEP, length: int = WINDOW) -> WindowIndex:
    """Return a window for every frame of every camera that has all its followers.

    Windows come by scene, camera and first frame.

    Raises:
        InputError: A file is not called `<frame>_<camera>.npz`.
    """
    scenes, names = _listing(tree)
    places = {name: place for place, name in enumerate(names)}
    windows = []
    for number, scene in enumerate(scenes):
        present = _frames_of(tree[scene])
        for first in sorted(present, key=_camera_then_frame):
            frame, camera = _parts(first)
            needed = [
                _name(int(frame) + step * place, camera, len(frame)) for place in range(length)
            ]
            if present.issuperset(needed):
                stamps = tuple(step * place for place in range(length))
                windows.append(Window(number, tuple(places[name] for name in needed), stamps))
    return WindowIndex(tuple(scenes), tuple(names), tuple(windows))


def surround_windows(tree: Tree, cameras: Sequence[str]) -> WindowIndex:
    """Return a window for every frame of the first camera that all cameras have.

    Args:
        tree: File names by scene.
        cameras: Cameras of the rig, as in the file names; windows keep their order.

    Raises:
        InputError: A file is not called `<frame>_<camera>.npz`, or no cameras are given.
    """
    if not cameras:
        raise InputError("no cameras were given; name those of the rig, the first one first")
    scenes, names = _listing(tree)
    places = {name: place for place, name in enumerate(names)}
    windows = []
    for number, scene in enumerate(scenes):
        present = _frames_of(tree[scene])
        for frame in sorted({_parts(name)[0] for name in present}):
            needed = [f"{frame}_{camera}" for camera in cameras]
            if present.issuperset(needed):
                frames = tuple(places[name] for name in needed)
                windows.append(Window(number, frames, (0,) * len(frames)))
    return WindowIndex(tuple(scenes), tuple(names), tuple(windows))


def cameras_of(tree: Tree) -> list[str]:
    """Return the cameras that the file names of a data set speak of, sorted.

    Raises:
        InputError: A file is not called `<frame>_<camera>.npz`.
    """
    return sorted({_parts(name)[1] for name in _listing(tree)[1]})


def _listing(tree: Tree) -> tuple[list[str], list[str]]:
    """Return scenes and all their frame names, sorted."""
    scenes = sorted(scene for scene in tree if SKIPPED not in scene)
    return scenes, sorted(set().union(*(_frames_of(tree[scene]) for scene in scenes)))


def _frames_of(files: Collection[str]) -> set[str]:
    return {name.removesuffix(SUFFIX) for name in files if name.endswith(SUFFIX)}


def _parts(name: str) -> tuple[str, str]:
    frame, separator, camera = name.partition("_")
    if not separator or not frame.isdigit() or not camera:
        raise InputError(
            f"{name}{SUFFIX} is not called <frame number>_<camera>{SUFFIX}; rename or remove it"
        )
    return frame, camera


def _camera_then_frame(name: str) -> tuple[str, str]:
    frame, camera = _parts(name)
    return camera, frame


def _name(frame: int, camera: str, digits: int) -> str:
    return f"{frame:0{digits}d}_{camera}"
