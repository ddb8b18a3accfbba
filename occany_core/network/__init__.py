# SPDX-License-Identifier: Apache-2.0
"""The network: weights live here and only here."""

from occany_core.network.config import NetworkConfig, TransformerDims, tiny
from occany_core.network.heads import RawMaps
from occany_core.network.known_cameras import KnownCameras
from occany_core.network.memory import SceneMemory
from occany_core.network.occany import OccAnyNetwork, Tokens

__all__ = [
    "KnownCameras",
    "NetworkConfig",
    "OccAnyNetwork",
    "RawMaps",
    "SceneMemory",
    "Tokens",
    "TransformerDims",
    "tiny",
]
