"""Counting what arrives: a warm-up that does not count, then a stretch that does."""

from __future__ import annotations

import os
import time
from typing import Any, Final

PAUSE_S: Final = 0.02


class CpuClock:
    """CPU time of this process from here on, as shares of one CPU."""

    __slots__ = ("_started", "_system", "_user")

    def __init__(self) -> None:
        self._started = time.perf_counter()
        used = os.times()
        self._user = used.user
        self._system = used.system

    def shares(self) -> dict[str, float]:
        """`cpu`, and the part of it that was spent in the kernel (on others' behalf too: what a
        write sets off runs in the writer's time)."""
        elapsed = time.perf_counter() - self._started
        used = os.times()
        system = (used.system - self._system) / elapsed
        return {"cpu": (used.user - self._user) / elapsed + system, "cpu_system": system}


class Meter:
    """Bytes a second between the end of the warm-up and the end of the measurement.

    The clock starts with the first byte. The stretch lasts from the first arrival after the
    warm-up to the first arrival `seconds` later, and counts what came after the former up to and
    with the latter, so that both edges are arrivals and a large chunk distorts nothing.
    """

    __slots__ = (
        "_cpu",
        "_end",
        "_from",
        "_gap",
        "_last",
        "_started",
        "_warm",
        "arrivals",
        "done",
        "pauses",
        "result",
        "total",
    )

    def __init__(self, warmup: float, seconds: float) -> None:
        self._warm = warmup
        self._end = seconds
        self._started = 0.0
        self._from = 0.0
        self._cpu = CpuClock()
        self._last = 0.0
        self._gap = 0.0
        self.total = 0
        """Bytes counted so far; those of the warm-up until it is over."""
        self.arrivals = 0
        self.pauses: list[tuple[float, float]] = []
        """Where nothing came for `PAUSE_S` and more: (end, length), s; the end is that of
        `time.perf_counter`, which all processes share."""
        self.done = False
        self.result: dict[str, Any] = {}
        """Set when done."""

    def add(self, size: int) -> bool:
        """`size` bytes have come; True when the measurement is complete."""
        now = time.perf_counter()
        self.total += size
        self.arrivals += 1
        if self._from:
            gap = now - self._last
            if gap > self._gap:
                self._gap = gap
            if gap > PAUSE_S:
                self.pauses.append((now, gap))
            self._last = now
            if now - self._from >= self._end and not self.done:
                self._finish(now)
        elif not self._started:
            self._started = now
        elif now - self._started >= self._warm:
            self._from = self._last = now
            self._cpu = CpuClock()
            self.total = 0
            self.arrivals = 0
        return self.done

    def _finish(self, now: float) -> None:
        elapsed = now - self._from
        self.done = True
        self.result = {
            "gbit_per_s": self.total * 8 / elapsed / 1e9,
            "bytes": self.total,
            "seconds": elapsed,
            "longest_gap_ms": self._gap * 1000,
            "pauses": self.pauses,
            "ended_at": now,
            "arrivals_per_s": self.arrivals / elapsed,
            "mean_arrival": self.total / self.arrivals,
            **self._cpu.shares(),
        }
