"""What fuzzing has found, each as a script of its own."""

from __future__ import annotations

import pytest

from mptcp.errors import ConnectionEnd
from mptcp.events import Closed
from mptcp.wire.mptcp_options import MpFail, MpFastclose
from mptcp.wire.tcp import ACK, FIN, RST
from tests.mptcp.test_addresses import announcement
from tests.options import has
from tests.peer import Peer, Wire, ms, seconds


@pytest.mark.parametrize("retries", [3, 15])
def test_a_data_fin_that_nobody_acknowledges(retries: int) -> None:
    """RFC 1122 §4.2.3.5 R2: a DATA_FIN on a bare ACK (RFC 8684 §3.3.3) is nothing a subflow would
    retransmit and give up; a connection whose peer is gone ended never."""
    wire = Wire(data_retries=retries)
    peer = Peer(wire)
    connection = peer.handshake(mptcp=True, rtt=ms(10))
    wire.take_events()
    connection.shutdown()
    wire.advance(seconds(3600))
    assert wire.take_events()[-1] == Closed(connection, ConnectionEnd.TIMED_OUT)
    seen = peer.drain()
    assert sum(s.dss is not None and s.dss.data_fin for s in seen) == 1 + retries
    assert seen[-1].flags & RST
    assert has(MpFastclose)(seen[-1].options)
    assert not wire.stack.metas


def test_data_that_is_acknowledged_by_the_subflow_only() -> None:
    """RFC 8684 §3.3.2, RFC 1122 §4.2.3.5 R2: the peer's TCP takes the bytes again and again, and no
    DATA_ACK ever comes: what it does not take at the data level is not kept for ever."""
    wire = Wire(nodelay=True)
    peer = Peer(wire)
    connection = peer.handshake(mptcp=True, rtt=ms(10))
    wire.take_events()
    connection.send(b"x" * 100)
    for _ in range(200):
        if connection.ended is not None:
            break
        peer.drain()
        peer.send(ACK, options=[peer.dss(data_ack=1)])
        wire.advance(wire.time + seconds(60))
    assert wire.take_events()[-1] == Closed(connection, ConnectionEnd.TIMED_OUT)


def test_a_slow_peer_is_not_given_up() -> None:
    """What was asked before counts no more once a DATA_ACK has moved."""
    wire = Wire(data_retries=3, nodelay=True)
    peer = Peer(wire)
    connection = peer.handshake(mptcp=True, rtt=ms(10))
    for turn in range(8):
        connection.send(b"x" * 100)
        first = peer.expect(ACK, length=100)
        peer.send(ACK, options=[peer.dss(data_ack=1 + 100 * turn)])
        again = peer.expect(ACK, length=100, within=seconds(10))
        assert again.dss is not None
        assert first.dss is not None
        assert again.dss.dsn == first.dss.dsn
        peer.send(ACK, options=[peer.dss(data_ack=101 + 100 * turn)])
        peer.drain()
    assert connection.ended is None


def test_no_fallback_after_data_that_went_twice() -> None:
    """RFC 8684 §3.7: bytes that have gone twice, for want of a DATA_ACK (§3.3.6), put the subflow's
    numbers out of step with the data's. A fallback counted them twice, and what was sent later as
    delivered, the DATA_FIN too: there is none now, and nothing is lost."""
    wire = Wire(nodelay=True)
    peer = Peer(wire)
    connection = peer.handshake(mptcp=True, rtt=ms(10))
    connection.send(b"x" * 10)
    peer.expect(ACK, seq=1, length=10)
    peer.send(ACK, options=[peer.dss(data_ack=1)])
    peer.expect(ACK, seq=11, dsn=1, length=10, within=seconds(2))
    connection.send(b"y" * 10)
    peer.expect(ACK, seq=21, dsn=11, length=10)
    peer.send(ACK, ack=21, options=[peer.dss(data_ack=1)])
    connection.shutdown()
    peer.drain()
    dsn = (peer.data.stack_idsn + 1) & (1 << 64) - 1
    peer.send(ACK, ack=21, options=[peer.dss(data_ack=1), MpFail(dsn)])
    assert not connection.fallback
    assert any(seen.flags & RST for seen in peer.drain())
    assert connection.tx.nxt - connection.tx.una == 20 + 1


def test_a_data_fin_is_not_taken_as_delivered_by_a_fallback() -> None:
    """RFC 8684 §3.7, §3.3.3: in plain TCP the FIN takes the DATA_FIN's place; what the subflow has
    yet to deliver stays to be delivered."""
    wire = Wire(nodelay=True)
    peer = Peer(wire)
    connection = peer.handshake(mptcp=True, rtt=ms(10))
    connection.send(b"x" * 30)
    peer.send(ACK, ack=11, options=[peer.dss(data_ack=1)])
    connection.shutdown()
    peer.drain()
    dsn = (peer.data.stack_idsn + 1) & (1 << 64) - 1
    peer.send(ACK, ack=11, options=[peer.dss(data_ack=1), MpFail(dsn)])
    assert connection.fallback
    assert (connection.tx.used, connection.tx.nxt - connection.tx.una) == (20, 20)
    peer.mptcp = False
    wire.advance(wire.time + seconds(1))
    peer.send(ACK, ack=31)
    assert connection.tx.used == 0
    wire.advance(wire.time + seconds(1))
    assert any(seen.flags & FIN and seen.end == 32 for seen in peer.drain())


def test_attempts_to_join_do_not_keep_a_connection() -> None:
    """RFC 8684 App. D (break before make): a connection without a subflow waits for a while. Two
    paths on which nobody answers took turns: there was always one with a SYN on its way."""
    wire = Wire(addresses=("10.0.0.1/24", "10.0.1.1/24"), nodelay=True, data_retries=6)
    peer = Peer(wire)
    connection = peer.handshake(mptcp=True, rtt=ms(10))
    flow = peer.beside(address="10.0.1.2", port=80, local="10.0.1.1", interface=2, local_port=0)
    peer.send(ACK, options=[peer.dss(data_ack=1), announcement(connection, 5)])
    flow.accept_join()
    wire.take_events()
    connection.send(b"x" * 40_000)
    wire.advance(seconds(3600))
    assert wire.take_events()[-1] == Closed(connection, ConnectionEnd.NO_SUBFLOW)
    assert not wire.stack.metas
