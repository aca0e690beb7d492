"""Boxes that change numbers or lengths and keep TCP consistent about it: ISN randomisers, ALGs.

A DSS counts in subflow sequence numbers relative to the SYN (RFC 8684 §3.3.1), so that a constant
shift does not harm it; bytes that come or go do.
"""

from __future__ import annotations

import random
from bisect import bisect_right

from .base import Box, FlowTable, OneWay, Segments, check_range, register
from .packet import ACK, MASK32, SACK, SYN, TcpPacket, after, sack_blocks, sack_option


@register
class RewriteIsn(Box):
    """Adds a random number to the sequence numbers of each direction (RFC 8684 §6, firewalls)."""

    name = "isn"

    def __init__(self, *, rng: random.Random) -> None:
        super().__init__(rng=rng)
        self._flows: FlowTable[dict[bool, int]] = FlowTable(self._offsets)

    def _offsets(self) -> dict[bool, int]:
        return {True: self.rng.getrandbits(32), False: self.rng.getrandbits(32)}

    def segment(self, now: int, segment: TcpPacket, forward: bool) -> Segments:
        """See `Box`. A flow whose SYN was not seen stays as it is."""
        flow = segment.flow(forward)
        offsets = self._flows.get(flow)
        if offsets is None:
            if segment.flags & (SYN | ACK) != SYN:
                return [(forward, segment)]
            offsets = self._flows.entry(flow)
        segment.seq = segment.seq + offsets[forward] & MASK32
        theirs = offsets[not forward]
        if segment.flags & ACK:
            segment.ack = segment.ack - theirs & MASK32
        for place, option in enumerate(segment.options):
            if option[0] == SACK:
                segment.options[place] = sack_option(
                    [(left - theirs, right - theirs) for left, right in sack_blocks(option)]
                )
        return [(forward, segment)]


def _pattern(name: str, text: object) -> bytes:
    if not isinstance(text, str):
        raise ValueError(f"{name} = {text!r} is no text")
    return text.encode("latin-1", "replace")


class _Edits:
    """What was changed in one direction of a flow, in the sender's numbers relative to `start`."""

    __slots__ = ("places", "start", "top", "totals")

    def __init__(self) -> None:
        self.start = 0
        self.top = 0  # bytes up to here have been looked at
        self.places: list[int] = []  # where an edit begins
        self.totals: list[int] = [0]  # bytes gained by the edits before index i


@register
class RewritePayload(OneWay):
    """Replaces a text by another wherever it stands in one segment, as ALGs do (RFC 8684 §6).

    Where the lengths differ, the numbers of all that follows, acknowledgements and SACK blocks are
    made to fit. A repeated segment is changed as it was at first.
    """

    name = "rewrite"

    def __init__(
        self,
        *,
        rng: random.Random,
        find: str,
        replace: str,
        direction: str = "both",
        mtu: int = 1500,
        max_edits: int = 4096,
        skip: int = 0,
    ) -> None:
        """Texts are Latin-1, `find` of 1 to 256 bytes, `replace` of at most 256. What outgrows the
        `mtu` is sent in two segments with the same options. At most `max_edits` (1 to 65536) of a
        flow's direction, none in its first `skip` bytes (0 to 2^30)."""
        super().__init__(rng=rng, direction=direction)
        self._find, self._replace = _pattern("find", find), _pattern("replace", replace)
        if not 1 <= len(self._find) <= 256 or len(self._replace) > 256:
            raise ValueError("find is 1 to 256 bytes long, replace at most 256")
        check_range("mtu", mtu, 576, 65535)
        check_range("max_edits", max_edits, 1, 1 << 16)
        check_range("skip", skip, 0, 1 << 30)
        self._mtu, self._max_edits, self._skip = mtu, max_edits, skip
        self._flows: FlowTable[dict[bool, _Edits]] = FlowTable(dict)

    def segment(self, now: int, segment: TcpPacket, forward: bool) -> Segments:
        """See `Box`: acknowledgements are translated even where only the other way is changed."""
        flow = segment.flow(forward)
        if segment.flags & SYN:
            ways = self._flows.entry(flow) if segment.flags & ACK else self._flows.fresh(flow)
            if forward in self._ways:
                ways[forward] = edits = _Edits()
                edits.start = segment.seq + 1 & MASK32
            return [(forward, segment)]
        ways = self._flows.get(flow) or {}
        theirs = ways.get(not forward)
        if theirs is not None and theirs.places:
            self._translate_acks(segment, theirs)
        mine = ways.get(forward)
        if mine is None:
            return [(forward, segment)]
        return [(forward, part) for part in self._edit(segment, mine)]

    def _edit(self, segment: TcpPacket, edits: _Edits) -> list[TcpPacket]:
        begin = self._offset(segment.seq, edits)
        if begin is None:
            return [segment]
        find, replace = self._find, self._replace
        end = begin + len(segment.payload)
        at = segment.payload.find(find, max(0, edits.top - begin, self._skip - begin))
        while at >= 0 and len(edits.places) < self._max_edits:
            edits.places.append(begin + at)
            edits.totals.append(edits.totals[-1] + len(replace) - len(find))
            self.count("edits")
            at = segment.payload.find(find, at + len(find))
        edits.top = max(edits.top, end)
        segment.seq = edits.start + self._shifted(begin, edits) & MASK32
        index = bisect_right(edits.places, begin - len(find))
        if index < len(edits.places) and edits.places[index] < end:
            parts, done = [], begin
            for place in edits.places[index:]:
                if place >= end:
                    break
                if place >= begin:  # else it began in the segment before, which has the new text
                    parts += [segment.payload[done - begin : place - begin], replace]
                done = place + len(find)
            parts.append(segment.payload[max(0, done - begin) :])
            segment.payload = b"".join(parts)
        return self._fitting(segment)

    def _offset(self, seq: int, edits: _Edits) -> int | None:
        """Bytes from the flow's start, counted on over 2^32; None before it."""
        near = edits.top
        offset = near + ((seq - edits.start - near + 0x80000000 & MASK32) - 0x80000000)
        return offset if offset >= 0 else None

    def _shifted(self, offset: int, edits: _Edits) -> int:
        """Where a byte of the sender's stands in the receiver's numbers."""
        index = bisect_right(edits.places, offset)
        if index and edits.places[index - 1] < offset < edits.places[index - 1] + len(self._find):
            offset = edits.places[index - 1] + len(self._find)
        elif index and edits.places[index - 1] == offset:
            index -= 1
        return offset + edits.totals[index]

    def _unshifted(self, number: int, edits: _Edits) -> int:
        """The sender's number for the receiver's; never more than was really received."""
        near = edits.top + edits.totals[-1]
        offset = near + ((number - edits.start - near + 0x80000000 & MASK32) - 0x80000000)
        ends = [
            p + len(self._replace) + t for p, t in zip(edits.places, edits.totals, strict=False)
        ]
        index = bisect_right(ends, offset)
        back = offset - edits.totals[index]
        if index < len(edits.places):
            back = min(back, edits.places[index])  # within new text: nothing of the old is there
        return edits.start + back & MASK32

    def _translate_acks(self, segment: TcpPacket, edits: _Edits) -> None:
        if segment.flags & ACK:
            segment.ack = self._unshifted(segment.ack, edits)
        for place, option in enumerate(segment.options):
            if option[0] == SACK:
                blocks = [
                    (self._unshifted(left, edits), self._unshifted(right, edits))
                    for left, right in sack_blocks(option)
                ]
                segment.options[place] = sack_option(blocks)

    def _fitting(self, segment: TcpPacket) -> list[TcpPacket]:
        excess = segment.size - self._mtu
        if excess <= 0 or not segment.payload:
            return [segment]
        cut = len(segment.payload) - excess
        rest = segment.copy()
        rest.seq, rest.payload = segment.seq + cut & MASK32, segment.payload[cut:]
        segment.payload = segment.payload[:cut]
        segment.flags &= ~1  # the FIN is the last segment's
        return [segment, rest]


class _Hole:
    """One direction of a flow as a box has seen it: `nxt` is what may come next."""

    __slots__ = ("known", "nxt")

    def __init__(self) -> None:
        self.known = False
        self.nxt = 0


@register
class BlockHoles(OneWay):
    """A stateful box without patience: data above a hole is dropped, and so are acknowledgements
    of data it has not seen pass (RFC 8684 §6, normalizers)."""

    name = "no-holes"

    def __init__(self, *, rng: random.Random, direction: str = "both") -> None:
        """`direction`: whose data is looked at."""
        super().__init__(rng=rng, direction=direction)
        self._flows: FlowTable[dict[bool, _Hole]] = FlowTable(
            lambda: {True: _Hole(), False: _Hole()}
        )

    def segment(self, now: int, segment: TcpPacket, forward: bool) -> Segments:
        """See `Box`."""
        ways = self._flows.entry(segment.flow(forward))
        mine, theirs = ways[forward], ways[not forward]
        if segment.flags & SYN:
            if not segment.flags & ACK:
                theirs.known = False
            mine.known, mine.nxt = forward in self._ways, segment.end
            return [(forward, segment)]
        if theirs.known and segment.flags & ACK and after(segment.ack, theirs.nxt):
            self.count("unseen")
            return []
        if mine.known and segment.end != segment.seq:
            if after(segment.seq, mine.nxt):
                self.count("holes")
                return []
            if after(segment.end, mine.nxt):
                mine.nxt = segment.end
        return [(forward, segment)]
