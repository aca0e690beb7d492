"""One direction of a path: the link, where it begins and where it ends.

Invariant: while the link has something to deliver, the agenda has an entry for it at `scheduled`,
no later than the link's next deadline. Times are microseconds; the link counts nanoseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from mptcp.sim.agenda import NEVER, Agenda
from mptcp.tun.linkem import Link, LinkChange

if TYPE_CHECKING:
    from mptcp.sim.host import SimHost
    from mptcp.sim.middlebox import BoxNode
    from mptcp.sim.router import Router

Seen = Callable[[int, bytes, bool], None]
"""Told of a packet: (now, packet, whether it is leaving)."""


class Node(Protocol):
    """What links join."""

    name: str
    out: dict[int, Direction]

    def take(self, now: int, direction: Direction, packet: bytes) -> None:
        """A packet has come out of `direction`."""


class Direction:
    """A link with its ends."""

    __slots__ = (
        "_agenda",
        "_due",
        "interface_id",
        "link",
        "mtu",
        "name",
        "offload",
        "on_entry",
        "on_exit",
        "prefixes",
        "scheduled",
        "source",
        "source_address",
        "target",
    )

    def __init__(
        self,
        agenda: Agenda,
        link: Link,
        source: SimHost | Router | BoxNode,
        target: SimHost | Router | BoxNode,
        interface_id: int,
        *,
        mtu: int,
        offload: bool,
    ) -> None:
        self._agenda = agenda
        self._due = self.deliver  # bound once: it is put on the agenda for every packet
        self.link = link
        self.source = source
        self.target = target
        self.interface_id = interface_id
        """Of the target's interface (or port) that it ends at."""
        self.mtu = mtu
        """Of the source's interface: what a router may put on the link."""
        self.offload = offload
        """Whether the target trusts the TCP checksums of what comes out undamaged."""
        self.name = f"{source.name}>{target.name}"
        self.source_address: list[bytes] = []
        """Of the source's interface; a router's ICMP errors come from there."""
        self.prefixes: list[tuple[bytes, int]] = []
        """The networks that its ends are in."""
        self.scheduled = NEVER
        self.on_entry: Seen | None = None
        self.on_exit: Seen | None = None

    def send(self, now: int, packet: bytes) -> None:
        """A packet enters the link."""
        if self.on_entry is not None:
            self.on_entry(now, packet, True)
        self.link.enqueue(now * 1000, packet)
        self.schedule()

    def change(self, change: LinkChange) -> None:
        """Change the link from now on."""
        self.link.change(self._agenda.now * 1000, change)
        self.schedule()

    def schedule(self) -> None:
        """See to it that what the link holds is delivered in time."""
        deadline = self.link.next_deadline()
        if deadline is not None:
            at = -(-deadline // 1000)
            if at < self.scheduled:
                self.scheduled = at
                self._agenda.at(at, self._due)

    def deliver(self, at: int) -> None:
        """Hand over what has arrived; `at` is that of the entry that says so."""
        if at != self.scheduled:
            return  # an earlier entry has taken its place
        self.scheduled = NEVER
        now = self._agenda.now
        for packet in self.link.dequeue(now * 1000):
            if self.on_exit is not None:
                self.on_exit(now, packet, False)
            self.target.take(now, self, packet)
        self.schedule()
