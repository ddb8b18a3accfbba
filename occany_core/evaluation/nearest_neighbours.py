# SPDX-License-Identifier: Apache-2.0
"""Exact nearest neighbours of many points at once, without a compiled library.

A balanced tree of boxes; all queries walk down together, one level at a time, and only into boxes
that are nearer than what each of them has already found.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

LEAF_POINTS = 16
"""Most points in a box of the last level."""
QUERIES_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class _BoxTree:
    """A complete binary tree; the boxes of level l are 2**l equal runs of the sorted points."""

    points: np.ndarray
    """(leaves, points of a leaf, 3); padded by repeating points."""
    lower: tuple[np.ndarray, ...]
    upper: tuple[np.ndarray, ...]
    """Corners of the boxes by level, (2**level, 3)."""


def nearest_distances(
    queries: Float[np.ndarray, "Q 3"], points: Float[np.ndarray, "P 3"]
) -> Float[np.ndarray, " Q"]:
    """Return the distance from every query to the nearest point; infinite without points."""
    if not len(points):
        return np.full(len(queries), np.inf)
    tree = _grow(np.asarray(points, dtype=np.float64))
    queries = np.asarray(queries, dtype=np.float64)
    distances = [
        _search(tree, queries[start : start + QUERIES_AT_ONCE])
        for start in range(0, len(queries), QUERIES_AT_ONCE)
    ]
    return np.sqrt(np.concatenate(distances)) if distances else np.zeros(0)


def _grow(points: np.ndarray) -> _BoxTree:
    depth = max(0, int(np.ceil(np.log2(len(points) / LEAF_POINTS))))
    leaf = -(-len(points) // 2**depth)
    runs = np.resize(points, (1, leaf * 2**depth, 3))  # repeats points to fill the last leaf
    for _ in range(depth):
        # Halve every run at the median of its widest axis.
        axis = np.ptp(runs, axis=1).argmax(axis=1)
        keys = np.take_along_axis(runs, axis[:, None, None], axis=2)[..., 0]
        order = np.argpartition(keys, runs.shape[1] // 2, axis=1)
        runs = np.take_along_axis(runs, order[..., None], axis=1)
        runs = runs.reshape(2 * len(runs), -1, 3)
    lower, upper = [runs.min(axis=1)], [runs.max(axis=1)]
    for _ in range(depth):
        lower.append(lower[-1].reshape(-1, 2, 3).min(axis=1))
        upper.append(upper[-1].reshape(-1, 2, 3).max(axis=1))
    return _BoxTree(runs, tuple(lower[::-1]), tuple(upper[::-1]))


def _search(tree: _BoxTree, queries: np.ndarray) -> np.ndarray:
    """Return squared distances."""
    everyone = np.arange(len(queries))
    box = np.zeros(len(queries), dtype=np.int64)
    for level in range(1, len(tree.lower)):
        left = 2 * box
        to_left = _box_distances(tree, level, left, queries)
        box = left + (_box_distances(tree, level, left + 1, queries) < to_left)
    best = _leaf_distances(tree, box, queries)
    who, box = everyone, np.zeros(len(queries), dtype=np.int64)
    for level in range(1, len(tree.lower)):
        who, box = np.repeat(who, 2), np.stack((2 * box, 2 * box + 1), axis=1).reshape(-1)
        open_ = _box_distances(tree, level, box, queries[who]) < best[who]
        who, box = who[open_], box[open_]
    np.minimum.at(best, who, _leaf_distances(tree, box, queries[who]))
    return best


def _box_distances(tree: _BoxTree, level: int, box: np.ndarray, queries: np.ndarray) -> np.ndarray:
    outside = np.maximum(tree.lower[level][box] - queries, queries - tree.upper[level][box])
    return (np.maximum(outside, 0) ** 2).sum(axis=1)


def _leaf_distances(tree: _BoxTree, leaf: np.ndarray, queries: np.ndarray) -> np.ndarray:
    return ((tree.points[leaf] - queries[:, None]) ** 2).sum(axis=2).min(axis=1)
