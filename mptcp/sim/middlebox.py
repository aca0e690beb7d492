"""Middleboxes: something between two links that looks at packets and may change what goes on.

A box is a subclass of `Middlebox`; `Simulation.middlebox(box)` makes the node, and two calls of
`Simulation.connect` put it between two links. It knows no addresses and answers to none.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING

from mptcp.sim.direction import Direction
from mptcp.wire import ParseError
from mptcp.wire.checksum import finish, ones_sum, pseudo_sum
from mptcp.wire.ip import TCP, parse_ip

if TYPE_CHECKING:
    from mptcp.sim.agenda import Agenda


class Way(Enum):
    """Which way a packet goes: forward from the link that was connected first to the second."""

    FORWARD = 1
    BACKWARD = 2

    @property
    def opposite(self) -> Way:
        return Way.BACKWARD if self is Way.FORWARD else Way.FORWARD


Output = bytes | tuple[bytes, int]
"""A packet to send on now, or (packet, virtual time in µs) for later."""


class Middlebox:
    """Base class: lets everything pass. Override `process`."""

    node: BoxNode | None = None

    def process(self, now: int, packet: bytes, direction: Way) -> Sequence[Output]:
        """What becomes of a packet: any number of packets that go on the same way."""
        return [packet]

    def send(self, packet: bytes, direction: Way, at: int | None = None) -> None:
        """Send a packet of one's own, now or at `at`. Raises RuntimeError before it is placed."""
        if self.node is None:
            raise RuntimeError("this middlebox is in no simulation")
        self.node.send(direction, packet, at)


class StripOption(Middlebox):
    """Overwrites a TCP option with no-operations, as option-eating firewalls do."""

    def __init__(self, kind: int) -> None:
        self.kind = kind

    def process(self, now: int, packet: bytes, direction: Way) -> Sequence[Output]:
        """See `Middlebox`."""
        try:
            ip = parse_ip(memoryview(packet))
        except ParseError:
            return [packet]
        if ip.protocol != TCP or ip.is_fragment or ip.end - ip.offset < 20:
            return [packet]
        changed = bytearray(packet)
        at, end = ip.offset + 20, min(ip.offset + (packet[ip.offset + 12] >> 4 << 2), ip.end)
        touched = False
        while at + 1 < end and changed[at] != 0:
            size = 1 if changed[at] == 1 else changed[at + 1]
            if size == 0:
                break
            if changed[at] == self.kind:
                changed[at : at + size] = b"\1" * size
                touched = True
            at += size
        if not touched:
            return [packet]
        changed[ip.offset + 16 : ip.offset + 18] = b"\0\0"
        segment = changed[ip.offset : ip.end]
        total = ones_sum(segment) + pseudo_sum(ip.src, ip.dst, TCP, len(segment))
        changed[ip.offset + 16 : ip.offset + 18] = finish(total).to_bytes(2, "big")
        return [bytes(changed)]


class BoxNode:
    """The node that holds a middlebox: port 1 was connected first."""

    def __init__(self, agenda: Agenda, name: str, box: Middlebox) -> None:
        self._agenda = agenda
        self.name = name
        self.box = box
        self.out: dict[int, Direction] = {}
        box.node = self

    def add_port(self, direction: Direction) -> None:
        """`direction` leaves here. Raises ValueError for a third one."""
        if len(self.out) == 2:
            raise ValueError(f"{self.name} is between two links already")
        self.out[len(self.out) + 1] = direction

    def take(self, now: int, direction: Direction, packet: bytes) -> None:
        """See `Node`."""
        way = Way.FORWARD if direction.interface_id == 1 else Way.BACKWARD
        for output in self.box.process(now, packet, way):
            if isinstance(output, tuple):
                self.send(way, *output)
            else:
                self.send(way, output)

    def send(self, way: Way, packet: bytes, at: int | None = None) -> None:
        """Send a packet on, now or later."""
        onward = self.out[2 if way is Way.FORWARD else 1]
        if at is None or at <= self._agenda.now:
            onward.send(self._agenda.now, packet)
        else:
            self._agenda.at(at, lambda time: onward.send(self._agenda.now, packet))
