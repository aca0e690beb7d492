"""A case between two hosts of ours in virtual time."""

from __future__ import annotations

from typing import Final

from mptcp.config import Config
from mptcp.errors import ConnectionEnd
from mptcp.events import (
    Accepted,
    Closed,
    Connected,
    Event,
    FellBack,
    Readable,
    SubflowClosed,
    SubflowEstablished,
    Writable,
)
from mptcp.meta_socket import MetaSocket
from mptcp.sim import LinkChange, SimHost, Simulation
from mptcp.sim.middlebox import Boxed
from mptcp.subflow import Subflow
from mptcp.wire.ip import parse_ip
from mptcp.wire.mptcp_options import MpTcprst
from mptcp.wire.tcp import RST, parse_segment

from .cases import DELAY_US, PAUSE_S, PORT, RATE_BPS, TRAFFIC, Case, Traffic, content, same
from .result import Result, Seen, digest, judge

LIMIT_S: Final = 120.0


class End:
    """An application at one end: sends its content, takes the other's, notes what happens."""

    def __init__(self, host: SimHost, data: bytes, case: Case, waits_for: int) -> None:
        """`waits_for`: bytes to get before anything is sent."""
        self.host = host
        self.case = case
        self.data = data
        self.waits_for = waits_for
        self.reasons: list[int] = []
        self.left = memoryview(data)
        self.got = bytearray()
        self.connection: MetaSocket | None = None
        self.fell_back = ""
        self.opened: list[Subflow] = []
        self.closed: list[SubflowClosed] = []
        self.end: ConnectionEnd | None = None
        self.resting = case.pause
        host.on_event = self.on_event
        host.on_packet = self.on_packet

    def on_packet(self, now: int, packet: bytes, leaving: bool) -> None:
        """Note why subflows are reset."""
        view = memoryview(packet)
        ip = parse_ip(view)
        if leaving and packet[ip.offset + 13] & RST:
            for option in parse_segment(view, ip, verify_checksum=False).mptcp:
                if isinstance(option, MpTcprst):
                    self.reasons.append(option.reason)

    def on_event(self, event: Event) -> None:
        """Of the one connection."""
        if isinstance(event, Accepted) and self.connection is None:
            self.connection = event.connection
        if event.connection is not self.connection:
            return
        match event:
            case Connected() | Accepted() | Writable():
                self.write()
            case Readable():
                self.read()
            case SubflowEstablished():
                self.opened.append(event.subflow)
            case SubflowClosed():
                self.closed.append(event)
            case FellBack():
                self.fell_back = event.reason.value
            case Closed():
                self.read()
                self.end = event.end
            case _:
                pass

    def write(self) -> None:
        """As much as goes; in the middle of a case with a pause, no more until `wake`."""
        connection = self.connection
        if connection is None or connection.ended is not None or connection.write_closed:
            return
        if len(self.got) < self.waits_for:
            return
        middle = len(self.data) // 2 if self.resting else 0
        while len(self.left) > middle:
            taken = connection.send(self.left[: len(self.left) - middle])
            if not taken:
                return
            self.left = self.left[taken:]
        if not self.left:
            connection.shutdown()

    def wake(self) -> None:
        """The pause is over."""
        self.resting = False
        self.write()

    def read(self) -> None:
        """All that is there."""
        connection = self.connection
        assert connection is not None
        while data := connection.recv():
            self.got += data
        if self.waits_for:
            self.write()
        if connection.eof and not self.left:
            connection.close()

    @property
    def done(self) -> bool:
        """The peer's end has come and ours was said."""
        return self.end is not None


def build(
    case: Case, opener: str, traffic: Traffic, seed: int, **config: object
) -> tuple[Simulation, End, End]:
    """The network of a case and its two ends, the client first; `opener` has connected."""
    sim = Simulation(seed)
    # At once: the boxes of a case with two paths begin when both subflows are up (`cases.SKIP`).
    config = {"heuristics": "at-once", **config}
    common = Config(checksum=case.checksum, **config)  # type: ignore[arg-type]
    a, b = sim.host("a", common), sim.host("b", common)
    for path in range(1, case.paths + 1):
        ends = f"10.0.{path}.1/24", f"10.0.{path}.2/24"
        link = LinkChange(rate_bps=RATE_BPS, delay_us=DELAY_US // 2, queue_bytes=64_000)
        if path != case.boxed:
            whole = LinkChange(delay_us=DELAY_US)
            sim.connect(a, ends[0], b, ends[1], **link.merged(whole).given())
            continue
        node_a: SimHost = a
        here = node_a
        for number, box in enumerate(case.boxes):
            node = sim.middlebox(box, f"box{number}")
            change = link if number == 0 else LinkChange()
            sim.connect(
                here,
                ends[0] if number == 0 else None,
                node,
                None,
                **change.merged(LinkChange(loss=case.loss)).given(),
            )
            here = node  # type: ignore[assignment]
        sim.connect(here, None, b, ends[1], **link.merged(LinkChange(loss=case.loss)).given())
    active, passive = (a, b) if opener == "a" else (b, a)
    client = End(active, content(1, traffic.up), case, 0)
    server = End(passive, content(2, traffic.down), case, traffic.up if traffic.answers else 0)
    server.host.stack.listen(PORT)
    address = "10.0.1.2" if opener == "a" else "10.0.1.1"
    client.connection = client.host.stack.connect(address, PORT)
    return sim, client, server


def run(
    case: Case,
    opener: str = "a",
    traffic: Traffic = TRAFFIC[0],
    seed: int = 1,
    **config: object,
) -> Result:
    """Run a case to its end, `LIMIT_S` of virtual time at the latest."""
    sim, left, right = build(case, opener, traffic, seed, **config)
    began = sim.now
    if case.pause:
        for end in (left, right):
            sim.at(began + round(PAUSE_S * 1e6), end.wake)
    finished = sim.run(round(LIMIT_S * 1e6), until=lambda: left.done and right.done)
    seconds = (sim.now - began) / 1e6
    whole = same(case, right.data, bytes(left.got)) and same(case, left.data, bytes(right.got))
    reasons = left.reasons + right.reasons
    counters = [node.box.box.counters for node in sim.boxes if isinstance(node.box, Boxed)]
    trouble = ""
    if not finished:
        trouble = f"not closed after {LIMIT_S:.0f} s: {left.end} {right.end}"
    elif {left.end, right.end} != {ConnectionEnd.CLOSED}:
        trouble = f"ended as {left.end} and {right.end}"
    elif not whole:
        trouble = f"{len(left.got)} and {len(right.got)} bytes, or not the right ones"
    outcome = None
    if {left.end, right.end} == {ConnectionEnd.CLOSED}:
        ends = [_seen(left), _seen(right)]
        outcome = judge(case, ends, [end.fallback for end in ends])
    received = len(left.got) + len(right.got)
    both = f"{digest(bytes(left.got))} {digest(bytes(right.got))}"
    return Result(outcome, whole, seconds, reasons, counters, trouble, received, both)


def _seen(end: End) -> Seen:
    assert end.connection is not None
    return Seen(
        end.connection.fallback,
        [(subflow.local[2], subflow.fully_established) for subflow in end.opened],
        [event.subflow.local[2] for event in end.closed if event.end is not ConnectionEnd.CLOSED],
        end.reasons,
        end.fell_back,
    )
