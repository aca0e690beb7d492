"""A piece of what was sent: one transmission's payload, or what a loss or a SACK cut off of it.

Invariants
  * A chunk's bytes are its `parts` in order; every part of a cut keeps the `mapping` of the whole
  (RFC 8684 §3.3.1: a mapping must not change once declared; Linux refuses a different one).
  * `status` and the counts are `scoreboard`'s to change.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

IN_FLIGHT: Final = 0
LOST: Final = 1
SACKED: Final = 2


class SentChunk:
    """A contiguous part of the sequence space that was sent in one go."""

    __slots__ = (
        "cloned",
        "end",
        "fin",
        "mapping",
        "parts",
        "piece",
        "resent",
        "retransmissions",
        "sent_at",
        "seq",
        "status",
    )

    def __init__(
        self,
        seq: int,
        end: int,
        parts: list[memoryview],
        mapping: object | None,
        sent_at: int,
        fin: bool = False,
    ) -> None:
        self.seq = seq
        self.end = end
        self.parts = parts
        self.mapping = mapping
        """Opaque to TCP: what the upper layer declared of these bytes (a DSS mapping)."""
        self.sent_at = sent_at
        self.fin = fin
        self.status = IN_FLIGHT
        self.retransmissions = 0
        """Times sent again since the last time-out (loss detection)."""
        self.resent = False
        """Ever sent again: an ACK says nothing of the RTT (RFC 6298 §3, Karn)."""
        self.piece = False
        """A SACK block's edge made it: counted in `Scoreboard.pieces`."""
        self.cloned = False
        """The upper layer has seen to it that its data goes another way too."""

    def __repr__(self) -> str:
        status = ("in flight", "lost", "sacked")[self.status]
        return f"<SentChunk {self.seq}..{self.end} {status} x{self.retransmissions}>"

    def cut(self, at: int) -> SentChunk:
        """Shorten to [seq, at) and return the rest, seq < at < end."""
        left, right = split_parts(self.parts, at - self.seq)
        rest = SentChunk(at, self.end, right, self.mapping, self.sent_at, self.fin)
        rest.status = self.status
        rest.retransmissions = self.retransmissions
        rest.resent = self.resent
        rest.cloned = self.cloned
        self.parts = left
        self.end = at
        self.fin = False
        return rest


def split_parts(
    parts: Sequence[memoryview], count: int
) -> tuple[list[memoryview], list[memoryview]]:
    """Divide a gather list after `count` bytes, without copying."""
    for index, part in enumerate(parts):
        if count < len(part):
            left = [*parts[:index], part[:count]] if count else list(parts[:index])
            return left, [part[count:], *parts[index + 1 :]]
        count -= len(part)
    return list(parts), []
