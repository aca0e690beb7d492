"""One direction of an emulated link: a queue, a transmitter, mishaps, a flight, and being cut.

A packet waits in the queue, is serialized at the rate, is perhaps lost, damaged, doubled or held
back, and then flies for the delay:

    enqueue -> [queue: limit, RED, CoDel] -> transmitter: rate, trace -> mishaps -> flight
            -> dequeue

Time is an argument: integer nanoseconds that never decrease, from any zero. The transmitter's clock
is exact and independent of when the methods are called: a late call finds what should have happened
meanwhile, and n packets back to back take exactly their bits divided by the rate, rounded down once
(the remainder is carried from packet to packet). Packets leave in the order they came, but for what
`reorder` and `jitter_reorders` ask for.
The cost of every call is O(packets that moved on). A seed makes every mishap repeatable.
"""

from __future__ import annotations

import random
from collections import deque
from heapq import heappop, heappush
from typing import Final

from .aqm import Codel, Red
from .change import LinkChange, LinkStats
from .ecn import mark_ce
from .impair import Impairments
from .trace import DeliveryTrace, RateTrace

_BIT_NS_PER_BYTE: Final = 8 * 1_000_000_000
_NS_PER_US: Final = 1_000
_NEVER: Final = 1 << 62
_AQM_FIELDS: Final = (
    "aqm",
    "queue_bytes",
    "red_min_bytes",
    "red_max_bytes",
    "red_max_p",
    "codel_target_us",
    "codel_interval_us",
)


class Link:
    """The model of one direction; see the module's description."""

    __slots__ = (
        "_aqm",
        "_aqm_settings",
        "_arrivals",
        "_carry",
        "_codel",
        "_delay",
        "_down",
        "_ecn",
        "_finish",
        "_flight",
        "_held",
        "_impaired",
        "_impairments",
        "_last",
        "_mtu",
        "_order",
        "_plain",
        "_queue_bytes",
        "_queue_packets",
        "_queued",
        "_random",
        "_rate",
        "_red",
        "_schedule",
        "_trace",
        "_trace_at",
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
        self._mtu = _NEVER  # bytes
        self._down = False
        # Drop-tail at one rate for packets of any size, and not cut: what is quick to do.
        self._plain = True
        # The queue; its first packet is being sent until `_finish`. Empty when the rate is
        # unlimited.
        self._waiting: deque[bytes] = deque()
        self._queued = 0  # bytes in _waiting
        self._finish = 0  # ns
        self._carry = 0  # bit·ns the transmitter has not yet paid for, less than the rate
        self._trace: RateTrace | None = None
        self._trace_at = _NEVER  # ns: its next change
        self._schedule: DeliveryTrace | None = None  # then _rate is 1 and means nothing
        # The discipline: at most one of _red and _codel, and whether it is either.
        self._aqm = False
        self._aqm_settings = LinkChange()
        self._red: Red | None = None
        self._codel: Codel | None = None
        self._ecn = False
        self._arrivals: deque[int] = deque()  # with CoDel: of each packet in _waiting, ns
        self._impairments = Impairments(self._random)
        self._impaired = False  # whether they do anything
        self._flight: deque[tuple[int, bytes]] = deque()  # (delivery in ns, packet)
        self._last = 0  # delivery of the newest packet in flight: a shorter delay reorders nothing
        # Flying out of order: a heap of (delivery in ns, number, packet).
        self._held: list[tuple[int, int, bytes]] = []
        self._order = 0
        if change is not None:
            self.change(0, change)

    # -- properties ----------------------------------------------------------------------------

    def change(self, now: int, change: LinkChange) -> None:
        """Change properties from `now` on. Raises ValueError for thresholds RED cannot use.

        A new rate holds for the rest of the packet being sent, a new delay for packets sent from
        now on. Cutting the link (`down`) loses everything waiting and in flight.
        """
        self._advance(now)
        if any(getattr(change, name) is not None for name in _AQM_FIELDS):
            self._change_queue(now, change)
        if change.delay_us is not None:
            self._delay = change.delay_us * _NS_PER_US
        if change.queue_packets is not None:
            self._queue_packets = change.queue_packets
        if change.mtu is not None:
            self._mtu = change.mtu or _NEVER
        if change.ecn is not None:
            self._ecn = change.ecn
        if Impairments.concerns(change):
            self._impaired = self._impairments.change(change)
        self._change_pace(now, change)
        if change.down is not None:
            self._down = change.down
            if change.down:
                self._lose_everything()
        self._plain = (
            self._trace is None
            and self._schedule is None
            and self._mtu == _NEVER
            and not self._aqm
            and not self._down
        )

    def _lose_everything(self) -> None:
        self.stats.drops_down += len(self._waiting) + len(self._flight) + len(self._held)
        self._waiting.clear()
        self._arrivals.clear()
        self._flight.clear()
        self._held.clear()
        self._queued = 0

    def _change_pace(self, now: int, change: LinkChange) -> None:
        if change.rate_bps is not None:
            self._trace, self._trace_at = None, _NEVER
            if change.rate_bps != self._rate or self._schedule is not None:
                self._change_rate(now, change.rate_bps)
        elif change.rate_trace is not None:
            self._trace = RateTrace(now, change.rate_trace)
            self._trace_at = now
            self._advance(now)
        elif change.delivery_trace is not None:
            self._trace, self._trace_at = None, _NEVER
            self._schedule = DeliveryTrace(now, change.delivery_trace)
            self._rate = 1
            if self._waiting:
                self._finish = self._schedule.finish(now, len(self._waiting[0]))

    def _change_rate(self, now: int, rate: int) -> None:
        old, self._rate = self._rate, rate
        self._carry = 0
        scheduled, self._schedule = self._schedule is not None, None
        if rate == 0:
            while self._waiting:
                self._launch(now, self._waiting.popleft())
            self._arrivals.clear()
            self._queued = 0
        elif self._waiting:
            if scheduled:
                self._finish = now + self._serialization(len(self._waiting[0]))
            else:
                self._finish = now + (self._finish - now) * old // rate

    def _change_queue(self, now: int, change: LinkChange) -> None:
        if change.queue_bytes is not None:
            self._queue_bytes = change.queue_bytes
        settings = self._aqm_settings
        before = settings.aqm or "droptail"
        for name in _AQM_FIELDS:
            value = getattr(change, name)
            if value is not None:
                setattr(settings, name, value)
        after = settings.aqm or "droptail"
        if after == "droptail" and before == "droptail":
            return
        self._aqm = after != "droptail"
        red = codel = None
        if after == "red":
            red = Red(
                self._random,
                settings.red_min_bytes or self._queue_bytes // 6,
                settings.red_max_bytes or self._queue_bytes // 2,
                settings.red_max_p or 0.0,
            )
        elif after == "codel":
            codel = Codel(settings.codel_target_us or 5_000, settings.codel_interval_us or 100_000)
        self._red, self._codel = red, codel
        self._arrivals = deque([now] * len(self._waiting)) if codel is not None else deque()

    # -- packets -------------------------------------------------------------------------------

    def enqueue(self, now: int, packet: bytes) -> bool:
        """A packet enters the link; False when it is dropped at once (full queue, RED, its size,
        link cut)."""
        if not self._plain:
            admitted = self._admit(now, packet)
            if admitted is None:
                return False
            packet = admitted
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
            if self._schedule is None:
                self._finish = now + self._serialization(size)
            else:
                self._finish = self._schedule.finish(now, size)
        if self._codel is not None:
            self._arrivals.append(now)
        waiting.append(packet)
        self._queued += size
        return True

    def _admit(self, now: int, packet: bytes) -> bytes | None:
        """What comes to the queue of a packet that enters: nothing, itself or a marked one."""
        if self._down:
            self.stats.drops_down += 1
            return None
        if len(packet) > self._mtu:
            self.stats.drops_mtu += 1
            return None
        self._advance(now)
        if self._red is not None and self._rate:
            rate = 0 if self._schedule is not None else self._rate
            if self._red.congested(now, self._queued, len(packet), rate):
                return self._signal(packet)
        return packet

    def _signal(self, packet: bytes) -> bytes | None:
        """Mark a packet, or drop it."""
        marked = mark_ce(packet) if self._ecn else None
        if marked is None:
            self.stats.drops_aqm += 1
        else:
            self.stats.marked += 1
        return marked

    def dequeue(self, now: int) -> list[bytes]:
        """The packets that have arrived by `now`, in the order of their arrival."""
        if self._waiting and (self._finish <= now or self._trace_at <= now):
            self._advance(now)
        flight = self._flight
        due: list[bytes] = []
        total = 0
        if self._held and self._held[0][0] <= now:
            due = self._dequeue_held(now)
            total = sum(map(len, due))
        while flight and flight[0][0] <= now:
            packet = flight.popleft()[1]
            total += len(packet)
            due.append(packet)
        if due:
            self.stats.packets += len(due)
            self.stats.bytes += total
        return due

    def _dequeue_held(self, now: int) -> list[bytes]:
        """What is due up to the last held packet that is; between equals the one in order."""
        held, flight = self._held, self._flight
        due = []
        while held and held[0][0] <= now:
            while flight and flight[0][0] <= held[0][0]:
                due.append(flight.popleft()[1])
            due.append(heappop(held)[2])
        return due

    def next_deadline(self) -> int | None:
        """When to call dequeue next (it may find nothing then); None: nothing to come."""
        if self._held:
            return self._next_with_held()
        if self._flight:
            return self._flight[0][0]
        if self._waiting:
            return min(max(self._finish + self._delay, self._last), self._trace_at)
        return None

    def _next_with_held(self) -> int:
        held = self._held[0][0]
        if self._flight:
            return min(held, self._flight[0][0])
        if self._waiting:
            return min(held, self._finish + self._delay, self._trace_at)
        return held

    def snapshot(self, now: int) -> LinkStats:
        """The counters, with `queued` as of `now`."""
        self._advance(now)
        self.stats.queued = self._queued
        return self.stats

    # -- the transmitter -----------------------------------------------------------------------

    def _serialization(self, size: int) -> int:
        time, self._carry = divmod(self._carry + size * _BIT_NS_PER_BYTE, self._rate)
        return time

    def _advance(self, now: int) -> None:
        """Let the transmitter send what it has sent by `now`."""
        while self._trace_at <= now:
            assert self._trace is not None
            at = self._trace_at
            self._transmit(at)
            rate = self._trace.step() if self._waiting else self._trace.skip(now)
            self._trace_at = self._trace.next_at
            self._change_rate(at, rate)
        self._transmit(now)

    def _transmit(self, now: int) -> None:
        waiting = self._waiting
        while waiting and self._finish <= now:
            packet = waiting.popleft()
            self._queued -= len(packet)
            self._launch(self._finish, packet)
            if self._aqm:
                self._next_head()
            if waiting:
                if self._schedule is None:
                    self._finish += self._serialization(len(waiting[0]))
                else:
                    self._finish = self._schedule.finish(self._finish, len(waiting[0]))

    def _next_head(self) -> None:
        """A packet has left at `_finish`: RED notes an empty queue, CoDel judges the next ones."""
        waiting = self._waiting
        if self._red is not None:
            if not waiting:
                self._red.idle(self._finish)
            return
        codel, arrivals = self._codel, self._arrivals
        if codel is None:
            return
        arrivals.popleft()
        while waiting and codel.congested(self._finish, self._finish - arrivals[0], self._queued):
            marked = self._signal(waiting[0])
            if marked is not None:
                waiting[0] = marked
                return  # RFC 8289 §5.5 drops until one may go; a mark is as good as a drop
            self._queued -= len(waiting.popleft())
            arrivals.popleft()

    def _launch(self, departure: int, packet: bytes) -> None:
        delivery = departure + self._delay
        if self._impaired:
            self._launch_impaired(delivery, packet)
            return
        if delivery < self._last:
            delivery = self._last
        self._last = delivery
        self._flight.append((delivery, packet))

    def _launch_impaired(self, delivery: int, packet: bytes) -> None:
        for extra, in_order, arriving in self._impairments.apply(packet, self.stats):
            at = delivery + extra
            if in_order:
                self._last = at = max(at, self._last)
                self._flight.append((at, arriving))
            else:
                self._order += 1
                heappush(self._held, (at, self._order, arriving))
