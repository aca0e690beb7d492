"""The bound on all buffers of a host together, `Config.max_buffer_memory` (RFC 9293 §3.8.6 leaves
buffers to the host; RFC 8684 §3.3.5: what is not DATA_ACKed comes again). As Linux's `tcp_mem`."""

from __future__ import annotations

import pytest

from mptcp.meta_socket import MetaSocket
from mptcp.tcp.memory import FREE, PRESSED_WINDOW, QUANTUM, HostMemory, quanta
from mptcp.wire.tcp import ACK
from tests.peer import Peer, Wire, ms

LIMIT = 512 << 10
SEGMENT = 1400


def host(**changes: object) -> Wire:
    wire = Wire(**{"max_buffer_memory": LIMIT, "nodelay": True, **changes})  # type: ignore[arg-type]
    wire.stack.listen(80)
    return wire


def connected(wire: Wire, number: int, mptcp: bool) -> tuple[MetaSocket, Peer]:
    peer = Peer(wire, port=4000 + number, local_port=80, key=bytes([number + 1]) * 8)
    connection = peer.handshake(active=False, mptcp=mptcp, wscale=7)
    peer.drain()
    return connection, peer


def held(wire: Wire) -> int:
    """What all buffers keep alive, by their own accounts."""
    total = 0
    for meta in wire.stack.metas:
        total += meta.rx.memory + meta.rx.reorder.memory + meta.rx.mapped + meta.tx.used
        total += sum(subflow.reassembly.memory for subflow in meta.subflows)
    return total


def fill(wire: Wire, peer: Peer, size: int) -> None:
    """Up to `size` bytes in order, within the window the peer has been told."""
    sent = 0
    while sent < size:
        peer.send(ACK, data=bytes(SEGMENT))
        sent += SEGMENT
    wire.advance(wire.time + ms(50))
    peer.drain()


def test_idle_connections_cost_nothing() -> None:
    """Linux's tcp_mem counts what is held, not who is there."""
    wire = host()
    for number in range(8):
        connection, peer = connected(wire, number, mptcp=number % 2 == 0)
        peer.send(ACK, data=b"hello")
        connection.recv()
        connection.send(b"hello")
    assert wire.stack.memory.charged == 0
    assert not wire.stack.memory.pressed


@pytest.mark.parametrize("mptcp", [False, True], ids=["TCP", "MPTCP"])
@pytest.mark.mib("TcpExtTCPMemoryPressures", "TcpExtTCPRcvQDrop")
def test_all_connections_together_are_bounded(mptcp: bool) -> None:
    """Programs that do not read: each connection may hold megabytes by itself; together they hold
    the host's bound and the little that each has free. What is beyond is not acknowledged."""
    wire = host()
    peers = [connected(wire, number, mptcp) for number in range(10)]
    for _, peer in peers:
        fill(wire, peer, 200_000)
    most = LIMIT + len(peers) * (2 * FREE + 2000)
    assert LIMIT * 3 // 4 < held(wire) <= most
    counters = wire.stack.counters
    assert counters["TcpExtTCPMemoryPressures"] == 1
    assert counters["TcpExtTCPRcvQDrop"] > 0
    connection, peer = peers[-1]
    assert connection.rx.unread < 200_000
    peer.send(ACK)
    # The first ones got all of it.
    assert peers[0][0].rx.unread >= 200_000
    assert len(connection.recv()) == connection.rx.nxt - connection.rx.unread - (
        connection.remote_idsn + 1 if mptcp else 0
    )


@pytest.mark.mib("TcpExtTCPMemoryPressures", "TcpExtTCPMemoryPressuresChrono")
def test_pressure_stops_windows_and_ends() -> None:
    """RFC 9293 §3.8.6: the right edge stays where it is, never back; who reads has four segments at
    a time. When others have read, windows open again, and the time of it is counted."""
    wire = host()
    hogs = [connected(wire, number, mptcp=False) for number in range(2)]
    connection, peer = connected(wire, 5, mptcp=True)
    for _, hog in hogs:
        fill(wire, hog, 220_000)
    memory = wire.stack.memory
    assert memory.pressed
    fill(wire, peer, 10 * SEGMENT)
    edge = connection.rx.adv
    assert connection.rx.window() == edge - connection.rx.nxt
    connection.rx.adv = connection.rx.nxt  # as if the peer had used all it was told
    assert connection.rx.window() == 0  # ten segments are unread: no more
    connection.recv()
    wire.advance(wire.time + ms(20))
    assert connection.rx.window() == PRESSED_WINDOW
    wire.advance(wire.time + ms(300))
    for meta, hog in hogs:
        meta.recv()
        hog.drain()
    wire.advance(wire.time + ms(20))
    assert connection.rx.window() == connection.rx.buffer
    assert not memory.pressed
    assert memory.charged < LIMIT // 4
    assert wire.stack.counters["TcpExtTCPMemoryPressuresChrono"] >= 300


@pytest.mark.mib("MPTcpExtRcvPruned")
def test_what_fills_the_hole_is_taken() -> None:
    """RFC 8684 §3.3.5: out of order at data level is dropped and not DATA_ACKed when the host is
    full; the byte that is missing is taken, for without it nothing would ever be freed."""
    wire = host()
    hogs = [connected(wire, number, mptcp=False)[1] for number in range(3)]
    connection, peer = connected(wire, 5, mptcp=True)
    for hog in hogs:
        fill(wire, hog, 200_000)
    assert wire.stack.memory.full
    dsn = 1 + SEGMENT
    for _ in range(60):
        dss = peer.dss(data_ack=1, dsn=dsn, ssn=peer.nxt, length=SEGMENT)
        peer.send(ACK, data=bytes(SEGMENT), options=[dss])
        dsn += SEGMENT
    reorder = connection.rx.reorder
    assert 0 < reorder.memory <= FREE + 2 * SEGMENT + 512
    assert wire.stack.counters["MPTcpExtRcvPruned"] > 10
    end = reorder.last  # one run
    dss = peer.dss(data_ack=1, dsn=1, ssn=peer.nxt, length=SEGMENT)
    peer.send(ACK, data=bytes(SEGMENT), options=[dss])
    assert connection.rx.nxt == end
    assert len(connection.recv()) == end - connection.remote_idsn - 1
    # What was dropped comes again, and is welcome: this program reads.
    dsn = end - connection.remote_idsn
    peer.send(
        ACK,
        data=bytes(SEGMENT),
        options=[peer.dss(data_ack=1, dsn=dsn, ssn=peer.nxt, length=SEGMENT)],
    )
    assert len(connection.recv()) == SEGMENT


@pytest.mark.mib("TcpExtTCPOFODrop")
def test_reassembly_counts() -> None:
    """RFC 9293 §3.10.7.4 lets segments beyond a hole be kept: while the host is full only a few."""
    wire = host()
    others = [connected(wire, number, mptcp=False)[1] for number in range(4)]
    for peer in others:
        seq = peer.nxt + 1
        for _ in range(110):
            peer.send(ACK, seq=seq, data=bytes(SEGMENT))
            seq += SEGMENT
        peer.drain()
    assert wire.stack.counters["TcpExtTCPOFODrop"] > 0
    assert LIMIT * 3 // 4 < held(wire) <= LIMIT + len(others) * 2 * FREE


def test_send_takes_little_while_the_host_is_full() -> None:
    """RFC 9293 §3.9.1: SEND may be told to wait: 16 KiB of each connection go on all the same, and
    the rest when there is memory again."""
    wire = host()
    hogs = [connected(wire, number, mptcp=False) for number in range(3)]
    connection, peer = connected(wire, 5, mptcp=True)
    for _, hog in hogs:
        fill(wire, hog, 200_000)
    assert connection.send(bytes(100_000)) == FREE
    assert connection.send(b"more") == 0
    for meta, hog in hogs:
        meta.recv()
        hog.drain()
    wire.advance(wire.time + ms(20))
    assert connection.send(bytes(100_000)) == 100_000
    assert len(peer.drain()) > 0


def test_what_has_ended_is_given_back() -> None:
    """Whatever a connection held, sent or received, its end frees, however it comes."""
    wire = host(max_buffer_memory=8 << 20)
    connections = [connected(wire, number, mptcp=number % 2 == 0) for number in range(6)]
    for connection, peer in connections:
        fill(wire, peer, 100_000)
        connection.send(bytes(300_000))
        peer.send(ACK, seq=peer.nxt + 10_000, data=bytes(SEGMENT))
        peer.drain()
    memory = wire.stack.memory
    assert memory.charged > 6 * 350_000
    for connection, peer in connections:
        connection.abort()
        peer.drain()
    assert memory.charged == 0


def test_accounts_are_in_quanta() -> None:
    """One comparison in the usual case: an account covers what is held and less than one quantum
    more, and the first 16 KiB are not counted."""
    memory = HostMemory(LIMIT)
    account = FREE
    for size in (1, FREE, FREE + 1, QUANTUM, 5 * QUANTUM, 5 * QUANTUM + FREE + 1):
        assert size <= quanta(size) < max(size, FREE) + QUANTUM
        if size > account:
            account = memory.reserve(account, size)
        assert memory.charged == account - FREE
        assert memory.charged % QUANTUM == 0
    memory.release(account)
    assert memory.charged == 0
