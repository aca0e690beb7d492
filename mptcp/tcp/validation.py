"""Congestion window validation (RFC 2861, RFC 5681 §4.1): a window that is not used is not kept.

Two rules, both as in Linux:
  * The window grows only for ACKs of a time in which it was full. Half full is enough in slow
    start; later at most two segments may be missing (one that does not fit, one held back).
  * A window that was not full for a retransmission timeout goes half of the way to what was used;
    one that was not used at all is halved for each timeout of idleness, down to the restart
    window. `ssthresh` remembers three quarters of it, so that slow start leads back.

Why not RFC 7661, which obsoletes RFC 2861: it keeps the whole window for five minutes of idleness
and asks for pacing to make the burst after it harmless. A subflow is idle whenever the scheduler
prefers another one, and what it knew of its path gets old all the same. RFC 5681 §4.1 would go
down to the restart window at once; RFC 2861 takes one timeout for each halving.

`Config.slow_start_after_idle` turns the second rule off (Linux: tcp_slow_start_after_idle).
"""

from __future__ import annotations

from mptcp.tcp.congestion import ALL_IN_USE, CongestionControl


class CwndValidation:
    """How much of the congestion window one sender uses."""

    __slots__ = ("decay", "full_at", "full_round", "sent_at", "used")

    def __init__(self) -> None:
        self.decay = True
        """Whether an unused window shrinks."""
        self.full_round = 0
        """Round trip (`CongestionControl.rounds`) in which the window was last full."""
        self.full_at = 0
        """When it was, or when it was last cut for not being so, µs."""
        self.used = 0
        """Most bytes in flight at once since `full_at`."""
        self.sent_at = 0
        """When data was last sent, µs (RFC 5681 §4.1 counts data, not ACKs)."""

    def limited(self, cc: CongestionControl, in_flight: int, rto: int) -> bool:
        """Whether an ACK may make the window grow; `in_flight` is what was so before it.

        A window that was full earlier in the same round trip counts: ACKs that arrive together
        find less and less in flight, as nothing is sent between them.
        """
        cwnd = cc.cwnd
        half = cwnd >> 1
        if in_flight >= half and (cwnd < cc.ssthresh or in_flight >= cwnd - 2 * cc.mss):
            self.full_round = cc.rounds
            self.full_at = cc.now
            self.used = 0
            cc.used = ALL_IN_USE
            return True
        if cc.rounds == self.full_round:
            return True
        if in_flight > self.used:
            self.used = in_flight
        cc.used = self.used
        cc.on_app_limited()
        if self.decay and cc.now - self.full_at >= rto:
            cc.on_underused(self.used)
            self.full_at = cc.now
            self.used = 0
        return False

    def restart(self, cc: CongestionControl, now: int, rto: int) -> None:
        """Data waits to be sent while nothing is in flight."""
        cc.now = now
        cc.on_app_limited()
        timeouts = (now - self.sent_at) // rto
        if timeouts > 0 and self.decay:
            cc.on_idle(timeouts)
            self.sent_at = now  # what was idle is paid for, even if nothing can be sent yet
            self.full_at = now
            self.used = 0
