"""Auto-tuned buffers: RFC 7323 §2 (windows beyond 64 KiB), RFC 9293 §3.8.6; as in Linux."""

from __future__ import annotations

import pytest

from mptcp.config import Config
from mptcp.events import Accepted, Connected, Event, Readable, Writable
from mptcp.meta_socket import MetaSocket
from mptcp.sim.network import Simulation
from mptcp.wire.tcp import ACK
from tests.peer import Peer, Wire, ms, seconds

KIB = 1 << 10


class Bulk:
    """A sender that always has data, and a receiver that reads at once."""

    def __init__(self, rate_bps: int, delay_us: int, config: Config) -> None:
        self.sim = Simulation(seed=1)
        self.a = self.sim.host("a", config)
        self.b = self.sim.host("b", config)
        queue = max(40_000, rate_bps * 2 * delay_us // 8_000_000)
        self.sim.connect(
            self.a,
            "10.0.0.1/24",
            self.b,
            "10.0.0.2/24",
            rate_bps=rate_bps,
            delay_us=delay_us,
            queue_bytes=queue,
            offload=True,
        )
        self.received = 0
        self.reading = True
        self.accepted: MetaSocket | None = None
        self.a.on_event = self._send
        self.b.on_event = self._read
        self.b.stack.listen(80)
        self.sender = self.a.stack.connect("10.0.0.2", 80)

    def _send(self, event: Event) -> None:
        if isinstance(event, Connected | Writable):
            while self.sender.send(bytes(64 * KIB)) == 64 * KIB:
                pass

    def _read(self, event: Event) -> None:
        if isinstance(event, Accepted):
            self.accepted = event.connection
        if isinstance(event, Accepted | Readable) and self.reading:
            self.received += len(event.connection.recv())


def tuned(**changes: object) -> Config:
    return Config(mptcp=False, congestion_control="cubic", **changes)  # type: ignore[arg-type]


@pytest.mark.slow
def test_a_fast_long_path_is_filled() -> None:
    """RFC 7323 §1.1: 100 Mbit/s over 200 ms take 2.5 MB of window; tuning gets there in time."""
    got = {}
    for autotune in (False, True):
        bulk = Bulk(100_000_000, 100_000, tuned(autotune=autotune))
        bulk.sim.run(seconds(5))
        got[autotune] = bulk.received
        assert bulk.accepted is not None
        assert bulk.accepted.rx.buffer <= 6 << 20
    assert got[True] >= 0.9 * got[False]


@pytest.mark.slow
def test_without_timestamps() -> None:
    """The round trip is then the time in which a window came; the path is filled all the same."""
    got = {}
    for autotune in (False, True):
        bulk = Bulk(20_000_000, 50_000, tuned(autotune=autotune, timestamps=False))
        bulk.sim.run(seconds(5))
        got[autotune] = bulk.received
    assert got[True] >= 0.9 * got[False]


def test_buffers_follow_the_path() -> None:
    """1 Mbit/s with 320 ms of queue takes 42 KB: both stay far below the 6 MiB they might have."""
    bulk = Bulk(1_000_000, 10_000, tuned())
    bulk.sim.run(seconds(12))
    assert bulk.accepted is not None
    assert bulk.accepted.rx.buffer < 512 * KIB
    assert bulk.sender.tx.capacity < 256 * KIB
    assert bulk.sender.tx.used <= bulk.sender.tx.capacity
    assert bulk.received > 1_000_000


def test_a_program_that_does_not_read_holds_little() -> None:
    """RFC 9293 §3.8.6: what an idle program can be made to hold is the initial window."""
    bulk = Bulk(100_000_000, 10_000, tuned())
    bulk.reading = False
    bulk.sim.run(seconds(5))
    assert bulk.accepted is not None
    assert bulk.accepted.rx.unread <= 128 * KIB
    assert bulk.accepted.rx.memory <= 2 * 128 * KIB
    assert bulk.accepted.rx.buffer == 128 * KIB


def test_the_configuration_is_the_cap() -> None:
    """`receive_buffer` and `send_buffer` are hard limits."""
    bulk = Bulk(100_000_000, 50_000, tuned(receive_buffer=300 * KIB, send_buffer=900 * KIB))
    bulk.sim.run(seconds(3))
    assert bulk.accepted is not None
    assert bulk.accepted.rx.buffer == 300 * KIB
    assert 600 * KIB <= bulk.sender.tx.capacity <= 900 * KIB
    # From the second on, 300 KiB in each round trip of 100 ms.
    assert bulk.received > 0.9 * 20 * 300 * KIB


def test_off_means_the_whole_buffer() -> None:
    """Without tuning the configured sizes hold from the beginning (RFC 9293 §3.8.6)."""
    for mptcp in (False, True):
        config = Config(mptcp=mptcp, autotune=False)
        sim = Simulation(seed=1)
        a, b = sim.host("a", config), sim.host("b", config)
        sim.connect(a, "10.0.0.1/24", b, "10.0.0.2/24", delay_us=1000)
        b.stack.listen(80)
        connection = a.stack.connect("10.0.0.2", 80)
        sim.run(seconds(1))
        assert connection.rx.buffer == config.receive_buffer
        assert connection.tx.capacity == config.send_buffer


def test_window_scale_is_for_the_cap() -> None:
    """RFC 7323 §2.2: the scale is told once, so it has to fit what the buffer may become."""
    wire = Wire(mptcp=False, autotune=True, receive_buffer=6 << 20)
    peer = Peer(wire)
    peer.handshake(wscale=7)
    assert peer.stack_wscale == 7
    peer.send(ACK, data=b"x")
    seen = peer.expect(ACK, ack=2, within=ms(50))
    assert seen.window << 7 == pytest.approx(128 * KIB, abs=256)


def test_set_by_the_application() -> None:
    """A size that is set is kept, as SO_RCVBUF and SO_SNDBUF are; beyond the cap it is refused."""
    wire = Wire(mptcp=False, autotune=True, nodelay=True)
    peer = Peer(wire)
    connection = peer.handshake(wscale=7, rtt=ms(10), mss=1000)
    connection.options.buffers(receive=32 * KIB, send=16 * KIB)
    assert connection.send(bytes(64 * KIB)) == 16 * KIB
    for round_trip in range(1, 20):
        for _ in range(20):
            peer.send(ACK, data=bytes(1000))
        connection.recv()
        peer.send(ACK, at=ms(10) * round_trip)
    assert connection.rx.buffer == 32 * KIB
    assert connection.tx.capacity == 16 * KIB
    for wrong in (100, 7 << 20):
        with pytest.raises(ValueError, match="out of range"):
            connection.options.buffers(receive=wrong)
        with pytest.raises(ValueError, match="out of range"):
            connection.options.buffers(send=wrong)


def test_set_before_the_connection_stands() -> None:
    """What is set between connect() and Connected is not tuned away."""
    wire = Wire(mptcp=False, autotune=True)
    peer = Peer(wire)
    connection = wire.stack.connect("10.0.0.2", 80)
    connection.options.buffers(send=1 << 20)
    peer.expect()
    peer.send(0x12)
    assert connection.established
    assert connection.tx.capacity == 1 << 20
    assert connection.rx.buffer == 128 * KIB
