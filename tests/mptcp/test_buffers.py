"""Buffers of MPTCP connections: RFC 6182 §5.3 (2 * sum(BW_i) * RTT_max), RFC 8684 §3.3.4."""

from __future__ import annotations

import pytest

from mptcp.config import Config
from mptcp.events import Readable
from mptcp.meta_socket import MetaSocket
from mptcp.sim import Simulation
from mptcp.sim.apps import Bulk, Sink
from mptcp.wire.tcp import ACK
from tests.peer import Peer, Wire, ms, seconds

KIB = 1 << 10
MIB = 1 << 20


class Paths:
    """A bulk sender and a receiver over paths of (bit/s, µs one way); queues of one BDP."""

    def __init__(self, *paths: tuple[int, int], config: Config | None = None) -> None:
        self.sim = Simulation(seed=1)
        self.a = self.sim.host("a", config, offload=True)
        self.b = self.sim.host("b", config, offload=True)
        for number, (rate_bps, delay_us) in enumerate(paths, 1):
            self.sim.connect(
                self.a,
                f"10.{number}.0.1/24",
                self.b,
                f"10.{number}.0.2/24",
                rate_bps=rate_bps,
                delay_us=delay_us,
                queue_bytes=max(40_000, rate_bps * 2 * delay_us // 8_000_000),
            )
        self.sink = Sink(self.b)
        self.bulk = Bulk(self.a, "10.1.0.2")

    @property
    def receiver(self) -> MetaSocket:
        """The connection at the receiver."""
        return self.sink.connections[0]

    @property
    def sender(self) -> MetaSocket:
        """The connection at the sender."""
        assert self.bulk.connection is not None
        return self.bulk.connection


@pytest.mark.slow
def test_a_fast_long_path_is_filled() -> None:
    """RFC 6182 §5.3: the buffer must not hold the paths back: 100 Mbit/s over 200 ms take 2.5 MB,
    and tuning loses no more than a tenth of what the whole buffer brings from the beginning."""
    got = {}
    for autotune in (False, True):
        paths = Paths((100_000_000, 100_000), config=Config(autotune=autotune))
        paths.sim.run(seconds(4))
        got[autotune] = paths.sink.received
    assert got[True] >= 0.9 * got[False]


def test_the_slowest_path_decides() -> None:
    """Thesis §4.3.5: 10 Mbit/s at 5 ms and 2 Mbit/s at 100 ms need 2 * 12 Mbit/s * RTT_max, many
    times what either needs by itself; and not the whole 6 MiB."""
    alone = Paths((10_000_000, 5_000))
    alone.sim.run(seconds(4))
    assert alone.receiver.rx.buffer < 300 * KIB
    both = Paths((10_000_000, 5_000), (2_000_000, 100_000))
    both.sim.run(seconds(6))
    rtt_us = max(subflow.srtt for subflow in both.sender.subflows)
    needed = 2 * 12_000_000 // 8 * rtt_us // 1_000_000
    assert 0.8 * needed <= both.receiver.rx.buffer <= 2.5 * needed
    assert both.receiver.rx.buffer < 6 * MIB
    # RFC 8684 §3.3.5: the sender keeps at least what the receiver may hold up.
    assert both.sender.tx.capacity >= needed
    assert both.sink.received >= 0.85 * 12_000_000 / 8 * 5


def test_a_slow_path_that_joins_finds_the_buffer_ready() -> None:
    """Thesis §4.3.5: RTT_max is known from the handshake of the join, the rate of the other path
    by then; so the buffer is there before the slow path could have blocked it."""
    paths = Paths((20_000_000, 2_000), (2_000_000, 250_000))
    paths.sim.run(seconds(3), until=lambda: len(paths.sink.connections) == 1)
    paths.sim.run(seconds(5), until=lambda: len(paths.receiver.subflows) == 2)
    assert paths.receiver.rx.buffer <= MIB
    paths.sim.run(seconds(5), until=lambda: paths.receiver.subflows[1].fully_established)
    paths.sim.run(ms(600))
    # 20 Mbit/s for half a second, twice.
    assert paths.receiver.rx.buffer >= 2 * 20_000_000 // 8 // 2 * 0.9


def test_slow_paths_keep_small_buffers() -> None:
    """RFC 6182 §5.3: two paths of 1 Mbit/s and 40 ms take 10 KB each: what is kept is what is
    needed, not what is allowed."""
    paths = Paths((1_000_000, 20_000), (1_000_000, 20_000))
    paths.sim.run(seconds(8))
    assert paths.receiver.rx.buffer <= 512 * KIB
    assert paths.sender.tx.capacity <= 768 * KIB
    assert paths.sender.tx.used <= paths.sender.tx.capacity
    assert paths.sink.received >= 0.85 * 2_000_000 / 8 * 7


def test_the_configuration_is_the_cap() -> None:
    """RFC 8684 §3.3.4: what a connection may be made to hold is bounded, whatever it could use."""
    config = Config(receive_buffer=300 * KIB, send_buffer=500 * KIB)
    paths = Paths((100_000_000, 20_000), (100_000_000, 20_000), config=config)
    held: list[int] = []
    used: list[int] = []

    def look() -> None:
        held.extend(meta.rx.unread + meta.rx.window() for meta in paths.b.stack.metas)
        used.append(paths.sender.tx.used)

    paths.sim.every(ms(10), look)
    paths.sim.run(seconds(2))
    assert max(held) == 300 * KIB
    assert max(used) == 500 * KIB
    assert paths.receiver.rx.buffer == 300 * KIB


def test_a_program_that_does_not_read_holds_little() -> None:
    """RFC 9293 §3.8.6: what an idle program can be made to hold is the initial buffer, over however
    many paths."""
    paths = Paths((100_000_000, 10_000), (100_000_000, 10_000))
    paths.b.on_event = None
    paths.sim.run(seconds(1), until=lambda: len(paths.sink.connections) == 1)
    paths.b.handle(paths.receiver, lambda event: None)
    paths.sim.run(seconds(3))
    rx = paths.receiver.rx
    assert 100 * KIB < rx.unread <= 128 * KIB < 2 * KIB + rx.buffer
    assert rx.buffer == 128 * KIB
    assert rx.memory + rx.reorder.memory <= 4 * 128 * KIB


def test_a_program_that_reads_slowly_holds_little() -> None:
    """RFC 9293 §3.8.6: what it leaves in the queue it would leave in a larger one too."""
    paths = Paths((100_000_000, 10_000), (100_000_000, 10_000))
    paths.sim.run(seconds(1), until=lambda: len(paths.sink.connections) == 1)
    connection = paths.receiver
    paths.b.handle(connection, lambda event: None)
    paths.sim.every(ms(5), lambda: connection.recv(2000))
    paths.sim.run(seconds(3))
    assert connection.rx.buffer <= 256 * KIB


def test_requests_after_silences_do_not_raise_the_round_trip() -> None:
    """RFC 7323 §4: what the peer echoes after a silence was sent before it: not a round trip."""
    wire = Wire(autotune=True, nodelay=True)
    wire.stack.listen(80)
    peer = Peer(wire, port=4000, local_port=80)
    connection = peer.handshake(active=False, mptcp=True, rtt=ms(20), timestamps=True)
    for number in range(1, 20):
        peer.send(ACK, data=bytes(500), at=number * seconds(10))
        connection.recv()
        peer.drain()
    tuning = connection.buffers.tuning
    assert tuning is not None
    assert tuning.rtt_max <= ms(25)


def test_set_by_the_application() -> None:
    """A size that is set is kept (SO_RCVBUF), with two paths as with one."""
    paths = Paths((20_000_000, 10_000), (20_000_000, 10_000))
    paths.sim.run(seconds(1), until=lambda: len(paths.sink.connections) == 1)
    paths.receiver.options.buffers(receive=64 * KIB)
    paths.sender.options.buffers(send=96 * KIB)
    paths.sim.run(seconds(2))
    assert paths.receiver.rx.buffer == 64 * KIB
    assert paths.sender.tx.capacity == 96 * KIB
    assert paths.receiver.buffers.tuning is None


def test_a_subflow_that_left_does_not_count() -> None:
    """RFC 6182 §5.3: RTT_max is of the subflows there are; meters of those that ended are dropped,
    however often a path comes and goes."""
    wire = Wire(
        addresses=("10.0.0.1/24", "10.0.1.1/24"), autotune=True, nodelay=True, max_subflows=4
    )
    wire.stack.listen(5000)
    first = Peer(wire, port=40000, local_port=5000)
    connection = first.handshake(active=False, mptcp=True, rtt=ms(10))
    tuning = connection.buffers.tuning
    assert tuning is not None
    for number in range(6):
        second = first.beside(
            port=40001 + number, local_port=5000, address="10.0.1.2", local="10.0.1.1", interface=2
        )
        second.join()
        assert len(connection.subflows) == 2
        assert len(tuning.meters) == 2
        connection.subflows[1].abort()
    first.drain()
    assert [event for event in wire.take_events() if isinstance(event, Readable)] == []
