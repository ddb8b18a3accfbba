# SPDX-License-Identifier: Apache-2.0
"""Things that stand or move in a street, each built from a few primitives in the world frame.

Every function appends to a `PrimitiveBuilder` and draws from its generator in a fixed order.
Positions are (2,) metres on the ground plane, yaw radians, speed m/s along the yaw.
"""

import math

import numpy as np

from occany_core.synthetic.classes import SemanticClass
from occany_core.synthetic.primitives import Material, Numbers, PrimitiveBuilder, Shape

VEHICLE_SIZES = {  # length, width, height in metres
    "car": (4.3, 1.78, 1.45),
    "suv": (4.7, 1.9, 1.75),
    "van": (5.3, 2.0, 2.2),
    "truck": (8.0, 2.45, 3.2),
    "bus": (11.5, 2.55, 3.1),
}
VEHICLE_MIX = ["car"] * 6 + ["suv"] * 3 + ["van"] * 2 + ["truck", "bus"]
VEHICLE_CLASS = {"truck": SemanticClass.TRUCK, "bus": SemanticClass.BUS}
WINDOW_TINT = np.array([0.06, 0.08, 0.10])
SIGN_COLORS = np.array([[0.85, 0.08, 0.08], [0.08, 0.2, 0.7], [0.9, 0.8, 0.1], [0.05, 0.45, 0.2]])


class _Placement:
    """Turns offsets along and across a yaw into world points."""

    def __init__(self, position: Numbers, yaw: float) -> None:
        self.position = position
        self.forward = np.array([math.cos(yaw), math.sin(yaw)])

    def at(self, ahead: float, left: float) -> tuple[float, float]:
        fx, fy = self.forward
        return (
            self.position[0] + ahead * fx - left * fy,
            self.position[1] + ahead * fy + left * fx,
        )


def add_vehicle(
    builder: PrimitiveBuilder,
    position: Numbers,
    yaw: float,
    kind: str | None = None,
    speed: float = 0.0,
) -> None:
    """A car, suv, van, truck or bus (drawn when `kind` is None) with four wheels."""
    rng = builder.rng
    instance = builder.new_instance()
    kind = kind or str(rng.choice(VEHICLE_MIX))
    length, width, height = VEHICLE_SIZES[kind] * rng.uniform(0.92, 1.08, 3)
    paint = _vehicle_paint(rng)
    place = _Placement(position, yaw)
    semantics = VEHICLE_CLASS.get(kind, SemanticClass.CAR)
    shared = dict(yaw=yaw, semantics=semantics, instance=instance, velocity=place.forward * speed)
    size = (length, width, height)
    if kind in ("car", "suv"):
        _add_car_body(builder, place, kind, size, paint, shared)
    elif kind == "truck":
        _add_truck_body(builder, place, size, paint, shared)
    else:
        _add_long_body(builder, place, kind, size, paint, shared)
    radius = 0.33 if kind in ("car", "suv") else 0.42
    for ahead in (length * 0.31, -length * 0.31):
        for left in (width / 2 - 0.08, -width / 2 + 0.08):
            builder.add(
                Shape.ELLIPSOID,
                (*place.at(ahead, left), radius),
                (radius, 0.16, radius),
                material=Material.WHEEL,
                color=(0.03, 0.03, 0.03),
                **shared,
            )


def _vehicle_paint(rng: np.random.Generator) -> np.ndarray:
    choice = rng.choice([0, 1, 2, 3, 4], p=[0.22, 0.26, 0.2, 0.2, 0.12])
    paints = [
        np.full(3, 0.85),
        np.full(3, 0.08),
        np.full(3, 0.5),
        rng.uniform(0.1, 0.8, 3),
        np.array([0.55, 0.06, 0.05]),
    ]
    return paints[choice] * rng.uniform(0.8, 1.1)


def _add_car_body(
    builder: PrimitiveBuilder,
    place: _Placement,
    kind: str,
    size: tuple[float, float, float],
    paint: np.ndarray,
    shared: dict,
) -> None:
    """Lower body, cabin with roof, two slanted screens and mirrors."""
    length, width, height = size
    is_car = kind == "car"
    belt = height * (0.56 if is_car else 0.6)  # top of the doors
    rise, roof = belt - 0.22, height - belt
    builder.add(
        Shape.BOX,
        (*place.at(0, 0), 0.22 + rise / 2),
        (length / 2, width / 2, rise / 2),
        material=Material.VEHICLE_BODY,
        color=paint,
        pattern=(length, width, height, 0),
        **shared,
    )
    cabin = length * (0.36 if is_car else 0.48)
    middle = -length * (0.05 if is_car else 0.12)
    builder.add(
        Shape.BOX,
        (*place.at(middle, 0), belt + roof / 2),
        (cabin / 2, width / 2 * 0.86, roof / 2),
        material=Material.VEHICLE_GLASS,
        color=WINDOW_TINT,
        second_color=paint,
        pattern=(cabin, width, roof, 0),
        **shared,
    )
    runs = (0.16, -0.14 if is_car else -0.05)  # of the screens, shares of the length
    for run in runs:
        ahead = middle + math.copysign(cabin / 2, run) + run * length / 2
        screen = (abs(run) * length, width * 0.86, roof)
        _add_screen(builder, (*place.at(ahead, 0), belt), screen, run > 0, paint, shared)
    for left in (width * 0.5 + 0.07, -width * 0.5 - 0.07):
        builder.add(
            Shape.ELLIPSOID,
            (*place.at(middle + cabin * 0.5 + 0.1, left), belt + 0.08),
            (0.07, 0.11, 0.08),
            material=Material.PLAIN,
            color=paint,
            **shared,
        )


def _add_screen(
    builder: PrimitiveBuilder,
    center: Numbers,
    size: tuple[float, float, float],
    at_front: bool,
    paint: np.ndarray,
    shared: dict,
) -> None:
    """A slanted window; size is its run along the vehicle, its width and its rise, metres.

    It is a sheared box: its top climbs from `center`'s height by the rise, its bottom stays below.
    """
    run, width, rise = size
    builder.add(
        Shape.BOX,
        center,
        (run / 2, width / 2, rise / 2),
        material=Material.VEHICLE_GLASS,
        color=WINDOW_TINT,
        second_color=paint,
        pattern=(run, width, rise, 3),
        slant=-rise / run if at_front else rise / run,
        **shared,
    )


def _add_long_body(
    builder: PrimitiveBuilder,
    place: _Placement,
    kind: str,
    size: tuple[float, float, float],
    paint: np.ndarray,
    shared: dict,
) -> None:
    """A bus with a unit on its roof, or a van with a bonnet and a slanted windscreen."""
    length, width, height = size
    nose = 0.0 if kind == "bus" else length * 0.2
    rise = height - 0.35
    builder.add(
        Shape.BOX,
        (*place.at(-nose / 2, 0), 0.35 + rise / 2),
        ((length - nose) / 2, width / 2, rise / 2),
        material=Material.VEHICLE_GLASS,
        color=WINDOW_TINT,
        second_color=paint,
        pattern=(length, width, rise, 2),
        **shared,
    )
    if kind == "bus":
        builder.add(
            Shape.BOX,
            (*place.at(length * 0.2, 0), height + 0.1),
            (length * 0.16, width * 0.35, 0.16),
            material=Material.PLAIN,
            color=paint * 0.9,
            **shared,
        )
        return
    bonnet = 0.5 * height
    builder.add(
        Shape.BOX,
        (*place.at(length / 2 - nose / 2, 0), (0.3 + bonnet) / 2),
        (nose / 2 + 0.02, width / 2 * 0.98, (bonnet - 0.3) / 2),
        material=Material.VEHICLE_BODY,
        color=paint,
        pattern=(length, width, height, 0),
        **shared,
    )
    screen = (nose * 0.75, width * 0.92, height * 0.96 - bonnet)
    ahead = length / 2 - nose + screen[0] / 2
    _add_screen(builder, (*place.at(ahead, 0), bonnet), screen, True, paint, shared)


def _add_truck_body(
    builder: PrimitiveBuilder,
    place: _Placement,
    size: tuple[float, float, float],
    paint: np.ndarray,
    shared: dict,
) -> None:
    length, width, height = size
    cab_top = height * 0.8
    builder.add(
        Shape.BOX,
        (*place.at(length * 0.36, 0), 0.5 + (cab_top - 0.5) / 2),
        (length * 0.13, width / 2, (cab_top - 0.5) / 2),
        material=Material.VEHICLE_GLASS,
        color=WINDOW_TINT,
        second_color=paint,
        pattern=(length * 0.26, width, cab_top, 1),
        **shared,
    )
    builder.add(
        Shape.BOX,
        (*place.at(-length * 0.14, 0), 0.9 + (height - 0.9) / 2),
        (length * 0.35, width / 2, (height - 0.9) / 2),
        material=Material.VEHICLE_BODY,
        color=builder.rng.uniform(0.3, 0.95, 3),
        pattern=(length, width, height, 1),
        **shared,
    )
    builder.add(
        Shape.BOX,
        (*place.at(0, 0), 0.68),
        (length * 0.47, width * 0.32, 0.2),
        material=Material.PLAIN,
        color=(0.06, 0.06, 0.06),
        **shared,
    )


def add_person(
    builder: PrimitiveBuilder,
    position: Numbers,
    yaw: float,
    speed: float = 0.0,
    cyclist: bool = False,
) -> None:
    """A pedestrian of torso, head and two legs, or a cyclist with the bicycle."""
    rng = builder.rng
    instance = builder.new_instance()
    height = rng.uniform(1.5, 1.92)
    place = _Placement(position, yaw)
    shirt, trousers = rng.uniform(0.05, 0.9, 3), rng.uniform(0.03, 0.5, 3)
    skin = np.array([0.78, 0.58, 0.45]) * rng.uniform(0.35, 1.1)
    seat = 0.45 if cyclist else 0.0
    semantics = SemanticClass.BICYCLE if cyclist else SemanticClass.PEDESTRIAN
    shared = dict(yaw=yaw, semantics=semantics, instance=instance, velocity=place.forward * speed)
    builder.add(
        Shape.ELLIPSOID,
        (*place.at(0.08 if cyclist else 0, 0), seat + height * 0.66),
        (0.24 if cyclist else 0.17, 0.24, height * 0.2),
        material=Material.CLOTH,
        color=shirt,
        **shared,
    )
    builder.add(
        Shape.ELLIPSOID,
        (*place.at(0.2 if cyclist else 0, 0), seat + height * 0.92),
        (0.11, 0.1, 0.13),
        material=Material.PLAIN,
        color=skin,
        **shared,
    )
    stride = rng.uniform(-0.22, 0.22)
    for side in (1, -1):
        builder.add(
            Shape.ELLIPSOID,
            (*place.at(side * stride, 0.1 * side), seat * 0.6 + height * 0.26),
            (0.1, 0.085, height * 0.27),
            material=Material.CLOTH,
            color=trousers,
            **shared,
        )
    if not cyclist:
        return
    for ahead in (0.52, -0.52):
        builder.add(
            Shape.ELLIPSOID,
            (*place.at(ahead, 0), 0.34),
            (0.34, 0.03, 0.34),
            material=Material.WHEEL,
            color=(0.05, 0.05, 0.05),
            **shared,
        )
    builder.add(
        Shape.BOX,
        (*place.at(0, 0), 0.62),
        (0.5, 0.03, 0.04),
        material=Material.PLAIN,
        color=rng.uniform(0.1, 0.8, 3),
        **shared,
    )


def add_tree(builder: PrimitiveBuilder, position: Numbers) -> None:
    """A trunk with a crown of two to four ellipsoids, or a conifer of three stacked ones."""
    rng = builder.rng
    instance = builder.new_instance()
    height = rng.uniform(3.5, 12)
    trunk = height * 0.30
    radius = height * 0.018 + 0.05
    shared = dict(yaw=0, semantics=SemanticClass.VEGETATION, instance=instance)
    builder.add(
        Shape.CYLINDER,
        (*position, trunk * 0.9),
        (radius, radius, trunk * 0.9),
        material=Material.BARK,
        color=np.array([0.26, 0.19, 0.13]) * rng.uniform(0.6, 1.4),
        **shared,
    )
    green = np.array([0.20, 0.34, 0.10]) * rng.uniform(0.6, 1.3) + rng.uniform(-0.04, 0.07, 3)
    crown = dict(material=Material.FOLIAGE, **shared)
    if rng.random() < 0.15:
        for level in range(3):
            reach = height * (0.22 - 0.055 * level)
            center = (*position, trunk * 0.7 + height * (0.16 + 0.22 * level))
            extent = (reach, reach, height * 0.19)
            builder.add(Shape.ELLIPSOID, center, extent, color=green * 0.7, **crown)
        return
    for _ in range(int(rng.integers(2, 5))):
        shift = rng.normal(0, height * 0.10, 3).clip(-0.14 * height, 0.14 * height)
        reach = height * rng.uniform(0.17, 0.28)
        center = (
            position[0] + shift[0],
            position[1] + shift[1],
            trunk + height * 0.3 + shift[2] * 0.6,
        )
        extent = (reach, reach * rng.uniform(0.8, 1.2), reach * rng.uniform(0.7, 1.05))
        builder.add(Shape.ELLIPSOID, center, extent, color=green, **crown)
