"""A network that drops, delays, reorders, duplicates and corrupts, and virtual time.

Each packet's fate is thrown when it is sent. So that the network is hostile but not dead, no more
than `MERCY` packets in a row are lost in one direction of a path: TCP then always gets through
(RFC 9293 §3.8.1 promises no more), and a connection that fails is a fault of the stack.

`Events` counts what happened *to* the traffic; packets that arrived as they should are no events.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from random import Random
from typing import Any, Final

from mptcp.events import Event
from mptcp.stack import Offload, Stack
from mptcp.tcp.host import Interface, Transmit
from mptcp.wire.checksum import finish, ones_sum
from mptcp.wire.segmentation import split_tcp
from soak.scenario import Scenario

MERCY: Final = 3
TRUSTED: Final = Offload(trusted=True)
NEVER: Final = 1 << 62


class Events:
    """What the network did. `total` counts every one of the first six once."""

    __slots__ = ("changes", "corrupted", "delivered", "dropped", "duplicated", "late", "overtaken")

    def __init__(self) -> None:
        self.dropped = 0
        """Packets lost, by the dice or on a path that was cut."""
        self.corrupted = 0
        """Packets with one bit turned over."""
        self.duplicated = 0
        """Packets of which a second copy came, later."""
        self.late = 0
        """Packets that took at least twice the time of their path."""
        self.changes = 0
        """Paths cut or mended, interfaces lost or back."""
        self.overtaken = 0
        """Packets that arrived after one sent behind them (most are among the late ones)."""
        self.delivered = 0
        """Packets that reached a host, disturbed or not."""

    @property
    def total(self) -> int:
        """Network events."""
        return self.dropped + self.corrupted + self.duplicated + self.late + self.changes


class Way:
    """One direction of a path."""

    __slots__ = ("burst", "delay", "down", "last", "lost_in_a_row", "newest", "number", "to")

    def __init__(self, to: Host, number: int, delay: int) -> None:
        self.to = to
        self.number = number
        """The interface at the far end."""
        self.delay = delay
        self.last = 0
        """When the newest undisturbed packet arrives: they keep their order."""
        self.newest = 0
        """The newest packet that has arrived, in the order of sending."""
        self.lost_in_a_row = 0
        self.burst = 0
        self.down = False


class Host:
    """A stack, and the program's ears."""

    __slots__ = ("interfaces", "name", "on_event", "stack", "timeout", "ways")

    def __init__(self, name: str, stack: Stack) -> None:
        self.name = name
        self.stack = stack
        self.timeout = NEVER
        self.ways: dict[int, Way] = {}
        self.interfaces: dict[int, Interface] = {}
        self.on_event: Callable[[Event], None] = lambda event: None


class Network:
    """Two hosts and their paths."""

    def __init__(self, scenario: Scenario, hosts: tuple[Host, Host], dice: Random) -> None:
        self.scenario = scenario
        self.hosts = hosts
        self.now = 1_000_000
        self.dice = dice
        self.events = Events()
        self.calm_at = NEVER
        """No more disturbance from then on."""
        self.check: Callable[[Host], None] = lambda host: None
        """Called for a host that has nothing more to say at an instant."""
        self.in_flight = 0
        """Packets on their way."""
        self._heap: list[tuple[int, int, Way | None, Any, Offload | None]] = []
        self._count = 0
        self._mark = scenario.mark / 1000
        share = scenario.drop / 1000
        self._drop = share
        share += scenario.corrupt / 1000
        self._corrupt = share
        share += scenario.duplicate / 1000
        self._duplicate = share
        share += scenario.late / 1000
        self._any = share

    def add_path(self, number: int, addresses: tuple[tuple[bytes, int], ...]) -> None:
        """Join both hosts by one more path, between their interfaces `number`."""
        delay = self.scenario.delay_us * (number + 1) // 2
        sides = (self.scenario.client, self.scenario.server)
        a, b = self.hosts
        for host, other, side, address in (
            (a, b, sides[0], addresses[0]),
            (b, a, sides[1], addresses[1]),
        ):
            interface = Interface(
                number,
                f"{host.name}{number}",
                mtu=self.scenario.mtu,
                offload=side.offload,
                addresses=[address],
            )
            host.ways[number] = Way(other, number, delay)
            host.interfaces[number] = interface
            host.stack.interface_up(self.now, interface)

    # -- what happens ----------------------------------------------------------------------------

    def at(self, time: int, action: Callable[[], None]) -> None:
        """Call `action` at `time`."""
        self._count += 1
        heapq.heappush(self._heap, (time, self._count, None, action, None))

    def set_down(self, number: int, down: bool) -> None:
        """Cut a path or mend it."""
        for host in self.hosts:
            host.ways[number].down = down
        self.events.changes += 1

    def lose_interface(self, host: Host, number: int) -> None:
        """An interface goes."""
        if number in host.stack.book.interfaces:
            host.stack.interface_down(self.now, number)
            self.events.changes += 1

    def restore_interface(self, host: Host, number: int) -> None:
        """An interface is back."""
        if number not in host.stack.book.interfaces:
            host.stack.interface_up(self.now, host.interfaces[number])
            self.events.changes += 1

    # -- packets ---------------------------------------------------------------------------------

    def _send(self, host: Host, transmit: Transmit) -> None:
        way = host.ways[transmit.interface]
        packet = transmit.packet()
        if not transmit.csum_start:
            self._fate(way, packet, None)
            return
        # Two devices with offload hand each other whole chunks now and then, as two TUNs do.
        if way.to.interfaces[way.number].offload and self.dice.random() < 0.2:
            self._fate(way, packet, Offload(True, transmit.gso_size))
            return
        for piece in split_tcp(packet, transmit.gso_size or len(packet)):
            self._fate(way, piece, None)

    def _fate(self, way: Way, packet: bytes, offload: Offload | None) -> None:
        events = self.events
        now = self.now
        if way.down:
            events.dropped += 1
            return
        calm = now >= self.calm_at
        if self._mark and not calm and self.dice.random() < self._mark:
            packet = _mark(packet)
        fate = 1.0 if calm else self.dice.random()
        if way.burst and not calm:
            way.burst -= 1
            fate = 0.0
        if fate >= self._any:
            way.lost_in_a_row = 0
            at = now + way.delay
            if at < way.last:
                at = way.last
            way.last = at
            self._push(at, way, packet, offload)
        elif fate < self._corrupt:
            if way.lost_in_a_row >= MERCY:
                way.lost_in_a_row = 0
                self._push(now + way.delay, way, packet, offload)
                return
            way.lost_in_a_row += 1
            if fate < self._drop:
                events.dropped += 1
                if not way.burst and self.scenario.burst:
                    way.burst = self.dice.randrange(self.scenario.burst + 1)
                return
            if offload is not None:
                # Checksums of a chunk are left to the devices: such a packet is never corrupted
                # on a wire, it is lost where the wire would have been.
                events.dropped += 1
                return
            events.corrupted += 1
            self._push(now + way.delay, way, self._turn_a_bit(packet), None)
        elif fate < self._duplicate:
            events.duplicated += 1
            self._push(now + way.delay, way, packet, offload)
            extra = self.dice.randrange(self.scenario.late_us)
            self._push(now + way.delay + extra, way, packet, offload)
        else:
            events.late += 1
            extra = way.delay + self.dice.randrange(self.scenario.late_us)
            self._push(now + way.delay + extra, way, packet, offload)

    def _turn_a_bit(self, packet: bytes) -> bytes:
        # One bit is always caught: by the IPv4 header's checksum or by TCP's. Of the IPv6 header
        # TCP's pseudo-header covers the addresses (RFC 8200 §8.1), so it begins there.
        first = 0 if packet[0] >> 4 == 4 else 8
        broken = bytearray(packet)
        broken[self.dice.randrange(first, len(packet))] ^= 1 << self.dice.randrange(8)
        return bytes(broken)

    def _push(self, at: int, way: Way, packet: bytes, offload: Offload | None) -> None:
        self._count += 1
        self.in_flight += 1
        heapq.heappush(self._heap, (at, self._count, way, packet, offload))

    # -- time ------------------------------------------------------------------------------------

    def settle(self, hosts: Iterable[Host] | None = None) -> None:
        """Let the hosts send and report until nothing moves at this instant."""
        now = self.now
        for host in hosts or self.hosts:
            stack = host.stack
            poll_event, poll_transmit = stack.poll_event, stack.poll_transmit
            busy = True
            while busy:
                busy = False
                while (event := poll_event()) is not None:
                    busy = True
                    host.on_event(event)
                while (transmit := poll_transmit(now)) is not None:
                    busy = True
                    self._send(host, transmit)
            self.check(host)

    def run(self, limit: int, until: Callable[[], bool]) -> bool:
        """Let time pass up to `limit` or until `until()`; whether it holds."""
        heap = self._heap
        both = self.hosts
        touched: Iterable[Host] = both
        while True:
            self.settle(touched)
            if until():
                return True
            at = heap[0][0] if heap else NEVER
            for host in both:
                timeout = host.stack.poll_timeout()
                host.timeout = timeout = NEVER if timeout is None else timeout
                if timeout < at:
                    at = timeout
            if at > limit:
                self.now = limit
                return False
            if at > self.now:
                self.now = at
            now = self.now
            # What nothing has happened to has nothing to say.
            touched = [host for host in both if host.timeout <= now]
            while heap and heap[0][0] <= now:
                _, count, way, item, offload = heapq.heappop(heap)
                if way is None:
                    item()
                    touched = both
                    continue
                self.in_flight -= 1
                if way.down:
                    self.events.dropped += 1
                    continue
                self.events.delivered += 1
                if count < way.newest:
                    self.events.overtaken += 1
                else:
                    way.newest = count
                way.to.stack.handle_packet(now, way.number, memoryview(item), offload)
                if way.to not in touched:
                    touched = (*touched, way.to)
            for host in touched:
                if host.timeout <= now:
                    host.stack.handle_timeout(now)


def _mark(packet: bytes) -> bytes:
    """What a router that is full does to a packet that is ECT: CE (RFC 3168 §5)."""
    marked = bytearray(packet)
    if packet[0] >> 4 == 4:
        if not packet[1] & 0b11:
            return packet
        marked[1] |= 0b11
        marked[10:12] = bytes(2)
        marked[10:12] = finish(ones_sum(marked[:20])).to_bytes(2, "big")
    elif packet[1] & 0b11 << 4:
        marked[1] |= 0b11 << 4
    return bytes(marked)
