"""Data sequence signals: RFC 8684 §3.3.1, §3.3.2, §3.3.5, both directions."""

from __future__ import annotations

import pytest

from mptcp.meta_socket import MetaSocket
from mptcp.wire.dss import Dss
from mptcp.wire.mptcp_options import MpTcprst
from mptcp.wire.tcp import ACK, RST
from tests.options import has
from tests.peer import Peer, Wire, ms, seconds

SECOND_PATH = {"address": "10.0.1.2", "local": "10.0.1.1", "interface": 2}


def served(caller: Peer) -> MetaSocket:
    """A confirmed connection, the peer being the client."""
    connection = caller.handshake(active=False, mptcp=True)
    caller.drain()
    return connection


@pytest.mark.row("D6", "D8")
@pytest.mark.parametrize("dsn_64", [True, False])
@pytest.mark.parametrize("ack_64", [True, False])
def test_accepts_every_form(caller: Peer, dsn_64: bool, ack_64: bool) -> None:
    """§3.3.1: 32- and 64-bit DSNs and DATA_ACKs, in any combination and change."""
    connection = served(caller)
    connection.send(b"abc")
    caller.expect(ACK, data=b"abc")
    dss = caller.dss(data_ack=4, dsn=1, ssn=1, length=2, dsn_64=dsn_64, ack_64=ack_64)
    caller.send(ACK, data=b"hi", options=[dss])
    other = caller.dss(data_ack=4, dsn=3, ssn=3, length=2, dsn_64=not dsn_64, ack_64=not ack_64)
    caller.send(ACK, data=b"ho", options=[other])
    assert connection.recv() == b"hiho"
    assert connection.tx.used == 0


@pytest.mark.row("D6")
@pytest.mark.parametrize("dsn_64", [True, False])
def test_sends_the_form_it_is_told(dsn_64: bool) -> None:
    """`Config.dsn_64` chooses the form of our mappings (§3.3.1)."""
    wire = Wire(nodelay=True, dsn_64=dsn_64)
    peer = Peer(wire)
    connection = peer.handshake(mptcp=True)
    connection.send(b"abc")
    seen = peer.expect(ACK, data=b"abc", dsn=1)
    assert seen.dss is not None
    assert seen.dss.dsn_64 is dsn_64


@pytest.mark.row("D8")
def test_data_ack_width(caller: Peer) -> None:
    """§3.3.2 (D8): a 64-bit DSN MUST be answered with a 64-bit DATA_ACK; 32 bits with either."""
    connection = served(caller)
    dss = caller.dss(data_ack=1, dsn=1, ssn=1, length=2, dsn_64=True)
    caller.send(ACK, data=b"hi", options=[dss])
    seen = caller.expect(ACK, data_ack=3, within=ms(500))
    assert seen.dss is not None
    assert seen.dss.data_ack_64
    assert connection.recv() == b"hi"


@pytest.mark.row("D2", "D7")
def test_one_mapping_for_a_chunk_and_for_what_is_resent_of_it() -> None:
    """§3.3.1: a mapping MUST NOT be changed: resent parts, at a smaller size, repeat it."""
    wire = Wire(offload=True, nodelay=True, min_rto_us=seconds(1), rack_tlp=False)
    peer = Peer(wire)
    connection = peer.handshake(mptcp=True, rtt=ms(1))
    connection.send(bytes(range(250)) * 40)
    chunks = peer.drain()
    declared = {}
    for chunk in chunks:
        assert chunk.dss is not None
        assert chunk.dss.length == len(chunk.data) < 65536
        declared[chunk.dss.ssn] = (chunk.dss.dsn, chunk.dss.length)
    whole = max(len(chunk.data) for chunk in chunks)
    assert whole > 1460
    # Only a part in the middle of the first chunk is missing; then all of what is left by RTO.
    first = chunks[0]
    peer.send(ACK, ack=1 + 1000, options=[peer.dss(data_ack=1001)])
    again = [peer.expect(ACK, within=seconds(5)), *peer.drain()]
    for seen in again:
        assert seen.dss is not None
        assert seen.dss.dsn is not None
        assert declared[seen.dss.ssn] == (seen.dss.dsn, seen.dss.length)
        # D7: the mapping covers what the segment carries.
        assert seen.dss.ssn <= seen.seq < seen.end <= seen.dss.ssn + seen.dss.length
    assert again[0].seq == 1001
    assert again[0].dss is not None
    assert again[0].dss.ssn == first.seq


def test_mapping_below_64_kib() -> None:
    """§3.3: Data-Level Length has 16 bits; DATA_FIN included."""
    wire = Wire(offload=True, nodelay=True)
    peer = Peer(wire)
    connection = peer.handshake(mptcp=True, rtt=ms(1), wscale=10)
    peer.send(ACK)
    peer.subflow().cc.cwnd = 1 << 24
    connection.send(bytes(4_000_000))
    sizes = [seen.dss.length for seen in peer.drain() if seen.dss is not None]
    assert max(sizes) > 60_000
    assert max(sizes) < 65536


@pytest.mark.row("D2")
def test_duplicate_mapping(caller: Peer) -> None:
    """§3.3.1: the same mapping on every segment of a chunk is one mapping."""
    connection = served(caller)
    dss = caller.dss(data_ack=1, dsn=1, ssn=1, length=300)
    for at in (0, 100, 200):
        caller.send(ACK, seq=1 + at, data=bytes([at]) * 100, options=[dss])
    assert connection.recv() == b"\x00" * 100 + b"\x64" * 100 + b"\xc8" * 100


@pytest.mark.row("D7")
def test_mapping_in_the_first_segment_only(caller: Peer) -> None:
    """§3.3.1: a mapping may be longer than the segment it came with; later ones need none."""
    connection = served(caller)
    dss = caller.dss(data_ack=1, dsn=1, ssn=1, length=300)
    caller.send(ACK, data=b"a" * 100, options=[dss])
    caller.send(ACK, data=b"b" * 200, options=[caller.dss(data_ack=1)])
    assert connection.recv() == b"a" * 100 + b"b" * 200


def test_mapping_ahead_of_its_data(caller: Peer) -> None:
    """Segments in another order: each byte lands where its mapping says."""
    connection = served(caller)
    caller.send(ACK, seq=6, data=b"world", options=[caller.dss(dsn=6, ssn=6, length=5)])
    caller.send(ACK, seq=1, data=b"hello", options=[caller.dss(dsn=1, ssn=1, length=5)])
    assert connection.recv() == b"helloworld"


@pytest.mark.row("D3")
@pytest.mark.mib("MPTcpExtOFOQueue", "MPTcpExtOFOQueueTail")
def test_dsn_order_differs_from_subflow_order(caller: Peer) -> None:
    """§3.3: the DSN decides."""
    connection = served(caller)
    caller.send(ACK, data=b"world", options=[caller.dss(dsn=6, ssn=1, length=5)])
    assert connection.recv() == b""
    caller.expect(ACK, ack=6, data_ack=1, within=ms(500))
    caller.send(ACK, data=b"hello", options=[caller.dss(dsn=1, ssn=6, length=5)])
    assert connection.recv() == b"helloworld"
    caller.expect(ACK, ack=11, data_ack=11, within=ms(500))


@pytest.mark.row("D2")
@pytest.mark.mib("MPTcpExtDSSNotMatching")
def test_changed_mapping_is_refused(caller: Peer) -> None:
    """§3.3.1: "a mapping ... MUST NOT be changed"; the first declaration holds."""
    connection = served(caller)
    caller.send(ACK, data=b"a" * 100, options=[caller.dss(dsn=1, ssn=1, length=200)])
    caller.send(ACK, data=b"b" * 100, options=[caller.dss(dsn=5001, ssn=1, length=200)])
    assert connection.recv() in (b"a" * 100, b"a" * 100 + b"b" * 100)
    assert caller.wire.stack.counters["MPTcpExtDSSNotMatching"] == 1


@pytest.mark.row("D2")
def test_first_copy_wins(wire: Wire, caller: Peer) -> None:
    """§3.3.1: the same DSN with other bytes on another subflow: the first to arrive counts."""
    connection = served(caller)
    flow = caller.beside(port=40001, local_port=5000, **SECOND_PATH)
    flow.join()
    caller.send(ACK, data=b"A" * 10, options=[caller.dss(dsn=11, ssn=1, length=10)])
    flow.send(ACK, data=b"B" * 30, options=[flow.dss(dsn=1, ssn=1, length=30)])
    assert connection.recv() == b"B" * 10 + b"A" * 10 + b"B" * 10


@pytest.mark.row("D2")
def test_data_of_another_subflow_is_acknowledged_there_too(wire: Wire, caller: Peer) -> None:
    """§3.3.2: data seen twice is acknowledged at subflow level and dropped."""
    connection = served(caller)
    flow = caller.beside(port=40001, local_port=5000, **SECOND_PATH)
    flow.join()
    caller.send(ACK, data=b"hello", options=[caller.dss(dsn=1, ssn=1, length=5)])
    flow.drain()
    flow.send(ACK, data=b"hello", options=[flow.dss(dsn=1, ssn=1, length=5)])
    flow.expect(ACK, ack=6, data_ack=6, within=ms(500))
    assert connection.recv() == b"hello"
    assert connection.recv() == b""


@pytest.mark.row("F9")
@pytest.mark.parametrize("dsn", [8 << 20, 1 << 40])
@pytest.mark.mib("MPTcpExtNoDSSInWindow")
def test_data_beyond_the_window_is_not_data_acked(caller: Peer, dsn: int) -> None:
    """§3.3.5 (F9): outside the connection-level window: dropped, never DATA_ACKed."""
    connection = served(caller)
    caller.send(ACK, data=b"far", options=[caller.dss(dsn=dsn, ssn=1, length=3)])
    seen = caller.expect(ACK, within=ms(500))
    assert seen.dss is not None
    assert seen.dss.data_ack == 1
    assert connection.recv() == b""
    assert connection.rx.reorder.memory == 0


@pytest.mark.row("F9")
@pytest.mark.mib("MPTcpExtDuplicateData")
def test_old_data_is_ignored(caller: Peer) -> None:
    """A DSN far below is old, whatever the subflow sequence number."""
    connection = served(caller)
    caller.send(ACK, data=b"x" * 10)
    connection.recv()
    caller.send(ACK, data=b"y" * 10, options=[caller.dss(dsn=-5000, ssn=11, length=10)])
    caller.drain()
    caller.data.nxt = 11
    caller.send(ACK, data=b"z" * 10)
    assert connection.recv() == b"z" * 10


@pytest.mark.row("F8")
@pytest.mark.mib("MPTcpExtDSSNoMatchTCP")
def test_unmapped_data_on_a_joined_subflow(wire: Wire, caller: Peer) -> None:
    """§3.7 (F5, F8): data without any mapping on an additional subflow: RST, SHOULD reason 6."""
    connection = served(caller)
    flow = caller.beside(port=40001, local_port=5000, **SECOND_PATH)
    flow.join()
    flow.mptcp = False
    flow.send(ACK, data=b"no mapping")
    wire.advance(ms(1500))
    resets = [seen for seen in flow.drain() if seen.flags & RST]
    assert len(resets) == 1
    assert has(MpTcprst(6))(resets[0].options)
    assert connection.recv() == b""
    caller.send(ACK, data=b"fine")
    assert connection.recv() == b"fine"


@pytest.mark.row("F5")
def test_ack_without_dss_on_a_joined_subflow(wire: Wire, caller: Peer) -> None:
    """§3.7: data acknowledged without a DATA_ACK on an additional subflow: RST, reason 6."""
    connection = caller.handshake(active=False, mptcp=True, rtt=ms(50))
    flow = caller.beside(port=40001, local_port=5000, **SECOND_PATH)
    flow.join()
    flow.drain()
    connection.send(bytes(5_000))
    flow.mptcp = False
    assert any(seen.data for seen in flow.drain())
    flow.send(ACK)
    resets = [seen for seen in flow.drain() if seen.flags & RST]
    assert len(resets) == 1
    assert has(MpTcprst(6))(resets[0].options)


def test_unmapped_gap_inside_mapped_data(caller: Peer) -> None:
    """§3.3.1: bytes between two mappings belong to nobody; they never reach the application."""
    connection = served(caller)
    caller.send(ACK, data=b"aaaaa" + b"?????", options=[caller.dss(dsn=1, ssn=1, length=5)])
    assert connection.recv() == b"aaaaa"


@pytest.mark.mib("MPTcpExtInvalidDataAck")
def test_data_ack_of_unsent_data_is_ignored(wire: Wire, peer: Peer) -> None:
    """§3.3.2: a DATA_ACK beyond what was sent frees nothing."""
    connection = peer.handshake(mptcp=True)
    connection.send(b"x" * 100)
    peer.drain()
    peer.send(ACK, ack=101, options=[peer.dss(data_ack=1_000_000)])
    assert connection.tx.used == 100
    peer.send(ACK, ack=101, options=[peer.dss(data_ack=101)])
    assert connection.tx.used == 0


def test_old_data_ack_is_ignored(wire: Wire, peer: Peer) -> None:
    """A DATA_ACK that moves back (reordered subflows) does no harm."""
    connection = peer.handshake(mptcp=True)
    connection.send(b"x" * 100)
    peer.drain()
    peer.send(ACK, ack=101, options=[peer.dss(data_ack=101)])
    peer.send(ACK, ack=101, options=[peer.dss(data_ack=1)])
    assert connection.tx.used == 0
    assert connection.tx.una == connection.local_idsn + 101


@pytest.mark.row("D10")
def test_data_is_kept_until_data_acked(wire: Wire, peer: Peer) -> None:
    """§3.3.5 (D10): a subflow-level ACK alone frees nothing; later it is sent again."""
    connection = peer.handshake(mptcp=True, rtt=ms(10))
    connection.send(b"x" * 100)
    first = peer.expect(ACK, seq=1, dsn=1)
    peer.send(ACK, ack=101, options=[peer.dss(data_ack=1)])
    assert connection.tx.used == 100
    again = peer.expect(ACK, seq=101, dsn=1, within=seconds(30))
    assert again.data == first.data
    peer.send(ACK, ack=201, options=[peer.dss(data_ack=101)])
    assert connection.tx.used == 0
    peer.expect_nothing(until=wire.time + seconds(100))


def test_every_ack_has_a_data_ack(wire: Wire, caller: Peer) -> None:
    """§3.3.2: DATA_ACK on every ACK of a confirmed connection."""
    connection = served(caller)
    for _ in range(30):
        caller.send(ACK, data=b"x" * 500)
    connection.send(bytes(3000))
    connection.recv()
    wire.advance(ms(100))
    for seen in caller.drain():
        assert has(Dss)(seen.options)
        assert seen.dss is not None
        assert seen.dss.data_ack == seen.ack
