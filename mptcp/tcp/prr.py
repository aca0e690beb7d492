"""Proportional Rate Reduction (RFC 6937, RFC 9937), with the slow start reduction bound.

In fast recovery the window goes down to ssthresh evenly, one retransmission or new segment for
every other delivery or so, instead of first in silence and then in a burst. Where more was lost
than the reduction, the pipe is rebuilt by slow start, not at once.

RecoverFS is RFC 9937's (§6.1): what was SACKed before recovery began is not in it, as it is not in
prr_delivered either. With it, the segments of limited transmit would make a window of six look like
one of nine, and one segment would leave for every third delivery instead of every second.
"""

from __future__ import annotations


class ProportionalRateReduction:
    """State of one fast recovery, all in bytes (RFC 6937 §3)."""

    __slots__ = ("delivered", "out", "recover_fs", "room")

    def __init__(self) -> None:
        self.delivered = 0  # prr_delivered
        self.out = 0  # prr_out
        self.recover_fs = 1  # RecoverFS
        self.room = 0  # sndcnt less what was sent of it

    def start(self, flight_size: int) -> None:
        """Recovery begins; `flight_size` bytes can be delivered in it (RFC 9937's RecoverFS)."""
        self.delivered = 0
        self.out = 0
        self.recover_fs = max(flight_size, 1)
        self.room = 0

    def on_ack(self, delivered: int, pipe: int, ssthresh: int, mss: int) -> None:
        """An ACK delivered so much more; RFC 6937 §3's algorithm with PRR-SSRB.

        What is due of a segment is rounded up to the whole one, the CEIL of RFC 6937 §3 in the unit
        in which data leaves (Linux counts segments, too): never more than one segment early.
        """
        self.delivered += delivered
        if pipe > ssthresh:
            room = -(-self.delivered * ssthresh // self.recover_fs) - self.out
            self.room = -(-room // mss) * mss if room > 0 else room
        else:
            limit = max(self.delivered - self.out, delivered) + mss
            self.room = min(ssthresh - pipe, limit)

    def on_sent(self, size: int) -> None:
        """Data or a retransmission left."""
        self.out += size
        self.room -= size
