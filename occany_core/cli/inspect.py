# SPDX-License-Identifier: Apache-2.0
"""`occany inspect`: describe weights, a grid, or a result folder."""

import argparse
from pathlib import Path

import numpy as np

from occany_core.checkpoints import load_model
from occany_core.checkpoints.checksum import sha256_of
from occany_core.checkpoints.conversion import parts_of
from occany_core.checkpoints.torch_file import read_torch_file
from occany_core.cli.model_card import write_card_page
from occany_core.cli.view_files import check_place
from occany_core.errors import InputError
from occany_core.results import load_grid, load_scene
from occany_core.voxels import VoxelGrid

NAME = "inspect"
HELP = "describe weights, a released .pth file, a grid.npz, or a result folder"
EXAMPLE = "occany inspect default"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of this verb."""
    parser.add_argument(
        "thing",
        metavar="WHAT",
        help="'default', a .safetensors or .pth file, a grid.npz, or a folder",
    )
    parser.add_argument(
        "--card", metavar="FILE", type=Path,
        help="of weights: write their card as Markdown, into the place for it where the page has "
        "one",
    )  # fmt: skip


def run(arguments: argparse.Namespace) -> None:
    """Print one fact per line, or write the card of weights as a page."""
    path = Path(arguments.thing)
    if arguments.card is not None:
        check_place(arguments.card)
        write_card_page(load_model(arguments.thing, device="cpu"), arguments.card)
        print(f"wrote {arguments.card}")
        return
    if arguments.thing == "default" or path.suffix == ".safetensors":
        facts = _facts_of_weights(arguments.thing)
    elif path.suffix == ".pth":
        facts = _facts_of_released(path)
    elif path.is_dir():
        facts = _facts_of_scene(path)
    elif path.suffix == ".npz":
        facts = _facts_of_grid(load_grid(path))
    else:
        raise InputError(
            f"{path} is neither a .safetensors file, nor a .npz grid, nor a result folder"
            if path.exists()
            else f"there is no {path}; name weights, a grid or a result folder"
        )
    width = max(len(name) for name, _ in facts)
    for name, value in facts:
        print(f"{name:{width}}  {value}")


def _facts_of_weights(checkpoint: str) -> list[tuple[str, object]]:
    """Load the weights, so that they are known to be whole, and describe them."""
    model = load_model(checkpoint, device="cpu")
    parameters = sum(parameter.numel() for parameter in model.network.parameters())
    facts = [
        ("name", model.name),
        ("licence", model.card["licence"]),
        ("parameters", f"{parameters:,}"),
        ("sha256", model.sha256),
        ("renders novel views", "yes" if model.network.renders_novel_views else "no"),
    ]
    shown = {"name", "licence", "files", "format"}
    for key, value in model.card.items():
        if isinstance(value, list) and key not in shown:
            facts.append((key, f"{len(value)} entries"))
        elif isinstance(value, dict):
            facts += [(f"{key}.{inner}", content) for inner, content in value.items()]
        elif key not in shown:
            facts.append((key, value))
    return facts


def _facts_of_released(path: Path) -> list[tuple[str, object]]:
    """Describe a released file as it is; nothing in it is executed."""
    content = read_torch_file(path)
    parts = parts_of(content, path)
    facts = [("sha256", sha256_of(path))]
    for part, weights in parts.items():
        parameters = sum(tensor.numel() for tensor in weights.values())
        facts.append((part, f"{len(weights)} weights, {parameters:,} parameters"))
    others = [str(name) for name in content if name not in parts]
    facts += [("other entries", ", ".join(others)), ("next", f"occany convert {path}")]
    return facts


def _facts_of_grid(grid: VoxelGrid) -> list[tuple[str, object]]:
    spec = grid.spec
    low = np.asarray(spec.origin)
    high = low + spec.resolution * np.asarray(spec.shape)
    cells = spec.num_cells
    facts = [
        ("cells", f"{' x '.join(map(str, spec.shape))} of {spec.resolution:g} m"),
        ("x, forward [m]", f"{low[0]:g} to {high[0]:g}"),
        ("y, left [m]", f"{low[1]:g} to {high[1]:g}"),
        ("z, up [m]", f"{low[2]:g} to {high[2]:g}"),
    ]
    for name, mask in (
        ("occupied", grid.occupied),
        ("of them completed", grid.occupied & grid.completed),
        ("free", grid.free),
        ("unknown", grid.probability < 0),
    ):
        facts.append((name, f"{int(mask.sum()):,} cells ({100 * mask.sum() / cells:.1f} %)"))
    facts.append(("labels", "none" if grid.labels is None else "one class id per cell"))
    return facts


def _facts_of_scene(folder: Path) -> list[tuple[str, object]]:
    scene = load_scene(folder)
    cameras = dict.fromkeys(view["camera"] for view in scene.poses["views"])
    seconds = scene.poses["seconds_per_stage"]
    return [
        ("title", scene.title),
        ("views", len(scene.poses["views"])),
        ("cameras", ", ".join(cameras)),
        ("view sets", len(scene.poses["world_from_rig"])),
        ("frame from", scene.poses["frame_source"]),
        ("scale from", scene.poses["scale_source"]),
        ("seconds", ", ".join(f"{stage} {value:.2f}" for stage, value in seconds.items())),
        *_facts_of_grid(scene.grid),
    ]
