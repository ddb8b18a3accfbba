# SPDX-License-Identifier: Apache-2.0
"""Relief of a street: height of the carriageways over the plane, and the kerb beside them.

Along one axis the slope changes linearly between knots, so the profile is a chain of parabolas
that join smoothly, as road engineers draw it; across it the ground is tilted evenly. Everything
beside a carriageway stands higher by the kerb. World frame, metres; functions of coordinates take
NumPy arrays or tensors of any one shape.
"""

import math
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

Array = TypeVar("Array", np.ndarray, torch.Tensor)

STEEPEST = 0.06  # rise per metre along the axis
STEEPEST_TILT = 0.025  # rise per metre across it
FLAT_SHARE = 0.25  # of the worlds that have no slopes
NO_KERB_SHARE = 0.1
PROFILE_START, PROFILE_END = -95.0, 290.0  # metres along the axis where slopes change


@dataclass(frozen=True)
class Relief:
    """Numbers of one relief.

    axis (2,): unit vector of the profile; knots (N,): where its slope bends, ascending metres;
    bends (N,): change of curvature at each knot in 1/m; grade: slope before the first knot;
    tilt: slope to the left of the axis; kerb: height in metres, 0 where there is none.
    """

    axis: tuple[float, float]
    knots: tuple[float, ...]
    bends: tuple[float, ...]
    grade: float
    tilt: float
    kerb: float

    def height(self, x: Array, y: Array) -> Array:
        """Height of the carriageway's level in metres; 0 where the axis starts."""
        along, left = self._on_axis(x, y)
        level = along * self.grade + left * self.tilt
        for knot, bend in zip(self.knots, self.bends, strict=True):
            beyond = (along - knot).clip(0)
            level = level + beyond * beyond * (0.5 * bend)
        return level

    def gradient(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Rise per metre along world x and y."""
        along, _ = self._on_axis(x, y)
        slope = along * 0 + self.grade
        for knot, bend in zip(self.knots, self.bends, strict=True):
            slope = slope + (along - knot).clip(0) * bend
        ax, ay = self.axis
        return ax * slope - ay * self.tilt, ay * slope + ax * self.tilt

    def steepest(self) -> float:
        """Upper bound of the rise per metre in any direction."""
        slopes = [self.grade]
        for low, high, _, linear, square in self.pieces():
            slopes += [linear + 2 * square * s for s in (low, high) if math.isfinite(s)]
        return math.hypot(max(abs(slope) for slope in slopes), self.tilt)

    def pieces(self) -> list[tuple[float, float, float, float, float]]:
        """The parabolas of the profile: from, to, factors of 1, s and s^2 (s along the axis)."""
        limits = (-math.inf, *self.knots, math.inf)
        constant, linear, square = 0.0, self.grade, 0.0
        found = [(limits[0], limits[1], constant, linear, square)]
        for index, bend in enumerate(self.bends):
            knot = self.knots[index]
            constant += 0.5 * bend * knot * knot
            linear -= bend * knot
            square += 0.5 * bend
            found.append((knot, limits[index + 2], constant, linear, square))
        return found

    def _on_axis(self, x: Array, y: Array) -> tuple[Array, Array]:
        """Coordinates along the axis and to its left, metres."""
        ax, ay = self.axis
        return x * ax + y * ay, y * ax - x * ay


def draw_relief(rng: np.random.Generator) -> Relief:
    """Relief of one world; some worlds are flat, and some have no kerb."""
    kerb = 0.0 if rng.random() < NO_KERB_SHARE else rng.uniform(0.10, 0.16)
    flat = rng.random() < FLAT_SHARE
    turn = rng.uniform(-0.3, 0.3)
    steepest = 0.0 if flat else STEEPEST * rng.uniform(0.1, 1.0)
    steps = rng.uniform(35, 65, 12).cumsum() + PROFILE_START
    knots = np.concatenate([[PROFILE_START], steps[steps < PROFILE_END]])
    slopes = rng.uniform(-steepest, steepest, len(knots))
    curvature = np.concatenate([[0.0], np.diff(slopes) / np.diff(knots), [0.0]])
    tilt = 0.0 if flat else STEEPEST_TILT * rng.uniform(-1, 1)
    return Relief(
        axis=(math.cos(turn), math.sin(turn)),
        knots=() if flat else tuple(knots.tolist()),
        bends=() if flat else tuple(np.diff(curvature).tolist()),
        grade=float(slopes[0]),
        tilt=tilt,
        kerb=float(kerb),
    )


def lifted(
    relief: Relief, center: Array, leaning: Array, slants: tuple[Array, Array]
) -> tuple[Array, Array, Array]:
    """Bodies on the relief: height of their centres and the shear that fits them to it.

    center (...,P,3) in street coordinates (z above the level), metres; leaning (P,): whether a
    body follows the slope; slants: a body's own rise per metre along world x and y, each (P,).
    Returns z and the whole rise per metre along x and y, each (...,P).
    """
    x, y = center[..., 0], center[..., 1]
    rise_x, rise_y = relief.gradient(x, y)
    z = center[..., 2] + relief.height(x, y)
    return z, rise_x * leaning + slants[0], rise_y * leaning + slants[1]


def standing_frame(relief: Relief, x: float, y: float, heading: float) -> np.ndarray:
    """`world_from_body` (4,4) of a body on the carriageway's level at (x, y).

    Its z axis is the normal of the level and its x axis the direction `heading` (radians about
    the world's z) along the slope.
    """
    at = np.array([x]), np.array([y])
    gradient = np.array([float(part[0]) for part in relief.gradient(*at)])
    ahead = np.array([math.cos(heading), math.sin(heading)])
    forward = np.append(ahead, ahead @ gradient)
    forward /= np.linalg.norm(forward)
    up = np.append(-gradient, 1.0)
    up /= np.linalg.norm(up)
    frame = np.eye(4)
    frame[:3, 0], frame[:3, 1], frame[:3, 2] = forward, np.cross(up, forward), up
    frame[:3, 3] = x, y, float(relief.height(*at)[0])
    return frame
