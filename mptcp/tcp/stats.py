"""What one connection counts of itself for `tcp_info`, and the way to the host's counters.

Plain integers, added to where the event is; what can be worked out when somebody asks is not kept.
Names are those of Linux's `struct tcp_info` (`linux_info` makes the record of them).

Times: a sender is busy from its first unacknowledged byte until all is acknowledged, and of that
limited by the peer's window or by the send buffer while nothing else holds it back (RFC 4898's
Rwin and Snd limits; Linux's chronographs).

Delivery rate: what the ACKs of the last whole round trip reported as delivered, over its duration.
Linux takes a sample for each ACK (draft-cheng-iccrg-delivery-rate-estimation), which needs three
stamps on every segment; where a round trip is not interrupted both tell the same.

Invariants
  * `busy`, `rwnd`, `sndbuf` hold closed spans; the open one is of the kind `kind` since `since`.
  * Nothing here is read by the protocol.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

from mptcp.tcp.state import State

IDLE: Final = 0
BUSY: Final = 1
RWND: Final = 2
SNDBUF: Final = 3


def segments(length: int, size: int) -> int:
    """Segments of `size` bytes that `length` bytes of payload make, at least one."""
    return -(-length // size) if length > size > 0 else 1


class Stats:
    """The counts of one connection. Times are µs of the host's clock; -1: never."""

    __slots__ = (
        "app_limited",
        "busy",
        "counters",
        "data_segs_in",
        "data_segs_out",
        "delivered",
        "delivered_ce",
        "delivery_rate",
        "dsack_dups",
        "flight_at",
        "flight_delivered",
        "fresh",
        "kind",
        "last_ack_recv",
        "last_data_recv",
        "last_data_sent",
        "rate_app_limited",
        "rcv_ooopack",
        "reord_seen",
        "round_at",
        "round_delivered",
        "rwnd",
        "segs_in",
        "segs_out",
        "since",
        "sndbuf",
        "syn_retrans",
        "total_retrans",
        "total_rto",
        "total_rto_recoveries",
    )

    def __init__(self, counters: Counter[str] | None = None) -> None:
        self.counters: Counter[str] = counters if counters is not None else Counter()
        """The host's counters (docs/counters.md)."""
        self.segs_in = 0
        self.segs_out = 0
        self.data_segs_in = 0
        self.data_segs_out = 0
        self.total_retrans = 0  # segments sent again, SYNs included
        self.syn_retrans = 0
        self.total_rto = 0  # expiries of the retransmission timer, SYNs' included
        self.total_rto_recoveries = 0  # of those the first ones of each recovery
        self.last_data_sent = -1
        self.last_data_recv = -1
        self.last_ack_recv = -1
        self.dsack_dups = 0
        self.reord_seen = 0
        self.rcv_ooopack = 0
        self.delivered = 0  # bytes, whichever way they were acknowledged
        self.delivered_ce = 0  # of those the ones that came back with ECE
        # time the sender was busy
        self.kind = IDLE
        self.since = 0
        self.busy = 0
        self.rwnd = 0
        self.sndbuf = 0
        # delivery rate
        self.delivery_rate = 0  # bytes a second
        self.rate_app_limited = False
        self.app_limited = False  # the application had nothing more in this round trip
        self.fresh = False  # no ACK has come since sending began
        self.flight_at = 0  # when it began
        self.flight_delivered = 0
        self.round_at = 0
        self.round_delivered = 0

    def on_end(self, state: State, *, timed_out: bool) -> None:
        """The connection is CLOSED now and was in `state` (RFC 4022: AttemptFails, EstabResets)."""
        if state is State.SYN_SENT or state is State.SYN_RECEIVED:
            self.counters["TcpAttemptFails"] += 1
        elif state is State.ESTABLISHED or state is State.CLOSE_WAIT:
            self.counters["TcpEstabResets"] += 1
        if timed_out:
            self.counters["TcpExtTCPAbortOnTimeout"] += 1

    def on_forgotten(self) -> None:
        """The host forgets the connection: from here on its counters have these segments."""
        for name, count in self.totals():
            self.counters[name] += count

    def totals(self) -> tuple[tuple[str, int], ...]:
        """What this connection adds to the host's counters while it lives."""
        data_retrans = self.total_retrans - self.syn_retrans
        return (
            ("TcpInSegs", self.segs_in),
            # RFC 4022: without those that hold nothing new.
            ("TcpOutSegs", self.segs_out - self.total_retrans),
            ("TcpExtTCPOrigDataSent", self.data_segs_out - data_retrans),
        )

    # -- time ----------------------------------------------------------------------------------

    def enter(self, kind: int, now: int) -> None:
        """From now on the sender is in this situation."""
        span = now - self.since
        if self.kind == BUSY:
            self.busy += span
        elif self.kind == RWND:
            self.rwnd += span
        elif self.kind == SNDBUF:
            self.sndbuf += span
        self.kind = kind
        self.since = now

    def times(self, now: int) -> tuple[int, int, int]:
        """µs so far: busy (the other two included), limited by the peer's window, by the buffer."""
        self.enter(self.kind, now)
        return self.busy + self.rwnd + self.sndbuf, self.rwnd, self.sndbuf

    # -- delivery rate -------------------------------------------------------------------------

    def on_first_sent(self, now: int) -> None:
        """Data leaves when nothing was outstanding."""
        self.enter(BUSY, now)
        self.fresh = True
        self.app_limited = False
        self.flight_at = now
        self.flight_delivered = self.delivered

    def on_round(self, now: int) -> None:
        """What was outstanding at the last call is acknowledged."""
        if self.fresh:
            self.fresh = False  # the first ACK of a flight: a round trip begins with it
        elif now > self.round_at:
            self.delivery_rate = (
                (self.delivered - self.round_delivered) * 1_000_000 // (now - self.round_at)
            )
            self.rate_app_limited = self.app_limited
            self.flight_at = -1
        self.app_limited = False
        self.round_at = now
        self.round_delivered = self.delivered

    def on_all_acked(self, now: int) -> None:
        """Nothing is outstanding any more."""
        self.enter(IDLE, now)
        if now > self.flight_at >= 0:
            # Not one whole round trip between the first ACK and now: of the flight as a whole.
            self.delivery_rate = (
                (self.delivered - self.flight_delivered) * 1_000_000 // (now - self.flight_at)
            )
            self.rate_app_limited = True
