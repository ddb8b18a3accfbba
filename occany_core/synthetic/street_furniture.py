# SPDX-License-Identifier: Apache-2.0
"""Fixed things beside a carriageway: lamps, signals, signs, bins, barriers, fences, buildings.

Every function appends to a `PrimitiveBuilder` and draws from its generator in a fixed order.
Positions are (2,) metres on the ground plane, yaw radians.
"""

import math

import numpy as np

from occany_core.synthetic.classes import SemanticClass
from occany_core.synthetic.primitives import (
    FOUNDATION,
    Material,
    Numbers,
    PrimitiveBuilder,
    Shape,
)
from occany_core.synthetic.street_objects import SIGN_COLORS
from occany_core.synthetic.street_style import StreetStyle

LAMP_REACH = 1.8  # metres from the pole to the light
LAMP_COLORS = ((1.0, 0.72, 0.38), (0.95, 0.95, 0.9))  # sodium, white
FENCE_FOOT = 0.4  # metres of a fence below the ground, where that is bent
FURNITURE_MIX = ["sign", "sign", "bin", "bollard", "signal", "cone", "barrier"]


def add_furniture(builder: PrimitiveBuilder, position: Numbers, yaw: float, kind: str) -> None:
    """One piece of street furniture: "lamp" or a kind from `FURNITURE_MIX`."""
    rng = builder.rng
    instance = builder.new_instance()
    grey = np.full(3, rng.uniform(0.15, 0.6))
    if kind in ("lamp", "signal", "sign"):
        _add_on_pole(builder, position, yaw, kind, instance, grey)
    elif kind == "bin":
        builder.add(
            Shape.CYLINDER,
            (*position, 0.45),
            (0.28, 0.28, 0.45),
            0,
            Material.PLAIN,
            SemanticClass.OTHER,
            instance,
            rng.uniform(0.05, 0.5, 3),
        )
    elif kind == "bollard":
        builder.add(
            Shape.CYLINDER,
            (*position, 0.45),
            (0.07, 0.07, 0.45),
            0,
            Material.STRIPES,
            SemanticClass.BARRIER,
            instance,
            (0.2, 0.2, 0.2),
            (0.8, 0.8, 0.8),
        )
    elif kind == "cone":
        builder.add(
            Shape.ELLIPSOID,
            (*position, 0),
            (0.2, 0.2, 0.7),
            0,
            Material.STRIPES,
            SemanticClass.TRAFFIC_CONE,
            instance,
            (0.9, 0.3, 0.05),
            (0.95, 0.95, 0.95),
        )
    elif kind == "barrier":
        builder.add(
            Shape.BOX,
            (*position, 0.45),
            (1.0, 0.22, 0.45),
            yaw,
            Material.STRIPES,
            SemanticClass.BARRIER,
            instance,
            (0.75, 0.72, 0.68),
            (0.8, 0.15, 0.1),
        )


def _add_on_pole(
    builder: PrimitiveBuilder,
    position: Numbers,
    yaw: float,
    kind: str,
    instance: int,
    grey: np.ndarray,
) -> None:
    rng = builder.rng
    forward = np.array([math.cos(yaw), math.sin(yaw)])
    lowest, highest, radius = {
        "lamp": (5, 9.5, 0.08),
        "signal": (3.2, 5.6, 0.07),
        "sign": (2.2, 3.2, 0.035),
    }[kind]
    height = rng.uniform(lowest, highest)
    shared = dict(semantics=SemanticClass.MANMADE, instance=instance)
    builder.add(
        Shape.CYLINDER,
        (*position, height / 2),
        (radius, radius, height / 2),
        yaw=0,
        material=Material.PLAIN,
        color=grey,
        **shared,
    )
    if kind == "lamp":
        builder.add(
            Shape.BOX,
            (*(np.array(position) + forward * 1.0), height),
            (1.05, 0.06, 0.06),
            yaw=yaw,
            material=Material.PLAIN,
            color=grey,
            **shared,
        )
        builder.add(
            Shape.BOX,
            (*(np.array(position) + forward * LAMP_REACH), height - 0.1),
            (0.35, 0.14, 0.06),
            yaw=yaw,
            material=Material.LAMP,
            color=grey,
            second_color=LAMP_COLORS[int(rng.integers(len(LAMP_COLORS)))],
            **shared,
        )
    elif kind == "signal":
        builder.add(
            Shape.BOX,
            (*(np.array(position) + forward * 0.3), height - 0.4),
            (0.16, 0.18, 0.48),
            yaw=yaw,
            material=Material.SIGN,
            color=(0.05, 0.05, 0.05),
            second_color=(0.1, 0.8, 0.2),
            pattern=(1, 0, 0, 0),
            **shared,
        )
    else:
        builder.add(
            Shape.BOX,
            (*position, height),
            (0.02, 0.35, 0.35),
            yaw=yaw,
            material=Material.SIGN,
            color=rng.choice(SIGN_COLORS),
            second_color=(0.95, 0.95, 0.95),
            **shared,
        )


def add_fence(
    builder: PrimitiveBuilder, position: Numbers, yaw: float, length: float, brick: np.ndarray
) -> None:
    """A hedge, a wall in the colour `brick` (3,) or a fence of rails, `length` metres long."""
    rng = builder.rng
    instance = builder.new_instance()
    half_height = rng.uniform(0.5, 1.1)
    material, semantics, color = [
        (Material.HEDGE, SemanticClass.VEGETATION, np.array([0.14, 0.28, 0.08])),
        (Material.BRICK_WALL, SemanticClass.BARRIER, brick),
        (Material.RAILS, SemanticClass.BARRIER, np.full(3, 0.12)),
    ][int(rng.integers(3))]
    thickness = {Material.HEDGE: 0.5, Material.BRICK_WALL: 0.2, Material.RAILS: 0.03}[material]
    builder.add(
        Shape.BOX,
        (*position, half_height - FENCE_FOOT / 2),
        (length / 2, thickness, half_height + FENCE_FOOT / 2),
        yaw,
        material,
        semantics,
        instance,
        color,
        color * 1.3,
    )


def add_building(
    builder: PrimitiveBuilder,
    position: Numbers,
    yaw: float,
    width: float,
    depth: float,
    style: StreetStyle,
) -> None:
    """A façade block, perhaps with a set-back top and a canopy; `style` is a `StreetStyle`."""
    rng = builder.rng
    instance = builder.new_instance()
    height = [rng.uniform(4, 13), rng.uniform(8, 26), rng.uniform(14, 75)][style.height_class]
    wall = style.palette[rng.integers(6)] * rng.uniform(0.75, 1.15)
    facade_style = int(rng.integers(4))
    floor_height, window_spacing = rng.uniform(2.7, 3.9), rng.uniform(1.5, 4.2)
    pattern = (floor_height, window_spacing, rng.uniform(0.35, 0.8), facade_style)
    shared = dict(yaw=yaw, semantics=SemanticClass.MANMADE, instance=instance)
    builder.add(
        Shape.BOX,
        (*position, (height - FOUNDATION) / 2),
        (width / 2, depth / 2, (height + FOUNDATION) / 2),
        material=Material.FACADE,
        color=wall,
        second_color=rng.uniform(0.05, 0.35, 3),
        pattern=pattern,
        **shared,
    )
    if rng.random() < 0.45:
        share = rng.uniform(0.3, 0.8)
        builder.add(
            Shape.BOX,
            (*position, height + height * 0.12 - FOUNDATION / 2),
            (width / 2 * share, depth / 2 * share, height * 0.12 + FOUNDATION / 2),
            material=Material.FACADE,
            color=wall * 0.9,
            second_color=rng.uniform(0.05, 0.3, 3),
            pattern=pattern,
            **shared,
        )
    if rng.random() < 0.4:
        outward = np.array([-math.sin(yaw), math.cos(yaw)])
        front = rng.choice([-1, 1])
        builder.add(
            Shape.BOX,
            (*(np.array(position) + front * outward * (depth / 2 + 0.6)), 3.1),
            (width / 2 * rng.uniform(0.2, 0.9), 0.7, 0.12),
            material=Material.PLAIN,
            color=rng.uniform(0.1, 0.8, 3),
            **shared,
        )
