"""The option blocks packed at once are byte for byte those of the general way."""

from __future__ import annotations

import pytest

from mptcp import subflow, subflow_options
from mptcp.events import Accepted, Event, Readable, Writable
from mptcp.sim import Simulation
from mptcp.tcp import output
from mptcp.tcp.chunks import SentChunk

pytestmark = pytest.mark.interpreted


@pytest.mark.parametrize("offload", [False, True])
def test_prepared_equals_general(monkeypatch: pytest.MonkeyPatch, offload: bool) -> None:
    compared = {"data": 0, "ack": 0}

    def both(flow: subflow.Subflow, chunk: SentChunk | None, now: int) -> bytes | None:
        prepared = subflow_options.prepared_options(flow, chunk, now)
        if prepared is None:
            return None
        kind = output.Kind.ACK if chunk is None else output.Kind.DATA
        with monkeypatch.context() as general:
            general.setattr(subflow, "prepared_options", lambda *_: None)
            assert output.options_for(flow, kind, now, chunk) == prepared
        compared["ack" if chunk is None else "data"] += 1
        return prepared

    monkeypatch.setattr(subflow, "prepared_options", both)
    sim = Simulation(seed=5)
    print(f"seed {sim.seed}")
    a, b = sim.host("a"), sim.host("b")
    for path in (1, 2):
        sim.connect(
            a,
            f"10.{path}.0.1/24",
            b,
            f"10.{path}.0.2/24",
            rate_bps=20_000_000,
            delay_us=5_000,
            loss=0.01,
            offload=offload,
        )
    data = sim.random.randbytes(300_000)
    received = bytearray()
    left = [data]

    def serve(event: Event) -> None:
        if isinstance(event, Accepted | Writable):
            taken = event.connection.send(left[0])
            left[0] = left[0][taken:]
            if not left[0]:
                event.connection.shutdown()

    def take(event: Event) -> None:
        if isinstance(event, Readable):
            received.extend(event.connection.recv())

    a.on_event = take
    b.on_event = serve
    b.stack.listen(80)
    connection = a.stack.connect("10.1.0.2", 80)
    assert sim.run(until=lambda: connection.eof)
    assert received == data
    assert min(compared.values()) > 50
