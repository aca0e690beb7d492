"""The engine's one wake-up: precise for deadlines that are near, cheap for those that are far.

A loop's timers have a grain of a millisecond (uvloop truncates, epoll's time-out rounds), which is
too coarse for pacing: below `NEAR_US` a timerfd rings instead, exact to some 10 µs. Either may stay
armed for a deadline that has moved away: a wake-up that finds nothing due is harmless.

Invariant: between two turns one of the two rings no later than the last deadline given to `arm`.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable
from typing import Final

from mptcp.tun.linux import TimerFd

NEAR_US: Final = 2_000
MAX_SLEEP_US: Final = 3_600_000_000
NEVER: Final = 1 << 63


class WakeUp:
    """Calls `ring` when a deadline has come. Times are monotonic microseconds."""

    def __init__(self, loop: asyncio.AbstractEventLoop, ring: Callable[[], None]) -> None:
        self._loop = loop
        self._ring = ring
        self._far: asyncio.TimerHandle | None = None
        self._far_at = NEVER
        self._near: TimerFd | None = None
        self._near_at = NEVER

    def arm(self, deadline: int) -> None:
        """Ring at `deadline` at the latest."""
        if deadline >= self._near_at or deadline >= self._far_at:
            return
        wait = max(deadline - time.monotonic_ns() // 1000, 0)
        if wait < NEAR_US:
            if self._near is None:
                self._near = TimerFd()
                self._loop.add_reader(self._near.fileno(), self._on_near)
            self._near_at = deadline
            self._near.arm(deadline * 1000)
            return
        if self._far is not None:
            self._far.cancel()
        # Whole milliseconds, rounded up: uvloop would truncate, wake at once and spin. A day is
        # too far for some loops; a wake-up that is too early is harmless.
        self._far_at = deadline
        wait = min(wait, MAX_SLEEP_US)
        self._far = self._loop.call_later(math.ceil(wait / 1000) / 1000, self._on_far)

    def close(self) -> None:
        """Ring no more. Idempotent."""
        if self._far is not None:
            self._far.cancel()
            self._far = None
        if self._near is not None:
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.remove_reader(self._near.fileno())
            self._near.close()
            self._near = None
        self._far_at = self._near_at = NEVER

    def _on_far(self) -> None:
        self._far = None
        self._far_at = NEVER
        self._ring()

    def _on_near(self) -> None:
        if self._near is not None:
            self._near.clear()
            self._near_at = NEVER
            self._ring()
