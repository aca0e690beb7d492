"""Where attacks happen: an established transfer, strangers who connect and mean it, an attacker.

        client 10.0.1.1 ──── 10.0.1.2 ─┐
               10.0.2.1 ──── 10.0.2.2 ─┤ server, the attacked
        opener 10.0.3.1 ──── 10.0.3.2 ─┤
        the attacker    ──── 10.0.4.2 ─┘

The client moves bytes both ways with the server over two paths; the opener asks the server
something now and then. An attacker is either a forger, whose packets are put before the server's
interface as they are (`forge`, `Scene.every`), or a peer with an address of its own that misbehaves
(`Scene.peer`, with the vocabulary of `tests.peer`). All of it in virtual time, from a seed.
"""

from __future__ import annotations

import hashlib
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from mptcp.addressing import parse_address
from mptcp.errors import ConnectionEnd
from mptcp.events import Connected, Event
from mptcp.sim import Requests, Responder, SimHost, Simulation
from mptcp.sim.direction import Direction
from mptcp.sim.router import Router
from mptcp.stack import Offload
from mptcp.subflow import Subflow
from mptcp.wire.ip import TCP, parse_ip
from mptcp.wire.tcp import SYN, HeaderTemplate, emit_options, parse_segment
from soak.bounds import Peaks, check
from tests.options import Emits, Mss, SackPermitted, Timestamps, WindowScale
from tests.peer import Peer
from tests.transfers import Program, payload
from tests.virtual import STACKS, Wire

MASK32: Final = 0xFFFFFFFF
TRANSFER_PORT: Final = 80
ASK_PORT: Final = 81
ROGUE_PORT: Final = 82
SERVER: Final = "10.0.1.2"
MOST_US: Final = 60_000_000

Packets = Callable[[], Iterable[bytes]]


def _raw(address: str | bytes) -> bytes:
    return parse_address(address) if isinstance(address, str) else address


def segment(
    source: str | bytes,
    sport: int,
    target: str | bytes,
    dport: int,
    flags: int,
    *,
    seq: int = 0,
    ack: int = 0,
    window: int = 65535,
    options: Sequence[Emits | bytes] = (),
    data: bytes = b"",
) -> bytes:
    """A whole packet with right checksums; numbers as on the wire (cut to 32 bits)."""
    template = HeaderTemplate(_raw(source), _raw(target), sport, dport)
    block = emit_options([o if isinstance(o, bytes) else o.emit() for o in options])
    header = template.build(seq & MASK32, ack & MASK32, flags, window, block, len(data))
    template.finish_checksum(header, [data])
    return bytes(header) + data


def linux_syn(source: str | bytes, sport: int, seq: int, *more: Emits) -> bytes:
    """A SYN to the port that answers strangers, with the options of Linux."""
    options: list[Emits] = [Mss(1460), SackPermitted(), Timestamps(seq, 0), WindowScale(7), *more]
    return segment(source, sport, SERVER, ASK_PORT, SYN, seq=seq, options=options)


def forge(
    subflow: Subflow,
    flags: int,
    *,
    seq: int = 0,
    ack: int = 0,
    options: Sequence[Emits | bytes] = (),
    data: bytes = b"",
) -> bytes:
    """A segment as from the peer of `subflow`; `seq` and `ack` are distances from RCV.NXT and
    SND.UNA, so that 0 is what only somebody on the path, or a lucky guess, would say."""
    stamps: list[Emits | bytes] = []
    if subflow.ts_ok:
        stamps.append(Timestamps(subflow.ts_recent, 0))
    return segment(
        subflow.remote,
        subflow.remote_port,
        subflow.local,
        subflow.local_port,
        flags,
        seq=subflow.rcv_nxt + seq,
        ack=subflow.snd.una + ack,
        options=[*stamps, *options],
        data=data,
    )


class Opener(Requests):
    """A stranger who means it: connects, asks once, closes."""

    def __init__(self, scene: Scene, start_us: int) -> None:
        self.began = start_us
        self.connect_us = -1
        self._scene = scene
        super().__init__(scene.opener, "10.0.3.2", 100, 1000, ASK_PORT, count=1, start_us=start_us)

    def _on_event(self, event: Event) -> None:
        if isinstance(event, Connected):
            self.connect_us = self._scene.sim.now - self.began
        super()._on_event(event)


class _Far(Router):
    """The attacker's network: what reaches it goes to the scripted peers."""

    wire: RogueWire

    def take(self, now: int, direction: Direction, packet: bytes) -> None:
        self.wire.seen(packet)


class RogueWire(Wire):
    """What `tests.peer` needs to talk to the attacked server in its simulation."""

    def __init__(self, scene: Scene) -> None:
        # Not the base's: the stack and its clock are the scene's.
        self.scene = scene
        self.stack = scene.server.stack
        self.zero = scene.sim.now
        self.peers = []
        self.raw = deque()
        self.events = []
        self.log = []

    @property
    def now(self) -> int:  # type: ignore[override]
        """The simulation's."""
        return self.scene.sim.now

    def seen(self, packet: bytes) -> None:
        """The server has sent something to the attacker's network."""
        view = memoryview(packet)
        ip = parse_ip(view)
        peer = None
        if ip.protocol == TCP:
            seg = parse_segment(view, ip, verify_checksum=True)
            peer = self._peer_of(seg)
        if peer is None:
            self.raw.append(packet)
            return
        end = len(packet) - len(seg.payload)
        peer.arrived(seg, packet[ip.offset + 20 : end], 0, end)

    def flush(self) -> None:
        """Let the server say what it has to say now."""
        self.scene.sim.run(0)

    def inject(self, packet: bytes, interface: int = 1, offload: Offload | None = None) -> None:
        """The attacker's packets come by the server's fourth interface."""
        self.scene.put(packet, 4)
        self.flush()

    def advance(self, to: int) -> None:
        """Let time pass for everybody."""
        self.scene.sim.run(self.zero + to - self.scene.sim.now)


class Scene:
    """See the module's text."""

    def __init__(
        self,
        seed: int,
        *,
        size: int = 1_500_000,
        openers: int = 8,
        paths: int = 2,
        server: dict[str, object] | None = None,
        client: dict[str, object] | None = None,
    ) -> None:
        """`size` bytes go each way; `server` and `client` are `Config` fields. When this returns
        the transfer has begun, with all its paths."""
        print(f"scene seed {seed}")  # pytest shows it when the test fails
        self.random = random.Random(seed)
        self.sim = sim = Simulation(seed)
        self.server = sim.host("server", **(server or {}))  # type: ignore[arg-type]
        self.client = sim.host("client", **(client or {}))  # type: ignore[arg-type]
        self.opener = sim.host("opener", mptcp=False)
        far = _Far("far")
        others: list[SimHost | Router] = [self.client, self.client, self.opener, far]
        if paths < 2:
            # A place for the interface, so that the others keep their numbers.
            others[1] = Router("nowhere")
        for number, other in enumerate(others, 1):
            quick = number == 4
            sim.connect(
                other,
                f"10.0.{number}.1/24",
                self.server,
                f"10.0.{number}.2/24",
                rate_bps=0 if quick else 10_000_000,
                delay_us=0 if quick else 5_000,
                queue_bytes=0 if quick else 40_000,
                b_routes=["10.0.0.0/8"] if number < 4 else None,
            )
        self.wire = far.wire = RogueWire(self)
        stack = self.server.stack
        STACKS.append(stack)
        stack.listen(TRANSFER_PORT)
        stack.listen(ROGUE_PORT)
        self.responder = Responder(self.server, 100, 1000, ASK_PORT)
        self.up, self.down = payload(size, seed), payload(size, seed + 1)
        self.uploaded = Program(self.server, self.down)
        meta = self.client.stack.connect(SERVER, TRANSFER_PORT)
        self.downloaded = Program(self.client, self.up, connection=meta)
        begun = sim.run(
            5_000_000,
            until=lambda: (
                len(self.uploaded.incoming) > 20_000
                and sum(s.fully_established for s in meta.subflows) == paths
            ),
        )
        assert begun, f"the transfer did not begin: {meta.subflows}"
        self.openers = [
            Opener(self, sim.now + 30_000 + number * 100_000) for number in range(openers)
        ]
        self.packets = 0
        """What the attacker has sent."""
        self.attacking = True
        self._peaks = Peaks()
        sim.every(20_000, self.check)

    # -- the attacked ------------------------------------------------------------------------------

    def subflows(self, *, of_client: bool = False) -> list[Subflow]:
        """The transfer's subflows at the server, or at the client."""
        program = self.downloaded if of_client else self.uploaded
        assert program.connection is not None
        return program.connection.subflows

    @property
    def counters(self) -> dict[str, int]:
        """The server's."""
        return self.server.stack.counters

    def check(self) -> None:
        """Nothing the server holds is beyond its bounds."""
        stack = self.server.stack
        config = stack.config
        check(stack, self._peaks)
        assert len(stack.metas) <= config.max_connections
        for listener in stack.listeners.values():
            assert len(listener.half_open) <= listener.backlog
        assert stack.fragments.bytes_held <= config.max_reassembly_bytes
        assert len(stack.answers.waiting) <= config.max_waiting_answers
        assert len(stack._time_wait) <= config.max_time_wait
        for meta in stack.metas:
            table = getattr(meta.paths.manager, "remote", {})
            assert len(table) <= config.max_addresses + 1

    # -- the attacker ------------------------------------------------------------------------------

    def put(self, packet: bytes, interface: int = 1, *, at_client: bool = False) -> None:
        """A packet stands before an interface of the server, or of the client."""
        host = self.client if at_client else self.server
        host.stack.handle_packet(self.sim.now, interface, memoryview(packet))
        host.wake()
        self.packets += 1

    def every(self, period_us: int, packets: Packets, *, at_client: bool = False) -> None:
        """Put the attacker's packets before the server again and again."""

        def strike() -> None:
            if not self.attacking or not self.subflows(of_client=at_client):
                return
            for packet in packets():
                self.put(packet, at_client=at_client)

        self.sim.every(period_us, strike)

    def peer(self, number: int = 0, *, mptcp: bool = True, wscale: int | None = None) -> Peer:
        """A peer that is connected to the server from the attacker's network."""
        peer = Peer(
            self.wire,
            address="10.0.4.1",
            port=10_000 + number,
            local="10.0.4.2",
            local_port=ROGUE_PORT,
            isn=0x3000_0000 + number * 0x100_0000,
            interface=4,
            key=(0x1112_1314_1516_1718 + number).to_bytes(8, "big"),
        )
        peer.handshake(active=False, mptcp=mptcp, mss=1448, wscale=wscale)
        return peer

    # -- the end -----------------------------------------------------------------------------------

    def finish(self, *, within_us: int = MOST_US, connect_us: int = 1_000_000) -> None:
        """Run to the end: the digests are equal, and who meant it was served in time."""
        up, down = self.uploaded, self.downloaded
        self.sim.run(
            within_us,
            until=lambda: up.done and down.done and all(o.end for o in self.openers),
        )
        self.check()
        for program, wanted in ((up, self.up), (down, self.down)):
            same = hashlib.sha256(program.incoming).digest() == hashlib.sha256(wanted).digest()
            assert same, f"{len(program.incoming)} of {len(wanted)} bytes: {program.connection}"
        assert {up.end, down.end} == {ConnectionEnd.CLOSED}
        for opener in self.openers:
            assert opener.end is ConnectionEnd.CLOSED
            assert len(opener.latencies) == 1
            assert 0 <= opener.connect_us <= connect_us
