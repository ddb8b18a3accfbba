# SPDX-License-Identifier: Apache-2.0
"""Scene -> folder of files and back: grid, points, poses, picture, views and labels.

Grid and points are in the grid frame (body axes x forward, y left, z up), camera poses in world
(optical frame of the reference view). Metres, seconds, pixels at network size. A folder appears
complete or not at all; an earlier result stays until the new one is complete.
"""

import json
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from occany_core import rigid
from occany_core.config import OccAnyConfig, VoxelsConfig
from occany_core.datasets.class_tables import SemanticClass
from occany_core.errors import InputError, OccAnyError
from occany_core.picture import save_scene_picture
from occany_core.picture.colours import COMPLETED_RAMP, class_palette
from occany_core.pipeline import Scene
from occany_core.pointmaps import Pointmaps
from occany_core.voxels import VoxelGrid, VoxelGridSpec

FORMAT = 1
GRID, POINTS, POSES, PICTURE, VIEWS = "grid.npz", "points.ply", "poses.json", "scene.png", "views"
LABELS = "labels"
CONTENT = frozenset({GRID, POINTS, POSES, PICTURE, VIEWS, LABELS})
UNFINISHED = ".unfinished-"
"""How the names of folders begin that are not complete, or were not when a program was killed."""
POINT = np.dtype(
    [
        ("x", "<f4"), ("y", "<f4"), ("z", "<f4"),
        ("red", "u1"), ("green", "u1"), ("blue", "u1"),
        ("confidence", "<f4"), ("rendered", "u1"),
    ]
)  # fmt: skip
"""One vertex of points.ply."""
PLY_TYPES = {"<f4": "float", "|u1": "uchar"}


@dataclass(frozen=True)
class SavedScene:
    """What `load_scene` finds in a folder."""

    title: str
    grid: VoxelGrid
    pictures: tuple[UInt8[np.ndarray, "H W 3"], ...]
    captions: tuple[str, ...]
    poses: dict
    """Content of poses.json."""


def check_folder(folder: Path) -> None:
    """Refuse a place where a scene cannot be written, before any work is done for it.

    Raises:
        InputError: It is a file, a folder with content that is not an earlier result, or a place
            that may not be written to.
    """
    try:
        if folder.exists() and not folder.is_dir():
            raise InputError(f"the output {folder} exists and is not a folder; name another one")
        names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
        place = _place_of(folder)
        while not place.exists():
            place = place.parent
        Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=place)).rmdir()
    except OSError as error:
        raise InputError(
            f"cannot use the output folder {folder}: {error.strerror}; name a place that you may "
            "write to"
        ) from error
    others = sorted(name for name in names - CONTENT if not name.startswith(UNFINISHED))
    if others:
        raise InputError(
            f"the output folder {folder} holds other files ({others[0]}); name a new or empty "
            "folder, or an earlier result, which is then replaced"
        )


def _place_of(folder: Path) -> Path:
    """Return where an unfinished result stands, on the disk of the finished one, links followed.

    That is inside a folder that is there already: it may be a mount point or someone's current
    directory, which cannot be exchanged.
    """
    folder = Path(os.path.realpath(folder))
    return folder if folder.is_dir() else folder.parent


def save_scene(
    folder: str | Path,
    scene: Scene,
    config: OccAnyConfig,
    title: str = "",
    sources: list[str] | None = None,
) -> None:
    """Write a scene to a folder, all files or none.

    Args:
        folder: Made if missing; an earlier result in it is replaced.
        scene: From `predict` or `Stream.add`.
        config: The settings it was made with; points.ply keeps the points that the grid counts.
        title: Over the picture.
        sources: Origin of each view, for example file names; camera names if None.

    Raises:
        InputError: As `check_folder`.
        OccAnyError: The disk refuses.
    """
    folder = Path(folder)
    check_folder(folder)
    sources = list(scene.camera_names) if sources is None else sources
    with _new_folder(folder) as partial:
        _write_grid(partial / GRID, scene)
        _write_points(partial / POINTS, scene, config.voxels)
        files = _write_views(partial / VIEWS, scene)
        if scene.labels is not None:
            _write_labels(partial / LABELS, scene, files)
        _write_poses(partial / POSES, scene, title, sources, files)
        save_scene_picture(partial / PICTURE, list(scene.rgb), scene.grid, title, sources)


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """Offer a temporary folder whose content is that of `folder` when the body succeeds."""
    partial = None
    try:
        place = _place_of(folder)
        place.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=place))
        yield partial
        if folder.is_dir():
            _exchange_content(folder, partial)
        else:
            partial.chmod(0o755)
            os.replace(partial, os.path.realpath(folder))
    except OSError as error:
        raise OccAnyError(
            f"cannot write the result to {folder}: {error.strerror or error}; "
            "free space, or name a place that you may write to"
        ) from error
    finally:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)


def _exchange_content(folder: Path, partial: Path) -> None:
    """Move a complete result, entry by entry, to where an earlier one may be."""
    new = list(partial.iterdir())
    earlier = Path(tempfile.mkdtemp(dir=partial))
    for name in CONTENT:
        if os.path.lexists(folder / name):
            os.replace(folder / name, earlier / name)
    for path in new:
        os.replace(path, folder / path.name)


def _write_grid(path: Path, scene: Scene) -> None:
    grid = scene.grid
    labels = {}
    if grid.labels is not None:
        names = {one.id: one.name for one in scene.classes}
        by_id = [names.get(label, "") for label in range(max(names, default=0) + 1)]
        colours = class_palette(scene.classes)[: len(by_id)]
        labels = {
            "labels": grid.labels,
            "label_names": np.array(by_id),
            "label_colours": colours,
        }
    np.savez_compressed(
        path,
        format=np.int64(FORMAT),
        probability=grid.probability,
        completed=grid.completed,
        origin=np.asarray(grid.spec.origin, np.float64),
        resolution=np.float64(grid.spec.resolution),
        grid_from_world=scene.grid_from_world.numpy(),
        frame_source=scene.frame_source,
        scale_source=scene.scale_source,
        **labels,
    )


def load_grid(path: str | Path) -> VoxelGrid:
    """Read the grid.npz that `save_scene` wrote.

    Raises:
        InputError: The file is missing, damaged, or not such a grid.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as content:
            arrays = dict(content.items())
    except OSError as error:
        raise InputError(f"cannot read the grid {path}: {error.strerror or error}") from error
    except (ValueError, EOFError, BadZipFile, zlib.error, AttributeError) as error:
        raise InputError(f"{path} is not a grid file, or is damaged; expected a .npz") from error
    missing = {"format", "probability", "completed", "origin", "resolution"} - arrays.keys()
    if missing:
        raise InputError(f"{path} is not a grid of occany: it has no {', '.join(sorted(missing))}")
    probability, completed = arrays["probability"], arrays["completed"]
    if (
        int(arrays["format"]) != FORMAT
        or probability.dtype != np.int8
        or probability.ndim != 3
        or completed.dtype != np.bool_
        or completed.shape != probability.shape
        or arrays["origin"].shape != (3,)
        or not _are_labels(arrays.get("labels"), probability.shape)
    ):
        raise InputError(
            f"{path} has arrays of other types or shapes than this version writes "
            f"(probability is {probability.dtype} {probability.shape}); make it again"
        )
    origin = tuple(float(value) for value in arrays["origin"])
    spec = VoxelGridSpec(origin, float(arrays["resolution"]), probability.shape)
    return VoxelGrid(spec, probability, completed, arrays.get("labels"))


def load_grid_classes(path: str | Path) -> tuple[SemanticClass, ...]:
    """Read what the labels of a grid.npz mean; nothing where it has none.

    Raises:
        InputError: The file is missing, damaged, or not such a grid.
    """
    if load_grid(path).labels is None:
        return ()
    with np.load(path, allow_pickle=False) as content:
        names, colours = content.get("label_names"), content.get("label_colours")
    if names is None or colours is None or colours.shape != (len(names), 3):
        raise InputError(f"{path} does not say what its labels mean; make it again")
    return tuple(
        SemanticClass(label, str(name), 0, tuple(colour.tolist()), ())
        for label, (name, colour) in enumerate(zip(names, colours, strict=True))
        if name
    )


def _are_labels(labels: np.ndarray | None, shape: tuple[int, ...]) -> bool:
    return labels is None or (labels.dtype == np.uint8 and labels.shape == shape)


def _write_points(path: Path, scene: Scene, voxels: VoxelsConfig) -> None:
    """Write confident points of all views as binary PLY, grid frame."""
    limits = voxels.min_confidence, voxels.max_range
    vertices, kept = _vertices(scene.observed, *limits, scene)
    for channel, name in enumerate(("red", "green", "blue")):
        vertices[name] = scene.rgb[..., channel][kept.numpy()]
    if scene.novel is not None:
        rendered, _ = _vertices(scene.novel, voxels.min_confidence_novel, voxels.max_range, scene)
        for name, value in zip(("red", "green", "blue"), COMPLETED_RAMP[2], strict=True):
            rendered[name] = value
        rendered["rendered"] = 1
        vertices = np.concatenate((vertices, rendered))
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(vertices)}"]
    header += [f"property {PLY_TYPES[POINT[name].str]} {name}" for name in POINT.names]
    with path.open("wb") as file:
        file.write("\n".join([*header, "end_header", ""]).encode("ascii"))
        file.write(vertices.tobytes())


def _vertices(
    points: Pointmaps, min_confidence: float, max_range: float, scene: Scene
) -> tuple[np.ndarray, Tensor]:
    """Return vertices without colour, and the mask (V, H, W) of the pixels they come from."""
    kept = (points.confidence > min_confidence) & (points.points_cam.norm(dim=-1) < max_range)
    in_grid = rigid.apply(scene.grid_from_world, points.points_world[kept]).numpy()
    vertices = np.zeros(len(in_grid), POINT)
    for axis, name in enumerate(("x", "y", "z")):
        vertices[name] = in_grid[:, axis]
    vertices["confidence"] = points.confidence[kept].numpy()
    return vertices, kept


def _write_views(folder: Path, scene: Scene) -> list[str]:
    """Write the input pictures at network size; return their file names."""
    folder.mkdir()
    names = []
    for index, (camera, rgb) in enumerate(zip(scene.camera_names, scene.rgb, strict=True)):
        safe = re.sub(r"[^A-Za-z0-9_.-]+", "_", camera)[:60]
        names.append(f"{index:03d}_{safe}.png" if safe else f"{index:03d}.png")
        Image.fromarray(rgb).save(folder / names[-1])
    return names


def _write_labels(folder: Path, scene: Scene, names: list[str]) -> None:
    """Write the class ids of the input pictures' pixels, as pictures with a palette."""
    folder.mkdir()
    palette = class_palette(scene.classes)
    for name, labels in zip(names, scene.labels, strict=True):
        picture = Image.fromarray(labels, mode="P")
        picture.putpalette(palette.tobytes())
        picture.save(folder / name)


def _write_poses(
    path: Path, scene: Scene, title: str, sources: list[str], files: list[str]
) -> None:
    views = [
        {
            "camera": camera,
            "source": sources[index],
            "picture": f"{VIEWS}/{files[index]}",
            "labels": None if scene.labels is None else f"{LABELS}/{files[index]}",
            "stamp": scene.stamps[index],
            "view_set": scene.set_index[index],
            "height": scene.rgb.shape[1],
            "width": scene.rgb.shape[2],
            "K": scene.cameras.K[index].tolist(),
            "world_from_cam": scene.cameras.world_from_cam[index].tolist(),
        }
        for index, camera in enumerate(scene.camera_names)
    ]
    content = {
        "format": FORMAT,
        "title": title,
        "conventions": "a_from_b maps b to a; metres, seconds; K in pixels of `picture`, the "
        "centre of its top-left pixel is (0, 0); cameras x right, y down, z forward; rig and "
        "grid x forward, y left, z up",
        "frame_source": scene.frame_source,
        "scale_source": scene.scale_source,
        "scale_factor": scene.scale.factor,
        "grid_from_world": scene.grid_from_world.tolist(),
        "world_from_rig": scene.world_from_rig.tolist(),
        "views": views,
        "seconds_per_stage": {name: round(value, 4) for name, value in scene.timings.items()},
    }
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def load_scene(folder: str | Path) -> SavedScene:
    """Read a folder that `save_scene` wrote.

    Raises:
        InputError: The folder or one of its files is missing or damaged.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}; name the -o folder of `occany predict`")
    grid = load_grid(folder / GRID)
    try:
        poses = json.loads((folder / POSES).read_text(encoding="utf-8"))
        pictures = tuple(
            np.asarray(Image.open(folder / view["picture"]).convert("RGB"))
            for view in poses["views"]
        )
        captions = tuple(view["source"] for view in poses["views"])
        return SavedScene(poses["title"], grid, pictures, captions, poses)
    except OSError as error:
        raise InputError(f"cannot read the result in {folder}: {error}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{folder / POSES} is damaged or of another version; run `occany predict` again"
        ) from error
