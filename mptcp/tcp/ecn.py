"""Explicit Congestion Notification of one connection (RFC 3168 §6.1).

Owns who may do what after the SYN exchange, what the receiving half echoes (ECE until CWR comes)
and what the sending half marks (ECT(0) and CWR on new data). When the window is reduced is
`sender`'s: once for each window of data, whatever the reason.

Invariants
  * ECT goes on segments with new data only: not on SYN, SYN/ACK, pure ACKs, FINs without data,
    window probes and retransmissions (RFC 3168 §6.1.1, §6.1.4 to §6.1.6).
  * `ack_flags` is what every segment carries that acknowledges: ACK, and ECE while CE is to be
    told.
  * Without the agreement of both sides no bit of ECN is sent and none is heeded.

Accurate ECN (RFC 9768) is not spoken: a SYN that offers it (AE, CWR and ECE) is an ECN-setup SYN to
a server that knows RFC 3168 only, and is answered as such.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mptcp.wire.tcp import ACK, CWR, ECE, Segment

if TYPE_CHECKING:
    from mptcp.tcp.chunks import SentChunk
    from mptcp.tcp.connection import TcpConnection

ECT_0: Final = 0b10
"""The codepoint senders use unless they have a reason (RFC 3168 §5)."""
CE: Final = 0b11
ECN_MASK: Final = 0b11
"""The ECN field: the low two bits of the TOS or traffic class byte (RFC 3168 §5)."""


class Ecn:
    """What one connection knows of ECN; `mode` is `Config.ecn`."""

    __slots__ = (
        "_got_plain",
        "_got_setup",
        "_mode",
        "_sent_plain",
        "_sent_setup",
        "ack_flags",
        "heeds",
        "sends",
    )

    def __init__(self, mode: str) -> None:
        self._mode = mode
        self._sent_setup = False
        self._sent_plain = False
        self._got_setup = False
        self._got_plain = False
        self.ack_flags = ACK
        self.sends = False
        """New data may be marked ECT, and ECE means congestion."""
        self.heeds = False
        """CE on what arrives is echoed."""

    # -- the SYN exchange (§6.1.1) -------------------------------------------------------------

    def syn_flags(self, *, answer: bool, repeated: bool) -> int:
        """The ECN bits of a SYN, or of a SYN/ACK (`answer`), that is about to be sent.

        A SYN that was not answered goes again without the offer: there are middleboxes that drop
        an ECN-setup SYN (§6.1.1.1). Linux does so at the first repetition too.
        """
        flags = 0
        if answer:
            if self._got_setup and not self._got_plain and not self._sent_plain:
                flags = ECE
        elif self._mode == "on" and not repeated:
            flags = ECE | CWR
        if flags:
            self._sent_setup = True
        else:
            self._sent_plain = True
        self._agree()
        return flags

    def on_syn(self, seg: Segment) -> None:
        """The peer's SYN or SYN/ACK has come, perhaps again."""
        bits = seg.flags & (ECE | CWR)
        setup = bits == ECE if seg.flags & ACK else bits == ECE | CWR
        # A SYN is never ECT in RFC 3168, so one that is was changed on the way: then nothing can
        # be read from these bits on that path (Linux refuses it as well). A SYN/ACK may be
        # (RFC 5562).
        if not seg.flags & ACK and seg.tos & ECN_MASK:
            setup = False
        if setup and self._mode != "off":
            self._got_setup = True
        else:
            self._got_plain = True
        self._agree()
        if seg.flags & ACK and self.heeds and seg.tos & ECN_MASK == CE:
            self.ack_flags = ACK | ECE  # RFC 5562 §3.2

    def _agree(self) -> None:
        """§6.1.1: the two may differ, when the offer was withdrawn but came through after all."""
        self.heeds = self._sent_setup and not self._got_plain
        self.sends = self.heeds and self._got_setup and not self._sent_plain

    # -- receiving data (§6.1.3) ---------------------------------------------------------------

    def on_data(self, conn: TcpConnection, seg: Segment) -> None:
        """Acceptable data with CWR or a CE mark.

        In a chunk that the device has merged every segment has the same mark, and CWR is the first
        one's: so a CE mark beside it came later, and is echoed.
        """
        if not self.heeds:
            return
        if seg.flags & CWR:
            self.ack_flags = ACK
            # The sender has just reduced its window, perhaps to one segment: no delay (Linux).
            conn.quick_acks = max(conn.quick_acks, 1)
        if seg.tos & ECN_MASK == CE:
            conn.host.counters["IpExtInCEPkts"] += 1
            if self.ack_flags == ACK:
                self.ack_flags = ACK | ECE
                conn.quick_acks = max(conn.quick_acks, 2)

    # -- sending data (§6.1.2) -----------------------------------------------------------------

    def mark(self, conn: TcpConnection, chunk: SentChunk) -> int:
        """The TCP flags to add to a segment that may be marked ECT: CWR or nothing, -1: no ECT."""
        if chunk.resent or not chunk.parts:
            return -1
        snd = conn.snd
        if not snd.cwr_due:
            return 0
        snd.cwr_due = False
        return CWR
