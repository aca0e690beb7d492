"""wVegas: coupled congestion control by delay.

After Cao, Xu and Fu 2012 and draft-xu-mptcp-congestion-control-05. Each subflow runs TCP Vegas:
once in a round trip it compares the RTT with the least one seen, and what it finds to wait in
queues,

    diff = cwnd * (rtt - base_rtt) / rtt          in segments here,

is held at a target alpha. The subflows share one target of `TOTAL_ALPHA` segments, each by its part
of the connection's rate: where the price (the queueing delay) is low a subflow gets more than its
part and with it, step by step, a larger target, so that the delays of the paths become equal and
the traffic leaves congested ones. All together queue no more than one Vegas flow would.

Pure functions first, then the controller. Losses are answered as by NewReno (draft-xu §4).

What the papers leave open, and what is done here
  * The RTT of a round is the mean of its samples; with fewer than `FEW` it says nothing and the
    window grows as NewReno's (as in the authors' own kernel code).
  * A queue built by others at the start would be taken for the length of the path. Hence the
    back-off: when the queueing delay is twice the least one since the last back-off, the window is
    cut so that the queue can drain. Taken as they stand the rule and the target contradict each
    other: on the way from an empty queue to ten segments in it the delay doubles again and again.
    So the least delay is that of rounds in which the target was reached, begins anew when the
    target grows, and is taken for `GRAIN_US` at least, the jitter of a short queue.
"""

from __future__ import annotations

from typing import Final

from mypy_extensions import mypyc_attr

from mptcp.coupled_cc import taking_part
from mptcp.tcp.congestion import CongestionControl, controllers, slow_start

TOTAL_ALPHA: Final = 10
"""Segments that all subflows together keep in queues (draft-xu §4)."""
INITIAL_ALPHA: Final = 2
"""A subflow's target at first, and at least."""
GAMMA: Final = 1
"""Segments in queues that end slow start."""
FEW: Final = 3
GRAIN_US: Final = 1000


def queued(cwnd: int, rtt: int, base_rtt: int) -> float:
    """Of `cwnd` what waits in queues, in its unit (draft-xu §3: diff_r); 0 < base_rtt <= rtt."""
    return cwnd * (rtt - base_rtt) / rtt


def weighted_alpha(rate: float, total_rate: float) -> float:
    """A subflow's part of `TOTAL_ALPHA` by its rate, segments; both rates in one unit, above 0."""
    return max(float(INITIAL_ALPHA), TOTAL_ALPHA * rate / total_rate)


def drained(cwnd: int, rtt: int, base_rtt: int) -> int:
    """The window after a back-off (draft-xu §4): cwnd * base_rtt / (2 * rtt)."""
    return cwnd * base_rtt // (2 * rtt)


@mypyc_attr(allow_interpreted_subclasses=True)
class WVegas(CongestionControl):
    """Weighted Vegas."""

    def __init__(self, mss: int, initial_window: int, siblings: list[CongestionControl]) -> None:
        super().__init__(mss, initial_window, siblings)
        self.alpha = float(INITIAL_ALPHA)
        """Target, segments in queues."""
        self.rate = 0.0
        """Bytes per µs in the last round in which the target was reached; 0: none yet."""
        self.queue_delay = 0
        """Least queueing delay with the target reached since the last back-off, µs; 0: unknown."""
        self.round = 0
        """The value of `rounds` in which the samples below were taken."""
        self.samples = 0
        self.sampled = 0
        """Their sum, µs."""

    def on_ack(self, acked: int) -> None:
        self.samples += 1
        self.sampled += self.latest_rtt
        if self.rounds == self.round:
            if self.cwnd < self.ssthresh:
                slow_start(self, acked)
            return
        self.round = self.rounds
        samples, sampled = self.samples, self.sampled
        self.samples = self.sampled = 0
        if samples < FEW or not self.min_rtt:
            if not slow_start(self, acked):
                return
            self.cwnd += self.mss
            return
        base = self.min_rtt
        self._judge(max(sampled // samples, base), base, acked)

    def _judge(self, rtt: int, base: int, acked: int) -> None:
        """Once in a round trip (draft-xu §4)."""
        mss = self.mss
        diff = queued(self.cwnd, rtt, base) / mss
        if self.cwnd < self.ssthresh:
            if diff > GAMMA:
                # What fits without a queue, and a segment: congestion avoidance from here.
                self.cwnd = max(min(self.cwnd, self.cwnd * base // rtt + mss), 2 * mss)
                self.ssthresh = min(self.ssthresh, self.cwnd)
            else:
                slow_start(self, acked)
            return
        delay = rtt - base
        if diff >= self.alpha:
            self.rate = self.cwnd / rtt
            alpha = weighted_alpha(self.rate, self.rate + self._others())
            if alpha > self.alpha:
                self.queue_delay = 0
            self.alpha = alpha
        if diff >= self.alpha and (not self.queue_delay or delay < self.queue_delay):
            self.queue_delay = max(delay, GRAIN_US)
        if diff > self.alpha:
            self.cwnd -= mss
        elif diff < self.alpha:
            self.cwnd += mss
        if self.queue_delay and delay >= 2 * self.queue_delay:
            self.cwnd = drained(self.cwnd, rtt, base)
            self.queue_delay = 0
        self.cwnd = max(self.cwnd, 2 * mss)
        self.ssthresh = min(self.ssthresh, self.cwnd)

    def _others(self) -> float:
        """The rates of the other subflows that take part, together."""
        now = self.now
        return sum(
            s.rate
            for s in self.siblings
            if s is not self and isinstance(s, WVegas) and taking_part(s, now)
        )

    def on_loss(self, flight_size: int) -> None:
        super().on_loss(flight_size)
        self.samples = self.sampled = 0

    def on_timeout(self, flight_size: int, *, first: bool) -> None:
        super().on_timeout(flight_size, first=first)
        self.samples = self.sampled = 0
        self.rate = 0.0  # nothing came through: the others' parts grow

    def on_idle(self, timeouts: int) -> None:
        super().on_idle(timeouts)
        self.samples = self.sampled = 0
        self.queue_delay = 0


controllers.add("wvegas", WVegas)
