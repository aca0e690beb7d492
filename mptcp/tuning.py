"""What a receive buffer of several paths has to hold: 2 * sum(BW_i) * RTT_max (thesis §4.3.5).

While the slowest path brings one byte, every other fills its share of the buffer beyond the hole;
twice that, for the sender grows and losses take a round trip to mend (RFC 6182 §5.3). RTT_max is
the largest round trip among the subflows, so that neither one's window nor one's own round trip
says what is needed.

The thesis counts on each subflow what comes in an RTT_max. Here each counts over its own round
trip, and the best of these rates, times RTT_max, is its contribution. It is the same number where
nothing holds the subflow back; but what a small buffer holds back for the rest of an RTT_max is not
taken for all that the path can do, and when a slow path joins the buffer is right before its first
byte has come: its round trip is known from the handshake.

Where a path mends its losses only after a time-out a hole lasts longer than any round trip. Then
the others come to the edge of the window, and that doubles the buffer (`Buffers.on_exhausted`).

The round trip of the peer's data is that of the timestamps it echoes (RFC 7323 §4); the other way
of plain TCP, the time in which a window came, says nothing where the window is shared. Without
timestamps it is that of the handshake, or of our own data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mptcp.tcp.autotune import ReceiveTuning

if TYPE_CHECKING:
    from mptcp.subflow import Subflow
    from mptcp.tcp.connection import TcpConnection

UNKNOWN_US: Final = 100_000
"""Round trip of a subflow of which nothing is known: its SYN was lost, and it has no timestamps."""
LEAST_US: Final = 1000
"""The timestamps' grain; over less time a rate says how a device hands packets in."""


class SubflowMeter(ReceiveTuning):
    """What one subflow delivers. Bytes and µs."""

    __slots__ = ("_arrived", "_began", "_due", "_last_at", "fresh", "rate")

    def __init__(self, conn: TcpConnection, limit: int, now: int) -> None:
        super().__init__(conn, limit, now)
        self.rate = 0
        """The most it has delivered over a round trip of its own, bytes a second."""
        self.fresh = True
        """A round trip has passed since somebody looked."""
        self._began = now
        self._arrived = 0
        self._due = now
        self._last_at = now

    def round_trip(self, conn: TcpConnection) -> int:
        """That of the peer's data, or what else is known of the path."""
        return max(self.rtt or conn.snd.rtt.srtt or UNKNOWN_US, LEAST_US)

    def on_data(self, conn: TcpConnection, size: int, ts_ecr: int, now: int) -> None:
        """A segment with payload came, whether its turn has come or not."""
        if ts_ecr and ts_ecr != self._ecr and conn.ts_ok:
            self._ecr = ts_ecr
            # After a silence the echo is of what we sent before it: no round trip.
            if now - self._last_at <= self.round_trip(conn):
                sample = max(((conn.timestamp(now) - ts_ecr) & 0xFFFFFFFF) * 1000, LEAST_US)
                self.rtt += (sample - self.rtt) // 8 if self.rtt else sample
        self._last_at = now
        if now >= self._due:
            self._measure(conn, now)
        self._arrived += size

    def _measure(self, conn: TcpConnection, now: int) -> None:
        """A round trip is over, or a silence."""
        elapsed = now - self._began
        if elapsed > 0:
            rate = self._arrived * 1_000_000 // elapsed
            if rate > self.rate:
                self.rate = rate
                self.space = self._arrived
        self._arrived = 0
        self._began = now
        self._due = now + self.round_trip(conn)
        self.fresh = True


class ConnectionTuning:
    """The receive buffer of one MPTCP connection, as far as it may still grow."""

    __slots__ = ("_rate", "limit", "meters", "rtt_max", "space")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.meters: list[tuple[Subflow, SubflowMeter]] = []
        self.rtt_max = 0
        """The largest round trip of the subflows, µs, when the buffer was last worked out."""
        self.space = 0
        """The most that all of them deliver in an RTT_max, bytes."""
        self._rate = 0

    def add(self, subflow: Subflow, now: int) -> None:
        """A subflow may bring data from now on."""
        self.meters = [pair for pair in self.meters if not pair[0].closed]
        meter = SubflowMeter(subflow, self.limit, now)
        subflow.receive_tuning = meter
        self.meters.append((subflow, meter))

    def stop(self) -> None:
        """The buffer is as large as it may be."""
        for subflow, _ in self.meters:
            subflow.receive_tuning = None
        self.meters.clear()

    def wanted(self) -> int:
        """The buffer for what is known now; 0 when that is no more than before."""
        fresh = False
        for _, meter in self.meters:
            if meter.fresh:
                meter.fresh = False
                fresh = True
        if not fresh:
            return 0
        rtt_max = 0
        rate = 0
        for subflow, meter in self.meters:
            if subflow.closed or (subflow.backup_request and not meter.rate):
                continue  # what brings nothing holds nothing up
            rtt_max = max(rtt_max, meter.round_trip(subflow))
            rate += meter.rate
        self.rtt_max = rtt_max
        brought = rate * rtt_max // 1_000_000
        if brought <= self.space:
            return 0
        self.space = brought
        before = self._rate
        growth = min(rate - before, before)
        self._rate = rate
        wanted = 2 * brought
        if growth > 0:
            # As in plain TCP: the window is used a round trip after it was told, when a sender in
            # slow start needs more.
            wanted += 2 * wanted * growth // before
        return wanted
