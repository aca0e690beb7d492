"""Pacing: what a window allows goes out over the round trip, not in one burst.

The rate is Linux's (`tcp_update_pacing_rate`): twice cwnd / SRTT while cwnd is below half of
ssthresh, 1.2 times after, so that pacing never holds the window's growth back. What goes at once is
a *quantum*, the larger of two segments and a millisecond's worth at that rate; then nothing until
the rate has paid for it. At rates where a millisecond holds a whole window (a veth, a LAN), the ACK
clock always comes first and no timer is ever set.

    sent     ####        ####        ####          left: what the burst may still send
             |--quantum--|--quantum--|             paid_at: when the rate has paid for all of it

Paced is what carries data, new or sent again. ACKs, SYNs, a FIN alone and probes are not: they
answer for timers and are few. The initial window is not either, as in Linux: RFC 6928 argues for a
burst of ten, it is the latency of a short exchange, and the rate is a guess from one sample. The
same holds whenever nothing is in flight: then as much goes at once (as with Linux's `fq`), and
pacing replaces the ACK clock for what follows.

In congestion avoidance, time in which nothing could be sent is made up for by up to an initial
window; RFC 9002 §7.7 bounds the bursts of a paced sender by the same. ACKs come in clumps, after a
loss above all, and a gain of 1.2 does not catch up what each gap costs: without this, NewReno at
3 % loss and 10 ms (six segments) carried 3 % less than unpaced. Slow start, with a gain of 2, needs
no such credit, and it is what fills queues.

`paid_at` counts ticks of 2^-16 µs: a packet takes less than a microsecond at high rates.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mptcp.tcp.connection import TcpConnection

TICK: Final = 16
GRAIN: Final = 1000
"""A quantum lasts so many µs."""
LATE: Final = 2000 << TICK
"""A timer that rings late (a busy loop), and ACKs that come in clumps, are made up for up to this
much; not that there was nothing to send."""
UNPACED: Final = 1 << 40


class Pacer:
    """The state of one connection. `left` in bytes, `cost` in ticks per byte."""

    __slots__ = ("begun_at", "cost", "held", "left", "paid_at")

    def __init__(self) -> None:
        self.left = 0
        """What the burst under way may still send."""
        self.begun_at = -1
        """When the burst under way began, ticks."""
        self.paid_at = 0
        """When the rate will have paid for what was sent, ticks."""
        self.cost = 0
        self.held = False
        """Something waits for `paid_at`, or has, and the window did not let it go since."""

    def room(self, conn: TcpConnection, segment: int, now: int) -> int:
        """Bytes that may go now, 0 when the next segment has to wait; a burst begins if it may."""
        ticks = now << TICK
        if ticks >= self.paid_at and (ticks != self.begun_at or self.left < segment):
            self.begun_at = ticks
            self._begin(conn, segment, ticks)
        return self.left if self.left >= segment else 0

    def spend(self, size: int) -> None:
        """`size` bytes of what `room` allowed have gone."""
        self.left -= size
        self.paid_at += size * self.cost

    def _begin(self, conn: TcpConnection, segment: int, ticks: int) -> None:
        snd = conn.snd
        srtt = snd.rtt.srtt
        if srtt <= GRAIN or snd.bytes_sent < conn.initial_window(snd.smss):
            self.cost = 0
            self.left = UNPACED
            # A quantum that is more than the window: look again in a millisecond.
            self.paid_at = ticks + (GRAIN << TICK) if 0 < srtt <= GRAIN else ticks
            return
        cc = snd.cc
        # As Linux: recovery may have reduced cwnd below what is in flight.
        window = cc.cwnd if cc.cwnd > snd.board.in_flight else snd.board.in_flight
        slow = 2 * cc.cwnd < cc.ssthresh
        window *= 20 if slow else 12  # tenths
        self.cost = (srtt * 10 << TICK) // window
        quantum = window * 100 // srtt
        if quantum < 2 * segment:
            quantum = 2 * segment
        # Time that was not used is made up for, or the ACK clock, which has a grain of its own,
        # would lose what the gain gives: up to half a quantum of it, as Linux has it.
        credit = LATE if self.held else quantum * self.cost >> 1
        self.held = False
        if not slow:
            credit = max(credit, (conn.initial_window(snd.smss) - quantum) * self.cost)
        if self.paid_at < ticks - credit:
            self.paid_at = ticks - credit
        if not snd.board:
            # RFC 5681 §4.1 lets a restart window go at once, and a short answer is what it is for.
            quantum = max(quantum, conn.initial_window(snd.smss))
        self.left = quantum - quantum % segment


def hold(conn: TcpConnection, pacer: Pacer) -> None:
    """Data has to wait: wake up when it may go."""
    pacer.held = True
    conn.pace_deadline = -(-pacer.paid_at >> TICK)
    conn.host.rearm(conn)
