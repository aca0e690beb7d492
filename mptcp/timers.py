"""The host's timers: a heap of lazy deadlines, and token-less rate limits.

Re-arming is a comparison: an entry is pushed only when a deadline moves earlier than the earliest
entry that is there; an entry that turns out early is pushed again when it is popped. So the heap
holds an entry or a few for each object, however often its timer is re-armed (once for each ACK).

Invariants of `TimerHeap`
  * Each object has an entry no later than its next deadline.
  * The entries of an object are of different times, each knows the next later one, and the
  earliest is `heap_deadline`. So a far deadline (two hours of keep-alive) has one entry, not
  one for each nearer timer that has come and gone before it.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Final, Protocol

from mptcp.config import MILLISECOND, SECOND
from mptcp.tcp.state import NEVER

FEW: Final = 64
"""Entries that are not worth looking through for objects that are gone."""


class Timed(Protocol):
    """Something with deadlines. `heap_deadline` belongs to the heap; it begins as NEVER."""

    heap_deadline: int

    def next_deadline(self) -> int: ...
    def handle_timeout(self, now: int) -> None: ...


class TimerHeap:
    """Deadlines of many objects."""

    def __init__(self) -> None:
        self._entries: list[tuple[int, int, Timed, int]] = []
        """(time, for the order, object, the object's next later entry or NEVER)."""
        self._count = 0
        self._gone = 0
        """Objects that ended with an entry since the heap was last cleared of them."""

    def __len__(self) -> int:
        return len(self._entries)

    def rearm(self, timed: Timed) -> None:
        """`timed.next_deadline()` may have become earlier."""
        deadline = timed.next_deadline()
        if deadline < timed.heap_deadline:
            self._push(deadline, timed)

    def _push(self, deadline: int, timed: Timed) -> None:
        self._count += 1
        heapq.heappush(self._entries, (deadline, self._count, timed, timed.heap_deadline))
        timed.heap_deadline = deadline

    def forget(self, timed: Timed) -> None:
        """`timed` has no deadline any more: its entries may go, and with them what it holds.

        Each costs O(1) on average: the heap is looked through when half of it may be such.
        """
        if timed.heap_deadline == NEVER:
            return
        self._gone += 1
        entries = self._entries
        if self._gone * 2 < len(entries) or len(entries) < FEW:
            return
        self._gone = 0
        kept = []
        for entry in entries:
            if entry[2].next_deadline() < NEVER:
                kept.append(entry)
            else:
                entry[2].heap_deadline = NEVER
        heapq.heapify(kept)
        entries[:] = kept

    def run(self, now: int) -> None:
        """Call `handle_timeout` of everything that is due, once of each.

        What raises is armed again like the others; what else is due waits for the next call.
        """
        entries = self._entries
        fired: set[Timed] = set()
        while entries and entries[0][0] <= now:
            _, _, timed, later = heapq.heappop(entries)
            timed.heap_deadline = later
            try:
                # A policy that arms its timer for a time that has passed must not hold the host up.
                if timed.next_deadline() <= now and timed not in fired:
                    fired.add(timed)
                    timed.handle_timeout(now)
            finally:
                deadline = timed.next_deadline()
                if deadline <= now:
                    deadline = now + MILLISECOND
                if deadline < timed.heap_deadline:
                    self._push(deadline, timed)

    def next(self) -> int:
        """The earliest entry; NEVER if there is none."""
        return self._entries[0][0] if self._entries else NEVER


class RateLimit:
    """At most so many in each second of the host's clock."""

    __slots__ = ("_left", "_per_second", "_second")

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._left = 0
        self._second = -1

    def _share(self) -> int:
        """How many a new second has."""
        return self._per_second

    def allow(self, now: int) -> bool:
        """Count one; False when the second's share is used up."""
        second = now // SECOND
        if second != self._second:
            self._second = second
            self._left = self._share()
        if self._left <= 0:
            return False
        self._left -= 1
        return True


class BlurredLimit(RateLimit):
    """About so many in each second: between half of it and one and a half times, drawn anew.

    A limit of the whole host is a channel: a stranger who counts what is left of it learns what
    the others got, and so their sequence numbers (CVE-2016-5696). Linux draws its limit of
    challenge ACKs in the same way.
    """

    __slots__ = ("_entropy",)

    def __init__(self, per_second: int, entropy: Callable[[int], bytes]) -> None:
        super().__init__(per_second)
        self._entropy = entropy

    def _share(self) -> int:
        limit = self._per_second
        if limit <= 0:
            return 0
        return (limit + 1) // 2 + int.from_bytes(self._entropy(4), "big") % limit
