"""The contract between a connection and its scheduler: one question for each chunk."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from mptcp.events import Accepted, Event, Readable
from mptcp.meta_socket import MetaSocket
from mptcp.scheduler import P, Scheduler, schedulers
from mptcp.sim import Simulation
from mptcp.subflow import Subflow


class RoundRobin(Scheduler):
    """The first scheduler anybody writes: it keeps a turn."""

    def __init__(self) -> None:
        self.turn = 0

    def select(self, ready: Sequence[P], queued: int) -> P | None:
        self.turn += 1
        return ready[self.turn % len(ready)]


class Stubborn(Scheduler):
    """Names a subflow it saw once, whether it is ready or not."""

    def __init__(self) -> None:
        self.favourite: object = None

    def select(self, ready: Sequence[P], queued: int) -> P | None:
        self.favourite = self.favourite or ready[-1]
        return self.favourite  # type: ignore[return-value]


@pytest.fixture(params=[RoundRobin, Stubborn])
def scheduler(request: pytest.FixtureRequest) -> Iterator[str]:
    name = f"test-{request.param.__name__}"
    schedulers.register(name)(request.param)
    yield name
    schedulers.unregister(name)


@pytest.mark.timeout(20)
@pytest.mark.parametrize("offload", [False, True])
def test_light_and_bulk_traffic(scheduler: str, offload: bool) -> None:
    """Small writes with both paths free, then more than the windows take: all arrives."""
    sim = Simulation(seed=11)
    print(f"seed {sim.seed}")
    a = sim.host("a", scheduler=scheduler, nodelay=True, autotune=False)
    b = sim.host("b")
    for path, (rate, delay) in enumerate([(40_000_000, 7_500), (20_000_000, 20_000)], 1):
        sim.connect(
            a,
            f"10.{path}.0.1/24",
            b,
            f"10.{path}.0.2/24",
            rate_bps=rate,
            delay_us=delay,
            queue_bytes=100_000,
            offload=offload,
        )
    received = bytearray()
    server: list[MetaSocket] = []

    def take(event: Event) -> None:
        if isinstance(event, Accepted):
            server.append(event.connection)
        elif isinstance(event, Readable):
            received.extend(event.connection.recv())

    b.on_event = take
    b.stack.listen(80)
    connection = a.stack.connect("10.1.0.2", 80)
    flows: set[Subflow] = set()
    sim.run(300_000)
    sent = bytearray()
    for number in range(100):
        piece = bytes([number]) * 1400
        sent += piece
        assert connection.send(piece) == len(piece)
        sim.run(20_000)
        flows.update(connection.subflows)
    light = [flow.snd.bytes_sent for flow in sorted(flows, key=lambda flow: flow.path_index)]
    bulk = sim.random.randbytes(2_000_000)
    sent += bulk
    assert connection.send(bulk) == len(bulk)
    connection.shutdown()
    assert sim.run(30_000_000, until=lambda: bool(server) and server[0].eof)
    assert received == sent
    assert len(light) == 2
    if scheduler == "test-RoundRobin":
        assert min(light) > 0.4 * sum(light)
