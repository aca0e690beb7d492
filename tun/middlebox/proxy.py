"""A performance enhancing proxy that acknowledges data itself (RFC 3135 §3.1, RFC 8684 §6)."""

from __future__ import annotations

import random
from collections import deque
from typing import Final

from .base import NEVER, FlowTable, OneWay, Outputs, Segments, check_range, register
from .packet import ACK, FIN, MASK32, RST, SACK, SYN, TIMESTAMPS, TcpPacket, after

_DUPLICATES: Final = 3
_ENOUGH: Final = 4096
"""A window below this is told anew when it has opened."""
_WINDOW_SCALE: Final = 3


class _Relay:
    """One direction of a flow: data that its sender may forget and its receiver has not got."""

    __slots__ = (
        "acked",
        "active",
        "buffer",
        "due",
        "duplicates",
        "forward",
        "held",
        "nxt",
        "scale",
        "stamp",
        "starved",
        "window",
    )

    def __init__(self, forward: bool) -> None:
        self.forward = forward
        self.active = False  # something was acknowledged here
        self.nxt = 0  # what the sender is to send next: acknowledged up to here by the box
        self.acked = 0  # by the receiver
        self.window = 0  # the receiver's, in bytes from `acked`
        self.scale = 0  # its window scale (RFC 7323 §2)
        self.stamp = b""  # its last timestamp value
        self.buffer: deque[TcpPacket] = deque()
        self.held = 0  # bytes in `buffer`
        self.starved = False  # the sender was last told of less than `_ENOUGH`
        self.duplicates = 0
        self.due = NEVER

    def room(self) -> int:
        """Bytes that the receiver takes beyond `nxt`."""
        return max(0, self.window - (self.nxt - self.acked & MASK32))


class _Flow:
    """Both directions and what their SYNs said."""

    __slots__ = ("relays", "scales")

    def __init__(self) -> None:
        self.relays: dict[bool, _Relay] = {}
        self.scales: dict[bool, int | None] = {}


@register
class Pep(OneWay):
    """Acknowledges data as soon as it passes, keeps it and sends it again until it has arrived.

    It knows no MPTCP: what it says carries timestamps at most, and the receiver's own bare
    acknowledgements, which tell the sender nothing new, stay here. A FIN is left to the ends, and
    data above a hole passes unacknowledged.
    """

    name = "pep"

    def __init__(
        self,
        *,
        rng: random.Random,
        direction: str = "both",
        buffer: int = 1 << 20,
        rto_us: int = 300_000,
    ) -> None:
        """`direction`: whose data it acknowledges; `buffer`: bytes kept of each flow's direction
        (4096 to 2^26); `rto_us`: 1000 to 60,000,000, between repetitions."""
        super().__init__(rng=rng, direction=direction)
        check_range("buffer", buffer, 4096, 1 << 26)
        check_range("rto_us", rto_us, 1_000, 60_000_000)
        self._buffer, self._rto_us = buffer, rto_us
        self._flows: FlowTable[_Flow] = FlowTable(_Flow)

    def segment(self, now: int, segment: TcpPacket, forward: bool) -> Segments:
        """See `Box`."""
        key = segment.flow(forward)
        if segment.flags & SYN:
            self._opening(self._flows.entry(key), segment, forward)
            return [(forward, segment)]
        flow = self._flows.get(key)
        if flow is None:
            return [(forward, segment)]
        if segment.flags & RST:
            self._flows.drop(key)
            return [(forward, segment)]
        outputs: list[tuple[bool, TcpPacket]] = []
        theirs, mine = flow.relays.get(not forward), flow.relays.get(forward)
        stays = theirs is not None and self._heard(now, segment, theirs, outputs)
        if mine is None or not segment.payload:
            if not stays:
                outputs.append((forward, segment))
        else:
            self._relay(now, segment, mine, outputs)
        return outputs

    def _opening(self, flow: _Flow, segment: TcpPacket, forward: bool) -> None:
        if not segment.flags & ACK:
            flow.relays.clear()
            flow.scales.clear()
        scale = segment.option(_WINDOW_SCALE)
        flow.scales[forward] = scale[2] if scale is not None and len(scale) == 3 else None
        if forward in self._ways:
            flow.relays[forward] = relay = _Relay(forward)
            relay.nxt = relay.acked = segment.seq + 1 & MASK32
        there, back = flow.scales.get(True), flow.scales.get(False)
        if there is not None and back is not None:
            for way, relay in flow.relays.items():
                relay.scale = back if way else there

    def _heard(
        self,
        now: int,
        segment: TcpPacket,
        relay: _Relay,
        outputs: list[tuple[bool, TcpPacket]],
    ) -> bool:
        """The receiver of `relay` has said something; whether it may stay here."""
        if not segment.flags & ACK:
            return False
        stamps = segment.option(TIMESTAMPS)
        if stamps is not None:
            relay.stamp = stamps[2:6]
        bare = not segment.payload and not segment.flags & FIN
        if after(segment.ack, relay.acked):
            relay.acked, relay.duplicates = segment.ack, 0
            while relay.buffer and not after(relay.buffer[0].end, relay.acked):
                relay.held -= len(relay.buffer.popleft().payload)
            relay.due = now + self._rto_us if relay.buffer else NEVER
        elif bare and segment.ack == relay.acked and relay.buffer:
            relay.duplicates += 1
            if relay.duplicates == _DUPLICATES:
                self._repeat(now, relay, outputs)
        relay.window = segment.window << relay.scale
        if not relay.active or after(relay.acked, relay.nxt):
            relay.nxt = relay.acked if after(relay.acked, relay.nxt) else relay.nxt
            return False
        if bare:
            if relay.starved and relay.room() >= _ENOUGH:
                outputs.append((not relay.forward, self._own_ack(segment.copy(), relay, False)))
            self.count("kept back")
            return True
        segment.ack = relay.nxt
        segment.window = min(65535, relay.room() >> relay.scale)
        segment.options = [option for option in segment.options if option[0] != SACK]
        return False

    def _relay(
        self,
        now: int,
        segment: TcpPacket,
        relay: _Relay,
        outputs: list[tuple[bool, TcpPacket]],
    ) -> None:
        """Data has come from the sender of `relay`."""
        way = relay.forward
        if segment.flags & FIN or after(segment.seq, relay.nxt):
            outputs.append((way, segment))
        elif after(segment.end, relay.nxt):
            if relay.held + len(segment.payload) > self._buffer:
                self.count("full")
                return
            relay.buffer.append(segment.copy())
            relay.held += len(segment.payload)
            relay.nxt, relay.active = segment.end, True
            if relay.due == NEVER:
                relay.due = now + self._rto_us
            outputs.append((way, segment))
            self.count("acknowledged")
        outputs.append((not way, self._own_ack(segment, relay, True)))

    def _own_ack(self, segment: TcpPacket, relay: _Relay, answers: bool) -> TcpPacket:
        """The box's ACK to the sender; `segment` came from it if `answers`, else goes to it."""
        if answers:
            own = segment.answer(ACK, segment.ack, relay.nxt)
            stamps = segment.option(TIMESTAMPS)
            if stamps is not None and relay.stamp:
                own.options = [b"\1", b"\1", bytes((TIMESTAMPS, 10)) + relay.stamp + stamps[2:6]]
        else:
            own = segment
            own.ack = relay.nxt
            own.options = [o for o in segment.options if o[0] in (1, TIMESTAMPS)]
        room = relay.room()
        relay.starved = room < _ENOUGH
        own.window = min(65535, room >> relay.scale)
        return own

    def _repeat(self, now: int, relay: _Relay, outputs: list[tuple[bool, TcpPacket]]) -> None:
        relay.due = now + self._rto_us
        self.count("repeated")
        outputs.append((relay.forward, relay.buffer[0].copy()))

    def _relays(self) -> list[_Relay]:
        return [relay for flow in self._flows.values() for relay in flow.relays.values()]

    def next_deadline(self) -> int:
        """See `Box`."""
        return min((relay.due for relay in self._relays()), default=NEVER)

    def handle_timeout(self, now: int) -> Outputs:
        """See `Box`."""
        outputs: list[tuple[bool, TcpPacket]] = []
        for relay in self._relays():
            if relay.due <= now:
                self._repeat(now, relay, outputs)
        return [(way, segment.write()) for way, segment in outputs]
