"""One bound on what all buffers of a host hold together (`Config.max_buffer_memory`).

As Linux's `tcp_mem`: accounts are kept in quanta, so that a connection whose holdings go up and
down pays one comparison each time, and only what goes beyond its quanta comes here. An account is
an integer that its owner keeps: the bytes reserved for it. What is no longer needed stays reserved
until the host is pressed; then a sweep, at most every `SWEEP_US`, counts everything anew.

Above three quarters of the bound the host is *pressed*: buffers do not grow, windows stay where
they are but for a few segments, so that who reads goes on. Above the bound it is *full*: data is
neither kept nor acknowledged, at either level, but for what a connection may always hold (`FREE`)
and what fills its hole, without which what it holds would never leave.

Invariants
  * `charged` is no less than what the accounts held when the last sweep ended, in whole quanta.
  * An account of `FREE` costs nothing: idle connections do not count.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Final

QUANTUM: Final = 64 << 10
FREE: Final = 16 << 10
"""Bytes that an account holds without being counted, and may hold whatever the others do."""
PRESSED_WINDOW: Final = 4 * 1460
"""The window of a connection while the host is pressed (Linux: four segments)."""
SWEEP_US: Final = 10_000
UNLIMITED: Final = 1 << 60


class HostMemory:
    """The sum of a host's accounts, bytes."""

    __slots__ = ("_count", "_now", "_pressed_at", "_swept_at", "charged", "counters", "full",
                 "limit", "pressed")  # fmt: skip

    def __init__(
        self,
        limit: int = UNLIMITED,
        counters: Counter[str] | None = None,
        now: Callable[[], int] | None = None,
        count: Callable[[], int] | None = None,
    ) -> None:
        """`count` sets every account anew and returns their sum; `now` tells the time, in µs."""
        self.limit = limit
        self.charged = 0
        self.pressed = False
        self.full = False
        self.counters: Counter[str] = counters if counters is not None else Counter()
        self._now = now
        self._count = count
        self._swept_at = -SWEEP_US
        self._pressed_at = 0

    def reserve(self, account: int, held: int) -> int:
        """The account of an owner that holds more than it says; never refused."""
        wanted = quanta(held)
        self.charged += wanted - max(account, FREE)
        if self.charged > self.limit * 3 // 4 or self.pressed:
            self.look()
        return wanted

    def release(self, account: int) -> None:
        """The owner of an account is gone."""
        self.charged -= account - FREE if account > FREE else 0
        if self.pressed:
            self.look()

    def look(self) -> None:
        """Count anew what is held, if it was not done just now, and say how pressed the host is."""
        if self._now is None or self._count is None:
            return
        now = self._now()
        if now - self._swept_at >= SWEEP_US:
            self._swept_at = now
            self.charged = self._count()
        pressed = self.charged > self.limit * 3 // 4
        if pressed != self.pressed:
            self.pressed = pressed
            if pressed:
                self._pressed_at = now
                self.counters["TcpExtTCPMemoryPressures"] += 1
            else:
                self.counters["TcpExtTCPMemoryPressuresChrono"] += (now - self._pressed_at) // 1000
        self.full = self.charged > self.limit


def quanta(held: int) -> int:
    """The account that covers `held` bytes."""
    return FREE if held <= FREE else FREE - (FREE - held) // QUANTUM * QUANTUM
