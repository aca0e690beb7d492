"""Programs and middleboxes in virtual time."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from mptcp.errors import ConnectionEnd
from mptcp.sim import (
    Bulk,
    LinkChange,
    Middlebox,
    Requests,
    Responder,
    SimHost,
    Simulation,
    Sink,
    StripOption,
    Way,
    lte_trace,
)
from mptcp.sim.middlebox import Output
from mptcp.sim.series import Series


def pair(sim: Simulation, **link: object) -> tuple[SimHost, SimHost]:
    a, b = sim.host("a"), sim.host("b")
    sim.connect(a, "10.0.0.1/24", b, "10.0.0.2/24", **link)  # type: ignore[arg-type]
    return a, b


def test_bulk_and_sink_fill_a_link() -> None:
    sim = Simulation(seed=1)
    a, b = pair(sim, rate_bps=10_000_000, delay_us=5000, queue_bytes=30_000)
    sink = Sink(b)
    goodput = sink.goodput(500_000)
    bulk = Bulk(a, "10.0.0.2", size=4_000_000, start_us=sim.now + 1_000_000)
    assert sim.run(30_000_000, until=lambda: bulk.end is not None)
    assert bulk.end is ConnectionEnd.CLOSED
    assert sink.received == bulk.written == 4_000_000
    rates = goodput.mbit_s
    assert goodput.seconds[:3] == [0.5, 1.0, 1.5]
    assert rates[:2] == [0, 0]
    assert max(rates[3:]) == pytest.approx(9.5, abs=0.6)  # less what recovery costs
    assert sum(rates) * 0.5 <= 32


def test_many_programs_on_one_host() -> None:
    sim = Simulation(seed=1)
    a, b = pair(sim, rate_bps=20_000_000, delay_us=1000)
    sink, other = Sink(b), Sink(b, 6001)
    bulks = [Bulk(a, "10.0.0.2", size=100_000) for _ in range(3)]
    bulks.append(Bulk(a, "10.0.0.2", 6001, size=50_000))
    assert sim.run(10_000_000, until=lambda: all(bulk.end is not None for bulk in bulks))
    assert (sink.received, other.received) == (300_000, 50_000)
    assert len(sink.connections) == 3


def test_requests_take_their_round_trips() -> None:
    """RFC 6928: a response of ten segments takes one round trip and its serialization, and where it
    is paced a part of another."""
    sim = Simulation(seed=1)
    a, b = sim.host("a", nodelay=True), sim.host("b", nodelay=True)
    sim.connect(a, "10.0.0.1/24", b, "10.0.0.2/24", rate_bps=100_000_000, delay_us=20_000)
    server = Responder(b, 200, 10_000)
    client = Requests(a, "10.0.0.2", 200, 10_000, count=5, think_us=100_000)
    began = sim.now
    assert sim.run(10_000_000, until=lambda: client.end is not None)
    assert client.end is ConnectionEnd.CLOSED
    assert server.answered == len(client.latencies) == 5
    for latency in client.latencies:
        assert 40_000 < latency < 50_000
    assert sim.now - began > 5 * 40_000 + 4 * 100_000


def test_large_requests_and_responses() -> None:
    """More than the send buffers hold, without thinking."""
    sim = Simulation(seed=1)
    a, b = sim.host("a", send_buffer=8192), sim.host("b", send_buffer=8192)
    sim.connect(a, "10.0.0.1/24", b, "10.0.0.2/24", rate_bps=100_000_000, delay_us=1000)
    server = Responder(b, 60_000, 90_000)
    client = Requests(a, "10.0.0.2", 60_000, 90_000, count=3)
    assert sim.run(30_000_000, until=lambda: client.end is not None)
    assert (server.answered, len(client.latencies)) == (3, 3)


def test_a_series_is_growth_over_time() -> None:
    series = Series(1_000_000, 100)
    series.add(1_500_000, 62_600)
    series.add(2_500_000, 62_600)
    assert series.seconds == [0.5, 1.5]
    assert series.mbit_s == [1.0, 0.0]


def test_a_path_that_follows_a_trace() -> None:
    """Of two paths one has the capacity of an LTE-like recording; the other takes what it can."""
    sim = Simulation(seed=6)
    a, b = sim.host("a"), sim.host("b")
    trace = lte_trace(2, seconds=20, mean_bps=6_000_000)
    lte = LinkChange(rate_trace=trace, queue_bytes=100_000)
    paths = [
        sim.connect(a, "10.0.1.1/24", b, "10.0.1.2/24", delay_us=20_000, forward=lte),
        sim.connect(a, "10.0.2.1/24", b, "10.0.2.2/24", rate_bps=4_000_000, delay_us=10_000),
    ]
    sink = Sink(b)
    Bulk(a, "10.0.1.2")
    sim.run(20_000_000)
    capacity = sum(rate for _, rate in trace[:-1]) / (len(trace) - 1)
    carried = paths[0][0].link.stats.bytes * 8 / 20
    assert 0.3 * capacity < carried <= capacity * 1.001
    assert sink.received * 8 / 20 > 4_000_000


class Doubler(Middlebox):
    """Sends each packet on at once and again later; counts what it sees."""

    def __init__(self) -> None:
        self.seen = {Way.FORWARD: 0, Way.BACKWARD: 0}

    def process(self, now: int, packet: bytes, direction: Way) -> Sequence[Output]:
        self.seen[direction] += 1
        return [packet, (packet, now + 7000)]


class Wall(Middlebox):
    """Lets nothing pass forward; sends a word of its own back."""

    def process(self, now: int, packet: bytes, direction: Way) -> Sequence[Output]:
        if direction is Way.FORWARD:
            self.send(b"\x45no", direction.opposite, now + 500)
            return []
        return [packet]


def boxed(box: Middlebox, seed: int = 1) -> tuple[Simulation, SimHost, SimHost]:
    sim = Simulation(seed)
    a, b = sim.host("a"), sim.host("b")
    node = sim.middlebox(box)
    sim.connect(a, "10.0.0.1/24", node, None, rate_bps=10_000_000, delay_us=5000)
    sim.connect(node, None, b, "10.0.0.2/24", delay_us=5000)
    return sim, a, b


def test_a_middlebox_sees_both_ways_and_may_delay() -> None:
    box = Doubler()
    sim, a, b = boxed(box)
    sink = Sink(b)
    bulk = Bulk(a, "10.0.0.2", size=200_000)
    with sim.explain_failure("doubler"):
        assert sim.run(10_000_000, until=lambda: bulk.end is not None)
    assert sink.received == 200_000
    assert min(box.seen.values()) > 50
    assert b.stack.counters["IpInHdrErrors"] == 0


def test_a_middlebox_may_swallow_and_speak() -> None:
    heard: list[tuple[int, bytes]] = []
    box = Wall()
    with pytest.raises(RuntimeError, match="no simulation"):
        box.send(b"", Way.FORWARD)
    sim, a, b = boxed(box)
    a.on_packet = lambda now, packet, leaving: None if leaving else heard.append((now, packet))
    began = sim.now
    a.stack.connect("10.0.0.2", 80)
    sim.run(900_000)
    assert [packet for _, packet in heard] == [b"\x45no"]
    assert 10_500 < heard[0][0] - began < 10_700
    assert b.stack.counters == {}
    with pytest.raises(ValueError, match="two links"):
        sim.connect(b, "10.0.9.1/24", a.out[1].target, None)


def test_a_middlebox_that_eats_options_brings_plain_tcp() -> None:
    """RFC 8684 §3.7: without MP_CAPABLE in the SYN the connection is TCP, and every byte comes."""
    sim, a, b = boxed(StripOption(30))
    sink = Sink(b)
    bulk = Bulk(a, "10.0.0.2", size=300_000)
    with sim.explain_failure("stripped"):
        assert sim.run(10_000_000, until=lambda: bulk.end is not None)
        assert sink.received == 300_000
    assert bulk.connection is not None
    assert bulk.connection.fallback
    assert b.stack.counters["TcpInCsumErrors"] == 0
