"""The checklist's rows about data that have no test elsewhere: RFC 8684 §3.3."""

from __future__ import annotations

import pytest

from mptcp.wire.mptcp_options import RST_MIDDLEBOX, RST_UNACCEPTABLE_PERFORMANCE, MpTcprst
from mptcp.wire.tcp import ACK, RST, URG
from tests.mptcp.test_checksum import checked, mapped
from tests.options import has
from tests.peer import Peer, Wire, ms, seconds

TWO = ("10.0.0.1/24", "10.0.1.1/24")
SECOND_PATH = {"address": "10.0.1.2", "local": "10.0.1.1", "interface": 2}


@pytest.mark.row("D4")
@pytest.mark.parametrize("at", [1, 5, 10])
def test_the_urgent_pointer_interrupts_nothing(caller: Peer, at: int) -> None:
    """§3.3.1, §4: a mapping goes on through urgent data, wherever the pointer points."""
    connection = caller.handshake(active=False, mptcp=True)
    dss = caller.dss(data_ack=1, dsn=1, ssn=1, length=10)
    caller.send(ACK | URG, data=b"abcde", options=[dss])
    caller.send(ACK, data=b"fghij", options=[dss])
    assert connection.recv() == b"abcdefghij"
    assert connection.urgent_left == 0


# -- mappings that come late, or never (D5, D7, F8) -----------------------------------------------


@pytest.mark.row("D5", "D7")
@pytest.mark.parametrize("carrier", ["next data", "pure ACK"])
def test_a_mapping_that_comes_after_its_data(caller: Peer, carrier: str) -> None:
    """§3.3.1: data without a mapping is acknowledged by the subflow, not by a DATA_ACK; when the
    mapping comes it takes its place."""
    connection = caller.handshake(active=False, mptcp=True)
    caller.drain()
    plain = caller.dss(data_ack=1)
    whole = caller.dss(data_ack=1, dsn=1, ssn=1, length=10)
    caller.send(ACK, data=b"hello", options=[plain])
    seen = caller.expect(ACK, ack=6, within=ms(100))
    assert seen.dss is not None
    assert seen.dss.data_ack == 1
    assert connection.recv() == b""
    if carrier == "next data":
        caller.send(ACK, data=b"world", options=[whole])
    else:
        caller.send(ACK, options=[whole])
        assert connection.recv() == b"hello"
        caller.send(ACK, seq=6, data=b"world", options=[plain])
    assert connection.recv() in (b"helloworld", b"world")
    assert caller.wire.stack.counters["MPTcpExtDSSNoMatchTCP"] == 0
    caller.wire.advance(seconds(10))
    assert connection.ended is None
    assert caller.subflow() in connection.subflows


@pytest.mark.row("D5")
def test_late_mappings_of_a_part() -> None:
    """§3.3.1: each mapping takes its part of what waits, with checksums too."""
    caller, connection = checked(Wire(nodelay=True))
    first = mapped(caller, b"abc", 5)
    caller.send(ACK, data=b"abc", options=[caller.dss(data_ack=1)])
    second = mapped(caller, b"defgh", 8)
    caller.send(ACK, data=b"de", options=[caller.dss(data_ack=1)])
    caller.send(ACK, data=b"fgh", options=[first])
    assert connection.recv() == b"abc"
    caller.send(ACK, options=[second])
    assert connection.recv() == b"defgh"


@pytest.mark.row("D5", "F8")
@pytest.mark.parametrize("much", [True, False])
def test_a_mapping_that_never_comes(much: bool) -> None:
    """§3.3.1, §3.7: when a receive window's worth has come without a mapping, or after a second,
    the subflow is reset, reason 6; the data was acknowledged, never delivered."""
    wire = Wire(nodelay=True, receive_buffer=8192)
    caller = Peer(wire, port=40000, local_port=5000)
    wire.stack.listen(5000)
    connection = caller.handshake(active=False, mptcp=True)
    caller.send(ACK, data=b"mapped")
    caller.drain()
    plain = caller.dss(data_ack=1)
    for count in range(1, 10 if much else 2):
        caller.send(ACK, data=bytes(1000), options=[plain])
        if count == 8:
            assert caller.drain()[-1].ack == 8007
    if not much:
        wire.advance(ms(900))
        assert not any(seen.flags & RST for seen in caller.drain())
        wire.advance(ms(1100))
    (reset,) = [seen for seen in caller.drain() if seen.flags & RST]
    assert has(MpTcprst(RST_MIDDLEBOX))(reset.options)
    assert connection.recv() == b"mapped"


@pytest.mark.row("D16")
def test_a_subflow_that_performs_badly_says_so() -> None:
    """§3.3.6, §3.6: given up after time-outs while another works: RST, reason 5, transient."""
    wire = Wire(addresses=TWO, nodelay=True, subflow_retries=3)
    wire.stack.listen(5000)
    caller = Peer(wire, port=40000, local_port=5000)
    connection = caller.handshake(active=False, mptcp=True, rtt=ms(50))
    flow = caller.beside(port=40001, local_port=5000, **SECOND_PATH)
    flow.join()
    connection.send(b"x" * 100)
    resets = []
    for _ in range(60):
        wire.advance(wire.time + ms(100))
        caller.send(ACK)
        resets += [seen for seen in flow.drain() if seen.flags & RST]
    (reset,) = resets
    assert has(MpTcprst(RST_UNACCEPTABLE_PERFORMANCE, True))(reset.options)
    assert [s.remote for s in connection.subflows] == [caller.address]


@pytest.mark.row("F11", "I7")
@pytest.mark.parametrize("checksum", [False, True])
def test_a_first_mapping_without_a_data_ack(checksum: bool) -> None:
    """App. B with erratum 6609: a server that sends before the third ACK has M=1 and A=0: the data
    is taken, MPTCP confirmed, and what the peer acknowledges is unknown until a DATA_ACK comes."""
    wire = Wire(nodelay=True, checksum=checksum)
    peer = Peer(wire)
    connection = peer.handshake(mptcp=True, confirm=False)
    dss = peer.dss(dsn=1, ssn=1, length=7)
    if checksum:
        dss = mapped(peer, b"welcome", 1)
        dss.data_ack = None
    peer.send(ACK, data=b"welcome", options=[dss])
    assert connection.recv() == b"welcome"
    assert (connection.fallback, connection.confirmed) == (False, True)
    assert connection.tx.una == connection.local_idsn + 1
