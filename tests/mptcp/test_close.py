"""The end of a connection: DATA_FIN and subflow FINs (RFC 8684 §3.3.3), fast close (§3.5)."""

from __future__ import annotations

import pytest

from mptcp.errors import ConnectionEnd
from mptcp.events import Closed
from mptcp.meta_socket import MetaSocket
from mptcp.tcp.state import State
from mptcp.wire.mptcp_options import MpFastclose
from mptcp.wire.tcp import ACK, FIN, RST
from tests.options import has
from tests.peer import PEER_KEY, Peer, Wire, ms, seconds
from tests.transfers import exchange, network, open_programs

SECOND_PATH = {"address": "10.0.1.2", "local": "10.0.1.1", "interface": 2}


def pair(caller: Peer) -> tuple[MetaSocket, Peer]:
    """A confirmed connection with two subflows, both of the peer's making."""
    connection = caller.handshake(active=False, mptcp=True, rtt=ms(10))
    flow = caller.beside(port=40001, local_port=5000, **SECOND_PATH)
    flow.join()
    caller.drain()
    flow.drain()
    caller.wire.take_events()
    return connection, flow


def data_fins(*peers: Peer) -> list[tuple[int | None, int, int]]:
    """(DSN, SSN, length) of every DATA_FIN that waits."""
    return [
        (seen.dss.dsn, seen.dss.ssn, seen.dss.length)
        for peer in peers
        for seen in peer.drain()
        if seen.dss is not None and seen.dss.data_fin
    ]


@pytest.mark.row("D11")
def test_data_fin_alone(wire: Wire, peer: Peer) -> None:
    """§3.3.3: SSN 0, Data-Level Length 1, the DSN of the DATA_FIN itself; no FIN yet."""
    connection = peer.handshake(mptcp=True)
    connection.send(b"x" * 10)
    peer.expect(ACK, dsn=1)
    peer.send(ACK)
    connection.shutdown()
    seen = peer.expect(ACK, length=0, dsn=11)
    assert seen.dss is not None
    assert (seen.dss.data_fin, seen.dss.ssn, seen.dss.length) == (True, 0, 1)
    assert connection.ended is None


def test_data_fin_without_any_data(wire: Wire, peer: Peer) -> None:
    """A client that has nothing to say and nothing heard yet: its DATA_FIN still has to arrive."""
    connection = peer.handshake(mptcp=True, confirm=False, rtt=ms(10))
    connection.shutdown()
    assert (1, 0, 1) in data_fins(peer)
    wire.advance(seconds(10))
    assert (1, 0, 1) in data_fins(peer)  # repeated until it is acknowledged


@pytest.mark.row("D11")
def test_data_fin_follows_the_data(wire: Wire, peer: Peer) -> None:
    """The DATA_FIN's number comes after everything queued, and nothing has a number above it."""
    peer.window = 1500
    connection = peer.handshake(mptcp=True)
    connection.send(bytes(4000))
    connection.shutdown()
    for _ in range(10):
        for seen in peer.drain():
            if seen.dss is not None and seen.dss.data_fin:
                assert seen.dss.dsn is not None
                assert seen.dss.dsn + seen.dss.length - 1 == 4001
        peer.send(ACK)
    assert peer.data.data_ack == 4002


@pytest.mark.row("D11", "F10")
def test_data_fin_retransmission(wire: Wire, peer: Peer) -> None:
    """§3.3.3: the DATA_FIN is repeated, backing off, until it is DATA_ACKed; then no more."""
    connection = peer.handshake(mptcp=True, rtt=ms(10))
    connection.shutdown()
    times = []
    for _ in range(4):
        seen = peer.expect(ACK, length=0, dsn=1, within=seconds(100))
        times.append(seen.sent_at)
    assert times[2] - times[1] >= times[1] - times[0] > 0
    peer.send(ACK)
    assert data_fins(peer) == []
    wire.advance(wire.time + seconds(200))
    assert data_fins(peer) == []
    assert connection.ended is None


@pytest.mark.row("D12", "F10")
def test_close_order(wire: Wire, peer: Peer) -> None:
    """§3.3.3, figure: both DATA_FINs are DATA_ACKed, then the subflows are closed with FINs."""
    connection = peer.handshake(mptcp=True)
    wire.take_events()
    connection.close()
    seen = peer.expect(ACK, dsn=1, length=0)
    assert not seen.flags & FIN
    peer.send(ACK)
    peer.expect_nothing()
    fin = peer.dss(data_ack=2, dsn=1, ssn=0, length=1, data_fin=True)
    peer.send(ACK, options=[fin])
    sent = peer.drain()
    assert any(s.dss is not None and s.dss.data_ack == 2 for s in sent)
    assert sent[-1].flags & FIN
    assert wire.take_events()[-1] == Closed(connection, ConnectionEnd.CLOSED)
    peer.data.nxt = 2
    peer.send(ACK | FIN)
    assert peer.subflow().state is State.TIME_WAIT
    wire.advance(wire.time + seconds(61))
    assert wire.stack.connections == {}


@pytest.mark.row("D12")
def test_every_subflow_gets_a_fin(wire: Wire, caller: Peer) -> None:
    """§3.3.3: once the DATA_FIN is acknowledged all subflows MUST be closed with FIN exchanges."""
    connection, flow = pair(caller)
    connection.close()
    assert data_fins(caller, flow)[0] == (1, 0, 1)
    caller.send(ACK, options=[caller.dss(data_ack=2, dsn=1, length=1, data_fin=True)])
    assert any(seen.flags & FIN for seen in caller.drain())
    assert any(seen.flags & FIN for seen in flow.drain())


@pytest.mark.row("D11")
def test_data_fin_with_data_received(caller: Peer) -> None:
    """§3.3.3's example: DSN 80, length 11 with F maps 10 octets and is DATA_ACKed with 91."""
    connection = caller.handshake(active=False, mptcp=True)
    caller.send(ACK, data=b"x" * 79)
    connection.recv()
    caller.drain()
    dss = caller.dss(data_ack=1, dsn=80, ssn=80, length=11, data_fin=True)
    caller.send(ACK, data=b"0123456789", options=[dss])
    assert connection.recv() == b"0123456789"
    assert connection.eof
    caller.expect(ACK, ack=90, data_ack=91)


@pytest.mark.row("D11")
def test_data_fin_before_the_data(caller: Peer) -> None:
    """§3.3.3: it is DATA_ACKed only once all data has been received."""
    connection = caller.handshake(active=False, mptcp=True)
    caller.drain()
    caller.send(ACK, options=[caller.dss(data_ack=1, dsn=11, length=1, data_fin=True)])
    assert not connection.eof
    assert all(seen.dss is None or seen.dss.data_ack == 1 for seen in caller.drain())
    caller.send(ACK, data=b"0123456789")
    caller.expect(ACK, data_ack=12)
    assert connection.eof
    assert connection.recv() == b"0123456789"


def test_data_fin_repeated(caller: Peer) -> None:
    """A DATA_FIN that comes again is acknowledged again, and no event repeats."""
    connection = caller.handshake(active=False, mptcp=True)
    caller.drain()
    fin = caller.dss(data_ack=1, dsn=1, length=1, data_fin=True)
    for _ in range(3):
        caller.send(ACK, options=[fin])
        caller.expect(ACK, data_ack=2)
    assert connection.eof


@pytest.mark.row("F10")
def test_half_close_by_the_peer(wire: Wire, caller: Peer) -> None:
    """§3.3.3: a DATA_FIN closes one direction; we go on sending."""
    connection = caller.handshake(active=False, mptcp=True)
    caller.send(ACK, options=[caller.dss(data_ack=1, dsn=1, length=1, data_fin=True)])
    caller.drain()
    caller.data.nxt = 2
    for number in range(5):
        connection.send(bytes([number]) * 1000)
        caller.expect(ACK, data=bytes([number]) * 1000)
        caller.send(ACK)
    assert connection.ended is None
    connection.close()
    caller.expect(ACK, dsn=5001, length=0)


@pytest.mark.row("F10")
def test_half_close_by_us(wire: Wire, peer: Peer) -> None:
    """After our DATA_FIN the peer goes on sending."""
    connection = peer.handshake(mptcp=True)
    connection.shutdown()
    peer.expect(ACK, dsn=1, length=0)
    peer.send(ACK)
    for number in range(5):
        peer.send(ACK, data=bytes([number]) * 1000)
    assert connection.recv() == b"".join(bytes([n]) * 1000 for n in range(5))
    assert connection.ended is None


@pytest.mark.row("D12")
@pytest.mark.mib("MPTcpExtSubflowStale", "MPTcpExtSubflowRecover")
def test_no_fin_while_data_is_not_data_acked(wire: Wire, peer: Peer) -> None:
    """§3.3.3: all working subflows MUST NOT be closed before all data has been DATA_ACKed."""
    connection = peer.handshake(mptcp=True)
    connection.send(b"x" * 100)
    connection.close()
    for _ in range(5):
        assert not any(seen.flags & FIN for seen in peer.drain())
        peer.send(ACK, options=[peer.dss(data_ack=1, dsn=1, length=1, data_fin=True)])
        wire.advance(wire.time + seconds(1))
    assert not any(seen.flags & (FIN | RST) for seen in peer.drain())


@pytest.mark.row("D12")
def test_dead_subflow_does_not_block_the_close(wire: Wire, caller: Peer) -> None:
    """Thesis §3.5: what only the dead path had goes over the other, and the connection closes."""
    connection, _ = pair(caller)
    data = bytes(range(250)) * 200
    connection.send(data)
    connection.close()
    for _ in range(200):  # `flow` is dead: its packets are never answered
        caller.drain()
        caller.data.received.clear()
        for start, end in caller.own_data:
            caller.data.received.add(start, end)
        fin = caller.dss(data_ack=caller.data.data_ack, dsn=1, length=1, data_fin=True)
        caller.send(ACK, options=[fin])
        if connection.ended is not None:
            break
        wire.advance(wire.time + ms(100))
    assert connection.ended is ConnectionEnd.CLOSED
    assert caller.data.data_ack == len(data) + 2


def test_subflow_fin_alone_does_not_end_the_connection(wire: Wire, caller: Peer) -> None:
    """§3.3.3: a FIN shuts down the subflow it was sent on, nothing else."""
    connection, flow = pair(caller)
    flow.send(ACK | FIN)
    assert not connection.eof
    caller.send(ACK, data=b"still")
    assert connection.recv() == b"still"
    wire.advance(wire.time + seconds(5))
    assert any(seen.flags & FIN for seen in flow.drain())
    assert connection.ended is None


@pytest.mark.parametrize("early_end", [True, False])
def test_connections_without_a_byte(early_end: bool) -> None:
    """Open and close, nothing in between."""
    sim, a, b, _ = network(1)
    client, server = open_programs(a, b, b"", b"", early_end=early_end)
    exchange(sim, client, server, b"", b"")


# -- fast close -----------------------------------------------------------------------------------


@pytest.mark.row("F1")
@pytest.mark.mib("MPTcpExtMPFastcloseRx")
def test_fastclose_received(wire: Wire, caller: Peer) -> None:
    """§3.5: with our key: every subflow is reset, the application is told."""
    connection, flow = pair(caller)
    fast = MpFastclose(connection.local_key)
    caller.send(ACK, options=[fast])
    assert any(seen.flags & RST for seen in caller.drain())
    assert any(seen.flags & RST for seen in flow.drain())
    assert wire.take_events()[-1] == Closed(connection, ConnectionEnd.FAST_CLOSED)
    assert wire.stack.connections == {}


@pytest.mark.row("F1")
def test_fastclose_on_a_reset(wire: Wire, caller: Peer) -> None:
    """§3.5, option R: RST with MP_FASTCLOSE ends the whole connection."""
    connection, flow = pair(caller)
    caller.send(RST | ACK, options=[MpFastclose(connection.local_key)])
    assert wire.take_events()[-1] == Closed(connection, ConnectionEnd.FAST_CLOSED)
    assert any(seen.flags & RST for seen in flow.drain())


@pytest.mark.row("F1")
@pytest.mark.parametrize("flags", [ACK, RST | ACK])
def test_fastclose_with_a_wrong_key(wire: Wire, caller: Peer, flags: int) -> None:
    """§3.5: only with the right key."""
    connection, flow = pair(caller)
    caller.send(flags, options=[MpFastclose(b"\0" * 8)])
    assert connection.ended is None
    flow.send(ACK, data=b"still")
    assert connection.recv() == b"still"


@pytest.mark.row("F1")
@pytest.mark.mib("MPTcpExtMPFastcloseTx")
def test_abort_sends_fastclose(wire: Wire, caller: Peer) -> None:
    """§3.5, option R: RST + MP_FASTCLOSE with the peer's key on all subflows."""
    connection, flow = pair(caller)
    connection.send(bytes(100_000))
    caller.drain()
    flow.drain()
    connection.abort()
    for peer in (caller, flow):
        seen = peer.expect(length=0, options=has(MpFastclose(PEER_KEY)))
        assert seen.flags & RST
    assert wire.take_events()[-1] == Closed(connection, ConnectionEnd.ABORTED)
    assert wire.stack.connections == {}
    assert wire.stack.tokens == {}


@pytest.mark.row("F1")
@pytest.mark.parametrize("fin_first", [True, False])
def test_the_last_data_for_an_application_that_is_gone(
    wire: Wire, peer: Peer, fin_first: bool
) -> None:
    """RFC 1122 §4.2.2.13: data after close() ends the connection by a reset, and so does the last
    of it, though with it both directions are at their end: nobody has read it."""
    connection = peer.handshake(mptcp=True)
    connection.close()
    peer.expect(ACK, dsn=1, length=0)
    peer.send(ACK)  # our DATA_FIN is acknowledged
    fin = peer.dss(data_ack=2, dsn=5, ssn=0, length=1, data_fin=True)
    data = peer.dss(data_ack=2, dsn=1, ssn=1, length=4 if fin_first else 5, data_fin=not fin_first)
    if fin_first:
        peer.send(ACK, options=[fin])
    peer.send(ACK, data=b"last", options=[data])
    seen = peer.expect(RST | ACK, options=has(MpFastclose(PEER_KEY)))
    assert seen.dss is None
    assert wire.take_events()[-1] == Closed(connection, ConnectionEnd.ABORTED)
    assert wire.stack.counters["TcpExtTCPAbortOnData"] == 1


@pytest.mark.row("F1")
@pytest.mark.parametrize("how", ["abort", "unread", "late", "told"])
def test_nothing_joins_a_connection_that_ends_at_once(how: str) -> None:
    """§3.5: MP_FASTCLOSE is the end. Its only subflow goes and none takes its place, whether it was
    abort(), close() with data unread or still to come, or the peer that ended it."""
    options: dict[str, object] = {"heuristics": "after-bytes:1000000"}
    sim, a, b, _ = network(1, a=options, b=options, rate_bps=10_000_000, delay_us=10_000)
    sim.connect(a, "10.0.9.1/24", b, "10.0.9.2/24", delay_us=10_000)
    client, server = open_programs(a, b, bytes(20_000), bytes(400_000))
    client.reading = how != "unread"
    sim.run(150_000)
    assert client.connection is not None
    assert server.connection is not None
    assert server.outgoing or server.connection.tx.used
    if how == "told":
        server.connection.abort()
    elif how == "abort":
        client.connection.abort()
    else:
        assert bool(client.connection.rx.unread) == (how == "unread")
        client.connection.close()
    sim.run(3_000_000)
    ends = {client.end, server.end}
    assert ends == {ConnectionEnd.ABORTED, ConnectionEnd.FAST_CLOSED}
    for stack in (a.stack, b.stack):
        assert stack.connections == {}
        assert stack.counters["MPTcpExtMPJoinSynTx"] == 0


def test_an_attempt_to_join_ends_with_the_connection() -> None:
    """RFC 8684 §3.2: a SYN with MP_JOIN that nothing has answered is not repeated for a connection
    that is over, however that came."""
    sim, a, b, _ = network(1, a={"heuristics": "at-once"}, b={})
    second = sim.connect(a, "10.0.9.1/24", b, "10.0.9.2/24", delay_us=10_000)
    sim.set_down(second, True)
    client, _ = open_programs(a, b, bytes(1000), b"")
    client.shuts_down = False
    sim.run(600_000)
    assert client.connection is not None
    assert [s.state for s in client.connection.subflows] == [State.ESTABLISHED, State.SYN_SENT]
    client.connection.finish(ConnectionEnd.RESET, sim.now)
    assert [s.state for s in a.stack.connections.values()] == [State.ESTABLISHED]
