"""The connection-level window: RFC 8684 §3.3.4, §3.3.5, one for all subflows from DATA_ACK on."""

from __future__ import annotations

import pytest

from mptcp.meta_socket import MetaSocket
from mptcp.wire.tcp import ACK
from tests.peer import Peer, Seen, Wire, ms, seconds

SECOND_PATH = {"address": "10.0.1.2", "local": "10.0.1.1", "interface": 2}
TWO = ("10.0.0.1/24", "10.0.1.1/24")


def two_flows(**changes: object) -> tuple[Wire, MetaSocket, Peer, Peer]:
    """A connection with two subflows of the peer's making, RTT 50 ms and 0."""
    wire = Wire(addresses=TWO, **{"nodelay": True, **changes})  # type: ignore[arg-type]
    wire.stack.listen(5000)
    first = Peer(wire, port=40000, local_port=5000)
    connection = first.handshake(active=False, mptcp=True, rtt=ms(50))
    second = first.beside(port=40001, local_port=5000, **SECOND_PATH)
    second.join()
    first.drain()
    second.drain()
    return wire, connection, first, second


def right_edge(seen: Seen, scale: int = 0) -> int:
    """DATA_ACK + window of a segment."""
    assert seen.dss is not None
    assert seen.dss.data_ack is not None
    return seen.dss.data_ack + (seen.window << scale)


@pytest.mark.row("D18")
def test_one_window_for_all_subflows() -> None:
    """§3.3.4: what one subflow brings narrows what the other offers; the edge is common."""
    wire, connection, first, second = two_flows(receive_buffer=32768)
    edges: set[int] = set()
    for number in range(10):
        peer = (first, second)[number % 2]
        peer.send(ACK, data=b"x" * 1000)
        wire.advance(wire.time + ms(100))
        edges.update(right_edge(seen) for seen in (*first.drain(), *second.drain()))
    assert edges == {1 + 32768}
    connection.recv()
    wire.advance(wire.time + ms(100))
    first.send(ACK, data=b"x")
    wire.advance(wire.time + ms(100))
    assert right_edge(first.drain()[-1]) > 32769


@pytest.mark.row("D13")
def test_the_edge_never_moves_back() -> None:
    """§3.3.4: a receiver MUST NOT shrink DATA_ACK + window, whatever order things come in."""
    _, connection, first, second = two_flows(receive_buffer=60_000)
    edge = 0
    dsn = 1
    for number in range(40):
        at = dsn + (500 if number % 3 == 0 else 0)
        for peer, where in ((second, at), (first, dsn)):
            dss = peer.dss(data_ack=1, dsn=where, ssn=peer.nxt, length=500)
            peer.send(ACK, data=b"x" * 500, options=[dss])
            for seen in peer.drain():
                new = right_edge(seen)
                assert new >= edge
                edge = new
        dsn += 500
        if number % 5 == 0:
            connection.recv(700)
    assert edge > 60_001


@pytest.mark.row("D14")
def test_sending_obeys_the_connection_window() -> None:
    """§3.3.5: data between DATA_ACK and DATA_ACK + window only, over all subflows together."""
    _, connection, first, second = two_flows()
    first.window = second.window = 9000
    connection.send(bytes(300_000))
    edge = 65536  # promised in the handshakes: a promise holds
    for _ in range(60):
        seen = [*first.drain(), *second.drain()]
        highest = max((end for peer in (first, second) for _, end in peer.own_data), default=0)
        assert highest <= edge
        first.send(ACK)
        second.send(ACK)
        edge = max(edge, first.data.data_ack + 9000)
        if not seen:
            break
    assert first.data.data_ack > 65536


@pytest.mark.row("D14")
def test_larger_window_of_two_counts() -> None:
    """§3.3.5: the largest DATA_ACK + window seen is the limit; an older, smaller one is not."""
    _, connection, first, second = two_flows()
    first.send(ACK, window=60_000)
    edge = connection.tx.wnd_end
    second.send(ACK, window=10)
    assert connection.tx.wnd_end == edge


@pytest.mark.row("D14")
def test_each_subflow_obeys_its_own_window() -> None:
    """§3.3.5: the sender MUST also remember each subflow's window: ack_i + rcv_wnd_i."""
    _, connection, _, second = two_flows()
    second.send(ACK, window=2000)
    connection.send(bytes(100_000))
    assert sum(len(seen.data) for seen in second.drain()) <= 2000


def test_a_full_subflow_leaves_the_rest_to_the_others() -> None:
    """Lowest RTT first, the others when its window is full: at once, not after a time-out."""
    _, connection, first, second = two_flows()
    second.send(ACK, window=2000)
    connection.send(bytes(100_000))
    assert sum(len(seen.data) for seen in second.drain()) > 0
    assert sum(len(seen.data) for seen in first.drain()) > 2000


@pytest.mark.row("D9")
def test_window_without_data_ack_does_not_count() -> None:
    """§3.3.1 (D9): the window field says nothing of the connection without a DATA_ACK."""
    _, connection, first, _ = two_flows()
    edge = connection.tx.wnd_end
    dss = first.dss(dsn=1, ssn=1, length=4)
    first.send(ACK, data=b"abcd", options=[dss], window=65535)
    assert connection.tx.wnd_end == edge


def test_window_update_after_reading() -> None:
    """An application that reads a full buffer reopens the window on its subflows."""
    wire, connection, first, second = two_flows(receive_buffer=16384)
    for _ in range(16):
        first.send(ACK, data=b"x" * 1024)
    wire.advance(wire.time + ms(100))
    last = first.drain()[-1]
    assert right_edge(last) == 16385
    assert last.window == 0
    second.drain()
    assert len(connection.recv()) == 16384
    updates = [*first.drain(), *second.drain()]
    assert max(right_edge(seen) for seen in updates) == 2 * 16384 + 1


def test_zero_window_of_the_connection_is_probed() -> None:
    """RFC 9293 §3.8.6.1 holds at connection level too: the update may be lost."""
    wire, connection, first, second = two_flows(receive_buffer=16384)
    first.window = second.window = 0
    connection.send(bytes(65535))
    for _ in range(40):
        first.drain()
        second.drain()
        first.send(ACK)
        second.send(ACK)
        wire.advance(wire.time + ms(10))
    connection.send(bytes(10_000))
    first.drain()
    second.drain()
    wire.advance(wire.time + seconds(10))
    assert first.drain() or second.drain()
    first.window = 60_000
    first.send(ACK)
    wire.advance(wire.time + ms(100))
    assert any(seen.data for seen in (*first.drain(), *second.drain()))
