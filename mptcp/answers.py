"""What goes to those that have no connection here: resets, SYN cookies, echo replies.

Owns the queue of these packets, how long it may be, and how many resets may go in a second.

Invariants
  * At most `Config.max_waiting_answers` wait; what is over that is counted, not kept.
  * A reset never answers a reset, nor an address that can be no source (RFC 9293 §3.10.7.1).
"""

from __future__ import annotations

from collections import Counter, deque
from typing import Final

from mptcp.addressing import AddressBook, can_be_source
from mptcp.config import Config
from mptcp.subflow_options import count_reset
from mptcp.tcp.host import Transmit
from mptcp.timers import RateLimit
from mptcp.wire.tcp import ACK, FIN, RST, SYN, HeaderTemplate, Segment

IN_A_ROW: Final = 4
"""Answers that may go before a connection has its turn: most must go as fast as they are asked for,
and whoever asks must not hold up the connections."""


class Answers:
    """One for each host."""

    def __init__(self, config: Config, counters: Counter[str], book: AddressBook) -> None:
        self._limit = config.max_waiting_answers
        self._counters = counters
        self._book = book
        self._resets = RateLimit(config.resets_per_second)
        self.waiting: deque[Transmit] = deque()
        self.in_a_row = 0
        """How many have gone since a connection had its turn."""

    def has_room(self) -> bool:
        """Whether one more may wait to be sent; counted if not."""
        if len(self.waiting) < self._limit:
            return True
        self._counters["IpOutAnswersDropped"] += 1
        return False

    def send(self, interface: int, packet: bytes) -> None:
        """Queue a whole packet if there is room."""
        if self.has_room():
            self.waiting.append(Transmit(interface, packet, []))

    def next(self) -> Transmit:
        """The one that goes now. Raises IndexError if none waits."""
        self.in_a_row += 1
        return self.waiting.popleft()

    def reset(self, seg: Segment, options: bytes, now: int) -> None:
        """RFC 9293 §3.10.7.1: RST for a segment that has no place here, rate-limited."""
        owner = self._book.owner.get(seg.dst)
        if owner is None or seg.flags & RST or not can_be_source(seg.src):
            return
        if not self._resets.allow(now):
            self._counters["TcpOutRstsRateLimited"] += 1
            return
        if not self.has_room():
            return
        template = HeaderTemplate(seg.dst, seg.src, seg.dport, seg.sport)
        if seg.flags & ACK:
            header = template.build(seg.ack, 0, RST, 0, options, 0)
        else:
            length = len(seg.payload) + (seg.flags & FIN) + ((seg.flags & SYN) >> 1)
            ack = (seg.seq + length) & 0xFFFFFFFF
            header = template.build(0, ack, RST | ACK, 0, options, 0)
        template.finish_checksum(header, [])
        self._counters["TcpOutRsts"] += 1
        self._counters["TcpOutSegs"] += 1
        count_reset(self._counters, options)
        self.waiting.append(Transmit(owner.id, header, []))
