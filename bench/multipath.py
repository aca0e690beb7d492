"""Experiments of MPTCP connections in virtual time: two hosts, any number of paths between them.

The client opens the connection and sends, the server receives and counts. A result is a function of
the arguments, seed included. Path i (from 0) joins 10.0.i+1.1 and 10.0.i+1.2; rates are of IP
packets, goodput is what the server's application got. Times are microseconds unless the name says
seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from mptcp.config import Config
from mptcp.errors import ConnectionEnd
from mptcp.events import Closed, Connected, Event, Readable, SubflowEstablished, Writable
from mptcp.meta_socket import MetaSocket
from mptcp.sim import LinkChange, Simulation
from mptcp.subflow import Subflow

from .registry import BenchError

PORT: Final = 5001
SAMPLE_US: Final = 100_000
"""Distance of the samples of a goodput curve."""
LEAST_QUEUE_PACKETS: Final = 32
LIMIT_S: Final = 600.0
"""What has not ended by then never will."""
_BLOCK: Final = memoryview(bytes(1 << 18))


@dataclass(frozen=True)
class Link:
    """One path, both ways alike but for loss."""

    rate_bps: int
    """Bits of IP packets a second; 0: without limit."""
    delay_us: int
    """One way."""
    loss: float = 0.0
    """Of each packet of the data's direction by itself, 0 to 1."""
    queue_bytes: int | None = None
    """None: one bandwidth-delay product of the RTT, at least 32 packets; 0: without limit."""
    mtu: int = 1500
    jitter_us: int = 0
    """An extra delay, uniform from 0 to this, that reorders nothing."""
    reverse_loss: float = 0.0
    """Of the acknowledgements' direction."""
    rate_trace: tuple[tuple[int, int], ...] | None = None
    """Takes the place of `rate_bps`; see `LinkChange.rate_trace`."""

    @property
    def queue(self) -> int:
        """The limit of the queue in bytes, 0 for none."""
        if self.queue_bytes is not None:
            return self.queue_bytes
        product = self.mean_bps * 2 * self.delay_us // 8_000_000
        return max(product, LEAST_QUEUE_PACKETS * self.mtu)

    @property
    def mean_bps(self) -> int:
        """The rate, of a trace the mean over its time."""
        if self.rate_trace is None:
            return self.rate_bps
        steps = zip(self.rate_trace, self.rate_trace[1:], strict=False)
        bits = sum(rate * (then - at) for (at, rate), (then, _) in steps)
        return bits // self.rate_trace[-1][0]


def payload_share(mtu: int = 1500, *, tcp: bool = False) -> float:
    """The most of a link's rate that can be goodput over IPv4 with timestamps.

    MPTCP's share is that of a DSS with a 64-bit DSN and a 32-bit DATA_ACK in every packet: 22
    bytes of options, padded to 24 (RFC 8684 §3.3).
    """
    headers = 20 + 20 + 12 + (0 if tcp else 24)
    return (mtu - headers) / mtu


class _Receiver:
    """The server's application: takes everything, at once."""

    def __init__(self, experiment: Experiment) -> None:
        self._experiment = experiment

    def attach(self, connection: MetaSocket) -> _Receiver:
        """It is the application of this connection, the only one of the experiment."""
        self._experiment.peer = connection
        self._experiment.arriving.extend(connection.subflows)
        return self

    def __call__(self, event: Event) -> None:
        held = self._experiment
        if isinstance(event, Readable):
            connection = event.connection
            for part in connection.recv_parts():
                held.received += len(part)
            while held.marks and held.received >= held.marks[0]:
                held.marks.popleft()
                held.reached.append(held.sim.now)
            if connection.eof:
                connection.close()
        elif isinstance(event, SubflowEstablished) and event.subflow not in held.arriving:
            held.arriving.append(event.subflow)


class Experiment:
    """Hosts "client" and "server" and the paths between them.

    Anything of `sim` can be used beside: cut `paths[1]`, call something `at` a time, capture.
    """

    def __init__(
        self,
        links: Sequence[Link],
        seed: int = 1,
        client: Config | None = None,
        server: Config | None = None,
        *,
        tcp: bool = False,
    ) -> None:
        """`server` None: configured as the client. `tcp`: plain TCP, over the first path only.

        Nagle's algorithm is off at both ends, as in the stream API: else a message would wait for
        the acknowledgement of the one before.
        """
        client = client or Config()
        server = server or client
        self.links = list(links)
        self.sim = Simulation(seed)
        self.client, self.server = (
            self.sim.host(name, replace(own, nodelay=True, mptcp=own.mptcp and not tcp))
            for name, own in (("client", client), ("server", server))
        )
        self.paths = [self._join(number, link) for number, link in enumerate(self.links, 1)]
        self.connection: MetaSocket | None = None
        """The client's end, once `connect` was called."""
        self.peer: MetaSocket | None = None
        """The server's end, once it is accepted."""
        self.received = 0
        """Bytes that the server's application has got."""
        self.marks: deque[int] = deque()
        """Totals still to be reached, growing."""
        self.reached: list[int] = []
        """When each of those was that is no longer in `marks`."""
        self.arriving: list[Subflow] = []
        """The server's ends of all subflows that ever were."""
        self.end: ConnectionEnd | None = None
        """How the client's end ended."""
        self._left: int | None = 0
        """What the client has still to write; None: without end."""
        self._finish = False
        self.server.accept(
            self.server.stack.listen(PORT), lambda connection: _Receiver(self).attach(connection)
        )

    def _join(self, number: int, link: Link) -> Any:
        trace = LinkChange(rate_trace=link.rate_trace) if link.rate_trace else LinkChange()
        return self.sim.connect(
            self.client,
            f"10.0.{number}.1/24",
            self.server,
            f"10.0.{number}.2/24",
            rate_bps=link.rate_bps,
            delay_us=link.delay_us,
            queue_bytes=link.queue,
            mtu=link.mtu,
            jitter_us=link.jitter_us,
            forward=trace.merged(LinkChange(loss=link.loss)),
            backward=trace.merged(LinkChange(loss=link.reverse_loss)),
        )

    def connect(self) -> MetaSocket:
        """Open the connection, from the client's first address to the server's; it sends nothing
        yet."""
        self.connection = self.client.stack.connect("10.0.1.2", PORT)
        self.client.handle(self.connection, self._at_client)
        return self.connection

    def send(self, size: int | None = None, *, close: bool = False) -> None:
        """Let the client write `size` bytes more (None: without end) as fast as they are taken, and
        then close if it is to."""
        if size is None:
            self._left = None
        elif self._left is not None:
            self._left += size
        self._finish = self._finish or close
        self._write()
        self.client.wake()

    def _at_client(self, event: Event) -> None:
        if isinstance(event, Connected | Writable):
            self._write()
        elif isinstance(event, Readable):
            assert self.connection is not None
            self.connection.recv_parts()
            if self.connection.eof:
                self.connection.close()
        elif isinstance(event, Closed):
            self.end = event.end

    def _write(self) -> None:
        connection = self.connection
        if connection is None or not connection.established or connection.write_closed:
            return
        while self._left is None or self._left:
            room = len(_BLOCK) if self._left is None else min(len(_BLOCK), self._left)
            taken = connection.send(_BLOCK[:room])
            if self._left is not None:
                self._left -= taken
            if taken < room:
                return
        if self._finish:
            connection.shutdown()

    def run(self, seconds: float) -> None:
        """Let virtual time pass."""
        self.sim.run(round(seconds * 1e6))

    def arrived(self) -> list[int]:
        """Payload bytes that each path's subflows have brought, duplicates included."""
        totals = [0] * len(self.links)
        for subflow in self.arriving:
            totals[self.path_of(subflow)] += subflow.bytes_received
        return totals

    def path_of(self, subflow: Subflow) -> int:
        """Which of `links` a subflow of the server uses, by the server's address."""
        return subflow.local[2] - 1

    def described(self) -> dict[str, Any]:
        """The client's end and both ends' counters; see `MptcpInfo.brief`."""
        assert self.connection is not None
        return {
            **self.connection.info().brief(),
            "counters": dict(self.client.stack.counters),
            "counters_server": dict(self.server.stack.counters),
        }


@dataclass(frozen=True)
class BulkResult:
    """What `bulk` found."""

    mbit_s: float
    """Goodput after the warm-up."""
    per_path: list[float]
    """The goodput shared out by the payload that each path brought (thesis §5.1.2)."""
    curve: list[tuple[float, float]]
    """(s since the connect, Mbit/s up to then since the last sample), warm-up and all."""
    info: dict[str, Any] = field(default_factory=dict)
    """See `Experiment.described`."""


def bulk(
    links: Sequence[Link],
    seed: int,
    *,
    config: Config | None = None,
    server: Config | None = None,
    seconds: float,
    warmup: float,
    tcp: bool = False,
) -> BulkResult:
    """Send without end; the goodput of the `seconds` after the `warmup`.

    Raises BenchError when nothing arrives in them, or no connection comes to be.
    """
    held = Experiment(links, seed, config, server, tcp=tcp)
    series = held.sim.sample(SAMPLE_US, lambda: held.received)
    held.connect()
    held.send()
    held.run(warmup)
    before, paths_before = held.received, held.arrived()
    held.run(seconds)
    got = held.received - before
    if not got:
        raise BenchError(f"nothing arrived in the {seconds:g} s after the warm-up")
    shares = [now - then for now, then in zip(held.arrived(), paths_before, strict=True)]
    mbit_s = got * 8 / seconds / 1e6
    whole = sum(shares) or 1
    return BulkResult(
        mbit_s,
        [mbit_s * share / whole for share in shares],
        list(zip(series.seconds, series.mbit_s, strict=True)),
        held.described(),
    )


def transfer(
    links: Sequence[Link],
    seed: int,
    *,
    size: int,
    config: Config | None = None,
    server: Config | None = None,
    tcp: bool = False,
) -> int:
    """µs from `connect()` to the moment the server's application has the last of `size` bytes.

    The client sends as soon as the connection is established. Raises BenchError when it does not
    end.
    """
    held = Experiment(links, seed, config, server, tcp=tcp)
    began = held.sim.now
    held.connect()
    held.send(size, close=True)
    held.marks.append(size)
    if not held.sim.run(round(LIMIT_S * 1e6), until=lambda: bool(held.reached)):
        raise BenchError(f"{held.received} of {size} bytes arrived in {LIMIT_S:.0f} s")
    return held.reached[0] - began


def messages(
    links: Sequence[Link],
    seed: int,
    *,
    size: int,
    interval_us: int,
    count: int,
    config: Config | None = None,
    server: Config | None = None,
    tcp: bool = False,
    settle_us: int = 1_000_000,
) -> list[int]:
    """Delay in µs of each of `count` messages, from its write to the receiver's last byte of it.

    The client writes one of `size` bytes every `interval_us`, the first `settle_us` after the
    connect, when all subflows are there; what the send buffer does not take at once waits in the
    application and counts. Raises BenchError when they do not all arrive.
    """
    held = Experiment(links, seed, config, server, tcp=tcp)
    held.connect()
    first = held.sim.now + settle_us
    sent = [first + number * interval_us for number in range(count)]
    for at in sent:
        held.sim.at(at, lambda: held.send(size))
    held.marks.extend(size * number for number in range(1, count + 1))
    limit = settle_us + count * interval_us + round(LIMIT_S * 1e6)
    if not held.sim.run(limit, until=lambda: len(held.reached) == count):
        raise BenchError(f"{len(held.reached)} of {count} messages arrived")
    return [reached - at for reached, at in zip(held.reached, sent, strict=True)]
