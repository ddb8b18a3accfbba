# SPDX-License-Identifier: Apache-2.0
"""What a run writes down: scalars as JSON lines, pictures as PNG, and both to TensorBoard.

TensorBoard is optional; the files are always there.
"""

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from occany_core.errors import InputError
from occany_core.training.batches import Batch, Targets
from occany_core.training.learner import Terms
from occany_core.training.recipe import Recipe
from occany_core.training.state import Progress, share_passed

LOG = "log.jsonl"
NEAREST, FARTHEST = 1.0, 80.0
"""Range of the depth colours [m]."""
_COLOURS = np.array(
    [[252, 240, 165], [246, 140, 70], [190, 55, 95], [85, 25, 110], [10, 8, 40]], np.float64
)


class Journal:
    """Files of one run; writes nothing where `is_silent`, as in all processes but the first."""

    def __init__(self, folder: Path, *, is_silent: bool = False) -> None:
        self.folder, self.is_silent = folder, is_silent
        self.board = None
        if not is_silent and find_spec("tensorboard") is not None:
            from torch.utils.tensorboard import SummaryWriter

            self.board = SummaryWriter(str(folder / "tensorboard"))

    def scalars(self, step: int, values: dict[str, float | int | str]) -> None:
        """Add one line to the log."""
        if self.is_silent:
            return
        with (self.folder / LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step} | values) + "\n")
        if self.board is not None:
            for name, value in values.items():
                if not isinstance(value, str):
                    self.board.add_scalar(name, value, step)

    def picture(self, step: int, name: str, rgb: UInt8[np.ndarray, "H W 3"]) -> None:
        """Write `pictures/NAME_STEP.png`."""
        if self.is_silent:
            return
        folder = self.folder / "pictures"
        folder.mkdir(exist_ok=True)
        Image.fromarray(rgb).save(folder / f"{name}_{step:07d}.png")
        if self.board is not None:
            self.board.add_image(name, rgb, step, dataformats="HWC")


def read_log(folder: Path) -> list[dict[str, float | int | str]]:
    """Read the scalars of a run, oldest first.

    Where a killed run went on from an earlier step, what it did again counts. A last line that was
    cut off is left out.

    Raises:
        InputError: There is no log, or it holds nothing.
    """
    path = folder / LOG
    if not path.is_file():
        raise InputError(f"{folder} is no folder of a training run: it has no {LOG}")
    lines: list[dict] = []
    for text in path.read_text(encoding="utf-8").splitlines():
        try:
            line = json.loads(text)
        except ValueError:
            continue
        while lines and lines[-1]["step"] > line["step"]:
            lines.pop()
        lines.append(line)
    if not lines:
        raise InputError(f"{path} is empty; let the run go on until its first report")
    return _with_named_stages(lines)


def _with_named_stages(lines: list[dict]) -> list[dict]:
    """Name stages that early logs number; their validations have the names, in order."""
    names = list(dict.fromkeys(one["stage"] for one in lines if isinstance(one["stage"], str)))
    numbered = dict(enumerate(names))
    return [
        one | {"stage": numbered.get(one["stage"], f"stage {one['stage']}")}
        if isinstance(one["stage"], int)
        else one
        for one in lines
    ]


def progress_line(recipe: Recipe, done: Progress) -> str:
    """Say where a run stands and when it will be over."""
    stage = recipe.stages[done.stage]
    passed = min(share_passed(stage, done), 1.0)
    per_step = done.seconds / max(done.steps, 1)
    lengths = [one.steps * per_step or 60 * one.minutes for one in recipe.stages[done.stage :]]
    left = int(sum(lengths) - passed * lengths[0])
    pace = done.views / max(done.seconds, 1e-9)
    waiting = 100 * done.data_seconds / max(done.seconds, 1e-9)
    return (
        f"{stage.name} {100 * passed:.0f} %, step {done.steps}, "
        f"{left // 60}:{left % 60:02d} left, {pace:.0f} views/s, {waiting:.0f} % waiting for data"
    )


def depth_sheet(batch: Batch, terms: Terms) -> UInt8[np.ndarray, "H W 3"]:
    """Put picture, predicted and true depth of the first scene below each other, view by view.

    Near is light, far is dark, and sky is blue. Rendered views that nobody photographed have no
    picture.
    """
    targets: Targets = batch.observed if batch.novel is None else batch.novel
    pictures = batch.images if batch.novel is None else batch.novel_images
    rows = [
        _depth_row(terms.depth[0], targets),
        _depth_row(targets.points_cam[0, ..., 2], targets),
    ]
    if pictures is not None:
        size = targets.valid.shape[-2:]
        shown = ((pictures[0].float().cpu() + 1) * 127.5).round().byte().numpy()
        small = [
            np.asarray(Image.fromarray(p.transpose(1, 2, 0)).resize(size[::-1])) for p in shown
        ]
        rows.insert(0, np.concatenate(small, axis=1))
    return np.concatenate(rows)


def _depth_row(depth: Tensor, targets: Targets) -> UInt8[np.ndarray, "h w 3"]:
    values = depth.float().clamp(NEAREST, FARTHEST).cpu().numpy()
    share = np.log(values / NEAREST) / np.log(FARTHEST / NEAREST) * (len(_COLOURS) - 1)
    steps = np.arange(len(_COLOURS))
    colours = np.stack([np.interp(share, steps, _COLOURS[:, c]) for c in range(3)], axis=-1)
    colours[targets.sky[0].cpu().numpy()] = (150, 190, 235)
    return np.concatenate(list(colours.round().astype(np.uint8)), axis=1)
