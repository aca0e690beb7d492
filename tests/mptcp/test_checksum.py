"""DSS checksums that fail, and MP_FAIL: RFC 8684 §3.7."""

from __future__ import annotations

import pytest

from mptcp.meta_socket import MetaSocket
from mptcp.wire.checksum import dss_checksum, ones_sum
from mptcp.wire.dss import Dss
from mptcp.wire.mptcp_options import MpCapable, MpFail
from mptcp.wire.tcp import ACK, RST, SYN
from tests.options import has
from tests.peer import Peer, Wire, ms

SECOND_PATH = {"address": "10.0.1.2", "local": "10.0.1.1", "interface": 2}


def mapped(peer: Peer, data: bytes, dsn: int, *, damage: int = 0) -> Dss:
    """A mapping of `data` at the peer's next byte, with its checksum."""
    number = (peer.data.idsn + dsn) % (1 << 64)
    checksum = dss_checksum(number, peer.nxt, len(data), ones_sum(data)) ^ damage
    return peer.dss(
        data_ack=peer.data.data_ack, dsn=dsn, ssn=peer.nxt, length=len(data), checksum=checksum
    )


def checked(wire: Wire) -> tuple[Peer, MetaSocket]:
    """A client's connection that uses checksums, 4 bytes received."""
    wire.stack.listen(5000)
    caller = Peer(wire, port=40000, local_port=5000)
    capable = MpCapable(checksum_required=True)
    connection = caller.handshake(active=False, mptcp=True, capable=capable)
    caller.send(ACK, data=b"good", options=[mapped(caller, b"good", 1)])
    assert connection.recv() == b"good"
    caller.drain()
    return caller, connection


@pytest.mark.row("D3")
def test_good_checksums_over_several_segments() -> None:
    """§3.3.1: the checksum covers the mapping, which may span segments; nothing before it ends."""
    caller, connection = checked(Wire(nodelay=True))
    dss = mapped(caller, b"abcdef", 5)
    caller.send(ACK, data=b"abc", options=[dss])
    assert connection.recv() == b""
    caller.send(ACK, data=b"def", options=[dss])
    assert connection.recv() == b"abcdef"


@pytest.mark.row("F7")
@pytest.mark.mib("MPTcpExtDataCsumErr", "MPTcpExtMPFailTx")
def test_failure_on_one_of_two_subflows() -> None:
    """§3.7: RST with MP_FAIL and the 64-bit DSN; the data is not DATA_ACKed; the other goes on."""
    wire = Wire(addresses=("10.0.0.1/24", "10.0.1.1/24"), nodelay=True)
    caller, connection = checked(wire)
    flow = caller.beside(port=40001, local_port=5000, **SECOND_PATH)
    flow.join()
    flow.drain()
    flow.send(ACK, data=b"evil", options=[mapped(flow, b"evil", 5, damage=1)])
    (reset,) = [seen for seen in flow.drain() if seen.flags & RST]
    assert has(MpFail((caller.data.idsn + 5) % (1 << 64)))(reset.options)
    assert connection.recv() == b""
    caller.send(ACK, data=b"true", options=[mapped(caller, b"true", 5)])
    assert connection.recv() == b"true"
    caller.expect(ACK, data_ack=9, within=ms(500))


@pytest.mark.row("F7")
def test_failure_on_the_only_subflow() -> None:
    """§3.7: with one subflow: MP_FAIL on an ACK and plain TCP; no reset, no byte lost."""
    wire = Wire(nodelay=True)
    caller, connection = checked(wire)
    caller.send(ACK, data=b"evil", options=[mapped(caller, b"evil", 5, damage=1)])
    wire.advance(ms(100))
    sent = caller.drain()
    assert not any(seen.flags & RST for seen in sent)
    assert any(has(MpFail((caller.data.idsn + 5) % (1 << 64)))(seen.options) for seen in sent)
    assert connection.fallback


@pytest.mark.row("F7")
def test_failure_while_a_join_waits_for_its_fourth_ack() -> None:
    """§3.7, §3.2: the peer may have two subflows already and could not go on with one as plain TCP:
    RST with MP_FAIL, and the data comes on the joined one."""
    wire = Wire(addresses=("10.0.0.1/24", "10.0.1.1/24"), nodelay=True)
    peer = Peer(wire)
    capable = MpCapable(peer.data.key, checksum_required=True)
    connection = peer.handshake(mptcp=True, capable=capable, rtt=ms(10))
    second = peer.beside(address="10.0.0.2", local="10.0.1.1", interface=2)
    wire.advance(ms(150))
    second.accept_join(fourth=False)
    peer.drain()
    peer.send(ACK, data=b"evil", options=[mapped(peer, b"evil", 1, damage=1)])
    (reset,) = [seen for seen in peer.drain() if seen.flags & RST]
    assert has(MpFail((peer.data.idsn + 1) % (1 << 64)))(reset.options)
    assert not connection.fallback
    second.send(ACK, data=b"true", options=[mapped(second, b"true", 1)])
    assert connection.recv() == b"true"
    dss = second.drain()[-1].dss
    assert dss is not None
    assert dss.data_ack == 5


@pytest.mark.row("F7")
def test_failure_while_a_join_is_not_answered() -> None:
    """§3.7: the peer has one subflow only, whatever has become of the SYN: plain TCP goes on."""
    wire = Wire(addresses=("10.0.0.1/24", "10.0.1.1/24"), nodelay=True)
    peer = Peer(wire)
    capable = MpCapable(peer.data.key, checksum_required=True)
    connection = peer.handshake(mptcp=True, capable=capable, rtt=ms(10))
    second = peer.beside(address="10.0.0.2", local="10.0.1.1", interface=2)
    wire.advance(ms(150))
    second.expect(SYN)
    peer.drain()
    peer.send(ACK, data=b"evil", options=[mapped(peer, b"evil", 1, damage=1)])
    assert not any(seen.flags & RST for seen in peer.drain())
    assert connection.fallback
    assert connection.recv() == b"evil"


@pytest.mark.row("F7")
@pytest.mark.mib("MPTcpExtMPFailRx")
def test_fail_received_on_the_only_subflow(wire: Wire, peer: Peer) -> None:
    """§3.7: "the receiver of an MP_FAIL MUST also respond with an MP_FAIL" and revert to TCP."""
    connection = peer.handshake(mptcp=True)
    connection.send(b"x" * 100)
    peer.drain()
    peer.send(
        ACK,
        options=[peer.dss(data_ack=1), MpFail((peer.data.stack_idsn + 1) % (1 << 64))],
    )
    assert connection.fallback
    connection.send(b"y")
    assert any(has(MpFail)(seen.options) for seen in peer.drain())
