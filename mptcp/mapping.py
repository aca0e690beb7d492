"""DSS mappings: which data sequence numbers a stretch of a subflow carries (RFC 8684 §3.3.1).

`TxMapping` is what we declared; it is attached to every byte of its chunk until that byte is
acknowledged, so that a retransmission of any part repeats it unchanged. `RxMappings` keeps what
the peer declared for bytes that have not been delivered yet.

Subflow sequence numbers (SSN) here are relative to the SYN, so the first payload byte has SSN 1;
they and the DSNs are unbounded integers.
"""

from __future__ import annotations

from bisect import bisect_right
from operator import attrgetter

from mptcp.data_queues import COALESCE

_ssn = attrgetter("ssn")

MAX_MAPPINGS = 4096
"""Mappings kept ahead of delivery on one subflow; what a stranger can make us store."""


class TxMapping:
    """A mapping this side declared."""

    __slots__ = ("checksum", "dsn", "length", "ssn")

    def __init__(self, dsn: int, ssn: int, length: int, checksum: int | None) -> None:
        self.dsn = dsn
        self.ssn = ssn
        self.length = length
        self.checksum = checksum


class RxMapping:
    """A mapping the peer declared; `length` counts payload only (a DATA_FIN is not in it)."""

    __slots__ = ("checksum", "declared_length", "dsn", "held", "length", "ssn")

    def __init__(
        self, dsn: int, ssn: int, length: int, declared_length: int, checksum: int | None
    ) -> None:
        self.dsn = dsn
        self.ssn = ssn
        self.length = length
        self.declared_length = declared_length
        """Data-Level Length as on the wire (the checksum covers it)."""
        self.checksum = checksum
        self.held: list[memoryview] = []
        """With checksums: payload that waits until the mapping is whole and verified."""

    def hold(self, view: memoryview) -> None:
        """Keep in-order payload; small pieces are joined, for each view costs more than a byte."""
        held = self.held
        if held and len(held[-1]) + len(view) <= COALESCE:
            held[-1] = memoryview(b"".join((held[-1], view)))
        else:
            held.append(view)


class RxMappings:
    """The peer's mappings in SSN order, disjoint: the first declaration wins (RFC 8684 §3.3.1)."""

    __slots__ = ("maps",)

    def __init__(self) -> None:
        self.maps: list[RxMapping] = []

    def add(self, mapping: RxMapping, delivered: int) -> bool:
        """Keep `mapping` unless it repeats or contradicts one; `delivered` is the next SSN due.

        False when it contradicts a mapping that is still in use.
        """
        end = mapping.ssn + mapping.length
        if end <= delivered:
            return True
        maps = self.maps
        if not maps or mapping.ssn >= maps[-1].ssn + maps[-1].length:
            if len(maps) >= MAX_MAPPINGS and mapping.ssn > delivered:
                return False
            maps.append(mapping)
            return True
        index = bisect_right(maps, mapping.ssn, key=_ssn) - 1
        if index >= 0:
            before = maps[index]
            if before.ssn == mapping.ssn and before.length == mapping.length:
                return before.dsn == mapping.dsn
            if before.ssn + before.length > mapping.ssn:
                return False
        if index + 1 < len(maps) and maps[index + 1].ssn < end:
            return False
        if len(maps) >= MAX_MAPPINGS and mapping.ssn > delivered:
            return False
        maps.insert(index + 1, mapping)
        return True

    def take_held(self) -> list[memoryview]:
        """What waited for a checksum, in order: in plain TCP nothing will verify it."""
        held: list[memoryview] = []
        for mapping in self.maps:
            held += mapping.held
            mapping.held = []
        return held

    def find(self, ssn: int) -> RxMapping | None:
        """The mapping that covers `ssn`; mappings wholly below it are forgotten."""
        maps = self.maps
        while maps:
            first = maps[0]
            if ssn >= first.ssn + first.length:
                del maps[0]
                continue
            return first if ssn >= first.ssn else None
        return None
