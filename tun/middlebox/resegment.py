"""Boxes that cut segments or join them, and normalisers (RFC 8684 §6)."""

from __future__ import annotations

import random
from collections.abc import Sequence

from .base import (
    NEVER,
    FlowTable,
    OneWay,
    Outputs,
    Segments,
    check_choice,
    check_range,
    register,
)
from .packet import ACK, FIN, MASK32, MPTCP, PSH, RST, SYN, Flow, TcpPacket


@register
class Split(OneWay):
    """Cuts segments in two, as TSO does with ones that are too long."""

    name = "split"

    def __init__(
        self,
        *,
        rng: random.Random,
        direction: str = "both",
        options: str = "both",
        least: int = 2,
    ) -> None:
        """MPTCP options stay on "both" halves or on the "first"; TCP's own on both. Segments with
        less than `least` bytes of data (2 to 65535) stay whole."""
        super().__init__(rng=rng, direction=direction)
        check_choice("options", options, ("both", "first"))
        check_range("least", least, 2, 65535)
        self._copies, self._least = options == "both", least

    def act(self, now: int, segment: TcpPacket, forward: bool) -> Segments:
        """See `OneWay`."""
        size = len(segment.payload)
        if size < self._least or segment.flags & (SYN | RST):
            return [(forward, segment)]
        self.count("split")
        rest = segment.copy()
        cut = (size + 1) // 2
        rest.seq, rest.payload = segment.seq + cut & MASK32, segment.payload[cut:]
        segment.payload = segment.payload[:cut]
        segment.flags &= ~(FIN | PSH)
        if not self._copies:
            rest.remove(MPTCP)
        return [(forward, segment), (forward, rest)]


class _Waiting:
    """A segment that waits for the next one."""

    __slots__ = ("due", "forward", "segment")

    def __init__(self, due: int, forward: bool, segment: TcpPacket) -> None:
        self.due = due
        self.forward = forward
        self.segment = segment


@register
class Coalesce(OneWay):
    """Joins two segments that follow each other; the options are the first one's, as in LRO."""

    name = "coalesce"

    def __init__(
        self,
        *,
        rng: random.Random,
        direction: str = "both",
        hold_us: int = 2_000,
        mtu: int = 1500,
        skip: int = 0,
    ) -> None:
        """A segment waits up to `hold_us` (1 to 1,000,000) for its successor; together they make a
        packet of at most `mtu` (576 to 65535). The first `skip` segments of each flow's direction
        that have data pass (0 to 2^31)."""
        super().__init__(rng=rng, direction=direction)
        check_range("hold_us", hold_us, 1, 1_000_000)
        check_range("mtu", mtu, 576, 65535)
        check_range("skip", skip, 0, 1 << 31)
        self._hold_us, self._mtu, self._skip = hold_us, mtu, skip
        self._waiting: dict[tuple[Flow, bool], _Waiting] = {}
        self._seen: FlowTable[dict[bool, int]] = FlowTable(dict)

    def act(self, now: int, segment: TcpPacket, forward: bool) -> Segments:
        """See `OneWay`."""
        key = segment.flow(forward), forward
        first = self._waiting.pop(key, None)
        if first is not None:
            both = first.segment
            if self._joins(both, segment):
                self.count("joined")
                both.payload += segment.payload
                both.flags |= segment.flags
                both.ack, both.window = segment.ack, segment.window
                return [(forward, both)]
            return [(forward, both), *self._keep(now, segment, forward)]
        return self._keep(now, segment, forward)

    def _joins(self, first: TcpPacket, second: TcpPacket) -> bool:
        return (
            bool(second.payload)
            and second.seq == first.end
            and not second.flags & (SYN | RST)
            and first.size + len(second.payload) <= self._mtu
        )

    def _keep(
        self, now: int, segment: TcpPacket, forward: bool
    ) -> Sequence[tuple[bool, TcpPacket]]:
        flow = segment.flow(forward)
        if not segment.payload or segment.flags & (SYN | FIN | RST) or segment.size >= self._mtu:
            return [(forward, segment)]
        seen = self._seen.entry(flow)
        seen[forward] = seen.get(forward, 0) + 1
        if seen[forward] <= self._skip:
            return [(forward, segment)]
        self._waiting[flow, forward] = _Waiting(now + self._hold_us, forward, segment)
        return []

    def next_deadline(self) -> int:
        """See `Box`. Waits are alike, so the oldest is due first."""
        first = next(iter(self._waiting.values()), None)
        return first.due if first is not None else NEVER

    def handle_timeout(self, now: int) -> Outputs:
        """See `Box`."""
        outputs: Outputs = []
        while self._waiting:
            key, first = next(iter(self._waiting.items()))
            if first.due > now:
                break
            del self._waiting[key]
            outputs.append((first.forward, first.segment.write()))
        return outputs


class _Memory:
    """What one direction of a flow has said: its newest bytes, and segments to say again."""

    __slots__ = ("bytes", "old", "seen", "start")

    def __init__(self) -> None:
        self.start = 0  # sequence number of the first byte kept
        self.bytes = bytearray()
        self.old: list[TcpPacket] = []
        self.seen = 0


@register
class Normalise(OneWay):
    """A traffic normaliser: what is sent again is given the data it had at first.

    With `replay` it also repeats an old segment by itself, after every so many with data.
    """

    name = "normalise"

    def __init__(
        self,
        *,
        rng: random.Random,
        direction: str = "both",
        cache: int = 1 << 20,
        replay: int = 0,
    ) -> None:
        """`cache`: bytes remembered of each flow's direction (1 to 2^26); `replay`: 0 (never) to
        2^16."""
        super().__init__(rng=rng, direction=direction)
        check_range("cache", cache, 1, 1 << 26)
        check_range("replay", replay, 0, 1 << 16)
        self._cache, self._replay = cache, replay
        self._flows: FlowTable[dict[bool, _Memory]] = FlowTable(
            lambda: {True: _Memory(), False: _Memory()}
        )

    def act(self, now: int, segment: TcpPacket, forward: bool) -> Segments:
        """See `OneWay`."""
        flow = segment.flow(forward)
        if segment.flags & SYN:
            ways = self._flows.entry(flow) if segment.flags & ACK else self._flows.fresh(flow)
            ways[forward] = memory = _Memory()
            memory.start = segment.seq + 1 & MASK32
            return [(forward, segment)]
        if not segment.payload:
            return [(forward, segment)]
        memory = self._flows.entry(flow)[forward]
        self._restore(segment, memory)
        return [(forward, segment), *self._again(segment, memory, forward)]

    def _restore(self, segment: TcpPacket, memory: _Memory) -> None:
        """Give the part that is known its first content, and remember what follows it."""
        known = memory.bytes
        offset = (segment.seq - memory.start + 0x80000000 & MASK32) - 0x80000000
        low, high = max(0, offset), min(len(known), offset + len(segment.payload))
        if low < high:
            data = bytearray(segment.payload)
            data[low - offset : high - offset] = known[low:high]
            if data != segment.payload:
                self.count("restored")
                segment.payload = bytes(data)
        if offset <= len(known) < offset + len(segment.payload):
            known += segment.payload[len(known) - offset :]
            excess = len(known) - self._cache
            if excess > 0:
                del known[:excess]
                memory.start = memory.start + excess & MASK32

    def _again(
        self, segment: TcpPacket, memory: _Memory, forward: bool
    ) -> list[tuple[bool, TcpPacket]]:
        if not self._replay:
            return []
        memory.old.append(segment.copy())
        del memory.old[:-4]
        memory.seen += 1
        if memory.seen % self._replay:
            return []
        self.count("replayed")
        return [(forward, memory.old[0])]
