"""One direction of an emulated link: rate, delay, a drop-tail queue, random loss, and being cut.

A packet waits in the queue, is serialized at the rate, is perhaps lost, and then flies for the
delay:

    enqueue -> [queue: limit] -> transmitter: rate -> loss -> flight: delay -> dequeue

Time is an argument: integer nanoseconds that never decrease, from any zero. The transmitter's clock
is exact and independent of when the methods are called: a late call finds what should have happened
meanwhile, and n packets back to back take exactly their bits divided by the rate, rounded down once
(the remainder is carried from packet to packet). Packets leave in the order they came.
The cost of every call is O(packets that moved on). A seed makes the losses repeatable.
"""

from __future__ import annotations

import random
from collections import deque
from dataclasses import dataclass
from typing import Final

_BIT_NS_PER_BYTE: Final = 8 * 1_000_000_000
_NS_PER_US: Final = 1_000


@dataclass(slots=True)
class LinkStats:
    """Counters of one direction since its start; `queued` is a state."""

    packets: int = 0  # delivered
    bytes: int = 0  # delivered, IP bytes
    drops_queue: int = 0  # packets that found the queue full
    drops_loss: int = 0  # packets lost at random
    drops_down: int = 0  # packets that came, waited or flew while the link was cut
    drops_refused: int = 0  # packets the device at the far end did not take
    queued: int = 0  # bytes waiting now, the packet being sent included


@dataclass(slots=True, kw_only=True)
class LinkChange:
    """What to change on a link; None leaves it as it is."""

    rate_bps: int | None = None  # bits of IP packets per second; 0: unlimited
    delay_us: int | None = None  # one way, 0 or more
    queue_bytes: int | None = None  # 0: unlimited
    queue_packets: int | None = None  # 0: unlimited
    loss: float | None = None  # 0 to 1
    down: bool | None = None

    def __post_init__(self) -> None:
        for name in ("rate_bps", "delay_us", "queue_bytes", "queue_packets"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 0):
                raise ValueError(f"{name} {value!r} is no integer from 0 up")
        if self.loss is not None and not 0 <= self.loss <= 1:
            raise ValueError(f"loss {self.loss!r} is not within 0 to 1")


class Link:
    """The queue model of one direction; see the module's description."""

    __slots__ = (
        "_carry",
        "_delay",
        "_down",
        "_finish",
        "_flight",
        "_last",
        "_loss",
        "_queue_bytes",
        "_queue_packets",
        "_queued",
        "_random",
        "_rate",
        "_waiting",
        "stats",
    )

    def __init__(self, change: LinkChange | None = None, *, seed: int | str = 0) -> None:
        """A link with the properties in `change`; by default unlimited, without delay or loss."""
        self.stats = LinkStats()
        self._random = random.Random(seed)
        self._rate = 0  # bit/s; 0: unlimited
        self._delay = 0  # ns
        self._queue_bytes = 0
        self._queue_packets = 0
        self._loss = 0.0
        self._down = False
        # The queue; its first packet is being sent until `_finish`. Empty when the rate is
        # unlimited.
        self._waiting: deque[bytes] = deque()
        self._queued = 0  # bytes in _waiting
        self._finish = 0  # ns
        self._carry = 0  # bit·ns the transmitter has not yet paid for, less than the rate
        self._flight: deque[tuple[int, bytes]] = deque()  # (delivery in ns, packet)
        self._last = 0  # delivery of the newest packet in flight: a shorter delay reorders nothing
        if change is not None:
            self.change(0, change)

    def change(self, now: int, change: LinkChange) -> None:
        """Change properties from `now` on.

        A new rate holds for the rest of the packet being sent; a new delay for packets sent from
        now on. Cutting the link (`down`) loses everything waiting and in flight.
        """
        self._advance(now)
        if change.delay_us is not None:
            self._delay = change.delay_us * _NS_PER_US
        if change.queue_bytes is not None:
            self._queue_bytes = change.queue_bytes
        if change.queue_packets is not None:
            self._queue_packets = change.queue_packets
        if change.loss is not None:
            self._loss = change.loss
        if change.rate_bps is not None and change.rate_bps != self._rate:
            self._change_rate(now, change.rate_bps)
        if change.down is not None:
            self._down = change.down
            if change.down:
                self.stats.drops_down += len(self._waiting) + len(self._flight)
                self._waiting.clear()
                self._flight.clear()
                self._queued = 0

    def _change_rate(self, now: int, rate: int) -> None:
        old, self._rate = self._rate, rate
        self._carry = 0
        if rate == 0:
            while self._waiting:
                self._launch(now, self._waiting.popleft())
            self._queued = 0
        elif self._waiting:
            self._finish = now + (self._finish - now) * old // rate

    def enqueue(self, now: int, packet: bytes) -> bool:
        """A packet enters the link; False when it is dropped at once (full queue, link cut)."""
        if self._down:
            self.stats.drops_down += 1
            return False
        if not self._rate:
            self._launch(now, packet)
            return True
        waiting = self._waiting
        if waiting and self._finish <= now:
            self._advance(now)
        size = len(packet)
        if waiting:
            # An idle transmitter takes any packet, however short the queue.
            if (self._queue_bytes and self._queued + size > self._queue_bytes) or (
                self._queue_packets and len(waiting) >= self._queue_packets
            ):
                self.stats.drops_queue += 1
                return False
        else:
            self._carry = 0
            self._finish = now + self._serialization(size)
        waiting.append(packet)
        self._queued += size
        return True

    def dequeue(self, now: int) -> list[bytes]:
        """The packets that have arrived by `now`, in order."""
        if self._waiting and self._finish <= now:
            self._advance(now)
        flight = self._flight
        due = []
        total = 0
        while flight and flight[0][0] <= now:
            packet = flight.popleft()[1]
            total += len(packet)
            due.append(packet)
        if due:
            self.stats.packets += len(due)
            self.stats.bytes += total
        return due

    def next_deadline(self) -> int | None:
        """When to call dequeue next (after a loss it may find nothing); None: nothing to come."""
        if self._flight:
            return self._flight[0][0]
        if self._waiting:
            return max(self._finish + self._delay, self._last)
        return None

    def snapshot(self, now: int) -> LinkStats:
        """The counters, with `queued` as of `now`."""
        self._advance(now)
        self.stats.queued = self._queued
        return self.stats

    def _serialization(self, size: int) -> int:
        time, self._carry = divmod(self._carry + size * _BIT_NS_PER_BYTE, self._rate)
        return time

    def _advance(self, now: int) -> None:
        """Let the transmitter send what it has sent by `now`."""
        waiting = self._waiting
        while waiting and self._finish <= now:
            packet = waiting.popleft()
            self._queued -= len(packet)
            self._launch(self._finish, packet)
            if waiting:
                self._finish += self._serialization(len(waiting[0]))

    def _launch(self, departure: int, packet: bytes) -> None:
        if self._loss and self._random.random() < self._loss:
            self.stats.drops_loss += 1
            return
        delivery = departure + self._delay
        if delivery < self._last:
            delivery = self._last
        self._last = delivery
        self._flight.append((delivery, packet))
