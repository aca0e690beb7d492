"""A network in virtual time: unchanged `Stack`s joined by links, routers and middleboxes.

A run is a function of the scenario and its seed: time jumps to the next event, entropy comes from
seeded generators, nothing sleeps. Only what has something to do is touched. Times are microseconds
here; the link model counts nanoseconds.

    sim = Simulation(seed=1)
    a, b = sim.host("a"), sim.host("b")
    sim.connect(a, "10.0.0.1/24", b, "10.0.0.2/24", rate_bps=10_000_000, delay_us=10_000)
    b.stack.listen(80)
    connection = a.stack.connect("10.0.0.2", 80)
    sim.run(until=lambda: connection.established)

Programs may use the stacks and connections between two calls of `run`, in `on_event` and in what
`at` and `every` call; in `until` they may only look. A host that a program touches elsewhere has to
be told so (`SimHost.wake`).
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import PurePath
from typing import Any, BinaryIO

from mptcp.addressing import parse_prefix
from mptcp.config import Config
from mptcp.sim.agenda import Agenda
from mptcp.sim.direction import Direction
from mptcp.sim.failure import explain_failure
from mptcp.sim.host import SimHost
from mptcp.sim.middlebox import Boxed, BoxNode, Middlebox
from mptcp.sim.recording import FileRecorder, Recorder, attach
from mptcp.sim.router import Router
from mptcp.sim.routing import find_routes
from mptcp.sim.series import Series
from mptcp.stack import Stack
from mptcp.tcp.host import Interface
from mptcp.tun.linkem import Link, LinkChange
from mptcp.tun.middlebox import Box, BoxSpec, make_box
from mptcp.wire.icmp import MIN_MTU_IPV4

__all__ = ["Direction", "Path", "SimHost", "Simulation"]

Tap = Callable[[int, SimHost, bytes], bool]
"""Sees each packet that a host sends: (now, sender, packet); False drops it. It may put packets on
any link."""

Path = tuple[Direction, Direction]
"""What `connect` made: there and back."""


def _with_prefix(address: str) -> tuple[bytes, int]:
    """As `parse_prefix`, but the prefix must be told: a host of a network of its own (/32) has no
    neighbour, which no scenario means. Raises ValueError."""
    if "/" not in address:
        example = f"{address}/{64 if ':' in address else 24}"
        raise ValueError(f'"{address}" has no prefix length: say "{example}" or so')
    return parse_prefix(address)


class Simulation:
    """Hosts, routers, middleboxes, links and virtual time."""

    def __init__(self, seed: int = 0, start_us: int = 1_000_000) -> None:
        self.seed = seed
        self.agenda = Agenda(start_us)
        self.random = random.Random(seed)
        """For the scenario: drawn from here, its chances repeat with the seed."""
        self.hosts: list[SimHost] = []
        self.routers: list[Router] = []
        self.directions: list[Direction] = []
        self.boxes: list[BoxNode] = []
        self.tap: Tap | None = None
        self.awake: deque[SimHost] = deque()
        self.intact = True
        """Nothing on the way rewrites packets; a flipped bit is known of by itself."""
        self._routes_known = True

    @property
    def now(self) -> int:
        """Virtual time in microseconds."""
        return self.agenda.now

    # -- building ------------------------------------------------------------------------------

    def host(
        self,
        name: str,
        config: Config | None = None,
        *,
        offload: bool = False,
        isn: Callable[[bytes], int] | None = None,
        idsn: Callable[[bytes], int] | None = None,
        **changes: object,
    ) -> SimHost:
        """Add a host. `changes` are `Config` fields that differ from `config`: `mptcp=False` makes
        a plain TCP host. With `offload` it sends chunks, which its links cut into packets, and
        trusts the checksums of packets that nothing has damaged."""
        config = replace(config or Config(), **changes)  # type: ignore[arg-type]
        entropy = random.Random(self.random.getrandbits(64)).randbytes
        stack = Stack(config, entropy, now=self.now, isn=isn, idsn=idsn)
        host = SimHost(self, name, stack, offload=offload)
        self.hosts.append(host)
        return host

    def router(self, name: str, *, icmp: bool = True) -> Router:
        """Add a router; see `Router`."""
        router = Router(name, icmp=icmp)
        self.routers.append(router)
        return router

    def middlebox(self, box: Middlebox | Box | BoxSpec, name: str = "") -> BoxNode:
        """Add a middlebox, to be connected twice; the first link is where "forward" begins.

        One that is given by name draws its chances from this simulation's seed.
        """
        self.intact = False
        if isinstance(box, BoxSpec):
            box = make_box(box, self.random.getrandbits(32))
        held = Boxed(box) if isinstance(box, Box) else box
        node = BoxNode(self.agenda, name or type(box).__name__.lower(), held)
        self.boxes.append(node)
        return node

    def connect(
        self,
        a: SimHost | Router | BoxNode,
        a_address: str | None,
        b: SimHost | Router | BoxNode,
        b_address: str | None,
        *,
        rate_bps: int = 0,
        delay_us: int = 0,
        loss: float = 0.0,
        queue_bytes: int = 0,
        mtu: int = 1500,
        offload: bool | None = None,
        a_routes: list[str] | None = None,
        b_routes: list[str] | None = None,
        forward: LinkChange | None = None,
        backward: LinkChange | None = None,
        **link: Any,
    ) -> Path:
        """Join two nodes by a path; returns its two directions, whose links can be changed.

        An address ("10.0.0.1/24") is needed by a host, useful to a router (its ICMP errors come
        from there), nothing to a middlebox. `link` are further fields of a `LinkChange` for both
        directions; `forward` (from a to b) and `backward` are what one direction has beside or
        instead. `mtu` is of the interfaces, and what a router may put on the link; an `mtu` in a
        `LinkChange` swallows larger packets without a word. Raises ValueError.
        """
        if mtu < MIN_MTU_IPV4:
            raise ValueError(f"an MTU of {mtu}: {MIN_MTU_IPV4} or more")
        both = LinkChange(
            rate_bps=rate_bps, delay_us=delay_us, loss=loss, queue_bytes=queue_bytes
        ).merged(LinkChange(**link))
        prefixes = [_with_prefix(address) for address in (a_address, b_address) if address]
        numbers = (len(a.out) + 1, len(b.out) + 1)
        pair = []
        for source, address, target, number, own in (
            (a, a_address, b, numbers[1], forward),
            (b, b_address, a, numbers[0], backward),
        ):
            trusted = isinstance(target, SimHost) and (
                target.offload if offload is None else offload
            )
            model = Link(both.merged(own), seed=self.random.getrandbits(32))
            direction = Direction(
                self.agenda, model, source, target, number, mtu=mtu, offload=trusted
            )
            direction.source_address = [parse_prefix(address)[0]] if address else []
            direction.prefixes = prefixes
            self.directions.append(direction)
            pair.append(direction)
        self._attach(a, a_address, pair[0], mtu, offload, a_routes)
        self._attach(b, b_address, pair[1], mtu, offload, b_routes)
        self._routes_known = False
        return pair[0], pair[1]

    def _attach(
        self,
        node: SimHost | Router | BoxNode,
        address: str | None,
        direction: Direction,
        mtu: int,
        offload: bool | None,
        routes: list[str] | None,
    ) -> None:
        if not isinstance(node, SimHost):
            node.add_port(direction)
            return
        if address is None:
            raise ValueError(f"host {node.name} needs an address")
        number = len(node.out) + 1
        interface = Interface(
            number,
            f"{node.name}{number}",
            mtu=mtu,
            offload=node.offload if offload is None else offload,
            addresses=[parse_prefix(address)],
            routes=[parse_prefix(route) for route in routes or []],
        )
        node.out[number] = direction
        node.stack.interface_up(self.now, interface)

    def set_down(self, path: Path, down: bool) -> None:
        """Cut a path (what is in flight is lost too) or bring it back."""
        self.change(path, LinkChange(down=down))

    def change(self, path: Path, change: LinkChange) -> None:
        """Change both directions of a path from now on."""
        for direction in path:
            direction.change(change)

    # -- programs ------------------------------------------------------------------------------

    def at(self, time_us: int, call: Callable[[], object]) -> None:
        """Call something at a moment of virtual time (the next one if that has passed)."""

        def action(time: int) -> None:
            call()
            self.wake_all()

        self.agenda.at(time_us, action)

    def every(self, period_us: int, call: Callable[[], object]) -> None:
        """Call something again and again, first after one period. Raises ValueError."""
        if period_us < 1:
            raise ValueError(f"a period of {period_us} µs")

        def again() -> None:
            self.at(self.now + period_us, again)
            call()

        self.at(self.now + period_us, again)

    def sample(self, period_us: int, value: Callable[[], float]) -> Series:
        """Note a value now and after every period: for plots, or for rates of a counter."""
        series = Series(self.now, value())
        self.every(period_us, lambda: series.add(self.now, value()))
        return series

    # -- watching ------------------------------------------------------------------------------

    def capture(self, file: BinaryIO, *where: SimHost | Direction) -> None:
        """Write packets as pcapng to `file`: of these hosts and links, or all hosts made so far."""
        self.record(FileRecorder(file, f"simulation seed {self.seed}"), *where)

    def record(self, recorder: Recorder, *where: SimHost | Direction) -> None:
        """As `capture`, for any recorder."""
        for place in where or self.hosts:
            attach(recorder, place)

    def explain_failure(
        self, name: str, folder: str | PurePath | None = None
    ) -> AbstractContextManager[None]:
        """See `mptcp.sim.failure`: an exception inside tells the seed and leaves a capture."""
        return explain_failure(self, name, folder)

    # -- running -------------------------------------------------------------------------------

    def wake_all(self) -> None:
        """Look at every host and link: any of them may have been changed from outside."""
        for host in self.hosts:
            host.wake()
        for direction in self.directions:
            direction.schedule()

    def ask_tap(self, now: int, host: SimHost, packet: bytes) -> bool:
        """Show a packet to the tap; whether it may go on."""
        assert self.tap is not None
        passed = self.tap(now, host, packet)
        for direction in self.directions:
            direction.schedule()
        return passed

    def settle(self) -> None:
        """Let every host that is awake send and report until nothing moves at this instant."""
        awake, now = self.awake, self.agenda.now
        while awake:
            awake.popleft().settle(now)

    def step(self, limit: int) -> bool:
        """Advance to the next event, at most to `limit`; False when nothing is left before it."""
        self.wake_all()
        self.settle()
        return self._step(limit)

    def _step(self, limit: int) -> bool:
        if self.agenda.next() > limit:
            self.agenda.now = max(self.agenda.now, limit)
            return False
        self.agenda.run_next()
        self.settle()
        return True

    def run(
        self,
        duration_us: int = 60_000_000,
        *,
        until: Callable[[], bool] | None = None,
    ) -> bool:
        """Run for `duration_us` of virtual time or until `until()` holds; whether it held."""
        if not self._routes_known:
            self._routes_known = True
            for router in self.routers:
                find_routes(router)
        limit = self.now + duration_us
        self.wake_all()
        self.settle()
        while until is None or not until():
            if not self._step(limit):
                break
        return until is not None and until()
