"""RFC 8684 §3.7 segment by segment, where a box stands between: rows F5, F6, F7 and D12."""

from __future__ import annotations

import pytest

from mptcp import keys
from mptcp.addressing import parse_address
from mptcp.errors import ConnectionEnd
from mptcp.events import FellBack, SubflowClosed
from mptcp.meta_socket import MetaSocket
from mptcp.wire.checksum import dss_checksum, ones_sum
from mptcp.wire.dss import Dss
from mptcp.wire.mptcp_options import RST_MIDDLEBOX, AddAddr, MpCapable, MpFail, MpTcprst
from mptcp.wire.tcp import ACK, FIN, RST
from tests.options import has, lacks
from tests.peer import Peer, Wire, ms, seconds

TWO = ("10.0.0.1/24", "10.0.1.1/24")
SECOND_PATH = {"address": "10.0.1.2", "local": "10.0.1.1", "interface": 2}


def serving() -> tuple[Wire, Peer]:
    """A listener on port 5000 and a client of it."""
    wire = Wire(addresses=TWO, nodelay=True)
    wire.stack.listen(5000)
    return wire, Peer(wire, port=40000, local_port=5000)


def infinite(seen: object) -> bool:
    return isinstance(seen, Dss) and seen.dsn is not None and seen.length == 0


@pytest.mark.row("F5", "F6")
def test_f5_server_that_has_seen_a_dss() -> None:
    """F5, §3.7: the client's DSSs come through, the server's do not. A DSS that acknowledges no
    data of ours says nothing of our direction: the ACK of data without one is decisive."""
    wire, caller = serving()
    connection = caller.handshake(active=False, mptcp=True)
    caller.send(ACK, data=b"request")
    assert connection.recv() == b"request"
    caller.drain()
    connection.send(bytes(3000))
    caller.drain()
    caller.mptcp = False
    caller.send(ACK)
    assert connection.fallback
    assert connection.tx.used == 0
    assert any(isinstance(event, FellBack) for event in wire.take_events())
    connection.send(b"more")
    final = caller.expect(ACK, data=b"more", options=lacks(MpCapable))
    assert infinite(final.dss)
    connection.send(b"plain")
    assert caller.expect(ACK, data=b"plain").dss is None


@pytest.mark.row("F4")
def test_f5_confirmed_once_is_enough() -> None:
    """F4, §3.7: after one DATA_ACK of data the DSSs pass both ways: later ACKs may lack it."""
    _, caller = serving()
    connection = caller.handshake(active=False, mptcp=True)
    connection.send(b"x" * 100)
    caller.drain()
    caller.send(ACK)
    connection.send(b"y" * 100)
    caller.drain()
    caller.mptcp = False
    caller.send(ACK)
    assert not connection.fallback
    assert connection.ended is None


@pytest.mark.row("F5")
def test_f5_joined_subflow() -> None:
    """F5, §3.7: data on a joined subflow is acknowledged without a DSS, though one came before (the
    fourth ACK): RST with reason 6; the connection goes on and the data elsewhere."""
    wire, caller = serving()
    connection = caller.handshake(active=False, mptcp=True)
    flow = caller.beside(port=40001, local_port=5000, **SECOND_PATH)
    flow.join()
    flow.send(ACK)
    caller.drain()
    connection.send(bytes(60_000))
    assert caller.drain()
    sent = flow.drain()
    assert any(seen.data for seen in sent)
    flow.mptcp = False
    flow.send(ACK)
    (reset,) = [seen for seen in flow.drain() if seen.flags & RST]
    assert has(MpTcprst(RST_MIDDLEBOX))(reset.options)
    closed = [event for event in wire.take_events() if isinstance(event, SubflowClosed)]
    assert [event.end for event in closed] == [ConnectionEnd.PROTOCOL]
    assert not connection.fallback
    lost = {seen.dss.dsn for seen in sent if seen.data and seen.dss is not None}
    first = min(dsn for dsn in lost if dsn is not None)
    caller.send(ACK, options=[caller.dss(data_ack=first)])  # nothing of it was accepted
    again = {seen.dss.dsn for seen in caller.drain() if seen.data and seen.dss is not None}
    assert first in again


@pytest.mark.row("F5")
def test_f5_first_subflow_with_others() -> None:
    """F5, §3.7: plain TCP only "before any additional subflows are added": else a reset."""
    _, caller = serving()
    connection = caller.handshake(active=False, mptcp=True)
    flow = caller.beside(port=40001, local_port=5000, **SECOND_PATH)
    flow.join()
    flow.drain()
    caller.drain()
    connection.send(bytes(20_000))
    caller.drain()
    caller.mptcp = False
    caller.send(ACK)
    assert any(has(MpTcprst(RST_MIDDLEBOX))(seen.options) for seen in caller.drain())
    assert not connection.fallback
    assert connection.ended is None


@pytest.mark.row("F5")
def test_f5_join_under_way() -> None:
    """F5, §3.7: a subflow that has only sent its SYN was not added: plain TCP, the SYN is dropped
    by a RST, and an infinite mapping of the peer is taken too."""
    wire = Wire(addresses=TWO, nodelay=True)
    peer = Peer(wire)
    connection = peer.handshake(mptcp=True)
    other = peer.beside(port=80, **{**SECOND_PATH, "address": "10.0.1.2"})
    option = peer.dss(data_ack=1)
    add = _add_addr(peer)
    peer.send(ACK, options=[option, add])
    wire.advance(ms(200))
    assert other.queue  # the SYN of the join
    assert len(connection.subflows) == 2
    peer.mptcp = False
    mapping = peer.dss(data_ack=1, dsn=1, ssn=1, length=0)
    peer.send(ACK, data=b"plain", options=[mapping])
    assert connection.fallback
    assert connection.recv() == b"plain"
    assert len(connection.subflows) == 1
    assert connection.ended is None


def _add_addr(peer: Peer) -> AddAddr:
    address = parse_address("10.0.1.2")
    mac = keys.add_addr_hmac(peer.data.key, peer.data.stack_key, 2, address, None)
    return AddAddr(2, address, None, mac)


@pytest.mark.row("F6")
def test_f6_lost_data_of_before_is_mapped_too() -> None:
    """F6, §3.7: the infinite mapping acts retroactively: a segment that was lost when the sender
    fell back goes again with it, else the receiver would know no mapping for its bytes."""
    wire = Wire(addresses=TWO, nodelay=True)
    peer = Peer(wire)
    connection = peer.handshake(mptcp=True, confirm=False)
    connection.send(bytes(5000))
    first, *_ = [seen for seen in peer.drain() if seen.data]
    peer.mptcp = False
    peer.send(ACK, ack=first.end)
    assert connection.fallback
    peer.drain()
    again = peer.expect(ACK, within=seconds(3))
    while again.seq != first.end:  # a tail loss probe may come first
        assert infinite(again.dss)
        again = peer.expect(ACK, within=seconds(3))
    assert infinite(again.dss)
    assert again.dss is not None
    assert (again.dss.dsn, again.dss.ssn) == (first.end, first.end)


def damaged(peer: Peer, data: bytes, dsn: int) -> Dss:
    """A mapping of other data than `data`, at the peer's next byte."""
    number = (peer.data.idsn + dsn) % (1 << 64)
    checksum = dss_checksum(number, peer.nxt, len(data), ones_sum(data)) ^ 1
    return peer.dss(
        data_ack=peer.data.data_ack, dsn=dsn, ssn=peer.nxt, length=len(data), checksum=checksum
    )


def failed() -> tuple[Wire, Peer, MetaSocket, MpFail]:
    """A checksum has failed on the only subflow of a connection that has data to send."""
    wire, caller = serving()
    capable = MpCapable(checksum_required=True)
    connection = caller.handshake(active=False, mptcp=True, capable=capable)
    caller.send(ACK, data=b"evil", options=[damaged(caller, b"evil", 1)])
    return wire, caller, connection, MpFail((caller.data.idsn + 1) % (1 << 64))


@pytest.mark.parametrize("answer", ["MP_FAIL", "infinite mapping", "plain"])
@pytest.mark.row("F7")
def test_f7_mp_fail_is_repeated_until_answered(answer: str) -> None:
    """F7, §3.7: MP_FAIL goes on ACKs, which may get lost: each repeats it until the peer has
    reverted too: it answers MP_FAIL, declares the infinite mapping or sends no DSS any more."""
    wire, caller, connection, fail = failed()
    assert connection.fallback
    assert connection.recv() == b"evil"
    for number in range(3):
        caller.send(ACK, data=b"evil", options=[damaged(caller, b"evil", 5 + 4 * number)])
        wire.advance(wire.time + ms(100))
    sent = caller.drain()
    assert len([seen for seen in sent if has(fail)(seen.options)]) >= 3
    caller.mptcp = False
    if answer == "MP_FAIL":
        caller.send(ACK, options=[fail])
    elif answer == "plain":
        caller.send(ACK)
    else:
        mapping = caller.dss(data_ack=1, dsn=17, ssn=caller.nxt, length=0, checksum=0)
        caller.send(ACK, data=b"fine", options=[mapping])
    wire.advance(wire.time + ms(100))
    caller.drain()
    caller.send(ACK, data=b"more")
    wire.advance(wire.time + ms(100))
    assert all(not seen.segment.mptcp for seen in caller.drain())


@pytest.mark.row("F7")
def test_f7_the_fin_says_so_too() -> None:
    """F7, §3.7: after the fallback the end of our data is a FIN; that it goes first must not let
    the peer take it for the end of a subflow."""
    _, caller = serving()
    capable = MpCapable(checksum_required=True)
    connection = caller.handshake(active=False, mptcp=True, capable=capable)
    connection.shutdown()
    caller.drain()
    caller.send(ACK, data=b"evil", options=[damaged(caller, b"evil", 1)])
    fins = [seen for seen in caller.drain() if seen.flags & FIN]
    assert fins
    assert all(has(MpFail)(seen.options) for seen in fins)


@pytest.mark.row("D12")
def test_d12_last_subflow_stays_open_for_data() -> None:
    """D12, §3.3.3: a FIN of the peer ends the subflow in its direction; the last one is not closed
    while data is outstanding. When a fallback explains the FIN, it was the end of data."""
    wire = Wire(addresses=TWO, nodelay=True)
    peer = Peer(wire)
    connection = peer.handshake(mptcp=True)
    connection.send(b"x" * 100)
    peer.drain()
    peer.send(ACK)
    peer.window = 50
    peer.send(ACK)
    connection.send(bytes(1000))
    peer.drain()
    peer.send(ACK | FIN)
    assert not any(seen.flags & FIN for seen in peer.drain())
    assert not connection.eof
    peer.window = 65535
    peer.send(ACK, options=[peer.dss(data_ack=101), MpFail(0)])
    assert connection.fallback
    assert connection.eof
    got = sum(len(seen.data) for seen in peer.drain())
    peer.mptcp = False
    for _ in range(5):
        peer.send(ACK)
        got += sum(len(seen.data) for seen in peer.drain())
    assert connection.tx.used == 0
    connection.close()
    assert any(seen.flags & FIN for seen in peer.drain())


@pytest.mark.row("D12")
def test_d12_subflow_closes_when_all_is_acknowledged() -> None:
    """D12, §3.3.3: then the FIN is answered in kind, and the connection waits for a subflow."""
    wire = Wire(addresses=TWO, nodelay=True)
    peer = Peer(wire)
    connection = peer.handshake(mptcp=True)
    connection.send(bytes(1000))
    peer.drain()
    peer.send(ACK | FIN, ack=1, options=[peer.dss(data_ack=1)])
    assert not any(seen.flags & FIN for seen in peer.drain())
    peer.send(ACK)
    wire.advance(wire.time + seconds(5))
    assert any(seen.flags & FIN for seen in peer.drain())
    assert connection.ended is None
