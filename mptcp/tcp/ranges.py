"""A set of integers kept as sorted, disjoint, non-adjacent half-open ranges.

Used for SACK bookkeeping at both ends. All operations are O(log n) to find plus the number of
ranges merged; n is bounded by the holes in one window.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right


class RangeSet:
    """Half-open ranges [start, end); `starts` and `ends` run in parallel."""

    __slots__ = ("ends", "starts")

    def __init__(self) -> None:
        self.starts: list[int] = []
        self.ends: list[int] = []

    def __len__(self) -> int:
        return len(self.starts)

    def __bool__(self) -> bool:
        return bool(self.starts)

    def pairs(self) -> list[tuple[int, int]]:
        """The ranges in order."""
        return list(zip(self.starts, self.ends, strict=True))

    def total(self) -> int:
        """How many integers the set holds."""
        return sum(self.ends) - sum(self.starts)

    def add(self, start: int, end: int) -> tuple[int, int]:
        """Add [start, end), start < end; returns the merged range that now holds it."""
        low = bisect_left(self.ends, start)
        high = bisect_right(self.starts, end)
        if low < high:
            start = min(start, self.starts[low])
            end = max(end, self.ends[high - 1])
        self.starts[low:high] = [start]
        self.ends[low:high] = [end]
        return start, end

    def missing(self, start: int, end: int) -> list[tuple[int, int]]:
        """The parts of [start, end) that are not in the set, in order."""
        gaps: list[tuple[int, int]] = []
        index = bisect_right(self.ends, start)
        while start < end and index < len(self.starts) and self.starts[index] < end:
            if start < self.starts[index]:
                gaps.append((start, self.starts[index]))
            start = self.ends[index]
            index += 1
        if start < end:
            gaps.append((start, end))
        return gaps

    def covers(self, start: int, end: int) -> bool:
        """Whether the whole of [start, end) is in the set."""
        index = bisect_right(self.starts, start) - 1
        return index >= 0 and self.ends[index] >= end

    def containing(self, value: int) -> tuple[int, int] | None:
        """The range that holds `value`."""
        index = bisect_right(self.starts, value) - 1
        if index >= 0 and value < self.ends[index]:
            return self.starts[index], self.ends[index]
        return None

    def drop_below(self, value: int) -> None:
        """Remove every integer < value."""
        count = bisect_right(self.ends, value)
        if count:
            del self.starts[:count]
            del self.ends[:count]
        if self.starts and self.starts[0] < value:
            self.starts[0] = value

    def clear(self) -> None:
        """Empty the set."""
        self.starts.clear()
        self.ends.clear()
