"""RACK: loss detection by time (RFC 8985 §5, §6).

A segment is lost when one sent sufficiently later has been delivered: "sufficiently" is the
reordering window, which opens when the path has been seen to reorder and adapts to DSACKs
(RFC 2883). `scoreboard` marks the segments; here is the state RFC 8985 §5.2 names.

Invariants
  * (`xmit_at`, `end_seq`) never goes back: the most recently sent segment known to be delivered.
  * `fack` is the highest sequence number delivered, selectively or not.
"""

from __future__ import annotations

from typing import Final

REO_WND_PERSIST: Final = 16
"""RFC 8985 §6.2 step 4: recoveries after which a widened window is forgotten."""


class Rack:
    """RACK's variables of one connection, in µs and sequence numbers."""

    __slots__ = (
        "dsack_round",
        "end_seq",
        "fack",
        "reo_wnd_mult",
        "reo_wnd_persist",
        "reordering_seen",
        "rtt",
        "xmit_at",
    )

    def __init__(self, iss: int) -> None:
        self.xmit_at = -1  # RACK.xmit_ts
        self.end_seq = iss  # RACK.end_seq
        self.rtt = 0  # RACK.rtt: of the segment that `xmit_at` belongs to
        self.fack = iss  # RACK.fack
        self.reordering_seen = False  # RACK.reordering_seen
        self.reo_wnd_mult = 1  # RACK.reo_wnd_mult
        self.reo_wnd_persist = REO_WND_PERSIST  # RACK.reo_wnd_persist
        self.dsack_round = -1  # RACK.dsack_round; -1: none

    def on_delivered(self, sent_at: int, end: int, now: int) -> None:
        """RFC 8985 §6.2 step 2: the segment sent at `sent_at` that ends at `end` has arrived."""
        if sent_at > self.xmit_at or (sent_at == self.xmit_at and end > self.end_seq):
            self.xmit_at = sent_at
            self.end_seq = end
            self.rtt = now - sent_at

    def on_dsack(self, una: int, nxt: int) -> None:
        """RFC 8985 §6.2 step 4: a needless retransmission, so be more patient; once a round."""
        if self.dsack_round >= 0 and una >= self.dsack_round:
            self.dsack_round = -1
        if self.dsack_round < 0:
            self.dsack_round = nxt
            self.reo_wnd_mult += 1
            self.reo_wnd_persist = REO_WND_PERSIST

    def on_recovered(self) -> None:
        """A fast or time-out recovery ended: sixteen without a DSACK end the patience."""
        self.reo_wnd_persist -= 1
        if self.reo_wnd_persist <= 0:
            self.reo_wnd_mult = 1

    def reo_wnd(self, urgent: bool, min_rtt: int, srtt: int) -> int:
        """RFC 8985 §6.2 step 4: the reordering window, µs.

        `urgent`: loss recovery is on, or DupThresh segments are sacked. Then a path that never
        reordered is not waited for, which makes RACK as quick as RFC 6675.
        """
        if urgent and not self.reordering_seen:
            return 0
        return min(self.reo_wnd_mult * min_rtt // 4, srtt)
