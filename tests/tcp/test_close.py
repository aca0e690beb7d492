"""Closing and aborting: RFC 9293 §3.6, §3.10.4-3.10.8; RFC 1122 §4.2.2.13; RFC 1337's hazards."""

from __future__ import annotations

import pytest

from mptcp.errors import ConnectionEnd, NotConnectedError
from mptcp.events import Closed, Readable
from mptcp.tcp.state import State
from mptcp.wire.tcp import ACK, FIN, RST, SYN
from tests.options import Mss
from tests.peer import Peer, Wire, ms, seconds

TIME_WAIT = seconds(60)


@pytest.mark.mib("TcpExtTW")
def test_active_close(wire: Wire, peer: Peer) -> None:
    """Figure 12: FIN-WAIT-1, FIN-WAIT-2, TIME-WAIT, and CLOSED after 2 MSL."""
    connection = peer.handshake()
    wire.take_events()
    connection.close()
    peer.expect(ACK | FIN, seq=1, ack=1, length=0)
    assert peer.subflow().state is State.FIN_WAIT_1
    peer.send(ACK, ack=2)
    assert peer.subflow().state is State.FIN_WAIT_2
    peer.send(ACK | FIN, seq=1, ack=2, at=ms(100))
    peer.expect(ACK, seq=2, ack=2, length=0)
    assert peer.subflow().state is State.TIME_WAIT
    assert wire.take_events()[-1] == Closed(connection, ConnectionEnd.CLOSED)
    wire.advance(ms(100) + TIME_WAIT - 1)
    assert peer.subflow().state is State.TIME_WAIT
    wire.advance(ms(100) + TIME_WAIT)
    assert wire.stack.connections == {}
    peer.expect_nothing()


def test_passive_close(wire: Wire, peer: Peer) -> None:
    """Figure 12, the other side: CLOSE-WAIT, LAST-ACK, CLOSED without TIME-WAIT."""
    connection = peer.handshake()
    wire.take_events()
    peer.send(ACK | FIN)
    peer.expect(ACK, seq=1, ack=2, length=0)
    assert peer.subflow().state is State.CLOSE_WAIT
    assert wire.take_events() == [Readable(connection)]
    assert connection.eof
    connection.close()
    peer.expect(ACK | FIN, seq=1, ack=2)
    assert peer.subflow().state is State.LAST_ACK
    peer.send(ACK, ack=2)
    assert wire.take_events()[-1] == Closed(connection, ConnectionEnd.CLOSED)
    assert wire.stack.connections == {}


def test_simultaneous_close(wire: Wire, peer: Peer) -> None:
    """Figure 13: CLOSING, then TIME-WAIT."""
    connection = peer.handshake()
    connection.close()
    peer.expect(ACK | FIN, seq=1, ack=1)
    peer.send(ACK | FIN, seq=1, ack=1)
    peer.expect(ACK, seq=2, ack=2, length=0)
    assert peer.subflow().state is State.CLOSING
    peer.send(ACK, ack=2)
    assert peer.subflow().state is State.TIME_WAIT
    assert wire.take_events()[-1] == Closed(connection, ConnectionEnd.CLOSED)


def test_fin_and_its_ack_in_one_segment(wire: Wire, peer: Peer) -> None:
    """§3.10.7.4 eighth, FIN-WAIT-1: our FIN acknowledged by the peer's FIN: TIME-WAIT at once."""
    connection = peer.handshake()
    connection.close()
    peer.expect(ACK | FIN)
    peer.send(ACK | FIN, ack=2)
    peer.expect(ACK, seq=2, ack=2)
    assert peer.subflow().state is State.TIME_WAIT


def test_queued_data_goes_before_the_fin(wire: Wire, peer: Peer) -> None:
    """§3.10.4: CLOSE sends what is queued first; the last segment may carry the FIN."""
    peer.window = 1000
    connection = peer.handshake(mss=1000)
    connection.send(bytes(1500))
    connection.close()
    peer.expect(ACK, seq=1, length=1000)
    peer.expect_nothing()
    peer.send(ACK, ack=1001)
    peer.expect(seq=1001, length=500)
    rest = peer.drain()
    assert peer.acked() == 1502
    assert len(rest) <= 1
    with pytest.raises(NotConnectedError):
        connection.send(b"x")


def test_half_close_by_us(wire: Wire, peer: Peer) -> None:
    """§3.6: who has sent FIN goes on receiving until the peer's FIN."""
    connection = peer.handshake()
    connection.shutdown()
    peer.expect(ACK | FIN, seq=1)
    peer.send(ACK, ack=2)
    for number in range(50):
        peer.send(ACK, data=bytes([number]) * 1000)
    peer.send(ACK | FIN)
    assert connection.recv() == b"".join(bytes([n]) * 1000 for n in range(50))
    assert connection.eof
    assert peer.drain()[-1].ack == 50_002
    assert peer.subflow().state is State.TIME_WAIT


def test_half_closed_peer_may_take_its_time(wire: Wire, peer: Peer) -> None:
    """RFC 1122 §4.2.2.13: a half-closed connection (shutdown, not close) has no time limit."""
    connection = peer.handshake()
    connection.shutdown()
    peer.expect(ACK | FIN)
    peer.send(ACK, ack=2)
    peer.send(ACK, data=b"late", at=seconds(4000))
    assert connection.recv() == b"late"


def test_half_close_by_the_peer(wire: Wire, peer: Peer) -> None:
    """CLOSE-WAIT: sending goes on for as long as we like."""
    connection = peer.handshake(mss=1000)
    peer.send(ACK | FIN)
    peer.expect(ACK, ack=2)
    assert connection.eof
    got = b""
    for number in range(20):
        connection.send(bytes([number]) * 1000)
        got += peer.expect(ACK, ack=2, length=1000).data
        peer.send(ACK)
    connection.close()
    peer.expect(ACK | FIN, seq=20_001)
    assert got == b"".join(bytes([n]) * 1000 for n in range(20))


@pytest.mark.mib("TcpExtTCPSlowStartRetrans")
def test_fin_retransmission(wire: Wire, peer: Peer) -> None:
    """The FIN is repeated like data until it is acknowledged."""
    connection = peer.handshake(rtt=ms(100))
    connection.close()
    for at in (0, 300, 600, 1200, 2400):  # the second is a tail loss probe
        peer.expect(ACK | FIN, seq=1, length=0, at=ms(at))
    peer.send(ACK | FIN, ack=2)
    peer.expect(ACK, ack=2)
    peer.expect_nothing(until=seconds(30))


def test_resent_fin_restarts_time_wait(wire: Wire, peer: Peer) -> None:
    """§3.10.7.4: in TIME-WAIT the FIN again is acknowledged and restarts the 2 MSL timer."""
    connection = peer.handshake()
    connection.close()
    peer.send(ACK | FIN, ack=2)
    peer.drain()
    wire.mark()
    peer.send(ACK | FIN, seq=1, ack=2, at=seconds(50))
    peer.expect(ACK, seq=2, ack=2, length=0)
    wire.advance(seconds(50) + TIME_WAIT - 1)
    assert peer.subflow().state is State.TIME_WAIT
    wire.advance(seconds(50) + TIME_WAIT)
    assert wire.stack.connections == {}


@pytest.mark.mib("TcpExtTWRecycled")
def test_syn_reopens_time_wait(wire: Wire) -> None:
    """§3.6.1: a SYN with a larger sequence number may open the pair again."""
    wire.stack.listen(5000)
    peer = Peer(wire, port=40000, local_port=5000)
    connection = peer.handshake(active=False)
    connection.close()
    peer.expect(ACK | FIN, seq=1)
    peer.send(ACK | FIN, ack=2)
    peer.expect(ACK)
    peer.send(SYN, seq=1000, options=[Mss(1460)])
    peer.expect(SYN | ACK, ack=1001)


def test_time_wait_is_bounded() -> None:
    """Many connections in TIME-WAIT: the oldest give way."""
    wire = Wire(mptcp=False, max_time_wait=3)
    for port in range(81, 91):
        peer = Peer(wire, port=port)
        peer.handshake().close()
        peer.send(ACK | FIN, ack=2)
    assert len(wire.stack.connections) == 3


def test_fin_wait_2_of_a_closed_connection_ends(wire: Wire, peer: Peer) -> None:
    """RFC 1122 §4.2.2.20 (MAY): after close() the peer's FIN is not awaited for ever."""
    connection = peer.handshake()
    connection.close()
    peer.expect(ACK | FIN)
    peer.send(ACK, ack=2)
    wire.advance(seconds(61))
    assert wire.stack.connections == {}
    assert isinstance(wire.take_events()[-1], Closed)
    assert wire.stack.metas == set()


# -- abort and reset -----------------------------------------------------------------------


def test_abort(wire: Wire, peer: Peer) -> None:
    """§3.10.5: <SEQ=SND.NXT><CTL=RST>, everything queued is dropped."""
    peer.window = 1000
    connection = peer.handshake(mss=1000)
    connection.send(bytes(5000))
    peer.expect(ACK, seq=1)
    connection.abort()
    answer = peer.expect(seq=1001, length=0)
    assert answer.flags & RST
    assert wire.take_events()[-1] == Closed(connection, ConnectionEnd.ABORTED)
    peer.expect_nothing(until=seconds(100))


@pytest.mark.mib("TcpExtTCPAbortOnClose")
def test_close_with_unread_data_resets(wire: Wire, peer: Peer) -> None:
    """RFC 1122 §4.2.2.13: closing with unread data, the peer learns by RST that it was lost."""
    connection = peer.handshake()
    peer.send(ACK, data=b"never read")
    peer.drain()
    connection.close()
    assert peer.expect(within=0).flags & RST
    assert wire.stack.connections == {}


@pytest.mark.mib("TcpExtTCPAbortOnData")
def test_data_after_close_resets(wire: Wire, peer: Peer) -> None:
    """RFC 1122 §4.2.2.13: data that comes after close() is answered with RST."""
    connection = peer.handshake()
    connection.close()
    peer.expect(ACK | FIN)
    peer.send(ACK, ack=2)
    peer.send(ACK, data=b"nobody reads this")
    assert any(seen.flags & RST for seen in peer.drain())
    assert wire.stack.connections == {}


@pytest.mark.mib("TcpEstabResets")
def test_reset_by_the_peer(wire: Wire, peer: Peer) -> None:
    """§3.10.7.4 second: pending data is dropped, the user is told."""
    connection = peer.handshake()
    connection.send(b"x")
    peer.drain()
    wire.take_events()
    peer.send(RST, seq=1)
    assert wire.take_events()[-1] == Closed(connection, ConnectionEnd.RESET)
    peer.expect_nothing(until=seconds(100))


@pytest.mark.parametrize("own_fin", [False, True])
def test_reset_in_closing_states(wire: Wire, peer: Peer, own_fin: bool) -> None:
    """§3.10.7.4 second: RST in LAST-ACK and TIME-WAIT enters CLOSED without a word."""
    connection = peer.handshake()
    if own_fin:
        connection.close()
        peer.send(ACK | FIN, ack=2)
        assert peer.subflow().state is State.TIME_WAIT
    else:
        peer.send(ACK | FIN)
        connection.close()
        wire.flush()
        assert peer.subflow().state is State.LAST_ACK
    peer.drain()
    wire.take_events()
    peer.send(RST, seq=2)
    assert wire.stack.connections == {}
    ends = [event.end for event in wire.take_events() if isinstance(event, Closed)]
    assert ends == ([] if own_fin else [ConnectionEnd.CLOSED])
    assert connection.ended is ConnectionEnd.CLOSED
