"""A quantity over virtual time, for tables and plots."""

from __future__ import annotations

from itertools import pairwise


class Series:
    """Samples in the order of time, at least one; times in microseconds."""

    __slots__ = ("times", "values")

    def __init__(self, now: int, value: float) -> None:
        self.times = [now]
        self.values = [value]

    def add(self, now: int, value: float) -> None:
        """One more sample, later than the last."""
        self.times.append(now)
        self.values.append(value)

    @property
    def seconds(self) -> list[float]:
        """Since the first sample, the end of each slice between two."""
        return [(time - self.times[0]) / 1e6 for time in self.times[1:]]

    @property
    def mbit_s(self) -> list[float]:
        """Of a counter of bytes: its growth over each slice, in Mbit/s (bits per microsecond)."""
        samples = zip(self.times, self.values, strict=True)
        return [(v2 - v1) * 8 / (t2 - t1) for (t1, v1), (t2, v2) in pairwise(samples)]
