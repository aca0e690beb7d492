"""Links whose capacity follows a recording: rates over time, or packet deliveries.

Traces repeat for ever. Times inside are nanoseconds from the moment the trace was set.
"""

from __future__ import annotations

import random
from bisect import bisect_left, bisect_right
from math import exp
from typing import Final

_NS_PER_US: Final = 1_000
OPPORTUNITY: Final = 1500
"""Bytes that may leave at one delivery of a Mahimahi trace."""


class RateTrace:
    """A rate that changes at known times."""

    __slots__ = ("_index", "_period", "_rates", "_start", "_times", "next_at")

    def __init__(self, now: int, trace: tuple[tuple[int, int], ...]) -> None:
        """`trace`: see `LinkChange.rate_trace`. A rate of 0 is taken as 1 bit/s: next to nothing
        leaves, and 0 means unlimited to a link."""
        self._times = [at * _NS_PER_US for at, _ in trace[:-1]]
        self._rates = [max(rate, 1) for _, rate in trace[:-1]]
        self._period = trace[-1][0] * _NS_PER_US
        self._start = now
        self._index = 0
        self.next_at = now  # ns: when to call step()

    def step(self) -> int:
        """The rate from `next_at` on, in bit/s; moves `next_at` to the change after it."""
        rate = self._rates[self._index]
        self._index += 1
        if self._index == len(self._times):
            self._index = 0
            self._start += self._period
        self.next_at = self._start + self._times[self._index]
        return rate

    def skip(self, now: int) -> int:
        """As step(), for all changes up to `now` (at least one) at once: the rate at `now`."""
        cycles, offset = divmod(now - self._start, self._period)
        self._start += cycles * self._period
        self._index = bisect_right(self._times, offset) - 1
        return self.step()


class DeliveryTrace:
    """Moments at which up to `OPPORTUNITY` bytes may leave, used or not."""

    __slots__ = ("_cycle", "_index", "_left", "_marks", "_period", "_start")

    def __init__(self, now: int, marks: tuple[int, ...]) -> None:
        self._marks = [at * _NS_PER_US for at in marks]
        self._period = self._marks[-1]
        self._start = now
        self._cycle = 0
        self._index = 0
        self._left = OPPORTUNITY

    def finish(self, now: int, size: int) -> int:
        """When a packet that is first in the queue from `now` on has left entirely."""
        if self._at() < now:
            self._cycle, offset = divmod(now - self._start, self._period)
            self._index = bisect_left(self._marks, offset)
            self._left = OPPORTUNITY
        while size > self._left:
            size -= self._left
            self._left = OPPORTUNITY
            self._index += 1
            if self._index == len(self._marks):
                self._index = 0
                self._cycle += 1
        self._left -= size
        return self._at()

    def _at(self) -> int:
        return self._start + self._cycle * self._period + self._marks[self._index]


def parse_mahimahi(text: str) -> tuple[int, ...]:
    """The lines of a Mahimahi trace (milliseconds) as a `delivery_trace`. Raises ValueError."""
    return tuple(int(line) * 1000 for line in text.split())


def lte_trace(
    seed: int = 1,
    *,
    seconds: int = 60,
    mean_bps: int = 10_000_000,
    step_us: int = 100_000,
) -> tuple[tuple[int, int], ...]:
    """A synthetic `rate_trace` that varies as cellular links do; the same for the same arguments.

    The rate wanders around `mean_bps` (a mean-reverting walk of its logarithm, which changes by a
    factor of two within seconds), with now and then an outage of 0.2 to 1 s as at a handover.
    """
    source = random.Random(f"lte {seed}")
    level, outage = 0.0, 0
    trace = []
    steps = seconds * 1_000_000 // step_us
    for number in range(steps):
        level += -0.05 * level + source.gauss(0, 0.2)
        if outage == 0 and source.random() < 0.004:
            outage = source.randrange(200_000, 1_000_001) // step_us + 1
        # The walk's variance is 0.2**2 / (1 - 0.95**2); half of it is what exp() adds to the mean.
        rate = int(mean_bps * exp(level - 0.205))
        if outage:
            outage -= 1
            rate = 0
        trace.append((number * step_us, rate))
    trace.append((steps * step_us, 0))
    return tuple(trace)
