"""The host's timers: a heap of lazy deadlines, and token-less rate limits.

Re-arming is a comparison: an entry is pushed only when a deadline moves earlier than the entry that
is there; an entry that turns out early is pushed again when it is popped. So the heap holds about
one entry for each object, however often its timer is re-armed (once for each ACK).
"""

from __future__ import annotations

import heapq
from typing import Protocol

from mptcp.config import MILLISECOND, SECOND
from mptcp.tcp.state import NEVER


class Timed(Protocol):
    """Something with deadlines. `heap_deadline` belongs to the heap; it begins as NEVER."""

    heap_deadline: int

    def next_deadline(self) -> int: ...
    def handle_timeout(self, now: int) -> None: ...


class TimerHeap:
    """Deadlines of many objects. Invariant: each has an entry no later than its next deadline."""

    def __init__(self) -> None:
        self._entries: list[tuple[int, int, Timed]] = []
        self._count = 0

    def rearm(self, timed: Timed) -> None:
        """`timed.next_deadline()` may have become earlier."""
        deadline = timed.next_deadline()
        if deadline < timed.heap_deadline:
            self._push(deadline, timed)

    def _push(self, deadline: int, timed: Timed) -> None:
        timed.heap_deadline = deadline
        self._count += 1
        heapq.heappush(self._entries, (deadline, self._count, timed))

    def run(self, now: int) -> None:
        """Call `handle_timeout` of everything that is due."""
        entries = self._entries
        while entries and entries[0][0] <= now:
            deadline, _, timed = heapq.heappop(entries)
            if timed.heap_deadline == deadline:
                timed.heap_deadline = NEVER
            if timed.next_deadline() <= now:
                timed.handle_timeout(now)
            self.rearm(timed)
            if timed.heap_deadline <= now:
                # A policy that does not move its deadline must not hold the host up.
                self._push(now + MILLISECOND, timed)

    def next(self) -> int:
        """The earliest entry; NEVER if there is none."""
        return self._entries[0][0] if self._entries else NEVER


class RateLimit:
    """At most so many in each second of the host's clock."""

    __slots__ = ("_left", "_per_second", "_second")

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._left = per_second
        self._second = 0

    def allow(self, now: int) -> bool:
        """Count one; False when the second's share is used up."""
        second = now // SECOND
        if second != self._second:
            self._second = second
            self._left = self._per_second
        if self._left <= 0:
            return False
        self._left -= 1
        return True
