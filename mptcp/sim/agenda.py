"""Virtual time: the heap of what is to happen, and the clock that jumps along it.

An entry is (time, number, action); the number keeps entries of one time in the order in which they
were made, so that a run is a function of its scenario and seed. Actions are called with the time of
their entry: whoever re-arms keeps the time it waits for and ignores an entry that is older news.
Times are integer microseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from typing import Final

Action = Callable[[int], None]

NEVER: Final = 1 << 62


class Agenda:
    """What is to happen. `now` never decreases."""

    __slots__ = ("_entries", "_number", "now")

    def __init__(self, now: int) -> None:
        self.now = now
        self._entries: list[tuple[int, int, Action]] = []
        self._number = 0

    def at(self, time: int, action: Action) -> None:
        """Call `action(time)` at `time`; what lies in the past comes next."""
        self._number += 1
        heappush(self._entries, (time, self._number, action))

    def next(self) -> int:
        """The time of the first entry, NEVER when there is none."""
        return self._entries[0][0] if self._entries else NEVER

    def run_next(self) -> None:
        """Go to the time of the first entry and do what is due by then."""
        entries = self._entries
        if entries[0][0] > self.now:
            self.now = entries[0][0]
        now = self.now
        while entries and entries[0][0] <= now:
            time, _, action = heappop(entries)
            action(time)
