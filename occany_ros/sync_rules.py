# SPDX-License-Identifier: Apache-2.0
"""When images of several cameras form a set. Plain Python, no ROS."""

from collections.abc import Iterable
from dataclasses import dataclass

POLICIES = ("approximate", "exact", "latest")


@dataclass(frozen=True, kw_only=True, slots=True)
class SyncRules:
    """When images form a set. Durations in nanoseconds."""

    cameras: tuple[str, ...]
    policy: str = "approximate"
    """`approximate`: stamps within `max_skew_ns`; `exact`: equal stamps; `latest`: the newest
    image of each camera that is not older than `max_age_ns` before the newest of all."""
    max_skew_ns: int = 50_000_000
    max_age_ns: int = 500_000_000
    max_wait_ns: int = 500_000_000
    """A set that lacks cameras goes out after its first image waited this long."""
    camera_timeout_ns: int = 2_000_000_000
    """A camera without an image for this long is not waited for until it returns."""
    min_cameras: int = 1
    required_cameras: frozenset[str] = frozenset()
    disabled_cameras: frozenset[str] = frozenset()
    """In no set and not waited for; do not offer their images."""
    max_gap_ns: int = 0
    """A step forward in a camera's stamps beyond this is a jump of the clock too; 0 never."""

    def tolerance_ns(self) -> int:
        """Largest difference of stamps inside one set."""
        return {"approximate": self.max_skew_ns, "exact": 0, "latest": self.max_age_ns}[
            self.policy
        ]

    def accepts(self, cameras: Iterable[str]) -> bool:
        """Tell whether these cameras suffice for a set."""
        present = set(cameras)
        return len(present) >= self.min_cameras and self.required_cameras <= present
