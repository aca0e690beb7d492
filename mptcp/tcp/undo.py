"""Was that retransmission needed? Three ways to find out, and what to take back.

  * Eifel (RFC 3522): the timestamp echo of the ACK is older than the first retransmission, so it
  was the original that arrived.
  * DSACK (RFC 2883, RFC 3708 §2): every retransmitted byte is reported as received twice.
  * F-RTO (RFC 5682 §3): after a time-out, data that was never sent again is acknowledged.

Then the reduction of the window is undone (RFC 4015 §3.2 with the state saved by the controller).

Invariant: `marker` >= 0 from the beginning of a recovery until the next one or an undo.
"""

from __future__ import annotations

import enum
from typing import Final


class Frto(enum.Enum):
    """Where F-RTO stands (RFC 5682 §3.1, §2.1)."""

    OFF = 0  # no question, or conventional recovery
    ASKED = 1  # timed out; the first ACK after it decides whether to go on asking
    PROBING = 2  # that ACK advanced: up to two new segments go out ahead of retransmissions


class Spurious(enum.Enum):
    """How a recovery was found to be needless."""

    ECHO = 0  # Eifel: by timestamps
    DSACK = 1
    FRTO = 2


FRTO_SEGMENTS: Final = 2
"""RFC 5682 §2.1 (2b): new segments sent to see whether the time-out was spurious."""


class Undo:
    """What one loss recovery has to remember to be taken back."""

    __slots__ = ("first_resent_at", "frto", "frto_left", "marker", "resent")

    def __init__(self) -> None:
        self.marker = -1  # SND.UNA at the beginning; -1: nothing to undo
        self.first_resent_at = -1  # µs; -1: nothing was resent yet
        self.resent = 0  # bytes sent again and not reported by DSACK
        self.frto = Frto.OFF
        self.frto_left = 0  # new segments that F-RTO may still send, of FRTO_SEGMENTS

    def start(self, una: int) -> None:
        """A recovery begins at SND.UNA = `una`."""
        self.marker = una
        self.first_resent_at = -1
        self.resent = 0
        self.frto = Frto.OFF

    def stop(self) -> None:
        """Nothing can be undone any more."""
        self.marker = -1
        self.frto = Frto.OFF

    def on_resent(self, size: int, now: int) -> None:
        """`size` bytes leave again."""
        if self.first_resent_at < 0:
            self.first_resent_at = now
        self.resent += size

    def original_echoed(self, now: int, ts_rtt: int) -> bool:
        """Eifel detection (RFC 3522 §3.2 (5)) for an ACK that advances SND.UNA.

        `ts_rtt` is the RTT by timestamps (a clock of 1 ms) in µs or -1. An echo of the very
        millisecond of the retransmission says nothing.
        """
        if self.marker < 0 or self.first_resent_at < 0 or ts_rtt < 0:
            return False
        return now // 1000 - ts_rtt // 1000 < self.first_resent_at // 1000

    def on_dsack(self, start: int, end: int) -> bool:
        """RFC 2883 §5: True when now every retransmission of this recovery proved needless."""
        if self.marker < 0 or end <= self.marker or self.resent <= 0:
            return False
        self.resent -= end - start
        return self.resent <= 0
