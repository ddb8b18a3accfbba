# SPDX-License-Identifier: Apache-2.0
"""Rates and latencies over the last cycles. Plain Python; times in seconds of a steady clock."""

from collections import deque

import numpy as np

KEPT = 100
"""Values that rates and percentiles are taken over."""


class EventRate:
    """How often something happens."""

    def __init__(self) -> None:
        self._times_s: deque[float] = deque(maxlen=KEPT)

    def note(self, now_s: float) -> None:
        """Record one event."""
        self._times_s.append(now_s)

    def hertz(self, now_s: float) -> float:
        """Return events per second; 0 before the second one, falling while nothing comes."""
        if len(self._times_s) < 2:
            return 0.0
        periods = len(self._times_s) - 1
        mean_s = (self._times_s[-1] - self._times_s[0]) / periods
        return float(1 / max(mean_s, now_s - self._times_s[-1], 1e-9))


class Durations:
    """The last durations of something, in milliseconds."""

    def __init__(self) -> None:
        self._values_ms: deque[float] = deque(maxlen=KEPT)

    def note(self, milliseconds: float) -> None:
        """Record one duration."""
        self._values_ms.append(milliseconds)

    @property
    def last_ms(self) -> float:
        """The newest duration; 0 before the first."""
        return self._values_ms[-1] if self._values_ms else 0.0

    def percentile_ms(self, percent: float) -> float:
        """Return a percentile of the kept durations; 0 before the first."""
        return float(np.percentile(self._values_ms, percent)) if self._values_ms else 0.0
