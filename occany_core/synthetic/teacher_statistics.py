# SPDX-License-Identifier: Apache-2.0
"""Mean and deviation of the teacher's channels, measured once over many streets and stored.

To be measured again after a change of the streets or of the teacher:
`python -m occany_core.synthetic.teacher_statistics`.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from occany_core.synthetic.renderer import render
from occany_core.synthetic.rigs import jittered_surround
from occany_core.synthetic.samples import RIG_SEED_OFFSET
from occany_core.synthetic.scene import Scene
from occany_core.synthetic.teacher import (
    MOST_CHANNELS,
    STATISTICS,
    SeenViews,
    StreetTeacher,
    seen_views,
)
from occany_core.synthetic.world import StreetWorld

WORLDS = 160
WIDTH, HEIGHT = 256, 144
SEGMENTATION_SIZE = 256


def surround_views(seed: int, width: int, height: int, second: float = 0.0) -> SeenViews:
    """Render the six cameras of a drawn rig in the world of a seed; the front is the reference.

    Args:
        seed: World and rig, as for a training sample.
        width: Pixels.
        height: Pixels.
        second: Time.
    """
    world = StreetWorld(seed)
    scene = Scene(world)
    rig = jittered_surround(np.random.default_rng(seed + RIG_SEED_OFFSET), width, height)
    world_from_rig = world.ego_poses([second])[0]
    world_from_cam = np.stack([world_from_rig @ camera.rig_from_cam for camera in rig])
    seconds = torch.full((len(rig),), second)
    frames = render(
        scene,
        torch.tensor(np.stack([camera.K for camera in rig])).float(),
        torch.tensor(world_from_cam).float(),
        seconds,
        height,
        width,
        noise_seed=seed,
    )
    reference_from_world = torch.from_numpy(np.linalg.inv(world_from_cam[0])).float()
    return seen_views(scene, frames, seconds, reference_from_world)


def measured_moments(views: Iterable[SeenViews]) -> Iterator[np.ndarray]:
    """Yield mean and deviation (2, channels) of the raw coarse, middle and fine level, float32.

    All views weigh the same. The deviation is taken over views and cells.
    """
    teacher = StreetTeacher(MOST_CHANNELS, SEGMENTATION_SIZE, statistics=None)
    sums = [torch.zeros(2, n, dtype=torch.float64) for n in MOST_CHANNELS]
    number = 0
    for seen in views:
        number += len(seen.rgb)
        for total, level in zip(sums, teacher(seen), strict=True):
            level = level.double()
            total += torch.stack((level, level**2)).mean(dim=(3, 4)).sum(dim=1)
    for total in sums:
        mean, square = total / number
        yield torch.stack((mean, (square - mean**2).sqrt())).float().numpy()


def write_statistics(path: Path = STATISTICS, worlds: int = WORLDS) -> None:
    """Measure seeds 0 to `worlds` - 1 and store them as the arrays coarse, middle and fine."""
    views = (surround_views(seed, WIDTH, HEIGHT) for seed in range(worlds))
    names = ("coarse", "middle", "fine")
    np.savez_compressed(path, **dict(zip(names, measured_moments(views), strict=True)))


if __name__ == "__main__":
    torch.set_num_threads(1)
    write_statistics()
