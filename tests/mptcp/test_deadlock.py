"""Thesis fig. 4.5: windows of single subflows deadlock; one of the connection, anchored at DATA_ACK
(RFC 8684 §3.3.1, §3.3.4, §3.3.5), does not. And window updates: on every subflow, and when lost."""

from __future__ import annotations

import pytest

from mptcp.config import Config
from mptcp.meta_socket import MetaSocket
from mptcp.sim import Simulation
from mptcp.sim.apps import Bulk, Sink
from mptcp.wire.tcp import ACK
from tests.peer import Peer, Seen, Wire, ms, seconds

SECOND_PATH = {"address": "10.0.1.2", "local": "10.0.1.1", "interface": 2}
BUFFER = 32 << 10
SEGMENT = 1024


def two_flows(**changes: object) -> tuple[Wire, MetaSocket, Peer, Peer]:
    """A connection with two subflows of the peer's making."""
    wire = Wire(
        addresses=("10.0.0.1/24", "10.0.1.1/24"),
        **{"nodelay": True, "receive_buffer": BUFFER, **changes},  # type: ignore[arg-type]
    )
    wire.stack.listen(5000)
    first = Peer(wire, port=40000, local_port=5000)
    connection = first.handshake(active=False, mptcp=True, rtt=ms(10))
    second = first.beside(port=40001, local_port=5000, **SECOND_PATH)
    second.join()
    first.drain()
    second.drain()
    return wire, connection, first, second


def data(peer: Peer, dsn: int) -> None:
    """One segment with these bytes of the connection."""
    dss = peer.dss(data_ack=1, dsn=dsn, ssn=peer.nxt, length=SEGMENT)
    peer.send(ACK, data=bytes(SEGMENT), options=[dss])


def test_the_window_leaves_room_for_what_was_lost() -> None:
    """Fig. 4.5 at the receiver: path 1 fails with a window's worth in flight; path 2 fills the
    buffer beyond the hole. What it is told is no zero window: the window counts from DATA_ACK, so
    the lost bytes fit into it, on path 2 as well (RFC 8684 §3.3.5), and all is delivered."""
    _, connection, _, second = two_flows()
    lost = [1 + SEGMENT * number for number in range(8)]
    dsn = 1 + 8 * SEGMENT
    while dsn + SEGMENT <= 1 + BUFFER:
        data(second, dsn)
        dsn += SEGMENT
    told = second.drain()[-1]
    assert told.dss is not None
    assert told.dss.data_ack == 1
    assert told.window == BUFFER
    # What a window of the subflow's own would say: the buffer less what it holds.
    held = dsn - lost[-1] - SEGMENT
    assert BUFFER - held == len(lost) * SEGMENT
    assert not connection.rx.unread
    for number in lost:
        data(second, number)
    told = second.drain()[-1]
    assert told.dss is not None
    assert told.dss.data_ack == 1 + BUFFER
    assert told.window == 0  # now it is full of what can be read
    assert len(connection.recv()) == BUFFER
    told = second.drain()[-1]
    assert told.window == BUFFER


@pytest.mark.parametrize("buffer", [16 << 10, 64 << 10, 256 << 10])
def test_a_path_that_fails_does_not_stop_the_other(buffer: int) -> None:
    """Fig. 4.5 with both ends ours: path 1 is cut under load while path 2 is fast enough to fill
    the buffer long before path 1's time-out. The transfer goes on over path 2, which is never told
    a zero window, for the application reads; and what was in flight on path 1 is not lost."""
    config = Config(receive_buffer=buffer, send_buffer=4 * buffer)
    sim = Simulation(seed=5)
    a, b = sim.host("a", config), sim.host("b", config)
    paths = [
        sim.connect(
            a,
            f"10.{number}.0.1/24",
            b,
            f"10.{number}.0.2/24",
            rate_bps=20_000_000,
            delay_us=delay_us,
            queue_bytes=60_000,
        )
        for number, delay_us in ((1, 20_000), (2, 1_000))
    ]
    sink = Sink(b)
    size = 4 << 20
    bulk = Bulk(a, "10.1.0.2", size=size)
    sim.run(seconds(2), until=lambda: sink.received > 200_000)
    receiver = sink.connections[0]
    assert len(receiver.subflows) == 2
    least: list[int] = []

    def look() -> None:
        other = [s for s in receiver.subflows if s.interface.id == 2 and not receiver.eof]
        least.extend(subflow.rcv_adv - subflow.rcv_nxt for subflow in other)

    sim.set_down(paths[0], True)
    cut_at = sim.now
    sim.every(ms(1), look)
    assert sim.run(seconds(60), until=lambda: sink.received == size)
    # 4 MiB at 20 Mbit/s take 1.8 s alone; the time-outs of path 1 and its repair come on top.
    assert sim.now - cut_at < seconds(4)
    assert min(least) >= 2 * 1460
    assert bulk.connection is not None
    assert bulk.connection.tx.retransmit.taken_bytes > 0


def windows(flows: list[Seen]) -> list[int]:
    return [seen.window for seen in flows]


def test_a_window_update_goes_out_on_all_subflows() -> None:
    """RFC 8684 §3.3.5: the window is the connection's, so each subflow tells it: a peer that waits
    on one must not depend on the other's path."""
    wire, connection, first, second = two_flows()
    for number in range(32):
        data((first, second)[number % 2], 1 + SEGMENT * number)
    wire.advance(wire.time + ms(100))
    first.drain()
    assert second.drain()[-1].window == 0
    assert len(connection.recv()) == BUFFER
    assert windows(first.drain()) == [BUFFER]
    assert windows(second.drain()) == [BUFFER]


def test_a_lost_window_update_is_asked_for() -> None:
    """RFC 9293 §3.8.6.1: updates may be lost on every path; the peer's probe, on any subflow, is
    answered with the window of the connection (RFC 8684 §3.3.5)."""
    wire, connection, first, second = two_flows()
    for number in range(32):
        data(first, 1 + SEGMENT * number)
    wire.advance(wire.time + ms(100))
    first.drain()
    second.drain()
    connection.recv()
    assert first.drain()
    assert second.drain()  # both updates are lost
    second.send(ACK, seq=second.nxt - 1)
    (answer,) = second.drain()
    assert answer.window == BUFFER
    assert answer.dss is not None
    assert answer.dss.data_ack == 1 + BUFFER


def test_the_sender_hears_an_update_on_any_subflow() -> None:
    """RFC 8684 §3.3.5: the largest DATA_ACK + window counts, whichever subflow told it: with the
    update lost on the path that carries data, that of the other path opens both."""
    wire, connection, first, second = two_flows(send_buffer=1 << 20)
    first.window = second.window = 4096
    connection.send(bytes(200_000))
    for _ in range(200):
        before = first.data.data_ack
        first.drain()
        second.drain()
        first.send(ACK)
        second.send(ACK)
        wire.advance(wire.time + ms(10))
        if first.data.data_ack == before and connection.tx.wnd_end - connection.tx.nxt < 1460:
            break
        first.window = second.window = 0
    sent = first.data.data_ack
    assert connection.tx.queued > 0
    first.drain()
    second.drain()
    second.window = 60_000
    second.send(ACK)  # the update that first should have had is lost
    wire.advance(wire.time + ms(100))
    assert sum(len(seen.data) for seen in second.drain()) >= 1400
    assert first.data.data_ack > sent
