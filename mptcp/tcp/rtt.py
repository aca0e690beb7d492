"""Round-trip time and retransmission timeout (RFC 6298), in integer microseconds.

Invariants: `rto` is within [min_rto, max_rto]; `backoff` doublings are applied to it and are
forgotten with the next sample, which an ACK of what was sent again does not give (Karn).
"""

from __future__ import annotations

from typing import Final

from mptcp.tcp.windowed_min import WindowedMin

MIN_RTT_WINDOW_US: Final = 300_000_000
"""Linux's `tcp_min_rtt_wlen`: how long the least RTT is remembered."""


class RttEstimator:
    """SRTT, RTTVAR and RTO of one path.

    `srtt` is 0 until the first sample. Samples come from timestamps (RFC 7323 §4) or from segments
    sent once only (Karn's algorithm, RFC 6298 §3).
    """

    __slots__ = ("backoff", "least", "max_rto", "min_rto", "min_rtt", "rto_base", "rttvar", "srtt")

    def __init__(
        self,
        initial_rto: int,
        min_rto: int,
        max_rto: int,
        min_rtt_window: int = MIN_RTT_WINDOW_US,
    ) -> None:
        self.srtt = 0
        self.rttvar = 0
        self.least = WindowedMin(min_rtt_window)
        self.min_rtt = 0  # the least sample of the window (RFC 8985 §6.2 step 1)
        self.rto_base = initial_rto
        self.min_rto = min_rto
        self.max_rto = max_rto
        self.backoff = 0

    def sample(self, rtt: int, now: int) -> None:
        """Take a measurement of `rtt` µs made at `now` (0 counts as 1: clocks have a grain)."""
        rtt = max(rtt, 1)
        self.backoff = 0  # RFC 6298 §5, Karn: the doubling is kept until there is a new sample
        self.min_rtt = self.least.update(rtt, now)
        if self.srtt == 0:
            # RFC 6298 (2.2)
            self.srtt = rtt
            self.rttvar = rtt >> 1
        else:
            # RFC 6298 (2.3): alpha = 1/8, beta = 1/4
            self.rttvar += (abs(self.srtt - rtt) - self.rttvar) // 4
            self.srtt = max(1, self.srtt + (rtt - self.srtt) // 8)
        # RFC 6298 (2.3), (2.4). The variance term is floored, not the sum, as Linux does
        # (tcp_rtt_estimator): with the floor on the sum a 195 ms path would time out spuriously.
        self.rto_base = self.srtt + max(4 * self.rttvar, self.min_rto)

    @property
    def rto(self) -> int:
        """The timeout now, doublings included."""
        return min(self.rto_base << self.backoff, self.max_rto)

    def back_off(self) -> None:
        """RFC 6298 (5.5): double the timeout after it expired."""
        if self.rto_base << self.backoff < self.max_rto:
            self.backoff += 1

    def reset_back_off(self) -> None:
        """New data was acknowledged: the path works again."""
        self.backoff = 0
