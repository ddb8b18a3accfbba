# SPDX-License-Identifier: Apache-2.0
"""What a recording is to the replay: topics, and serialized messages in the order of time.

Bags (`bags`) and pictures on disk (`picture_folders`) both are one. Times in integer nanoseconds.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic of a recording."""

    name: str
    type_name: str
    """For example `sensor_msgs/msg/CompressedImage`."""
    is_latched: bool = False


@dataclass(frozen=True, slots=True)
class Entry:
    """One recorded message."""

    stamp_ns: int
    """When it was recorded; for pictures their capture time."""
    topic: str
    data: bytes
    """Serialized (CDR)."""


class Recording(Protocol):
    """What can be played."""

    name: str
    topics: tuple[Topic, ...]
    start_ns: int
    duration_ns: int
    """From the first message to one period after the last, so that loops keep their rhythm."""

    def entries(self) -> Iterator[Entry]:
        """Give out all messages in the order of time."""
