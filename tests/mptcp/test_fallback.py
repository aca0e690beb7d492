"""Fallback to plain TCP is normal: RFC 8684 §3.1, §3.7, at every stage, both roles."""

from __future__ import annotations

import pytest

from mptcp.events import Accepted, FellBack
from mptcp.meta_socket import MetaSocket
from mptcp.wire.dss import Dss
from mptcp.wire.mptcp_options import RST_MIDDLEBOX, MpCapable, MpTcprst
from mptcp.wire.tcp import ACK, FIN, RST, SYN
from tests.options import Emits, Mss, SackPermitted, has, lacks
from tests.peer import PEER_KEY, Peer, Wire, ms, seconds

NO_MPTCP = lacks(MpCapable, Dss)


def works_as_tcp(peer: Peer, connection: MetaSocket) -> None:
    """Data both ways and close, without an MPTCP option from now on."""
    wire = peer.wire
    peer.mptcp = False
    assert connection.fallback
    assert any(isinstance(event, FellBack) for event in wire.take_events())
    peer.drain()
    start = peer.acked()
    connection.send(b"to the peer")
    seen = peer.expect(ACK, seq=start, data=b"to the peer", options=lacks(MpCapable))
    assert seen.dss is None or seen.dss.length == 0  # the final, infinite mapping
    connection.send(b"!")
    peer.send(ACK)
    peer.expect(ACK, data=b"!", options=NO_MPTCP)
    peer.send(ACK, data=b"from the peer")
    assert connection.recv() == b"from the peer"
    peer.expect(ACK, ack=peer.nxt, options=NO_MPTCP, within=ms(500))
    connection.close()
    peer.expect(ACK | FIN, options=NO_MPTCP)
    peer.send(ACK | FIN)
    peer.expect(ACK, options=NO_MPTCP)
    assert connection.eof or connection.ended is not None
    assert connection.tx.used == 0


@pytest.mark.row("I3", "I10", "I12", "I15", "I16")
@pytest.mark.parametrize(
    "option",
    [
        None,
        MpCapable(PEER_KEY, version=0),
        MpCapable(PEER_KEY, hmac_sha256=False),
        MpCapable(PEER_KEY, extensibility=True),
        MpCapable(),
        MpCapable(PEER_KEY, PEER_KEY),
    ],
    ids=["none", "version 0", "H missing", "B set", "no key", "two keys"],
)
@pytest.mark.mib("MPTcpExtMPCapableFallbackSYNACK", "MPTcpExtFallback")
def test_answer_without_usable_option(wire: Wire, peer: Peer, option: MpCapable | None) -> None:
    """§3.1: SYN/ACK without MP_CAPABLE, or one that has no meaning: TCP from the third ACK on."""
    connection = wire.stack.connect("10.0.0.2", 80)
    peer.expect(SYN, options=has(MpCapable()))
    peer.send(SYN | ACK, options=[Mss(1460), *([option] if option else [])])
    peer.expect(ACK, seq=1, ack=1, options=NO_MPTCP)
    works_as_tcp(peer, connection)


@pytest.mark.row("I3", "I10", "I12", "I15", "I16")
@pytest.mark.parametrize(
    "option",
    [
        None,
        MpCapable(version=0),
        MpCapable(hmac_sha256=False),
        MpCapable(extensibility=True),
        MpCapable(PEER_KEY, version=0),
    ],
    ids=["none", "version 0", "H missing", "B set", "version 0 with key"],
)
def test_syn_without_usable_option(wire: Wire, caller: Peer, option: MpCapable | None) -> None:
    """§3.1: the SYN/ACK MUST NOT carry MP_CAPABLE if the SYN did not (or not one we can speak).

    B=1 that is not understood means: ignore the option silently; D..H all zero: invalid, ignored.
    """
    caller.send(SYN, options=[Mss(1460), *([option] if option else [])])
    caller.expect(SYN | ACK, options=NO_MPTCP)
    caller.send(ACK)
    (accepted,) = [e for e in wire.take_events() if isinstance(e, Accepted)]
    assert accepted.connection.fallback
    connection = accepted.connection
    connection.send(b"x")
    caller.expect(ACK, data=b"x", options=NO_MPTCP)


@pytest.mark.row("I3")
def test_newer_version_is_answered_with_ours(wire: Wire, caller: Peer) -> None:
    """§3.1: a higher version in the SYN is answered with the highest we speak: 1."""
    caller.send(SYN, options=[Mss(1460), MpCapable(version=2)])
    seen = caller.expect(SYN | ACK)
    assert seen.option(MpCapable).version == 1


@pytest.mark.row("I16")
@pytest.mark.mib("MPTcpExtMPCapableFallbackACK")
def test_third_ack_without_option(wire: Wire, caller: Peer) -> None:
    """§3.1: "If B does not receive the MP_CAPABLE in the third packet": TCP."""
    caller.send(SYN, options=[Mss(1460), MpCapable()])
    caller.expect(SYN | ACK, options=has(MpCapable))
    caller.send(ACK)
    (accepted,) = [e for e in wire.take_events() if isinstance(e, Accepted)]
    assert accepted.connection.fallback
    accepted.connection.send(b"x")
    caller.expect(ACK, data=b"x", options=NO_MPTCP)


@pytest.mark.row("I16")
def test_third_ack_with_data_without_option(wire: Wire, caller: Peer) -> None:
    """The same with data on it: the data is taken as plain TCP."""
    caller.send(SYN, options=[Mss(1460), MpCapable()])
    caller.expect(SYN | ACK)
    caller.send(ACK, data=b"plain")
    (accepted,) = [e for e in wire.take_events() if isinstance(e, Accepted)]
    assert accepted.connection.recv() == b"plain"
    assert accepted.connection.fallback


@pytest.mark.row("F5")
@pytest.mark.mib("MPTcpExtMPCapableDataFallback")
def test_data_without_dss_at_the_server(wire: Wire, caller: Peer) -> None:
    """§3.7: third ACK well, then data without a mapping: a middlebox strips; fall back."""
    connection = caller.handshake(active=False, mptcp=True, confirm=False)
    caller.mptcp = False
    caller.send(ACK, data=b"stripped")
    assert connection.recv() == b"stripped"
    assert connection.fallback


@pytest.mark.row("F5")
@pytest.mark.mib("MPTcpExtInfiniteMapTx")
def test_data_without_dss_at_the_client(wire: Wire, peer: Peer) -> None:
    """§3.7, the other role: B's first data has no DSS."""
    connection = peer.handshake(mptcp=True, confirm=False)
    peer.mptcp = False
    peer.send(ACK, data=b"stripped")
    assert connection.recv() == b"stripped"
    works_as_tcp(peer, connection)


@pytest.mark.row("F5")
def test_ack_of_data_without_dss(wire: Wire, peer: Peer) -> None:
    """§3.7: our first data is acknowledged by an ACK without DSS: TCP, and nothing is lost."""
    connection = peer.handshake(mptcp=True, confirm=False)
    connection.send(b"x" * 100)
    peer.expect(ACK, seq=1, length=100, options=has(MpCapable))
    peer.mptcp = False
    peer.send(ACK, ack=101)
    assert connection.tx.used == 0
    works_as_tcp(peer, connection)


@pytest.mark.row("F5")
def test_ack_of_server_data_without_dss(wire: Wire, caller: Peer) -> None:
    """§3.7: the same at the server that spoke first."""
    connection = caller.handshake(active=False, mptcp=True, confirm=False)
    connection.send(b"welcome")
    caller.expect(ACK, data=b"welcome")
    caller.mptcp = False
    caller.send(ACK, ack=8)
    assert connection.tx.used == 0
    works_as_tcp(caller, connection)


@pytest.mark.row("F5", "F6")
def test_final_infinite_mapping(wire: Wire, peer: Peer) -> None:
    """§3.7: after such an ACK "the sender will send one final Data Sequence Mapping", length 0."""
    connection = peer.handshake(mptcp=True, confirm=False)
    connection.send(b"x" * 100)
    peer.expect(ACK, seq=1)
    peer.mptcp = False
    peer.send(ACK, ack=101)
    peer.drain()
    connection.send(b"y" * 10)
    seen = peer.expect(ACK, seq=101, length=10)
    assert seen.dss is not None
    assert (seen.dss.dsn, seen.dss.ssn, seen.dss.length) == (101, 101, 0)


@pytest.mark.row("F4")
def test_every_segment_is_mapped_until_confirmed(wire: Wire, peer: Peer) -> None:
    """§3.7: a mapping MUST be in every segment until one was acknowledged with a DATA_ACK."""
    connection = peer.handshake(mptcp=True, confirm=False)
    connection.send(bytes(8000))
    for seen in peer.drain():
        mapped = [o for o in seen.options if isinstance(o, MpCapable) and o.data_length]
        assert mapped or (seen.dss is not None and seen.dss.dsn is not None)


@pytest.mark.row("I17")
@pytest.mark.parametrize("retries", [0, 1, 2])
@pytest.mark.mib("MPTcpExtMPCapableSYNTXDrop")
def test_syns_that_are_dropped_with_the_option(retries: int) -> None:
    """§3.1, §3.9.3: after some SYNs with MP_CAPABLE, SYNs without it; the number is policy."""
    wire = Wire(nodelay=True, syn_retries_mptcp=retries, timestamps=False)
    peer = Peer(wire)
    connection = wire.stack.connect("10.0.0.2", 80)
    peer.expect(SYN, options=has(MpCapable()))
    first = None
    for _ in range(retries):
        first = peer.expect(SYN, options=has(MpCapable()), within=seconds(60))
    plain = peer.expect(SYN, options=NO_MPTCP, within=seconds(60))
    assert first is None or plain.segment.seq == first.segment.seq
    peer.send(SYN | ACK, options=[Mss(1460), SackPermitted()])
    peer.expect(ACK, options=NO_MPTCP)
    works_as_tcp(peer, connection)


@pytest.mark.row("I17")
def test_late_capable_answer_to_a_plain_syn(wire: Wire, peer: Peer) -> None:
    """The answer to an earlier SYN comes after we gave up on MPTCP: plain TCP, both sides agree."""
    connection = wire.stack.connect("10.0.0.2", 80)
    for _ in range(3):
        peer.expect(SYN, options=has(MpCapable()), within=seconds(60))
    peer.expect(SYN, options=NO_MPTCP, within=seconds(60))
    peer.send(SYN | ACK, options=[Mss(1460), MpCapable(PEER_KEY)])
    peer.expect(ACK, options=NO_MPTCP)
    works_as_tcp(peer, connection)


@pytest.mark.row("F6")
@pytest.mark.parametrize("role", ["client", "server"])
@pytest.mark.mib("MPTcpExtInfiniteMapRx")
def test_infinite_mapping(role: str, wire: Wire, request: pytest.FixtureRequest) -> None:
    """§3.7: Data-Level Length 0: the rest of the stream is plain TCP, from this byte on."""
    active = role == "client"
    flow: Peer = request.getfixturevalue("peer" if active else "caller")
    connection = flow.handshake(active=active, mptcp=True)
    flow.send(ACK, data=b"mapped ")
    flow.mptcp = False
    infinite = flow.dss(data_ack=1, dsn=8, ssn=8, length=0)
    flow.send(ACK, data=b"infinite ", options=[infinite])
    assert connection.recv() == b"mapped infinite "
    works_as_tcp(flow, connection)


def test_no_mptcp_listener_behaviour(caller: Peer) -> None:
    """A stack with MPTCP off answers MP_CAPABLE and MP_JOIN like any TCP."""
    wire = Wire(mptcp=False)
    wire.stack.listen(5000)
    peer = Peer(wire, port=40000, local_port=5000)
    options: list[Emits] = [Mss(1460), MpCapable()]
    peer.send(SYN, options=options)
    peer.expect(SYN | ACK, options=NO_MPTCP)


@pytest.mark.row("D5", "F8")
def test_stripped_in_mid_life_on_the_only_subflow() -> None:
    """§3.7: options vanish after mappings were seen: no silent fallback, nothing unmapped is
    delivered; when a window of such data has come at the latest, RST, SHOULD be with reason 6."""
    wire = Wire(nodelay=True, receive_buffer=8192)
    peer = Peer(wire)
    connection = peer.handshake(mptcp=True)
    peer.send(ACK, data=b"mapped")
    peer.drain()
    peer.mptcp = False
    for _ in range(9):
        peer.send(ACK, data=b"what is this?" * 77)
    assert connection.recv() == b"mapped"
    assert not connection.fallback
    (reset, *_) = [seen for seen in peer.drain() if seen.flags & RST]
    assert has(MpTcprst(RST_MIDDLEBOX))(reset.options)


def test_simultaneous_fallback_does_not_lose_queued_data(wire: Wire, peer: Peer) -> None:
    """Data queued behind a closed window at the moment of fallback arrives."""
    peer.window = 2000
    connection = peer.handshake(mptcp=True, confirm=False, mss=1460)
    data = bytes(range(250)) * 40
    connection.send(data)
    got = b"".join(seen.data for seen in peer.drain())
    peer.mptcp = False
    while len(got) < len(data):
        peer.send(ACK)
        new = peer.drain()
        assert new
        got += b"".join(seen.data for seen in new)
    peer.send(ACK)
    assert got == data
    assert connection.fallback
    assert connection.tx.used == 0
