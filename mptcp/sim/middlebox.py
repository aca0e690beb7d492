"""Middleboxes: something between two links that looks at packets and may change what goes on.

A box is a subclass of `Middlebox`; `Simulation.middlebox(box)` makes the node, and two calls of
`Simulation.connect` put it between two links. It knows no addresses and answers to none. The boxes
of `mptcp.tun.middlebox`, which the link emulator knows too, may be given to `middlebox` directly.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING

from mptcp.sim.agenda import NEVER
from mptcp.sim.direction import Direction
from mptcp.tun.middlebox import Box, TcpPacket

if TYPE_CHECKING:
    from mptcp.sim.agenda import Action, Agenda


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
        segment = TcpPacket.read(packet)
        if segment is None or not segment.remove(self.kind):
            return [packet]
        return [segment.write()] if segment.intact else []


class Boxed(Middlebox):
    """A box of `mptcp.tun.middlebox`, which the link emulator has too."""

    def __init__(self, box: Box) -> None:
        self.box = box
        self._scheduled = NEVER

    def process(self, now: int, packet: bytes, direction: Way) -> Sequence[Output]:
        """See `Middlebox`."""
        forward = direction is Way.FORWARD
        onward: list[Output] = []
        for way, output in self.box.process(now, packet, forward):
            if way == forward:
                onward.append(output)
            else:
                self.send(output, direction.opposite)
        self._arm()
        return onward

    def _arm(self) -> None:
        deadline = self.box.next_deadline()
        if deadline < self._scheduled and self.node is not None:
            self._scheduled = deadline
            self.node.call_at(deadline, self._timeout)

    def _timeout(self, at: int) -> None:
        if at != self._scheduled or self.node is None:
            return  # an earlier entry has taken its place
        self._scheduled = NEVER
        for way, output in self.box.handle_timeout(self.node.now):
            self.send(output, Way.FORWARD if way else Way.BACKWARD)
        self._arm()


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

    @property
    def now(self) -> int:
        """Virtual time in microseconds."""
        return self._agenda.now

    def call_at(self, at: int, action: Action) -> None:
        """Call `action(at)` then."""
        self._agenda.at(at, action)

    def send(self, way: Way, packet: bytes, at: int | None = None) -> None:
        """Send a packet on, now or later."""
        onward = self.out[2 if way is Way.FORWARD else 1]
        if at is None or at <= self._agenda.now:
            onward.send(self._agenda.now, packet)
        else:
            self._agenda.at(at, lambda time: onward.send(self._agenda.now, packet))
