# SPDX-License-Identifier: Apache-2.0
"""Analytic primitives of a synthetic street: oriented boxes, vertical cylinders, ellipsoids.

Street coordinates: x forward, y left as in the world, z above the carriageway's level, metres. The
relief (`relief.py`) lifts each primitive to its place in the world.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from occany_core.synthetic.classes import SemanticClass

Numbers = Sequence[float] | np.ndarray


FOUNDATION = 1.6  # metres of a building below its ground, which slopes
UPRIGHT = (SemanticClass.MANMADE, SemanticClass.TERRAIN)


class Shape(IntEnum):
    """How a primitive fills its box of `half_extent`."""

    BOX = 0
    CYLINDER = 1
    ELLIPSOID = 2


class Material(IntEnum):
    """Which colour program paints a primitive (`materials.py`)."""

    PLAIN = 0
    FACADE = 1
    VEHICLE_BODY = 2
    VEHICLE_GLASS = 3
    FOLIAGE = 4
    BARK = 5
    WHEEL = 6
    SIGN = 7
    CLOTH = 8
    STRIPES = 9
    HEDGE = 10
    BRICK_WALL = 11
    RAILS = 12
    LAMP = 13


PIERCED = (Material.FOLIAGE, Material.RAILS)
"""Materials with holes that rays pass through."""


@dataclass(frozen=True)
class Primitives:
    """P primitives as a structure of arrays.

    shape (P,) int64 `Shape`; center (P,3) and half_extent (P,3) metres; yaw (P,) radians about z;
    material (P,) int64 `Material`; semantics (P,) int64 Occ3D class; instance (P,) int64, 1-based;
    color and second_color (P,3) linear albedo; velocity (P,2) m/s in the plane;
    pattern (P,4) numbers whose meaning belongs to the material; variation (P,) in [0,1);
    slant (P,) rise per metre along its own x axis, by which a primitive is sheared.
    All floating fields are float32.
    """

    shape: np.ndarray
    center: np.ndarray
    half_extent: np.ndarray
    yaw: np.ndarray
    material: np.ndarray
    semantics: np.ndarray
    instance: np.ndarray
    color: np.ndarray
    second_color: np.ndarray
    velocity: np.ndarray
    pattern: np.ndarray
    variation: np.ndarray
    slant: np.ndarray

    def __len__(self) -> int:
        return len(self.shape)

    @property
    def leaning(self) -> np.ndarray:
        """Bool (P,): what follows the slope of the ground; the rest stands upright."""
        return ~np.isin(self.semantics, UPRIGHT)

    def centers_at(self, seconds: float) -> np.ndarray:
        """Centres (P,3), street coordinates, metres, after `seconds` of constant planar motion."""
        centers = self.center.copy()
        centers[:, :2] += self.velocity * seconds
        return centers


class PrimitiveBuilder:
    """Collects primitives while a world is drawn; owns the random generator of that world.

    The variation of primitives has a generator of its own, so that the number of parts of a thing
    does not change where the next thing stands.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self._variations = rng.spawn(1)[0]
        self._instances = 0
        self._integers: list[tuple[int, int, int, int]] = []
        self._floats: list[tuple[float, ...]] = []

    def new_instance(self) -> int:
        """Next instance id, counted from 1."""
        self._instances += 1
        return self._instances

    def add(  # noqa: PLR0913 - one argument per field of a primitive
        self,
        shape: Shape,
        center: Numbers,
        half_extent: Numbers,
        yaw: float,
        material: Material,
        semantics: int,
        instance: int,
        color: Numbers,
        second_color: Numbers | None = None,
        velocity: Numbers = (0.0, 0.0),
        pattern: Numbers = (0.0, 0.0, 0.0, 0.0),
        slant: float = 0.0,
    ) -> None:
        """Append one primitive; fields as in `Primitives`, `second_color` defaults to `color`."""
        self._integers.append((int(shape), int(material), int(semantics), instance))
        self._floats.append(
            (
                *center,
                *half_extent,
                yaw,
                *color,
                *(color if second_color is None else second_color),
                *velocity,
                *pattern,
                self._variations.random(),
                slant,
            )
        )

    def pack(self) -> Primitives:
        """All primitives added so far as arrays."""
        integers = np.array(self._integers, np.int64).reshape(-1, 4)
        floats = np.array(self._floats, np.float32).reshape(-1, 21)
        return Primitives(
            shape=integers[:, 0],
            material=integers[:, 1],
            semantics=integers[:, 2],
            instance=integers[:, 3],
            center=floats[:, 0:3],
            half_extent=floats[:, 3:6],
            yaw=floats[:, 6],
            color=floats[:, 7:10],
            second_color=floats[:, 10:13],
            velocity=floats[:, 13:15],
            pattern=floats[:, 15:19],
            variation=floats[:, 19],
            slant=floats[:, 20],
        )
