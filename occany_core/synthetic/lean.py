# SPDX-License-Identifier: Apache-2.0
"""How a vehicle leans on its springs: load and cornering tilt it, and the road keeps it rocking.

A calibration knows the rig, not this lean: from one degree of pitch on, level ground 25 m ahead is
half a metre off the plane on which the rig believes it stands.
"""

import math
from dataclasses import dataclass

import numpy as np

PITCH_DEG, ROLL_DEG = 0.6, 0.4  # standard deviations of what stays
MOST_DEG = 1.5  # of what stays
ROCKING_DEG = 0.25  # amplitude of what swings
PERIODS = 0.7, 1.6  # seconds of one swing, shortest and longest


@dataclass(frozen=True)
class Lean:
    """Pitch (nose down positive) and roll (right side down positive) over time.

    still: what stays, swing: amplitude, each (pitch, roll) in radians; period in seconds; phase in
    radians.
    """

    still: tuple[float, float]
    swing: tuple[float, float]
    period: float
    phase: float

    def at(self, second: float) -> np.ndarray:
        """`upright_from_rig` (4,4) at a time; both frames have their origin on the ground."""
        beat = math.sin(2 * math.pi * second / self.period + self.phase)
        pitch, roll = (a + b * beat for a, b in zip(self.still, self.swing, strict=True))
        tilted = np.eye(4)
        about_y = [
            [math.cos(pitch), 0, math.sin(pitch)],
            [0, 1, 0],
            [-math.sin(pitch), 0, math.cos(pitch)],
        ]
        about_x = [
            [1, 0, 0],
            [0, math.cos(roll), -math.sin(roll)],
            [0, math.sin(roll), math.cos(roll)],
        ]
        tilted[:3, :3] = np.array(about_y) @ np.array(about_x)
        return tilted


def draw_lean(rng: np.random.Generator, strength: float = 1.0) -> Lean:
    """Lean of one drive, so many times as strong as usual."""
    still = np.radians(np.clip(rng.normal(0, (PITCH_DEG, ROLL_DEG)), -MOST_DEG, MOST_DEG))
    swing = np.radians(rng.uniform(0, ROCKING_DEG, 2))
    still, swing = strength * still, strength * swing
    return Lean(
        still=(float(still[0]), float(still[1])),
        swing=(float(swing[0]), float(swing[1])),
        period=float(rng.uniform(*PERIODS)),
        phase=float(rng.uniform(0, 2 * math.pi)),
    )
