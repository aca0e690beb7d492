"""A network in virtual time: unchanged `Stack`s joined by links with rate, delay, queue and loss.

A run is a function of the scenario and its seed: time jumps to the next event, entropy comes from
seeded generators, nothing sleeps. Times are microseconds here; the link model counts nanoseconds.

    sim = Simulation(seed=1)
    a, b = sim.host("a"), sim.host("b")
    sim.connect(a, "10.0.0.1/24", b, "10.0.0.2/24", rate_bps=10_000_000, delay_us=10_000)
    b.stack.listen(80)
    connection = a.stack.connect("10.0.0.2", 80)
    sim.run(until=lambda: connection.established)
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from mptcp.addressing import parse_prefix
from mptcp.config import Config
from mptcp.events import Event
from mptcp.stack import Offload, Stack
from mptcp.tcp.host import Interface, Transmit
from mptcp.tun.linkem import Damaged, Link, LinkChange
from mptcp.wire.segmentation import split_tcp

TRUSTED = Offload(trusted=True)

Tap = Callable[[int, "SimHost", bytes], bool]
"""Sees each packet that enters a link: (now, sender, packet); False drops it."""


@dataclass(slots=True)
class Direction:
    """One direction of a path: the link, and where it ends."""

    link: Link
    source: SimHost
    target: SimHost
    interface_id: int
    offload: bool


class SimHost:
    """A `Stack` in the simulator, and what drives it."""

    def __init__(self, sim: Simulation, name: str, stack: Stack) -> None:
        self.sim = sim
        self.name = name
        self.stack = stack
        self.out: dict[int, Direction] = {}
        self.events: list[Event] = []
        """Every event so far, in order."""
        self.on_event: Callable[[Event], None] | None = None

    def collect(self) -> None:
        """Take the stack's events."""
        while (event := self.stack.poll_event()) is not None:
            self.events.append(event)
            if self.on_event is not None:
                self.on_event(event)

    def flush(self, now: int) -> bool:
        """Put what the stack wants to send on its links; whether there was anything."""
        sent = False
        while (transmit := self.stack.poll_transmit(now)) is not None:
            sent = True
            direction = self.out.get(transmit.interface)
            if direction is None:
                self.stack.transmit_refused(now, transmit)
                continue
            for packet in _packets(transmit):
                if self.sim.tap is None or self.sim.tap(now, self, packet):
                    direction.link.enqueue(now * 1000, packet)
        return sent


def _packets(transmit: Transmit) -> list[bytes]:
    """What the link carries: a chunk becomes MTU-sized packets, each lost or queued by itself."""
    packet = transmit.packet()
    if not transmit.csum_start:
        return [packet]
    size = transmit.gso_size or len(packet)
    return split_tcp(packet, size)


class Simulation:
    """Hosts, links and virtual time."""

    def __init__(self, seed: int = 0, start_us: int = 1_000_000) -> None:
        self.seed = seed
        self.now = start_us
        self.random = random.Random(seed)
        self.hosts: list[SimHost] = []
        self.directions: list[Direction] = []
        self.tap: Tap | None = None

    def host(
        self,
        name: str,
        config: Config | None = None,
        *,
        isn: Callable[[bytes], int] | None = None,
        idsn: Callable[[bytes], int] | None = None,
        **changes: object,
    ) -> SimHost:
        """Add a host. `changes` are `Config` fields that differ from `config`."""
        config = replace(config or Config(), **changes)  # type: ignore[arg-type]
        entropy = random.Random(self.random.getrandbits(64)).randbytes
        stack = Stack(config, entropy, now=self.now, isn=isn, idsn=idsn)
        host = SimHost(self, name, stack)
        self.hosts.append(host)
        return host

    def connect(
        self,
        a: SimHost,
        a_address: str,
        b: SimHost,
        b_address: str,
        *,
        rate_bps: int = 0,
        delay_us: int = 0,
        loss: float = 0.0,
        queue_bytes: int = 0,
        mtu: int = 1500,
        offload: bool = False,
        a_routes: list[str] | None = None,
        b_routes: list[str] | None = None,
        forward: LinkChange | None = None,
        backward: LinkChange | None = None,
        **link: Any,
    ) -> tuple[Direction, Direction]:
        """Join two hosts by a path; returns its two directions, whose links can be changed.

        `link` are further fields of a `LinkChange` for both directions; `forward` (from a to b)
        and `backward` are what one direction has beside or instead. `mtu` is of the interfaces.
        """
        both = LinkChange(
            rate_bps=rate_bps, delay_us=delay_us, loss=loss, queue_bytes=queue_bytes
        ).merged(LinkChange(**link))
        sides = []
        for host, address, routes in ((a, a_address, a_routes), (b, b_address, b_routes)):
            number = len(host.out) + 1
            interface = Interface(
                number,
                f"{host.name}{number}",
                mtu=mtu,
                offload=offload,
                addresses=[parse_prefix(address)],
                routes=[parse_prefix(route) for route in routes or []],
            )
            sides.append((host, interface))
        (a, a_if), (b, b_if) = sides
        pair = []
        for source, source_if, target, target_if, own in (
            (a, a_if, b, b_if, forward),
            (b, b_if, a, a_if, backward),
        ):
            model = Link(both.merged(own), seed=self.random.getrandbits(32))
            direction = Direction(model, source, target, target_if.id, offload)
            source.out[source_if.id] = direction
            self.directions.append(direction)
            pair.append(direction)
        a.stack.interface_up(self.now, a_if)
        b.stack.interface_up(self.now, b_if)
        return pair[0], pair[1]

    def set_down(self, path: tuple[Direction, Direction], down: bool) -> None:
        """Cut a path (what is in flight is lost too) or bring it back."""
        for direction in path:
            direction.link.change(self.now * 1000, LinkChange(down=down))

    def settle(self) -> None:
        """Let every host send and report until nothing moves at this instant."""
        busy = True
        while busy:
            busy = False
            for host in self.hosts:
                host.collect()
                if host.flush(self.now):
                    busy = True

    def step(self, limit: int) -> bool:
        """Advance to the next event, at most to `limit`; False when nothing is left before it."""
        self.settle()
        upcoming = limit + 1
        for direction in self.directions:
            deadline = direction.link.next_deadline()
            if deadline is not None:
                upcoming = min(upcoming, -(-deadline // 1000))
        for host in self.hosts:
            timeout = host.stack.poll_timeout()
            if timeout is not None:
                upcoming = min(upcoming, timeout)
        if upcoming > limit:
            self.now = limit
            return False
        self.now = max(self.now, upcoming)
        for direction in self.directions:
            for packet in direction.link.dequeue(self.now * 1000):
                direction.target.stack.handle_packet(
                    self.now,
                    direction.interface_id,
                    memoryview(packet),
                    TRUSTED if direction.offload and type(packet) is not Damaged else None,
                )
        for host in self.hosts:
            host.stack.handle_timeout(self.now)
        return True

    def run(
        self,
        duration_us: int = 60_000_000,
        *,
        until: Callable[[], bool] | None = None,
    ) -> bool:
        """Run for `duration_us` of virtual time or until `until()` holds; whether it held."""
        limit = self.now + duration_us
        while until is None or not until():
            if not self.step(limit):
                break
        self.settle()
        return until is not None and until()
