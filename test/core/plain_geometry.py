# SPDX-License-Identifier: Apache-2.0
"""Focal length, registration, novel poses and drawing again, as the specification tells them.

Point by point or in another way than the library; it makes golden sets.
"""

import math

import numpy as np
import torch


def focal_length(points):
    """Ten re-weighted steps over a pointmap (H, W, 3) in its camera frame."""
    height, width = points.shape[:2]
    rows, columns = np.indices((height, width))
    u = np.stack((columns - width / 2, rows - height / 2), -1).reshape(-1, 2)
    flat = points.reshape(-1, 3).double().numpy()
    with np.errstate(all="ignore"):
        a = np.nan_to_num(flat[:, :2] / flat[:, 2:], nan=0.0, posinf=0.0, neginf=0.0)
    focal = (a * u).sum() / (a * a).sum()
    for _ in range(10):
        weight = 1 / np.maximum(np.linalg.norm(u - focal * a, axis=1), 1e-8)
        focal = (weight[:, None] * a * u).sum() / (weight[:, None] * a * a).sum()
    return max(focal, 0.0)


def rotation_of(quaternion):
    """3 x 3 matrix of a quaternion, real part first."""
    w, x, y, z = quaternion / np.linalg.norm(quaternion)
    return np.array(
        [
            [w * w + x * x - y * y - z * z, 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), w * w - x * x + y * y - z * z, 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), w * w - x * x - y * y + z * z],
        ]
    )


def placed(rotation, translation):
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = rotation, translation
    return matrix


def registered(points_world, points_cam, weights):
    """world_from_cam by Horn's method: the largest eigenvector is the quaternion."""
    a, b = (p.reshape(-1, 3).double().numpy() for p in (points_world, points_cam))
    w = weights.reshape(-1, 1).double().numpy()
    w = w / w.sum()
    centre_a, centre_b = (w * a).sum(0), (w * b).sum(0)
    m = (w * (b - centre_b)).T @ (a - centre_a)
    trace = np.trace(m)
    corner = np.array([m[1, 2] - m[2, 1], m[2, 0] - m[0, 2], m[0, 1] - m[1, 0]])
    n = np.zeros((4, 4))
    n[0, 0], n[0, 1:], n[1:, 0] = trace, corner, corner
    n[1:, 1:] = m + m.T - trace * np.eye(3)
    rotation = rotation_of(np.linalg.eigh(n)[1][:, -1])
    return placed(rotation, centre_a - rotation @ centre_b)


def yaw(degrees):
    a = math.radians(degrees)
    turn = [[math.cos(a), 0, math.sin(a)], [0, 1, 0], [-math.sin(a), 0, math.cos(a)]]
    return placed(np.array(turn), np.zeros(3))


def moved(x=0.0, z=0.0):
    return placed(np.eye(3), [x, 0, z])


def novel_poses(observed, *, vpi, fwd, rot=0.0, lat=0.0, nseed=None, step=15.0):
    """Poses, and the observed view that owns each."""
    found, owner = [], []
    for j in range(nseed or 1):
        angle = step * (j - ((nseed or 1) - 1) / 2)
        side = float(np.sign(angle)) * lat
        shift = 0.0 if nseed else lat
        for turn, sideways in [(0, 0), (rot, shift), (-rot, -shift)][: 3 if rot > 0 else 1]:
            for i, pose in enumerate(observed):
                seed = pose @ moved(x=side) @ yaw(angle)
                for k in range(1, vpi + 1):
                    found.append(seed @ moved(z=k * fwd) @ moved(x=sideways) @ yaw(turn))
                    owner.append(i)
    return np.array(found), owner


def drawn(points, focal, pose, height, width):
    """Index of the nearest point per pixel, -1 where none falls, and all points in the view."""
    pose = torch.as_tensor(pose, dtype=torch.float32)
    in_view = (points - pose[:3, 3]) @ pose[:3, :3]
    x, y, z = in_view.unbind(-1)
    u = ((focal * x + width / 2 * z) / (z + 1e-8)).round().numpy()
    v = ((focal * y + height / 2 * z) / (z + 1e-8)).round().numpy()
    index, nearest = np.full((height, width), -1), np.full((height, width), np.inf)
    depth = z.numpy()
    for i in np.flatnonzero((u >= 0) & (u < width) & (v >= 0) & (v < height) & (depth > 0)):
        row, column = int(v[i]), int(u[i])
        if depth[i] < nearest[row, column]:
            nearest[row, column], index[row, column] = depth[i], i
    return torch.from_numpy(index), in_view
