"""What the random sessions have found, each as a script of its own."""

from __future__ import annotations

import pytest

from mptcp.errors import ConnectionEnd
from mptcp.events import Closed
from mptcp.wire.mptcp_options import MpCapable
from mptcp.wire.tcp import ACK, FIN, RST, SYN
from tests.mptcp.test_addresses import announcement
from tests.options import Emits, Mss, Timestamps
from tests.peer import Peer, Wire, ms, seconds

SECOND_PATH = {"address": "10.0.1.2", "local": "10.0.1.1", "interface": 2}


@pytest.mark.parametrize("close", ["LAST-ACK", "CLOSING"])
def test_a_reset_after_our_fin_is_an_error_while_data_is_unacknowledged(close: str) -> None:
    """RFC 9293 §3.10.7.4 third: in CLOSING and LAST-ACK a RST ends the connection without a word;
    but bytes the peer has not acknowledged are lost (RFC 1122 §4.2.2.13: it MUST tell by RST)."""
    wire = Wire(mptcp=False, nodelay=True)
    peer = Peer(wire)
    connection = peer.handshake()
    wire.take_events()
    if close == "LAST-ACK":
        peer.send(ACK | FIN)
        peer.drain()
    connection.send(b"x" * 100)
    connection.shutdown()
    peer.drain()
    if close == "CLOSING":
        peer.send(ACK | FIN, ack=1)
        peer.drain()
    assert peer.subflow().state.name == close.replace("-", "_")
    peer.send(RST, seq=2)
    assert wire.take_events()[-1] == Closed(connection, ConnectionEnd.RESET)


@pytest.mark.parametrize("close", ["LAST-ACK", "CLOSING"])
def test_a_reset_after_our_fin_is_none_when_all_data_has_arrived(close: str) -> None:
    """RFC 9293 §3.10.7.4 third: only the FIN is open: CLOSED, and no error for the user."""
    wire = Wire(mptcp=False, nodelay=True)
    peer = Peer(wire)
    connection = peer.handshake()
    wire.take_events()
    connection.send(b"x" * 100)
    peer.drain()
    if close == "LAST-ACK":
        peer.send(ACK | FIN, ack=101)
        peer.drain()
    connection.shutdown()
    peer.drain()
    if close == "CLOSING":
        peer.send(ACK | FIN, ack=101)
        peer.drain()
    peer.send(RST, seq=2)
    assert wire.take_events()[-1] == Closed(connection, ConnectionEnd.CLOSED)


def test_nothing_is_told_after_the_end() -> None:
    """A join whose fourth ACK comes when the connection is over (RFC 8684 §3.2, §3.3.3): `Closed`
    is the last event of a connection."""
    wire = Wire(addresses=("10.0.0.1/24", "10.0.1.1/24"), nodelay=True)
    peer = Peer(wire)
    connection = peer.handshake(mptcp=True, rtt=ms(10))
    flow = peer.beside(port=80, **SECOND_PATH)
    peer.send(ACK, options=[peer.dss(data_ack=1), announcement(connection, 5)])
    peer.drain()
    flow.accept_join(fourth=False)
    wire.take_events()
    connection.close()
    peer.drain()
    peer.send(ACK, options=[peer.dss(data_ack=2, dsn=1, length=1, data_fin=True)])
    assert wire.take_events()[-1] == Closed(connection, ConnectionEnd.CLOSED)
    flow.send(ACK, options=[flow.dss(data_ack=2)])
    assert wire.take_events() == []


def test_no_problem_is_told_after_the_end() -> None:
    """RFC 1122 §4.2.3.5 R1 reports to the user of a connection; once that is over there is none:
    the FIN of a subflow that goes on being repeated (RFC 8684 §3.3.3) is no one's problem."""
    wire = Wire(nodelay=True)
    peer = Peer(wire)
    connection = peer.handshake(mptcp=True, rtt=ms(10))
    wire.take_events()
    connection.close()
    peer.drain()
    peer.send(ACK, options=[peer.dss(data_ack=2, dsn=1, length=1, data_fin=True)])
    assert wire.take_events()[-1] == Closed(connection, ConnectionEnd.CLOSED)
    assert any(seen.flags & FIN for seen in peer.drain())
    wire.advance(seconds(30))
    assert len(peer.drain()) >= 5
    assert wire.take_events() == []


def test_a_third_ack_without_keys_leaves_the_way_open() -> None:
    """RFC 8684 §3.1: the client has shut down at once, and its MP_CAPABLE ACK is overtaken by its
    DATA_FIN, which means nothing to a server that has no key yet: that answer must not say
    otherwise (no DSS before the keys), nor make the MP_CAPABLE look old (RFC 7323 §5.3)."""
    wire = Wire(nodelay=True)
    wire.stack.listen(5000)
    caller = Peer(wire, port=40000, local_port=5000)
    options: list[Emits] = [Mss(1460), Timestamps(1000, 0)]
    caller.send(SYN, options=[*options, MpCapable()])
    caller.expect(SYN | ACK, ack=1)
    data_fin = caller.dss(data_ack=1, dsn=1, length=1, data_fin=True)
    caller.send(ACK, options=[Timestamps(1300, 0), data_fin])
    # Too old for the connection: answered as RFC 9293 §3.10.7.4 first has it, in plain TCP.
    caller.send(ACK, options=[Timestamps(900, 0)])
    assert caller.expect(ACK, seq=1, ack=1).dss is None
    (connection,) = wire.stack.metas
    assert not connection.established
    keys = MpCapable(caller.data.key, caller.data.stack_key)
    caller.send(ACK, options=[Timestamps(1200, 0), keys])
    assert connection.established
    assert not connection.fallback
    caller.send(ACK, options=[Timestamps(1400, 0), data_fin])
    assert connection.eof
