"""How many ACKs in a row may carry MPTCP options of signalling (RFC 8684 §3, §3.4.1, §4).

Each such option goes on a pure ACK of its own, and a third ACK in a row that acknowledges nothing
new looks like a loss to whoever on the path knows no MPTCP. So after two the rest waits until the
subflow has sent or received data, or for a retransmission time-out: what the peer had in flight is
acknowledged by then, and without data in flight duplicate ACKs mean nothing (RFC 5681 §2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mptcp.subflow import Subflow

IN_A_ROW: Final = 2


class SignalRow:
    """The row of one subflow."""

    __slots__ = ("_ack", "_at", "_count", "_seq")

    def __init__(self) -> None:
        self._count = 0
        self._seq = -1
        self._ack = -1
        self._at = 0
        """When the last signal went."""

    def may_go(self, subflow: Subflow, now: int) -> bool:
        """Count one more signal; False when it must wait until `deadline`."""
        seq, ack = subflow.snd.nxt, subflow.rcv_nxt
        if (seq, ack) != (self._seq, self._ack) or now >= self.deadline(subflow):
            self._seq, self._ack = seq, ack
            self._count = 0
        if self._count >= IN_A_ROW:
            return False
        self._count += 1
        self._at = now
        return True

    def deadline(self, subflow: Subflow) -> int:
        """When the row is over if nothing else ends it, µs."""
        return self._at + subflow.snd.rtt.rto
