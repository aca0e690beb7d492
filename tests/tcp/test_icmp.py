"""ICMP errors about our segments (RFC 1122 §4.2.3.9, RFC 5927, RFC 5461, RFC 6633)."""

from __future__ import annotations

import pytest

from mptcp.errors import ConnectionEnd
from mptcp.events import Closed
from mptcp.tcp.state import State
from mptcp.wire.checksum import finish, ones_sum
from mptcp.wire.icmp import IcmpKind
from mptcp.wire.ip import ICMP, ip_header
from mptcp.wire.tcp import ACK, RST, SYN
from tests.options import Mss
from tests.peer import Peer, Wire, seconds
from tests.tcp.icmp import ROUTER, error_about, quoted, too_big

SOFT = [IcmpKind.UNREACHABLE, IcmpKind.TIME_EXCEEDED]
HARD = [IcmpKind.PORT_UNREACHABLE, IcmpKind.PROTOCOL_UNREACHABLE, IcmpKind.ADMIN_PROHIBITED]


def six() -> Peer:
    """A stack and its peer over IPv6."""
    wire = Wire(addresses=["fd00::1/64"], mptcp=False, nodelay=True)
    return Peer(wire, address="fd00::2", local="fd00::1")


def ends(wire: Wire) -> list[ConnectionEnd]:
    """How connections have ended."""
    return [event.end for event in wire.take_events() if isinstance(event, Closed)]


@pytest.mark.parametrize("kind", SOFT + HARD)
@pytest.mark.parametrize("family", [4, 6])
def test_no_error_ends_an_established_connection(wire: Wire, kind: IcmpKind, family: int) -> None:
    """RFC 1122 §4.2.3.9 for soft errors; RFC 5927 §5.2: hard ones are soft when synchronized."""
    peer = Peer(wire) if family == 4 else six()
    connection = peer.handshake()
    connection.send(b"x")
    seen = peer.expect(ACK)
    peer.wire.inject(error_about(peer, seen, kind))
    assert peer.subflow().state is State.ESTABLISHED
    assert connection.last_soft_error == kind.value
    peer.send(ACK)
    assert connection.last_soft_error == "", "it works again"
    connection.send(b"y")
    peer.expect(ACK, data=b"y")


@pytest.mark.parametrize("kind", [IcmpKind.UNREACHABLE, *HARD])
@pytest.mark.mib("IcmpInDestUnreachs", "TcpAttemptFails")
def test_unreachable_ends_an_open(wire: Wire, peer: Peer, kind: IcmpKind) -> None:
    """RFC 5461 §4.1: in SYN-SENT the attempt ends at once, soft errors included."""
    wire.stack.connect(peer.address, peer.port)
    syn = peer.expect(SYN)
    wire.inject(error_about(peer, syn, kind))
    assert ends(wire) == [ConnectionEnd.UNREACHABLE]
    peer.expect_nothing(until=seconds(10))


def test_time_exceeded_does_not_end_an_open(wire: Wire, peer: Peer) -> None:
    """RFC 1122 §4.2.3.9: soft; a routing loop passes. The time-out then says why it was."""
    connection = wire.stack.connect(peer.address, peer.port)
    syn = peer.expect(SYN)
    wire.inject(error_about(peer, syn, IcmpKind.TIME_EXCEEDED))
    assert ends(wire) == []
    wire.advance(seconds(400))
    assert ends(wire) == [ConnectionEnd.TIMED_OUT]
    assert connection.last_soft_error == "time exceeded"


def test_unreachable_ends_a_half_open_connection(wire: Wire, peer: Peer) -> None:
    """RFC 5461 §4.1 for SYN-RECEIVED: the place in the backlog is free again."""
    listener = wire.stack.listen(4000)
    peer.local_port = 4000
    peer.send(SYN, options=[Mss(1460)])
    answer = peer.expect(SYN | ACK)
    assert len(listener.half_open) == 1
    wire.inject(error_about(peer, answer, IcmpKind.UNREACHABLE))
    assert len(listener.half_open) == 0
    peer.expect_nothing(until=seconds(10))


@pytest.mark.parametrize("offset", [-1, 1, 2, 1000, 1 << 31])
@pytest.mark.mib("TcpExtOutOfWindowIcmps")
def test_forged_error_in_an_open(wire: Wire, peer: Peer, offset: int) -> None:
    """RFC 5927 §4.1: who does not know the ISS cannot end the attempt; counted."""
    wire.stack.connect(peer.address, peer.port)
    syn = peer.expect(SYN)
    wire.inject(error_about(peer, syn, IcmpKind.PORT_UNREACHABLE, offset=offset))
    assert ends(wire) == []
    assert wire.stack.counters["TcpExtOutOfWindowIcmps"] == 1
    peer.send(SYN | ACK, options=[Mss(1460)])
    peer.expect(ACK)


@pytest.mark.parametrize("offset", [-1, 100, 5000])
def test_error_about_what_is_not_in_flight(wire: Wire, peer: Peer, offset: int) -> None:
    """RFC 5927 §4.1: SND.UNA <= SEG.SEQ < SND.NXT, else ignored and counted."""
    connection = peer.handshake()
    connection.send(bytes(100))
    seen = peer.expect(ACK)
    wire.inject(error_about(peer, seen, IcmpKind.UNREACHABLE, offset=offset))
    assert connection.last_soft_error == ""
    assert wire.stack.counters["TcpExtOutOfWindowIcmps"] == 1


@pytest.mark.mib("IcmpInUnmatched")
def test_error_about_nobody(wire: Wire, peer: Peer) -> None:
    """RFC 1122 §4.2.3.9: what belongs to no connection changes nothing; counted."""
    peer.handshake().send(b"x")
    seen = peer.expect(ACK)
    seen.segment.sport ^= 1
    wire.inject(error_about(peer, seen, IcmpKind.UNREACHABLE))
    peer.expect_nothing()
    assert wire.stack.counters["IcmpInUnmatched"] == 1


@pytest.mark.mib("IcmpInSrcQuenchs")
def test_source_quench(wire: Wire, peer: Peer) -> None:
    """RFC 6633 §3: silently ignored (RFC 1122 §4.2.3.9 wanted a slow start)."""
    connection = peer.handshake()
    connection.send(bytes(5000))
    seen = peer.drain()[0]
    cwnd = peer.subflow().cc.cwnd
    body = bytes(4) + bytes(quoted(peer, seen)[:28])
    message = bytes([4, 0]) + finish((4 << 8) + ones_sum(body)).to_bytes(2, "big") + body
    wire.inject(ip_header(ROUTER, peer.local, ICMP, len(message)) + message)
    assert peer.subflow().cc.cwnd == cwnd
    assert wire.stack.counters["IcmpInSrcQuenchs"] == 1


def test_time_out_after_an_error(wire: Wire, peer: Peer) -> None:
    """RFC 1122 §4.2.3.9: the application learns of a soft error when the connection times out."""
    connection = peer.handshake()
    connection.send(b"x")
    seen = peer.expect(ACK)
    wire.inject(error_about(peer, seen, IcmpKind.UNREACHABLE))
    wire.advance(seconds(1200))
    assert ends(wire) == [ConnectionEnd.TIMED_OUT]
    error = ConnectionEnd.TIMED_OUT.to_exception(connection.last_soft_error)
    assert isinstance(error, TimeoutError)
    assert str(error) == "the peer did not answer (unreachable)"


def test_error_about_a_connection_that_is_over(wire: Wire, peer: Peer) -> None:
    """RFC 5927 §4.1: in TIME-WAIT nothing is in flight."""
    connection = peer.handshake()
    connection.send(b"x")
    seen = peer.expect(ACK)
    connection.abort()
    assert peer.expect().flags & RST
    wire.inject(error_about(peer, seen, IcmpKind.PORT_UNREACHABLE))
    wire.inject(too_big(peer, seen, 600))
    peer.expect_nothing()


@pytest.mark.mib("IcmpInRateLimited")
def test_rate_limit() -> None:
    """What strangers can make us look at each second is bounded (RFC 1812 §4.3.2.8)."""
    wire = Wire(mptcp=False, nodelay=True, icmp_per_second=10)
    peer = Peer(wire)
    connection = peer.handshake(mss=1460)
    connection.send(bytes(1460))
    seen = peer.expect(ACK, length=1460)
    for _ in range(20):
        wire.inject(error_about(peer, seen, IcmpKind.TIME_EXCEEDED, offset=1 << 20))
    assert wire.stack.counters["TcpExtOutOfWindowIcmps"] == 10
    assert wire.stack.counters["IcmpInRateLimited"] == 10
    wire.inject(too_big(peer, seen, 1200))
    peer.expect_nothing()
    wire.advance(seconds(1))
    peer.drain()
    wire.inject(too_big(peer, seen, 1200))
    assert max(len(s.data) for s in peer.drain()) == 1160


def test_joined_subflow_is_unreachable() -> None:
    """RFC 8684 §3.2: a join that the network refuses costs the subflow, not the connection."""
    wire = Wire(nodelay=True, addresses=["10.0.0.1/24", "10.1.0.1/24"])
    peer = Peer(wire)
    connection = peer.handshake(mptcp=True)
    other = peer.beside(local="10.1.0.1", interface=2)
    syn = other.expect(SYN, within=seconds(5))
    wire.inject(error_about(other, syn, IcmpKind.PORT_UNREACHABLE), 2)
    assert connection.ended is None
    assert len(connection.subflows) == 1
    connection.send(b"x")
    assert peer.expect().data == b"x"
