"""Buffers that follow what a plain TCP connection achieves (MPTCP's: `mptcp.tuning`).

Receiving is Linux's dynamic right-sizing (`tcp_rcv_space_adjust`; Fisk and Feng, 2001): the window
shall be twice what the application took in the last round trip, so that a sender in slow start,
which doubles its rate in each, is never held back by it; and as much more as the last round trip
exceeded the one before. A program that reads slowly keeps a small window, so what it can be made to
hold is small. The round trip is that of the peer's data: from the timestamps it echoes (RFC 7323
§4), or else the time in which a whole window came.

Sending: four congestion windows, two in flight and two waiting (`tcp_sndbuf_expand` has the same
factor, in memory), only while the application waits for room.

Both only grow, from `initial_…_buffer` to the configuration's `…_buffer`; the window scale is
chosen for the latter (RFC 7323 §2.2 has it in the SYN).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mptcp.tcp.connection import TcpConnection

INITIAL_SEGMENTS: Final = 10
"""The first round trip brings so many (RFC 6928)."""
CWNDS: Final = 4


class ReceiveTuning:
    """One connection's right-sizing. Sizes in bytes, times in µs."""

    __slots__ = ("_copied", "_ecr", "_mark", "_mark_at", "_since", "limit", "rtt", "space")

    def __init__(self, conn: TcpConnection, limit: int, now: int) -> None:
        self.limit = limit
        self.rtt = conn.snd.rtt.srtt
        """Round trip of the peer's data; 0 while unknown."""
        self.space = INITIAL_SEGMENTS * conn.snd.mss
        """The most that was read in a round trip."""
        self._copied = 0
        self._since = now
        self._ecr = 0
        self._mark = 0
        self._mark_at = 0

    def on_data(self, conn: TcpConnection, size: int, ts_ecr: int, now: int) -> None:
        """A segment with `size` bytes of payload came: learn the round trip."""
        if conn.ts_ok:
            if ts_ecr and ts_ecr != self._ecr:
                self._ecr = ts_ecr
                sample = ((conn.timestamp(now) - ts_ecr) & 0xFFFFFFFF) * 1000
                # The clock's grain is a millisecond; an echo of what we sent long ago, after the
                # peer was idle, is a sample too many, which the average outlives.
                sample = max(sample, 1000)
                self.rtt += (sample - self.rtt) // 8 if self.rtt else sample
        elif conn.rcv_nxt >= self._mark:
            if self._mark:
                sample = now - self._mark_at
                self.rtt = min(self.rtt, sample) if self.rtt else sample
            self._mark = conn.rcv_adv
            self._mark_at = now

    def on_read(self, conn: TcpConnection, size: int, buffer: int, now: int) -> int:
        """The application took `size` bytes; returns the buffer to have from now on."""
        self._copied += size
        if not self.rtt or now - self._since < self.rtt:
            return buffer
        copied = self._copied
        self._copied = 0
        self._since = now
        space = self.space
        if copied <= space:
            return buffer
        self.space = copied
        wanted = 2 * copied + 16 * conn.rcv_mss
        # The window is used a round trip after it was told, when a growing sender needs more.
        # Twice as much is the most that growth can mean; more is a hole that was filled.
        wanted += 2 * wanted * min(copied - space, space) // space
        return max(buffer, min(wanted, self.limit))


def send_buffer(conn: TcpConnection, capacity: int, limit: int) -> int:
    """The send buffer to have from now on; the application waits for room in `capacity`."""
    return max(capacity, min(CWNDS * conn.cc.cwnd, limit))
