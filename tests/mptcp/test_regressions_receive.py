"""Rules of the data level that were broken once: what is received (RFC 8684 §3.3.1, §3.3.4, §3.7).

Each test holds a rule in the situation that broke it. Those of what is sent are in
`test_regressions.py`.
"""

from __future__ import annotations

import pytest

from mptcp.mapping import MAX_MAPPINGS
from mptcp.wire import checksum
from mptcp.wire.dss import Dss
from mptcp.wire.mptcp_options import RST_MPTCP_SPECIFIC, MpCapable, MpFail, MpTcprst
from mptcp.wire.seq import MASK64
from mptcp.wire.tcp import ACK, RST
from tests.options import has
from tests.peer import Peer, Wire, ms


def listener(**config: object) -> tuple[Wire, Peer]:
    """A stack that listens on port 80, and a client of it."""
    wire = Wire(**config)  # type: ignore[arg-type]
    wire.stack.listen(80)
    return wire, Peer(wire, port=4000, local_port=80)


def checksummed(peer: Peer, dsn: int, ssn: int, data: bytes) -> Dss:
    """A DSS that maps `data` with its checksum (§3.3.1)."""
    full = (peer.data.idsn + dsn) & MASK64
    parts = checksum.parts_sum([memoryview(data)])
    value = checksum.dss_checksum(full, ssn, len(data), parts)
    return peer.dss(data_ack=1, dsn=dsn, ssn=ssn, length=len(data), checksum=value)


def test_mappings_ahead_of_a_hole() -> None:
    """§3.3.1: each segment may have a mapping of its own. As many as are kept, ahead of a lost
    segment, do not refuse the one that fills the hole; those beyond are not acknowledged."""
    _, peer = listener()
    connection = peer.handshake(active=False, mptcp=True, wscale=7)
    size, count = 100, MAX_MAPPINGS + 100
    data = [bytes([number & 0xFF]) * size for number in range(count)]

    def send(number: int) -> None:
        at = 1 + number * size
        dss = peer.dss(data_ack=1, dsn=at, ssn=at, length=size)
        peer.send(ACK, seq=at, data=data[number], options=[dss])

    for number in range(1, count):
        send(number)
    peer.drain()
    send(0)
    sent = peer.drain()
    assert not [segment for segment in sent if segment.flags & RST]
    kept = (sent[-1].ack - 1) // size
    assert MAX_MAPPINGS <= kept <= count
    for number in range(kept, count):
        send(number)
    assert connection.recv() == b"".join(data)
    assert connection.ended is None


@pytest.mark.row("F6")
@pytest.mark.mib("MPTcpExtFallbackFailed")
def test_infinite_mapping_beside_another_subflow() -> None:
    """§3.7: with a second subflow there is no single stream to go on with, so the infinite mapping
    is refused there with a RST and the connection stays MPTCP on the other."""
    _, first = listener()
    connection = first.handshake(active=False, mptcp=True)
    second = first.beside(port=4001, local_port=80)
    second.join()
    first.send(ACK, data=b"A" * 5)
    second.drain()
    second.send(ACK, data=b"i", options=[second.dss(data_ack=1, dsn=6, ssn=1, length=0)])
    second.expect(RST | ACK, options=has(MpTcprst(RST_MPTCP_SPECIFIC)))
    assert not connection.fallback
    assert connection.subflows == [first.subflow()]
    first.send(ACK, data=b"B" * 5)
    assert connection.recv() == b"A" * 5 + b"B" * 5


@pytest.mark.row("F6")
def test_infinite_mapping_after_another_subflow() -> None:
    """§3.7: likewise when the other subflow is gone: its data is not in this one's stream."""
    _, first = listener()
    connection = first.handshake(active=False, mptcp=True)
    second = first.beside(port=4001, local_port=80)
    second.join()
    second.send(ACK, data=b"A" * 5)
    second.send(RST)
    first.drain()
    first.send(ACK, data=b"i", options=[first.dss(data_ack=1, dsn=6, ssn=1, length=0)])
    first.expect(RST | ACK, options=has(MpTcprst(RST_MPTCP_SPECIFIC)))
    assert not connection.fallback
    assert connection.recv() == b"A" * 5


@pytest.mark.row("F7")
def test_fallback_delivers_what_waited_for_a_checksum() -> None:
    """§3.7: at MP_FAIL on the only subflow the stream goes on as plain TCP: the octets of a mapping
    that was not complete, so not verified, come before those that follow."""
    _, peer = listener(checksum=True)
    capable = MpCapable(checksum_required=True)
    connection = peer.handshake(active=False, mptcp=True, capable=capable, confirm=False)
    data = b"0123456789abcdefghij"
    peer.send(ACK, data=data[:10], options=[checksummed(peer, 1, 1, data)])
    assert connection.recv() == b""
    peer.send(ACK, options=[MpFail((peer.data.stack_idsn + 1) & MASK64)])
    assert connection.fallback
    peer.mptcp = False
    peer.send(ACK, data=data[10:])
    peer.send(ACK, data=b"NEXT")
    assert connection.recv() == data + b"NEXT"


def pieces(wire: Wire, peer: Peer, dsns: list[int]) -> None:
    """Single octets at these DSNs, each with a mapping, in order on the subflow."""
    for dsn in dsns:
        ssn = peer.nxt
        dss = peer.dss(data_ack=1, dsn=dsn, ssn=ssn, length=1)
        peer.send(ACK, data=b"x", options=[dss])
    peer.drain()


@pytest.mark.row("D18")
@pytest.mark.mib("MPTcpExtRcvPruned")
def test_reorder_memory_is_bounded() -> None:
    """§3.3.4: the window bounds octets, not what keeping them costs: single octets with holes
    between them are charged in full, and what does not fit is not DATA_ACKed."""
    buffer = 16 << 10
    wire, peer = listener(receive_buffer=buffer)
    connection = peer.handshake(active=False, mptcp=True)
    pieces(wire, peer, [4000 - 2 * number for number in range(1000)])
    assert 0 < connection.rx.reorder.memory <= 2 * buffer
    peer.send(ACK, data=b"y", options=[peer.dss(data_ack=1, dsn=1, ssn=peer.nxt, length=1)])
    assert connection.recv() == b"y"  # what is next is always taken
    peer.expect(ACK, data_ack=2, within=ms(40))


def test_reorder_runs_are_bounded() -> None:
    """§3.3.4: nor does a large buffer let a peer make the search as long as it likes."""
    wire, peer = listener()
    connection = peer.handshake(active=False, mptcp=True, wscale=7)
    pieces(wire, peer, [3 + 2 * number for number in range(4300)])
    assert 1000 < connection.rx.reorder.nodes <= 4096
    peer.send(ACK, data=b"yy", options=[peer.dss(data_ack=1, dsn=1, ssn=peer.nxt, length=2)])
    assert connection.recv() == b"yyx"


def test_shortcuts_of_a_server() -> None:
    """Thesis §4.3.5: each subflow has a shortcut of its own, at a server too, where all of them
    have one local port."""
    _, first = listener()
    connection = first.handshake(active=False, mptcp=True)
    second = first.beside(port=4001, local_port=80)
    second.join()
    for number in range(20):
        for flow, start in ((first, 1001), (second, 5001)):
            dsn = start + 10 * number
            dss = flow.dss(data_ack=1, dsn=dsn, ssn=flow.nxt, length=10)
            flow.send(ACK, data=b"x" * 10, options=[dss])
    reorder = connection.rx.reorder
    assert (reorder.misses, reorder.hits, reorder.nodes) == (2, 38, 2)


def test_out_of_window_acks_are_answered_sparingly() -> None:
    """RFC 9293 §3.10.7.4 answers an unacceptable segment with an ACK; two ends that disagree about
    the numbers would answer each other for ever (RFC 5961 §7 allows a limit). One with data is
    answered always: its sender waits for the ACK."""
    wire, peer = listener()
    connection = peer.handshake(active=False, mptcp=True)
    peer.send(ACK, data=b"x" * 10)
    wire.advance(ms(100))
    peer.drain()
    for _ in range(5):
        peer.send(ACK, seq=peer.nxt - 20)
    assert len(peer.drain()) == 1
    peer.send(ACK, seq=peer.nxt - 20, at=ms(149))
    peer.expect_nothing()
    peer.send(ACK, seq=peer.nxt - 20, at=ms(150))
    peer.expect(ACK, ack=11)
    for _ in range(2):
        peer.send(ACK, seq=1, data=b"x" * 10, options=[peer.dss(data_ack=1)])
        peer.expect(ACK, ack=11)
    assert connection.ended is None


@pytest.mark.row("F9")
def test_data_beyond_the_promised_edge() -> None:
    """§3.3.5: Linux may send beyond our edge, yet within the buffer. That is taken; the window we
    then tell, on data as on ACKs, is zero (a negative one could not be sent)."""
    size = 50_000
    _, first = listener(receive_buffer=size, nodelay=True)
    connection = first.handshake(active=False, mptcp=True, wscale=0)
    second = first.beside(port=4001, local_port=80)
    second.join()
    first.send(ACK, data=bytes(size - 100))
    # At subflow level the other one's window is as it was told.
    second.send(ACK, data=bytes(1000), options=[second.dss(dsn=size - 99, ssn=1, length=1000)])
    first.drain()
    connection.send(b"hello")
    seen = first.expect(ACK, data=b"hello", window=0)
    assert seen.dss is not None
    assert len(connection.recv()) == size + 900
