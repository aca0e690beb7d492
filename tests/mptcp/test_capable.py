"""MP_CAPABLE: RFC 8684 §3.1, figure 5, both roles, and the first data in all its ways."""

from __future__ import annotations

import pytest

from mptcp import keys
from mptcp.events import Accepted, Connected, FellBack
from mptcp.wire.checksum import dss_checksum, ones_sum
from mptcp.wire.dss import Dss
from mptcp.wire.mptcp_options import MpCapable
from mptcp.wire.tcp import ACK, SYN
from tests.options import Emits, Mss, Sack, SackPermitted, has, lacks
from tests.peer import PEER_KEY, Peer, Wire, ms, seconds


def capable_of(wire: Wire) -> bytes:
    """The stack's key of its only connection."""
    (meta,) = wire.stack.metas
    return meta.local_key


def answer(peer: Peer, option: Emits | None = None) -> None:
    """The SYN/ACK of an MPTCP server without timestamps, MSS 1460."""
    peer.send(SYN | ACK, options=[Mss(1460), SackPermitted(), option or MpCapable(peer.data.key)])
    peer.mptcp = True


@pytest.mark.row("I3", "I6", "I10", "I12")
@pytest.mark.mib(
    "MPTcpExtMPCurrEstab", "MPTcpExtMPCapableSYNTX", "MPTcpExtMPCapableSYNACKRX", "TcpActiveOpens"
)
def test_active_open(wire: Wire, peer: Peer) -> None:
    """SYN with version and flags only (4 bytes), third ACK with both keys (20 bytes)."""
    connection = wire.stack.connect("10.0.0.2", 80)
    peer.expect(SYN, options=has(MpCapable()))
    answer(peer)
    key = capable_of(wire)
    peer.expect(ACK, seq=1, ack=1, length=0, options=has(MpCapable(key, PEER_KEY)))
    assert not connection.fallback
    assert connection.token == keys.token(key)
    assert connection.remote_token == keys.token(PEER_KEY)
    assert Connected(connection) in wire.take_events()


@pytest.mark.row("I3", "I10", "I12")
@pytest.mark.mib("MPTcpExtMPCapableSYNRX", "MPTcpExtMPCapableACKRX", "TcpPassiveOpens")
def test_passive_open(wire: Wire, caller: Peer) -> None:
    """SYN/ACK with our key (12 bytes); accepted with the third ACK."""
    caller.send(SYN, options=[Mss(1400), MpCapable()])
    seen = caller.expect(SYN | ACK)
    key = capable_of(wire)
    assert seen.option(MpCapable) == MpCapable(key)
    assert wire.take_events() == []
    caller.send(ACK, options=[MpCapable(PEER_KEY, key)])
    accepted = [event for event in wire.take_events() if isinstance(event, Accepted)]
    assert len(accepted) == 1
    assert not accepted[0].connection.fallback


@pytest.mark.row("I6")
def test_first_data_repeats_the_keys(wire: Wire, peer: Peer) -> None:
    """§3.1: first data carries MP_CAPABLE with the data length (22 bytes), in place of a DSS."""
    connection = peer.handshake(mptcp=True, confirm=False)
    connection.send(b"x" * 100)
    key = capable_of(wire)
    first = peer.expect(ACK, seq=1, length=100, options=has(MpCapable(key, PEER_KEY, 100)))
    assert lacks(Dss)(first.options)


@pytest.mark.parametrize("offload", [True, False])
@pytest.mark.parametrize("timestamps", [True, False])
def test_first_data_is_one_segment(offload: bool, timestamps: bool) -> None:
    """Design rule 2: MP_CAPABLE maps one MSS at most; what follows has DSS mappings."""
    wire = Wire(offload=offload, nodelay=True)
    peer = Peer(wire)
    connection = peer.handshake(mptcp=True, confirm=False, timestamps=timestamps)
    connection.send(bytes(10_000))
    first, *rest = peer.drain()
    option = first.option(MpCapable)
    assert option.data_length == len(first.data)
    assert len(first.data) + len(first.option_bytes) <= 1460
    assert first.gso_size == 0
    assert rest
    for seen in rest:
        assert seen.dss is not None
        assert (seen.dss.dsn, seen.dss.ssn) == (seen.seq, seen.seq)
        assert seen.dss.length == len(seen.data)
    assert sum(len(seen.data) for seen in [first, *rest]) == 10_000


@pytest.mark.row("I6", "F4")
def test_first_data_retransmission(wire: Wire, peer: Peer) -> None:
    """§3.1: until it is confirmed every retransmission of the first data has MP_CAPABLE again."""
    connection = peer.handshake(mptcp=True, confirm=False, rtt=ms(10))
    connection.send(b"x" * 100)
    first = peer.expect(ACK, seq=1, length=100)
    again = peer.expect(ACK, seq=1, length=100, within=seconds(1))
    assert again.option(MpCapable) == first.option(MpCapable)


@pytest.mark.row("I7", "D2")
def test_first_data_resent_after_confirmation_is_the_same_mapping(wire: Wire, peer: Peer) -> None:
    """§3.1: MP_CAPABLE and DSS are interchangeable: DSN 1, SSN 1, the same length."""
    connection = peer.handshake(mptcp=True, confirm=False, rtt=ms(10))
    connection.send(b"x" * 100)
    peer.expect(ACK, seq=1, length=100)
    peer.send(ACK, ack=1, data=b"s", options=[peer.dss(data_ack=1, dsn=1, ssn=1, length=1)])
    peer.drain()
    again = peer.expect(ACK, seq=1, within=seconds(1))
    capable = [o for o in again.options if isinstance(o, MpCapable)]
    if capable:
        assert capable[0].data_length == 100
    else:
        assert again.dss is not None
        assert (again.dss.dsn, again.dss.ssn, again.dss.length) == (1, 1, 100)


def test_dss_after_confirmation(wire: Wire, peer: Peer) -> None:
    """§3.1: once a DSS has come MP_CAPABLE is never sent again."""
    connection = peer.handshake(mptcp=True)
    connection.send(b"y" * 10)
    seen = peer.expect(ACK, seq=1, length=10, dsn=1, options=lacks(MpCapable))
    assert seen.dss is not None
    assert (seen.dss.ssn, seen.dss.length) == (1, 10)


@pytest.mark.row("I7")
def test_server_speaks_first(wire: Wire, peer: Peer) -> None:
    """§3.1, figure 5: B's data with a DSS confirms; A answers with a DSS."""
    connection = peer.handshake(mptcp=True, confirm=False)
    peer.send(ACK, data=b"welcome")
    assert connection.recv() == b"welcome"
    peer.expect(ACK, seq=1, ack=8, data_ack=8, options=lacks(MpCapable), within=ms(500))
    connection.send(b"thanks")
    peer.expect(ACK, seq=1, data=b"thanks", dsn=1, data_ack=8)
    assert not connection.fallback


@pytest.mark.row("I7", "I19")
def test_our_server_speaks_first(wire: Wire, caller: Peer) -> None:
    """The other role: our first data goes with a DSS, DSN IDSN + 1, SSN 1."""
    connection = caller.handshake(active=False, mptcp=True, confirm=False)
    connection.send(b"welcome")
    caller.expect(ACK, seq=1, data=b"welcome", dsn=1, data_ack=1)
    caller.send(ACK)
    assert connection.confirmed
    assert connection.tx.used == 0


@pytest.mark.row("I6", "I19")
def test_first_data_received(wire: Wire, caller: Peer) -> None:
    """MP_CAPABLE with data length maps the first bytes; the answer is a DSS with a DATA_ACK."""
    connection = caller.handshake(active=False, mptcp=True, confirm=False)
    key = connection.local_key
    caller.send(ACK, data=b"hello", options=[MpCapable(PEER_KEY, key, 5)])
    caller.expect(ACK, ack=6, data_ack=6, within=ms(500))
    assert connection.recv() == b"hello"
    assert connection.confirmed


@pytest.mark.row("I7")
@pytest.mark.parametrize("twice", ["capable", "dss"])
def test_first_data_received_twice(wire: Wire, caller: Peer, twice: str) -> None:
    """§3.1: a receiver MUST tolerate duplicate mappings, in either form."""
    connection = caller.handshake(active=False, mptcp=True, confirm=False)
    capable = MpCapable(PEER_KEY, connection.local_key, 5)
    caller.send(ACK, data=b"hello", options=[capable])
    again = capable if twice == "capable" else caller.dss(data_ack=1, dsn=1, ssn=1, length=5)
    caller.send(ACK, seq=1, data=b"hello", options=[again])
    assert connection.recv() == b"hello"
    caller.data.nxt = 6
    caller.send(ACK, data=b" world")
    assert connection.recv() == b" world"
    assert not connection.fallback


@pytest.mark.row("I6")
def test_lost_third_ack(wire: Wire, caller: Peer) -> None:
    """§3.1: the third ACK is lost; MP_CAPABLE with the first data completes the handshake."""
    caller.send(SYN, options=[Mss(1400), MpCapable()])
    caller.expect(SYN | ACK)
    key = capable_of(wire)
    caller.send(ACK, data=b"hello", options=[MpCapable(PEER_KEY, key, 5)])
    (accepted,) = [event for event in wire.take_events() if isinstance(event, Accepted)]
    assert accepted.connection.recv() == b"hello"
    assert not accepted.connection.fallback
    caller.expect(ACK, ack=6, data_ack=6, within=ms(500))


def test_data_overtakes_the_keys(wire: Wire, caller: Peer) -> None:
    """Second segment first (a DSS without keys): nothing is lost, nothing falls back."""
    caller.send(SYN, options=[Mss(1400), MpCapable()])
    caller.expect(SYN | ACK)
    (meta,) = wire.stack.metas
    late = caller.dss(data_ack=1, dsn=6, ssn=6, length=6)
    caller.send(ACK, seq=6, data=b" world", options=[late])
    caller.send(ACK, seq=1, data=b"hello", options=[MpCapable(PEER_KEY, meta.local_key, 5)])
    caller.send(ACK, seq=6, data=b" world", options=[late])
    assert meta.recv() == b"hello world"
    assert not meta.fallback


@pytest.mark.row("I14")
@pytest.mark.parametrize("asked", ["us", "peer"])
def test_checksum_is_used_if_either_asks(asked: str) -> None:
    """§3.1: A=1 from either side: checksums both ways, and the initiator confirms with A=1."""
    wire = Wire(nodelay=True, checksum=asked == "us")
    peer = Peer(wire)
    capable = MpCapable(PEER_KEY, checksum_required=asked == "peer")
    connection = wire.stack.connect("10.0.0.2", 80)
    peer.expect(SYN, options=has(MpCapable(checksum_required=asked == "us")))
    answer(peer, capable)
    key = capable_of(wire)
    peer.expect(ACK, options=has(MpCapable(key, PEER_KEY, checksum_required=True)))
    connection.send(b"abc")
    first = peer.expect(ACK, seq=1, data=b"abc")
    idsn = keys.idsn(key)
    checksum = dss_checksum((idsn + 1) % (1 << 64), 1, 3, ones_sum(b"abc"))
    assert first.option(MpCapable) == MpCapable(key, PEER_KEY, 3, checksum, checksum_required=True)
    theirs = dss_checksum((keys.idsn(PEER_KEY) + 1) % (1 << 64), 1, 2, ones_sum(b"ok"))
    peer.send(
        ACK,
        data=b"ok",
        options=[peer.dss(data_ack=4, dsn=1, ssn=1, length=2, checksum=theirs)],
    )
    assert connection.recv() == b"ok"
    peer.drain()
    connection.send(b"defg")
    seen = peer.expect(ACK, seq=4, data=b"defg")
    assert seen.dss is not None
    assert seen.dss.checksum == dss_checksum((idsn + 4) % (1 << 64), 4, 4, ones_sum(b"defg"))


@pytest.mark.row("I14")
def test_checksum_of_a_server(wire: Wire, caller: Peer) -> None:
    """§3.1: the responder that sees A=1 answers with A=1."""
    caller.send(SYN, options=[Mss(1400), MpCapable(checksum_required=True)])
    seen = caller.expect(SYN | ACK)
    assert seen.option(MpCapable).checksum_required


@pytest.mark.row("D1")
@pytest.mark.parametrize("missing", [True, False])
def test_checksum_must_be_as_agreed(missing: bool) -> None:
    """§3.3.1: absent though agreed, or present though not: the subflow MUST be reset."""
    wire = Wire(nodelay=True, checksum=missing)
    peer = Peer(wire)
    peer.handshake(
        mptcp=True, confirm=False, capable=MpCapable(PEER_KEY, checksum_required=missing)
    )
    peer.send(
        ACK,
        data=b"ab",
        options=[
            peer.dss(data_ack=1, dsn=1, ssn=1, length=2, checksum=None if missing else 0x1234)
        ],
    )
    sent = peer.drain()
    assert sent[-1].flags & 4
    assert all(not isinstance(event, FellBack) for event in wire.take_events())


@pytest.mark.row("I4")
def test_key_and_idsn_are_fresh(wire: Wire) -> None:
    """§3.1: keys are random and tokens unique among the host's connections."""
    found = set()
    for port in range(81, 91):
        connection = Peer(wire, port=port).handshake(mptcp=True)
        found.add((connection.local_key, connection.token, connection.local_idsn))
        assert connection.local_idsn == keys.idsn(connection.local_key)
        assert wire.stack.tokens[connection.token] is connection
    assert len(found) == 10


def test_sack_fits_beside_dss(wire: Wire, peer: Peer) -> None:
    """Option space: DSS with a 64-bit DATA_ACK (12) and timestamps (12) leave one SACK block."""
    peer.handshake(mptcp=True, timestamps=True)
    peer.drain()
    dss = peer.dss(data_ack=1, dsn=101, ssn=101, length=100)
    peer.send(ACK, seq=101, data=b"x" * 100, options=[dss])
    seen = peer.expect(ACK, ack=1, data_ack=1, sack=[(101, 201)])
    assert has(Sack)(seen.options)
    assert len(seen.option_bytes) <= 40
