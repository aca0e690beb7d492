"""Coupled congestion control: LIA (RFC 6356).

The subflows of a connection share one aggressiveness so that, at a shared bottleneck, they together
take no more than one TCP would (RFC 6356 §2). Pure functions of (cwnd, RTT) pairs first, then the
controller that feeds them. Slow start, loss response and time-out are NewReno's, per subflow
(RFC 6356 §3: only the increase of congestion avoidance is coupled).
"""

from __future__ import annotations

from collections.abc import Iterable

from mypy_extensions import mypyc_attr

from mptcp.tcp.congestion import CongestionControl, controllers, slow_start


def lia_alpha(paths: Iterable[tuple[int, int]]) -> float:
    """alpha of RFC 6356 §3.1 for (cwnd in bytes, RTT in µs) pairs, RTT > 0.

    alpha = cwnd_total * max(cwnd_i / rtt_i^2) / (sum(cwnd_i / rtt_i))^2. Raises ValueError
    without a path.
    """
    total = 0
    best = 0.0
    rate = 0.0
    for cwnd, rtt in paths:
        total += cwnd
        best = max(best, cwnd / (rtt * rtt))
        rate += cwnd / rtt
    if total <= 0:
        raise ValueError("LIA needs at least one path with a window")
    return total * best / (rate * rate)


def lia_increase(alpha: float, acked: int, mss: int, cwnd: int, cwnd_total: int) -> float:
    """Bytes to add to a window for `acked` bytes (RFC 6356 §3, byte form).

    The lesser of the coupled increase and what NewReno would add on this path alone, so that
    a multipath flow is never more aggressive than TCP on any of its paths (goal 2).
    """
    return min(alpha * acked * mss / cwnd_total, acked * mss / cwnd)


@mypyc_attr(allow_interpreted_subclasses=True)
class Lia(CongestionControl):
    """RFC 6356: Linked Increases."""

    def __init__(self, mss: int, initial_window: int, siblings: list[CongestionControl]) -> None:
        super().__init__(mss, initial_window, siblings)
        self.credit = 0.0

    def on_ack(self, acked: int) -> None:
        acked = slow_start(self, acked)
        if not acked:
            return
        # RFC 6356 §3: cwnd_i is replaced by ssthresh_i for a subflow in fast retransmit, whose
        # cwnd may be inflated.
        paths = [
            (min(s.cwnd, s.ssthresh) if s.in_recovery else s.cwnd, s.srtt)
            for s in self.siblings
            if s.srtt
        ]
        if len(paths) > 1 and self.srtt:
            total = sum(cwnd for cwnd, _ in paths)
            increase = lia_increase(lia_alpha(paths), acked, self.mss, self.cwnd, total)
        else:
            increase = acked * self.mss / self.cwnd
        # Fractions of a byte are carried: with many paths one ACK may be worth less than a byte.
        self.credit += increase
        whole = int(self.credit)
        self.credit -= whole
        self.cwnd += whole


controllers.add("lia", Lia)
