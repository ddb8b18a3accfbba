# SPDX-License-Identifier: Apache-2.0
"""The exceptions a caller can meet.

Each message names the value, the place and the remedy. Catch `OccAnyError` to catch them all;
anything else that escapes the library is a bug of ours.
"""


class OccAnyError(Exception):
    """Any failure that the caller can do something about."""


class ConfigError(OccAnyError):
    """A setting is unknown, of the wrong type or out of range."""


class CheckpointError(OccAnyError):
    """A weights file is missing, damaged, or not the one its card describes."""


class InputError(OccAnyError):
    """Pictures, calibration or messages that cannot be used as they are."""


class DegenerateGeometryError(OccAnyError):
    """The predicted geometry does not determine what was asked (for example a pose)."""


class MemoryShortageError(OccAnyError):
    """Memory ran out, on the device or on the host."""


class ParityError(OccAnyError):
    """Our numbers differ from golden ones by more than the tolerance."""
