"""DSS mappings: which data sequence numbers a stretch of a subflow carries (RFC 8684 §3.3.1).

`TxMapping` is what we declared; it is attached to every byte of its chunk until that byte is
acknowledged, so that a retransmission of any part repeats it unchanged. `RxMappings` keeps what
the peer declared for bytes that have not been delivered yet.

Subflow sequence numbers (SSN) here are relative to the SYN, so the first payload byte has SSN 1;
they and the DSNs are unbounded integers.

Invariant: what the mappings of a connection's subflows weigh, payload that waits for its checksum
included, is in `DataReceiver.mapped`, as long as they are kept.
"""

from __future__ import annotations

from bisect import bisect_right
from operator import attrgetter
from typing import Final

from mptcp.data_queues import COALESCE, DataReceiver
from mptcp.tcp.reassembly import true_size

_ssn = attrgetter("ssn")

MAX_MAPPINGS: Final = 4096
"""The default of `Config.max_mappings`."""

MAPPING_OVERHEAD: Final = 272
"""Bytes charged for a mapping that is kept: its object, numbers and list, measured roughly."""


class TxMapping:
    """A mapping this side declared."""

    __slots__ = ("checksum", "copy", "dsn", "length", "ssn")

    def __init__(
        self, dsn: int, ssn: int, length: int, checksum: int | None, copy: bool = False
    ) -> None:
        self.dsn = dsn
        self.ssn = ssn
        self.length = length
        self.checksum = checksum
        self.copy = copy
        """Another subflow has carried these data before."""


class RxMapping:
    """A mapping the peer declared; `length` counts payload only (a DATA_FIN is not in it)."""

    __slots__ = ("charge", "checksum", "declared_length", "dsn", "held", "length", "ssn")

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
        self.charge = MAPPING_OVERHEAD
        """What it and `held` keep alive, bytes."""


class RxMappings:
    """The peer's mappings in SSN order, disjoint: the first declaration wins (RFC 8684 §3.3.1)."""

    __slots__ = ("limit", "maps", "rx")

    def __init__(self, rx: DataReceiver, limit: int = MAX_MAPPINGS) -> None:
        """At most `limit` mappings wait, beside the one that the next byte belongs to."""
        self.limit = limit
        self.maps: list[RxMapping] = []
        self.rx = rx
        """Whose window is the smaller for what is kept here."""

    def full(self) -> bool:
        """Whether no mapping is taken but for the bytes that are due next."""
        return len(self.maps) >= self.limit or self.rx.mapped >= 2 * self.rx.buffer

    def add(self, mapping: RxMapping, delivered: int) -> bool:
        """Keep `mapping` unless it repeats or contradicts one; `delivered` is the next SSN due.

        False when it contradicts a mapping that is still in use.
        """
        end = mapping.ssn + mapping.length
        if end <= delivered:
            return True
        maps = self.maps
        if not maps or mapping.ssn >= maps[-1].ssn + maps[-1].length:
            if mapping.ssn > delivered and self.full():
                return False
            maps.append(mapping)
            self.rx.mapped += mapping.charge
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
        if mapping.ssn > delivered and self.full():
            return False
        maps.insert(index + 1, mapping)
        self.rx.mapped += mapping.charge
        return True

    def hold(self, mapping: RxMapping, view: memoryview) -> None:
        """Keep in-order payload; small pieces are joined, for each view costs more than a byte."""
        held = mapping.held
        charge = 0
        if held and len(held[-1]) + len(view) <= COALESCE:
            charge -= true_size(held[-1])
            view = held[-1] = memoryview(b"".join((held[-1], view)))
        else:
            if true_size(view) > 2 * len(view) + COALESCE:
                view = memoryview(bytes(view))  # do not keep alive what came with it
            held.append(view)
        charge += true_size(view)
        mapping.charge += charge
        self.rx.mapped += charge

    def done(self, mapping: RxMapping) -> None:
        """The last byte of `mapping`, the first there is, has been handed up."""
        maps = self.maps
        if maps and maps[0] is mapping:  # else what it brought has ended the subflow, or MPTCP
            self.rx.mapped -= mapping.charge
            del maps[0]

    def clear(self) -> list[memoryview]:
        """Forget all; returns what waited for a checksum, in order, which nothing will verify now.

        The subflow is plain TCP from here on, or has ended.
        """
        held: list[memoryview] = []
        for mapping in self.maps:
            held += mapping.held
            self.rx.mapped -= mapping.charge
        self.maps.clear()
        return held

    def find(self, ssn: int) -> RxMapping | None:
        """The mapping that covers `ssn`; mappings wholly below it are forgotten."""
        maps = self.maps
        while maps:
            first = maps[0]
            if ssn >= first.ssn + first.length:
                self.rx.mapped -= first.charge
                del maps[0]
                continue
            return first if ssn >= first.ssn else None
        return None
