"""A TCP connection as schedulers and retransmission policies see it.

The part of `scheduler.PathView` and `retransmission.LossView` that TCP itself knows; `subflow` has
the rest. Nothing is kept here: every answer is worked out when it is asked for.
"""

from __future__ import annotations

from mptcp.tcp.connection import TcpConnection
from mptcp.tcp.state import NEVER


class TcpPath(TcpConnection):
    """Base class of `Subflow`."""

    @property
    def srtt(self) -> int:
        """Smoothed RTT, µs; 0 while unknown."""
        return self.snd.rtt.srtt

    @property
    def rttvar(self) -> int:
        """Mean deviation of the RTT, µs."""
        return self.snd.rtt.rttvar

    @property
    def smss(self) -> int:
        """Payload of a full-sized segment."""
        return self.snd.smss

    @property
    def rate(self) -> int:
        """Bytes a second that the congestion window allows; 0 while the RTT is unknown."""
        return self.cc.cwnd * 1_000_000 // self.snd.rtt.srtt if self.snd.rtt.srtt else 0

    @property
    def bytes_sent(self) -> int:
        """Sent so far, retransmissions not counted."""
        return self.snd.bytes_sent

    @property
    def acked_at(self) -> int:
        """When the last ACK came; -1: none has."""
        return self.stats.last_ack_recv

    @property
    def waiting_since(self) -> int:
        """Since when something is in flight and no ACK has covered more; -1: nothing is."""
        snd = self.snd
        # RFC 6298 §5: the timer starts with the first byte, and again with each such ACK.
        return snd.rto_deadline - snd.rtt.rto if snd.rto_deadline < NEVER else -1

    @property
    def cwnd(self) -> int:
        """Congestion window, bytes."""
        return self.cc.cwnd

    @property
    def ssthresh(self) -> int:
        """Slow start threshold, bytes."""
        return self.cc.ssthresh

    @property
    def loss_rate(self) -> float:
        """The share of what was sent that went again, 0 to 1."""
        snd = self.snd
        return snd.bytes_retransmitted / max(snd.bytes_sent + snd.bytes_retransmitted, 1)

    @property
    def in_flight(self) -> int:
        """Bytes sent and neither acknowledged nor presumed lost."""
        return self.snd.board.in_flight

    @property
    def stale(self) -> bool:
        """The retransmission timer has expired and nothing was heard since."""
        return self.snd.timeouts > 0

    @property
    def room(self) -> int:
        """Bytes the congestion window and this subflow's own window allow now."""
        snd = self.snd
        return min(snd.congestion_room(), snd.window_room())
