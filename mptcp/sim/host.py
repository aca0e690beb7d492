"""An unchanged `Stack` in the simulator, and what drives it.

A host is *awake* while its stack may have something to send or to tell: after a packet, a timer or
the application has touched it. `settle()` lets it do so until nothing moves, then re-arms its entry
in the agenda; a host that nothing touches costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from mptcp.events import Accepted, Event
from mptcp.meta_socket import MetaSocket
from mptcp.sim.agenda import NEVER
from mptcp.sim.direction import Direction, Seen
from mptcp.stack import Listener, Offload, Stack
from mptcp.tcp.host import Transmit
from mptcp.tun.linkem import Damaged
from mptcp.wire.segmentation import split_tcp

if TYPE_CHECKING:
    from mptcp.sim.network import Simulation

TRUSTED = Offload(trusted=True)

Handler = Callable[[Event], None]


class SimHost:
    """A `Stack` in the simulator."""

    def __init__(self, sim: Simulation, name: str, stack: Stack, *, offload: bool) -> None:
        self.sim = sim
        self.name = name
        self.stack = stack
        self.offload = offload
        """What its interfaces have unless `connect` says otherwise."""
        self.out: dict[int, Direction] = {}
        """By interface id."""
        self.events: list[Event] = []
        """Every event so far in order, but those that a handler of `handle` or `accept` took."""
        self.on_event: Handler | None = None
        """Called with each of `events`. It may do anything, with any host."""
        self.on_packet: Seen | None = None
        """Sees what the host sends and what reaches it."""
        self.awake = False
        self.scheduled = NEVER
        self._handlers: dict[MetaSocket, Handler] = {}
        self._acceptors: dict[Listener, Callable[[MetaSocket], Handler]] = {}
        self._due = self.timeout

    def handle(self, connection: MetaSocket, handler: Handler) -> None:
        """Give the connection's events to `handler`, which may touch this host only."""
        self._handlers[connection] = handler

    def accept(self, listener: Listener, application: Callable[[MetaSocket], Handler]) -> None:
        """Let `application(connection)` make the handler of each connection of `listener`."""
        self._acceptors[listener] = application

    def wake(self) -> None:
        """Something outside the simulator's sight has been done to the stack."""
        if not self.awake:
            self.awake = True
            self.sim.awake.append(self)

    def take(self, now: int, direction: Direction, packet: bytes) -> None:
        """See `Node`."""
        if self.on_packet is not None:
            self.on_packet(now, packet, False)
        self.stack.handle_packet(
            now,
            direction.interface_id,
            memoryview(packet),
            # What nothing can have altered would pass the check: only time is saved.
            TRUSTED
            if (direction.offload or self.sim.intact) and type(packet) is not Damaged
            else None,
        )
        if not self.awake:
            self.awake = True
            self.sim.awake.append(self)

    def timeout(self, at: int) -> None:
        """The agenda's entry for the stack's next timer is due."""
        if at != self.scheduled:
            return  # an earlier entry has taken its place
        self.scheduled = NEVER
        self.stack.handle_timeout(self.sim.now)
        self.wake()

    def settle(self, now: int) -> None:
        """Let the stack tell and send until nothing moves; re-arm its timer."""
        self.awake = False
        self.collect()
        self.flush(now)
        while self.collect():  # what is told may make programs send more
            self.flush(now)
        deadline = self.stack.poll_timeout()
        if deadline is not None and deadline < self.scheduled:
            self.scheduled = deadline
            self.sim.agenda.at(deadline, self._due)

    def collect(self) -> bool:
        """Take the stack's events; whether there were any."""
        event = self.stack.poll_event()
        if event is None:
            return False
        while event is not None:
            handler = self._handlers.get(event.connection)
            if handler is None and isinstance(event, Accepted):
                application = self._acceptors.get(event.listener)
                if application is not None:
                    handler = application(event.connection)
                    self._handlers[event.connection] = handler
            if handler is not None:
                handler(event)
            else:
                self.events.append(event)
                if self.on_event is not None:
                    self.on_event(event)
                    self.sim.wake_all()
            event = self.stack.poll_event()
        return True

    def flush(self, now: int) -> None:
        """Put what the stack wants to send on its links."""
        poll = self.stack.poll_transmit
        sim = self.sim
        while (transmit := poll(now)) is not None:
            direction = self.out.get(transmit.interface)
            if direction is None:
                self.stack.transmit_refused(now, transmit)
            else:
                for packet in packets_of(transmit):
                    if self.on_packet is not None:
                        self.on_packet(now, packet, True)
                    if sim.tap is None or sim.ask_tap(now, self, packet):
                        direction.send(now, packet)


def packets_of(transmit: Transmit) -> list[bytes]:
    """What the link carries: a chunk becomes MTU-sized packets, each lost or queued by itself."""
    packet = transmit.packet()
    if not transmit.csum_start:
        return [packet]
    return split_tcp(packet, transmit.gso_size or len(packet))
