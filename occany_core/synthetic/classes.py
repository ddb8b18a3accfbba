# SPDX-License-Identifier: Apache-2.0
"""The 18 semantic classes of the synthetic streets: ids and order of the Occ3D-nuScenes list."""

from enum import IntEnum


class SemanticClass(IntEnum):
    """Occ3D class id; `FREE` is empty space in a grid and sky in a picture."""

    OTHER = 0
    BARRIER = 1
    BICYCLE = 2
    BUS = 3
    CAR = 4
    CONSTRUCTION_VEHICLE = 5
    MOTORCYCLE = 6
    PEDESTRIAN = 7
    TRAFFIC_CONE = 8
    TRAILER = 9
    TRUCK = 10
    DRIVEABLE_SURFACE = 11
    OTHER_FLAT = 12
    SIDEWALK = 13
    TERRAIN = 14
    MANMADE = 15
    VEGETATION = 16
    FREE = 17
