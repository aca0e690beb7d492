"""TCP Fast Open with MPTCP: RFC 8684 appendix B (with erratum 6609), both sides.

Data of a SYN lies before the data sequence space: the byte after it has SSN 1 and DSN IDSN + 1.
"""

from __future__ import annotations

import pytest

from mptcp.errors import ConnectionEnd
from mptcp.events import Accepted, Closed, Event
from mptcp.meta_socket import MetaSocket
from mptcp.wire.dss import Dss
from mptcp.wire.mptcp_options import MpCapable
from mptcp.wire.tcp import ACK, FIN, RST, SYN
from tests.options import Emits, FastOpen, Mss, SackPermitted, Timestamps, WindowScale, has, lacks
from tests.peer import PEER_KEY, Peer, Wire, ms, seconds

COOKIE = bytes.fromhex("c0c1c2c3c4c5c6c7")


# -- our SYN ---------------------------------------------------------------------------------------


def prime(wire: Wire) -> None:
    """A cookie from 10.0.0.2; the connection that brought it is over."""
    wire.stack.fast_open_cache.learn(bytes((10, 0, 0, 2)), COOKIE, 1460)


def opened(wire: Wire, peer: Peer, data: bytes, acked: int | None = None) -> MetaSocket:
    """A connection whose SYN carried `data`, `acked` bytes of which the SYN/ACK acknowledges."""
    prime(wire)
    connection = wire.stack.connect("10.0.0.2", 80, data=data, fast_open=True)
    syn = peer.expect(SYN, data=data, options=has(FastOpen(COOKIE), MpCapable()))
    assert len(syn.option_bytes) <= 40
    taken = len(data) if acked is None else acked
    options: list[Emits] = [Mss(1460), SackPermitted(), MpCapable(PEER_KEY)]
    peer.send(SYN | ACK, ack=1 + taken, options=options)
    peer.mptcp = True
    return connection


def test_all_options_fit(wire: Wire, peer: Peer) -> None:
    """B.1: MP_CAPABLE (4), timestamps, SACK, scale, MSS and a cookie of 8 bytes make 40."""
    prime(wire)
    wire.stack.connect("10.0.0.2", 80, data=b"x", fast_open=True)
    syn = peer.expect(SYN, options=has(Mss, SackPermitted, Timestamps, WindowScale, MpCapable))
    assert len(syn.option_bytes) == 40


@pytest.mark.row("F11")
def test_the_data_sequence_space_begins_after_the_syn(wire: Wire, peer: Peer) -> None:
    """B.3, figure 19: third ACK with the keys; what follows has SSN 1, DSN IDSN + 1."""
    connection = opened(wire, peer, b"r" * 20)
    key = connection.local_key
    peer.expect(ACK, seq=21, ack=1, length=0, options=has(MpCapable(key, PEER_KEY)))
    assert not connection.fallback
    assert connection.tx.used == 0
    connection.send(b"s" * 20)
    first = peer.expect(ACK, seq=21, length=20, options=has(MpCapable(key, PEER_KEY, 20)))
    assert lacks(Dss)(first.options)
    peer.send(ACK, ack=41, options=[peer.dss(data_ack=21)])
    assert connection.tx.used == 0
    connection.send(b"t" * 10)
    second = peer.expect(ACK, seq=41, data=b"t" * 10)
    assert second.dss is not None
    assert (second.dss.dsn, second.dss.ssn, second.dss.length) == (21, 21, 10)


@pytest.mark.row("F11")
@pytest.mark.parametrize("acked", [0, 5])
def test_what_the_syn_ack_leaves_is_mapped(wire: Wire, peer: Peer, acked: int) -> None:
    """B.2: data of the SYN that was not taken is ordinary data, from IDSN + 1 on."""
    connection = opened(wire, peer, b"0123456789", acked)
    sent = [seen for seen in peer.drain() if seen.data]
    assert [seen.data for seen in sent] == [b"0123456789"[acked:]]
    assert sent[0].seq == 1 + acked
    assert sent[0].option(MpCapable).data_length == 10 - acked
    assert connection.tx.used == 10 - acked
    peer.send(ACK, ack=11, options=[peer.dss(data_ack=1 + 10 - acked)])
    assert connection.tx.used == 0


def test_an_answer_without_mptcp(wire: Wire, peer: Peer) -> None:
    """RFC 8684 §3.7 with B.2: the data of the SYN was taken, the rest is plain TCP."""
    prime(wire)
    connection = wire.stack.connect("10.0.0.2", 80, data=b"request", fast_open=True)
    peer.expect(SYN, data=b"request")
    peer.send(SYN | ACK, ack=8, options=[Mss(1460)])
    peer.expect(ACK, seq=8, length=0, options=lacks(MpCapable, Dss))
    assert connection.fallback
    connection.send(b"more")
    peer.expect(ACK, seq=8, data=b"more", options=lacks(MpCapable, Dss))
    peer.send(ACK, ack=12, data=b"answer")
    assert connection.tx.used == 0
    assert connection.recv() == b"answer"


@pytest.mark.row("F5", "F11")
def test_fallback_after_a_fast_open(wire: Wire, peer: Peer) -> None:
    """RFC 8684 §3.7: acknowledged without a DSS: fallback counts the SYN's data as sent before."""
    connection = opened(wire, peer, b"request")
    peer.expect(ACK)
    connection.send(b"abc")
    peer.expect(ACK, seq=8, data=b"abc")
    peer.mptcp = False
    peer.send(ACK, ack=11)
    assert connection.fallback
    assert connection.tx.used == 0
    connection.send(b"def")
    peer.expect(ACK, seq=11, data=b"def")
    peer.send(ACK, ack=14)
    assert connection.tx.used == 0


@pytest.mark.row("D11", "F11")
def test_close_after_a_fast_open(wire: Wire, peer: Peer) -> None:
    """RFC 8684 §3.3.3: with all data in the SYN the DATA_FIN is DSN IDSN + 1."""
    connection = opened(wire, peer, b"request")
    peer.expect(ACK)
    connection.shutdown()
    fin = [seen for seen in peer.drain() if seen.dss is not None and seen.dss.data_fin]
    assert fin[0].dss is not None
    assert (fin[0].dss.dsn, fin[0].dss.length) == (1, 1)


# -- the peer's SYN --------------------------------------------------------------------------------


@pytest.fixture
def client(wire: Wire) -> Peer:
    """10.0.0.2:40000 with a cookie of the stack's listener on port 5000."""
    wire.stack.listen(5000, fast_open=4)
    return Peer(wire, port=40000, local_port=5000)


def arrive(wire: Wire, client: Peer, data: bytes = b"r" * 20) -> MetaSocket:
    """The SYN with a good cookie and MP_CAPABLE; the connection that it opens at once."""
    cookie = wire.stack.fast_open_keys.cookie(client.address, wire.now)
    options: list[Emits] = [Mss(1400), SackPermitted(), FastOpen(cookie), MpCapable()]
    client.send(SYN, data=data, options=options)
    events: list[Event] = wire.take_events()
    (accepted,) = [event for event in events if isinstance(event, Accepted)]
    return accepted.connection


def third_ack(client: Peer) -> None:
    answer = client.expect(SYN | ACK, seq=0, ack=21)
    key = answer.option(MpCapable).sender_key
    client.send(ACK, options=[MpCapable(PEER_KEY, key)])
    client.mptcp = True


@pytest.mark.row("F11")
def test_data_is_taken_before_the_handshake(wire: Wire, client: Peer) -> None:
    """B.3, figure 19: SYN data to the application at once, MPTCP data from DSN 1, SSN 1 on."""
    connection = arrive(wire, client)
    assert connection.recv() == b"r" * 20
    third_ack(client)
    assert not connection.fallback
    client.send(ACK, seq=21, data=b"s" * 20, options=[client.dss(dsn=1, ssn=1, length=20)])
    assert connection.recv() == b"s" * 20
    connection.send(b"answer")
    answer = [seen for seen in client.drain() if seen.data]
    assert answer[0].dss is not None
    assert (answer[0].dss.dsn, answer[0].dss.ssn, answer[0].dss.data_ack) == (1, 1, 21)


@pytest.mark.row("F11")
def test_first_data_with_mp_capable(wire: Wire, client: Peer) -> None:
    """RFC 8684 §3.1: the other form of the first mapping; it starts after the SYN's data too."""
    connection = arrive(wire, client)
    answer = client.expect(SYN | ACK, seq=0, ack=21)
    key = answer.option(MpCapable).sender_key
    client.send(ACK, seq=21, data=b"later", options=[MpCapable(PEER_KEY, key, 5)])
    assert connection.recv() == b"r" * 20 + b"later"
    assert not connection.fallback
    seen = client.expect(ACK, ack=26, within=seconds(1))
    assert seen.dss is not None
    assert seen.dss.data_ack == 6


@pytest.mark.row("F11")
def test_our_data_waits_for_the_third_ack(wire: Wire, client: Peer) -> None:
    """B.2 lets a listener send with a DSS without DATA_ACK; we wait until MPTCP is sure."""
    connection = arrive(wire, client)
    connection.send(b"answer")
    connection.shutdown()
    client.expect(SYN | ACK, ack=21, options=has(MpCapable))
    client.expect_nothing(until=ms(500))
    key = connection.local_key
    client.send(ACK, options=[MpCapable(PEER_KEY, key)])
    client.mptcp = True
    sent = [seen for seen in client.drain() if seen.data]
    assert sent[0].data == b"answer"
    assert sent[0].dss is not None
    assert (sent[0].dss.dsn, sent[0].dss.ssn) == (1, 1)


def test_a_third_ack_without_mptcp(wire: Wire, client: Peer) -> None:
    """RFC 8684 §3.7: options stripped after the SYN: plain TCP, and no infinite mapping either."""
    connection = arrive(wire, client)
    connection.send(b"answer")
    client.expect(SYN | ACK, ack=21)
    client.send(ACK, seq=21, data=b"plain")
    assert connection.fallback
    assert connection.recv() == b"r" * 20 + b"plain"
    sent = [seen for seen in client.drain() if seen.data]
    assert [seen.data for seen in sent] == [b"answer"]
    assert all(lacks(MpCapable, Dss)(seen.options) for seen in sent)
    client.send(ACK | FIN, ack=7)
    assert connection.eof


def test_a_fresh_cookie_costs_the_timestamps(wire: Wire, client: Peer) -> None:
    """B.1: 40 bytes do not hold MP_CAPABLE with a key, a cookie and timestamps: these go."""
    options: list[Emits] = [
        Mss(1400),
        Timestamps(1, 0),
        SackPermitted(),
        WindowScale(7),
        FastOpen(b""),
    ]
    client.timestamps = True
    client.send(SYN, options=[*options, MpCapable()])
    answer = client.expect(SYN | ACK, ack=1, options=lacks(Timestamps))
    assert has(FastOpen, MpCapable, SackPermitted, WindowScale)(answer.options)
    client.timestamps = False
    client.send(ACK, options=[MpCapable(PEER_KEY, answer.option(MpCapable).sender_key)])
    (event,) = [event for event in wire.take_events() if isinstance(event, Accepted)]
    assert not event.connection.fallback
    assert not client.subflow().ts_ok


@pytest.mark.parametrize("reset", [True, False])
def test_a_handshake_that_fails(wire: Wire, client: Peer, reset: bool) -> None:
    """The connection the application has already ends; it does not wait for another subflow."""
    connection = arrive(wire, client)
    client.expect(SYN | ACK)
    if reset:
        client.send(RST, seq=21)
    else:
        wire.advance(seconds(200))
    (closed,) = [event for event in wire.take_events() if isinstance(event, Closed)]
    assert closed.connection is connection
    assert closed.end is (ConnectionEnd.RESET if reset else ConnectionEnd.TIMED_OUT)
    assert wire.stack.connections == {}
    assert not wire.stack.tokens
