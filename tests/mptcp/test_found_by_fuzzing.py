"""What fuzzing has found, each as a script of its own."""

from __future__ import annotations

import pytest

from mptcp.errors import ConnectionEnd
from mptcp.events import Closed
from mptcp.wire.mptcp_options import MpFail, MpFastclose
from mptcp.wire.tcp import ACK, FIN, RST
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


def test_fallback_after_data_that_went_twice() -> None:
    """RFC 8684 §3.7: from a fallback on the subflow's ACKs free data. Bytes that had gone twice,
    for want of a DATA_ACK (§3.3.6), were counted twice: what was sent later was taken as delivered,
    the DATA_FIN too."""
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
    dsn = (peer.data.stack_idsn + 1) & (1 << 64) - 1
    peer.send(ACK, ack=21, options=[peer.dss(data_ack=1), MpFail(dsn)])
    assert connection.fallback
    peer.mptcp = False
    assert connection.tx.used == 10  # what the subflow has not had acknowledged
    peer.drain()
    peer.send(ACK, ack=31)
    assert connection.tx.used == 0
    wire.advance(wire.time + seconds(1))
    assert any(seen.flags & FIN and seen.end == 32 for seen in peer.drain())
