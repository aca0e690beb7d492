"""Two stacks in a simulated network and programs that use them: what end-to-end tests share.

`Program` is an application: it writes its bytes in pieces as the connection takes them, shuts down,
reads what comes, and closes at the peer's end of data. `exchange` runs two of them to the end and
checks that every byte arrived in order on both sides and that both connections ended well.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable

from mptcp.errors import ConnectionEnd
from mptcp.events import Accepted, Closed, Connected, Event, Readable, Writable
from mptcp.meta_socket import MetaSocket
from mptcp.sim.network import Direction, SimHost, Simulation

Path = tuple[Direction, Direction]


def payload(size: int, seed: int = 0) -> bytes:
    """`size` reproducible bytes without structure."""
    return random.Random(f"payload {seed}").randbytes(size)


class Program:
    """An application on a host, with one connection."""

    def __init__(
        self,
        host: SimHost,
        outgoing: bytes,
        *,
        connection: MetaSocket | None = None,
        writes: Iterable[int] = (),
        read_size: int = 1 << 20,
        shuts_down: bool = True,
    ) -> None:
        """`writes` are the sizes of the first writes; the rest goes as one. Without `connection`
        the first accepted one is taken. `shuts_down` False: say the end only after the peer has."""
        self.host = host
        self.outgoing = memoryview(outgoing)
        self.connection = connection
        self.writes = list(writes)[::-1]
        self.read_size = read_size
        self.shuts_down = shuts_down
        self.reading = True
        self.incoming = bytearray()
        self.eof = False
        self.end: ConnectionEnd | None = None
        self.peak_memory = 0
        host.on_event = self.on_event

    def on_event(self, event: Event) -> None:
        if isinstance(event, Accepted) and self.connection is None:
            self.connection = event.connection
        if event.connection is not self.connection:
            return
        match event:
            case Connected() | Accepted():
                self.write()
            case Writable():
                self.write()
            case Readable():
                self.read()
            case Closed():
                self.read()
                self.end = event.end
            case _:
                pass

    def write(self) -> None:
        """Give the connection what it takes."""
        connection = self.connection
        assert connection is not None
        while self.outgoing and connection.ended is None:
            size = self.writes[-1] if self.writes else len(self.outgoing)
            taken = connection.send(self.outgoing[:size])
            self.outgoing = self.outgoing[taken:]
            if taken < min(size, len(self.outgoing) + taken):
                return
            if self.writes:
                self.writes.pop()
        if self.shuts_down or self.eof:
            connection.shutdown()

    def read(self) -> None:
        """Take what is there."""
        connection = self.connection
        assert connection is not None
        rx = connection.rx
        self.peak_memory = max(self.peak_memory, rx.memory + rx.reorder.memory)
        if not self.reading:
            return
        while data := connection.recv(self.read_size):
            self.incoming += data
        if connection.eof and not self.eof:
            self.eof = True
            if not self.outgoing:
                connection.close()

    @property
    def done(self) -> bool:
        """The connection has ended for this application."""
        return self.end is not None


def network(
    seed: int,
    *,
    paths: int = 1,
    rate_bps: int = 10_000_000,
    delay_us: int = 10_000,
    a: dict[str, object] | None = None,
    b: dict[str, object] | None = None,
    isn: Callable[[bytes], int] | None = None,
    idsn: Callable[[bytes], int] | None = None,
    **link: object,
) -> tuple[Simulation, SimHost, SimHost, list[Path]]:
    """Hosts a and b joined by `paths` links 10.0.n.0/24; `a` and `b` are `Config` fields."""
    print(f"simulation seed {seed}")  # pytest shows it when the test fails
    sim = Simulation(seed)
    first = sim.host("a", isn=isn, idsn=idsn, **(a or {}))  # type: ignore[arg-type]
    second = sim.host("b", isn=isn, idsn=idsn, **(b or {}))  # type: ignore[arg-type]
    joined = [
        sim.connect(
            first,
            f"10.0.{number}.1/24",
            second,
            f"10.0.{number}.2/24",
            rate_bps=rate_bps,
            delay_us=delay_us,
            **link,  # type: ignore[arg-type]
        )
        for number in range(paths)
    ]
    return sim, first, second, joined


def open_programs(
    a: SimHost,
    b: SimHost,
    up: bytes,
    down: bytes,
    *,
    writes: Iterable[int] = (),
    early_end: bool = False,
    remote: str = "10.0.0.2",
) -> tuple[Program, Program]:
    """A program on `b` that listens on port 80 and one on `a` that connects to its `remote`.

    The server says the end of its data when it has read the client's; at once with `early_end`.
    """
    sizes = list(writes)
    b.stack.listen(80)
    server = Program(b, down, writes=sizes, shuts_down=early_end)
    client = Program(a, up, connection=a.stack.connect(remote, 80), writes=sizes)
    return client, server


def exchange(
    sim: Simulation,
    client: Program,
    server: Program,
    up: bytes,
    down: bytes,
    *,
    limit_us: int = 120_000_000,
    goodbye: bool = True,
) -> None:
    """Run both programs to their ends and check every byte and the ends.

    Without `goodbye` one side may have closed while the other could not hear its last word: when
    that one returns, it is told of a connection that is no more.
    A failure tells its seed, and leaves a capture in the folder MPTCP_SIM_CAPTURES if that is set.
    """
    with sim.explain_failure("exchange", os.environ.get("MPTCP_SIM_CAPTURES")):
        finished = sim.run(limit_us, until=lambda: client.done and server.done)
        assert bytes(server.incoming) == up, progress(server, up)
        assert bytes(client.incoming) == down, progress(client, down)
        assert finished, f"not closed after {limit_us} µs: {client.end} {server.end}"
        ends = {client.end, server.end}
        if goodbye:
            assert ends == {ConnectionEnd.CLOSED}
        else:
            assert ConnectionEnd.CLOSED in ends <= {ConnectionEnd.CLOSED, ConnectionEnd.RESET}


def progress(program: Program, wanted: bytes) -> str:
    """Where a transfer stopped or went wrong."""
    got = program.incoming
    same = next((i for i, (x, y) in enumerate(zip(got, wanted, strict=False)) if x != y), None)
    return f"{len(got)} of {len(wanted)} bytes, first difference at {same}, {program.connection}"
