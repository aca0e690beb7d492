"""Transfers of plain TCP in virtual time: the same stack, links of the simulator, no machine noise.

A result is a function of its arguments, seed included, so a cell that looks wrong can be run again
alone. Loss and reordering are on the way of the data only; acknowledgements always arrive.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from mptcp.config import Config
from mptcp.events import Accepted, Connected, Event, Readable, Writable
from mptcp.meta_socket import MetaSocket
from mptcp.sim import Simulation

from .paths import Cell, forward_change

BUFFER: Final = 16 << 20
"""Send and receive buffer: several times the largest bandwidth-delay product here."""
SAMPLE_S: Final = 0.5
"""Distance of the samples of `share`."""
_BLOCK: Final = memoryview(bytes(1 << 20))
_PORT: Final = 5001


@dataclass(frozen=True, slots=True)
class Job:
    """One transfer of a cell; times are virtual seconds."""

    cell: Cell
    control: str
    seed: int
    warmup: float
    seconds: float


class _Flow:
    """A connection that is always full at one end, and counted at the other."""

    def __init__(self) -> None:
        self.connection: MetaSocket | None = None
        self.received = 0


class Bulk:
    """Hosts "a" and "b" over one path; each flow sends from a to b without end."""

    def __init__(self, cell: Cell, controls: list[str], seed: int) -> None:
        self.sim = Simulation(seed)
        self.flows = [_Flow() for _ in controls]
        receiver = self.sim.host("b", Config(mptcp=False, receive_buffer=BUFFER))
        receiver.on_event = self._at_receiver
        # One host a flow and controller; the path's first direction is the common bottleneck.
        names = list(dict.fromkeys(controls))
        if len(names) > 1:
            raise ValueError("flows of one simulated host have one congestion control")
        config = Config(mptcp=False, send_buffer=BUFFER, congestion_control=names[0])
        self._sender = self.sim.host("a", config)
        self._sender.on_event = self._at_sender
        path = self.sim.connect(
            self._sender,
            "10.0.0.1/24",
            receiver,
            "10.0.0.2/24",
            rate_bps=cell.rate_bps,
            delay_us=cell.rtt_us // 2,
            queue_bytes=cell.queue_bytes,
            mtu=cell.mtu,
            forward=forward_change(cell),
        )
        self.link = path[0].link
        for number in range(len(controls)):
            receiver.stack.listen(_PORT + number)

    def start(self, number: int) -> None:
        """Open flow `number` (from 0) now."""
        flow = self.flows[number]
        flow.connection = self._sender.stack.connect("10.0.0.2", _PORT + number)

    def run(self, seconds: float) -> list[int]:
        """Let that much virtual time pass; the bytes each flow's application got in it."""
        before = [flow.received for flow in self.flows]
        self.sim.run(round(seconds * 1e6))
        return [flow.received - then for flow, then in zip(self.flows, before, strict=True)]

    def _at_sender(self, event: Event) -> None:
        if isinstance(event, Connected | Writable):
            while event.connection.send(_BLOCK):
                pass

    def _at_receiver(self, event: Event) -> None:
        if isinstance(event, Readable | Accepted):
            connection = event.connection
            flow = self.flows[connection.fendpoint.local_port - _PORT]
            for part in connection.recv_parts():
                flow.received += len(part)


def transfer(job: Job) -> dict[str, Any]:
    """Run one job; goodput in Mbit/s and what explains it."""
    bulk = Bulk(job.cell, [job.control], job.seed)
    bulk.start(0)
    bulk.run(job.warmup)
    (received,) = bulk.run(job.seconds)
    connection = bulk.flows[0].connection
    assert connection is not None
    snd = connection.subflows[0].snd
    stats = bulk.link.snapshot(bulk.sim.now * 1000)
    return {
        "mbit_per_s": received * 8 / job.seconds / 1e6,
        "seed": job.seed,
        "seconds": job.seconds,
        "bytes_sent": snd.bytes_sent,
        "bytes_retransmitted": snd.bytes_retransmitted,
        "lost": stats.drops_loss,
        "dropped": stats.drops_queue,
        "packets": stats.packets,
    }


def share(job: Job, flows: int, offset_us: int) -> list[list[tuple[float, int]]]:
    """Flows that share the path of `job.cell`, each starting `offset_us` after the one before it.

    For each flow (seconds since the first's start, bytes received), every `SAMPLE_S`.
    """
    bulk = Bulk(job.cell, [job.control] * flows, job.seed)
    began = bulk.sim.now
    starts = [began + number * offset_us for number in range(flows)]
    samples: list[list[tuple[float, int]]] = [[] for _ in range(flows)]
    steps = round(job.seconds / SAMPLE_S)
    marks = [began + round(SAMPLE_S * 1e6 * step) for step in range(steps + 1)]
    for mark in sorted({*starts, *marks}):
        bulk.sim.run(mark - bulk.sim.now)
        for number, start in enumerate(starts):
            if start == mark:
                bulk.start(number)
        if mark in marks:
            for line, flow in zip(samples, bulk.flows, strict=True):
                line.append(((mark - began) / 1e6, flow.received))
    return samples
