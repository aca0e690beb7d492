"""Queue disciplines beside drop-tail: RED and CoDel, each dropping or marking.

Both only decide; the link has the queue. Times are nanoseconds, sizes bytes.
"""

from __future__ import annotations

import random
from math import isqrt
from typing import Final

_RED_WEIGHT: Final = 0.002  # Floyd and Jacobson 1993, §4
_RED_MAX_P: Final = 0.1
_TYPICAL: Final = 1500
_NS_PER_US: Final = 1_000
_SCALE: Final = 1 << 16  # of the integer square root, for exactness


class Red:
    """Random early detection with the gentle slope above the upper threshold.

    Floyd and Jacobson, "Random early detection gateways for congestion avoidance" (1993), in its
    mode of bytes: the average queue decides, a packet's share of the typical size scales its risk,
    and the count since the last one spreads the drops.
    """

    __slots__ = ("_count", "_idle_since", "_random", "average", "max_p", "maximum", "minimum")

    def __init__(self, source: random.Random, minimum: int, maximum: int, max_p: float) -> None:
        """Thresholds in bytes. Raises ValueError when they are not 0 < minimum < maximum."""
        if not 0 < minimum < maximum:
            raise ValueError(
                f"RED needs thresholds 0 < red_min_bytes < red_max_bytes, not {minimum} and "
                f"{maximum}: give them, or queue_bytes"
            )
        self._random = source
        self.minimum = minimum
        self.maximum = maximum
        self.max_p = max_p or _RED_MAX_P
        self.average = 0.0  # bytes
        self._count = -1  # packets since the last drop or mark; -1: the average is below
        self._idle_since: int | None = 0

    def idle(self, now: int) -> None:
        """The queue is empty from `now` on."""
        self._idle_since = now

    def congested(self, now: int, queued: int, size: int, rate: int) -> bool:
        """A packet of `size` comes upon `queued` bytes: whether to drop or mark it."""
        if queued == 0 and self._idle_since is not None and rate:
            # As if small packets had come to an empty queue meanwhile.
            slots = (now - self._idle_since) * rate // (_TYPICAL * 8 * 1_000_000_000)
            self.average *= (1 - _RED_WEIGHT) ** min(slots, 1_000_000)
        self._idle_since = None
        self.average += _RED_WEIGHT * (queued - self.average)
        if self.average < self.minimum:
            self._count = -1
            return False
        self._count += 1
        if self.average < self.maximum:
            share = (self.average - self.minimum) / (self.maximum - self.minimum)
            base = self.max_p * share
        elif self.average < 2 * self.maximum:  # "gentle"
            base = self.max_p + (1 - self.max_p) * (self.average / self.maximum - 1)
        else:
            self._count = 0
            return True
        base *= min(size / _TYPICAL, 1.0)
        spread = base / (1 - self._count * base) if self._count * base < 1 else 1.0
        if self._random.random() < spread:
            self._count = 0
            return True
        return False


class Codel:
    """Controlled delay (RFC 8289): what has waited longer than a target for an interval is cut."""

    __slots__ = (
        "_count",
        "_drop_next",
        "_dropping",
        "_first_above",
        "_last_count",
        "interval",
        "target",
    )

    def __init__(self, target_us: int, interval_us: int) -> None:
        self.target = target_us * _NS_PER_US
        self.interval = interval_us * _NS_PER_US
        self._first_above = 0  # when the delay will have been above for an interval; 0: it is not
        self._drop_next = 0
        self._count = 0  # drops since the dropping state began
        self._last_count = 0
        self._dropping = False

    def congested(self, now: int, waited: int, queued: int) -> bool:
        """The head of the queue is about to be sent, having waited: drop or mark it?

        To be asked again of the next head when this one was dropped (RFC 8289 §5.5: `dequeue`).
        """
        ok = self._may_drop(now, waited, queued)
        if self._dropping:
            if not ok:
                self._dropping = False
            elif now >= self._drop_next:
                self._count += 1
                self._drop_next = self._control_law(self._drop_next)
                return True
            return False
        if ok:
            self._dropping = True
            # RFC 8289 §5.4: resume near the rate that controlled the queue last time.
            delta = self._count - self._last_count
            recent = now - self._drop_next < 16 * self.interval
            self._count = delta if delta > 1 and recent else 1
            self._last_count = self._count
            self._drop_next = self._control_law(now)
            return True
        return False

    def _may_drop(self, now: int, waited: int, queued: int) -> bool:
        # RFC 8289 §5.6: at most one packet of the largest size left means no standing queue.
        if waited < self.target or queued <= _TYPICAL:
            self._first_above = 0
            return False
        if self._first_above == 0:
            self._first_above = now + self.interval
            return False
        return now >= self._first_above

    def _control_law(self, at: int) -> int:
        return at + self.interval * _SCALE // isqrt(self._count * _SCALE * _SCALE)
