# SPDX-License-Identifier: Apache-2.0
"""Samples of random numbers in the layout of training data, to time a recipe without data."""

import numpy as np

from occany_core.synthetic.classes import SemanticClass
from occany_core.synthetic.samples import NOVEL_SOURCES, RENDERED_VIEWS
from occany_core.training.pack import LABEL_BLOCK, MOST_INSTANCES, WHOLE_NORMAL, Pack
from occany_core.training.recipe import Recipe

NEAREST, FARTHEST = 2.0, 60.0  # metres
SKY_SHARE = 0.1
FOCAL_SHARE = 0.7
"""Focal length over picture width."""
SPREAD = 2.0
"""Of camera positions [m]."""
INSTANCES = 8
MOUNTED = np.array([[0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 1.6], [0, 0, 0, 1]], np.float32)
"""`rig_from_cam` of all cameras: forward, 1.6 m up."""


def random_pack(recipe: Recipe, samples: int) -> Pack:
    """Draw samples of a recipe's picture size; every call returns the same.

    Colours are noise, depth is log-uniform from 2 to 60 m with a tenth of sky, and all cameras
    look the same way.

    Args:
        recipe: Says picture size, depth per pixel or block, and whether labels are needed.
        samples: How many.
    """
    rng = np.random.default_rng(0)
    (height, width), block = recipe.picture, recipe.block
    views = RENDERED_VIEWS + len(NOVEL_SOURCES)
    focal_px = FOCAL_SHARE * width
    x = (np.arange(width // block) * block + (block - width) / 2) / focal_px
    y = (np.arange(height // block) * block + (block - height) / 2) / focal_px
    rays = np.stack(np.meshgrid(x, y), axis=-1).astype(np.float16)
    shape = (samples, views, height // block, width // block)
    depth = NEAREST * (FARTHEST / NEAREST) ** rng.random(shape, np.float32)
    depth[rng.random(shape, np.float32) < SKY_SHARE] = 0
    poses = np.tile(np.eye(4, dtype=np.float32), (samples, views, 1, 1))
    poses[:, 1:, :3, 3] = rng.normal(0, SPREAD, (samples, views - 1, 3))
    pictures = (samples, RENDERED_VIEWS)
    return Pack(
        rgb=rng.integers(0, 256, (*pictures, height, width, 3), np.uint8),
        depth=depth.astype(np.float16),
        rays=np.broadcast_to(rays, (*shape, 2)),
        focal_px=np.full((samples, views), focal_px, np.float32),
        reference_from_cam=poses,
        rig_from_cam=np.tile(MOUNTED, (*pictures, 1, 1)),
        **(_labels(pictures, height, width, rng) if recipe.needs_labels else {}),
    )


def _labels(
    pictures: tuple[int, int], height: int, width: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """Draw labels of S x V pictures."""
    size = (*pictures, height // LABEL_BLOCK, width // LABEL_BLOCK)
    normal = rng.normal(size=(*size, 3))
    normal *= WHOLE_NORMAL / np.linalg.norm(normal, axis=-1, keepdims=True)
    centres = rng.uniform(-FARTHEST, FARTHEST, (*pictures, MOST_INSTANCES + 1, 3))
    return {
        "semantics": rng.integers(0, len(SemanticClass), size, np.uint8),
        "instance": rng.integers(0, INSTANCES, size, np.uint8),
        "normal": np.rint(normal).astype(np.int8),
        "centres": centres.astype(np.float16),
    }
