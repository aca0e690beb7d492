"""Counters that no other test looks at, and exact figures where it matters what one unit is.

Meanings: RFC 4022 (Tcp…), Linux's `net/ipv4/proc.c` (TcpExt…) and `net/mptcp/mib.h` (MPTcpExt…).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import ClassVar

import pytest

from mptcp import keys
from mptcp.addressing import parse_address
from mptcp.scheduler import P, Scheduler, schedulers
from mptcp.wire.ip import ICMP, UDP, ip_header
from mptcp.wire.mptcp_options import AddAddr, MpJoinAck, MpJoinSyn, MpJoinSynAck
from mptcp.wire.tcp import ACK, SYN
from tests.options import Mss
from tests.peer import PEER_KEY, Peer, Wire, ms, seconds
from tests.tcp.test_recovery import MSS, edge

SECOND_PATH = {"address": "10.0.1.2", "local": "10.0.1.1", "interface": 2}
TWO = ("10.0.0.1/24", "10.0.1.1/24")


def second(caller: Peer, **changes: object) -> Peer:
    """Another flow of the client's connection, over the second path."""
    return caller.beside(**{"port": 40001, "local_port": 5000, **SECOND_PATH, **changes})


# -- segments --------------------------------------------------------------------------------------


@pytest.mark.mib("TcpInSegs", "TcpOutSegs", "TcpExtTCPOrigDataSent", "TcpRetransSegs")
@pytest.mark.parametrize("offload", [False, True])
def test_segments_are_counted_as_such(offload: bool) -> None:
    """RFC 4022: segments in and out, the latter without those that only repeat; a chunk that the
    device cuts is as many as it makes of it."""
    wire = Wire(mptcp=False, nodelay=True, offload=offload, rack_tlp=False)
    peer = Peer(wire)
    connection = peer.handshake(mss=MSS, rtt=ms(100))
    connection.send(bytes(8 * MSS))
    assert len(peer.drain()) < 8 or not offload
    peer.expect(ACK, seq=1, within=seconds(3))
    peer.drain()
    counters = wire.stack.mib()
    assert counters["TcpOutSegs"] == 1 + 1 + 8  # SYN, ACK, data
    assert counters["TcpExtTCPOrigDataSent"] == 8
    resent = counters["TcpRetransSegs"]
    assert resent >= 1
    peer.send(ACK, ack=1 + 8 * MSS)
    connection.abort()
    wire.flush()
    counters = wire.stack.mib()
    assert counters["TcpInSegs"] == 1 + 1  # SYN/ACK, ACK
    assert counters["TcpOutSegs"] == 1 + 1 + 8 + 1
    assert (counters["TcpOutRsts"], counters["TcpRetransSegs"]) == (1, resent)


# -- IP and ICMP -----------------------------------------------------------------------------------


@pytest.mark.mib("IpInUnknownProtos")
def test_a_protocol_that_is_not_spoken(wire: Wire) -> None:
    """RFC 1122 §3.2.2.1: UDP is not for us; nobody is told (it might be a flood)."""
    header = ip_header(parse_address("10.0.0.2"), parse_address("10.0.0.1"), UDP, 8)
    wire.inject(header + bytes(8))
    assert wire.stack.mib()["IpInUnknownProtos"] == 1
    assert not wire.raw


@pytest.mark.mib("IcmpInEchos")
def test_an_echo_request(wire: Wire) -> None:
    """RFC 1122 §3.2.2.6: answered."""
    header = ip_header(parse_address("10.0.0.2"), parse_address("10.0.0.1"), ICMP, 8)
    wire.inject(header + bytes([8, 0, 0xF7, 0xFD, 0, 1, 0, 1]))
    assert wire.stack.mib()["IcmpInEchos"] == 1
    assert len(wire.raw) == 1


@pytest.mark.mib("IpReasmReqds", "IpReasmOKs")
def test_fragments(wire: Wire) -> None:
    """RFC 791 §3.2: each fragment is counted, and once the packet they make."""
    peer = Peer(wire)
    peer.handshake()
    packet = bytearray(peer.packet(ACK, data=bytes(100)))
    body = bytes(packet[20:])
    source, target = parse_address("10.0.0.2"), parse_address("10.0.0.1")
    for offset, part, more in ((0, body[:64], True), (64, body[64:], False)):
        header = bytearray(
            ip_header(source, target, 6, len(part), identification=7, dont_fragment=False)
        )
        header[6:8] = (more << 13 | offset >> 3).to_bytes(2, "big")
        header[10:12] = bytes(2)
        total = sum(int.from_bytes(header[i : i + 2], "big") for i in range(0, 20, 2)) % 0xFFFF
        header[10:12] = (0xFFFF - total).to_bytes(2, "big")
        wire.inject(bytes(header) + part)
    counters = wire.stack.mib()
    assert (counters["IpReasmReqds"], counters["IpReasmOKs"]) == (2, 1)
    assert peer.subflow().bytes_received == 100


@pytest.mark.mib("IpOutDiscards")
def test_a_device_that_refuses(wire: Wire, peer: Peer) -> None:
    """A packet that could not be written counts once."""
    connection = peer.handshake()
    refusals = iter([True])
    wire.refuse = lambda transmit: next(refusals, False)
    connection.send(b"x")
    wire.flush()
    assert wire.stack.mib()["IpOutDiscards"] == 1


# -- TCP -------------------------------------------------------------------------------------------


@pytest.mark.mib("TcpExtTCPOFODrop")
def test_no_room_for_what_is_out_of_order() -> None:
    """Design rule 6: bytes of one each with holes between them cost more than they bring."""
    wire = Wire(mptcp=False, receive_buffer=4096)
    peer = Peer(wire)
    peer.handshake()
    for number in range(100):
        peer.send(ACK, seq=100 + 2 * number, data=b"x")
    assert wire.stack.mib()["TcpExtTCPOFODrop"] > 10


@pytest.mark.mib("TcpExtTCPDSACKOfoRecv")
def test_a_dsack_above_the_cumulative_ack() -> None:
    """RFC 2883 §4.1.2: the first block lies within the second."""
    peer = Peer(Wire(mptcp=False, nodelay=True))
    connection = peer.handshake(mss=MSS, rtt=ms(10))
    connection.send(bytes(5 * MSS))
    peer.drain()
    blocks = peer.sacked((edge(2), edge(3)), (edge(1), edge(4)))
    peer.send(ACK, ack=edge(0), options=[blocks])
    counters = peer.wire.stack.mib()
    assert (counters["TcpExtTCPDSACKOfoRecv"], counters["TcpExtTCPDSACKRecv"]) == (1, 0)


@pytest.mark.mib("TcpExtTCPFullUndo", "TcpExtTCPPartialUndo")
def test_needless_fast_recoveries() -> None:
    """RFC 3522 §3.2: the echo is older than the retransmission; at the end of the recovery, or
    before it."""
    names = ("TcpExtTCPFullUndo", "TcpExtTCPPartialUndo")
    found = []
    for acked in (10, 1):
        wire = Wire(mptcp=False, nodelay=True, congestion_control="newreno")
        peer = Peer(wire)
        connection = peer.handshake(mss=MSS + 12, timestamps=True, rtt=ms(100))
        connection.send(bytes(10 * MSS))
        sent = peer.drain()
        assert len(sent) == 10
        old = peer.ts_recent
        peer.send(ACK, ack=edge(0), options=[peer.sacked((edge(1), edge(5)))], at=ms(100))
        assert sent[0].seq in [seen.seq for seen in peer.drain()]
        peer.ts_recent = old
        peer.send(ACK, ack=edge(acked), at=ms(110))
        counters = wire.stack.mib()
        found.append(tuple(counters[name] for name in names))
        assert peer.subflow().snd.spurious == 1
    assert found == [(1, 0), (0, 1)]


# -- MP_JOIN (RFC 8684 §3.2) -----------------------------------------------------------------------


@pytest.mark.mib("MPTcpExtMPJoinAckHMacFailure")
def test_a_wrong_hmac_at_the_server(wire: Wire, caller: Peer) -> None:
    """Figure 8: the third ACK proves that its sender knows the keys."""
    caller.handshake(active=False, mptcp=True)
    flow = second(caller)
    token = keys.token(caller.data.stack_key)
    flow.send(SYN, options=[Mss(1400), MpJoinSyn(False, 1, token, b"abcd")])
    flow.expect(SYN | ACK, ack=1)
    flow.send(ACK, options=[MpJoinAck(bytes(20))])
    assert wire.stack.mib()["MPTcpExtMPJoinAckHMacFailure"] == 1


def announced(peer: Peer, address: str = "10.0.1.2", address_id: int = 3) -> AddAddr:
    """The peer's ADD_ADDR with its HMAC."""
    raw = parse_address(address)
    local_key = peer.subflow().meta.local_key
    mac = keys.add_addr_hmac(PEER_KEY, local_key, address_id, raw, None)
    return AddAddr(address_id, raw, None, mac)


@pytest.mark.mib("MPTcpExtMPJoinSynAckHMacFailure")
def test_a_wrong_hmac_at_the_client(wire: Wire, peer: Peer) -> None:
    """Figure 8: so does the SYN/ACK."""
    peer.handshake(mptcp=True)
    flow = peer.beside(port=80, **SECOND_PATH)
    peer.send(ACK, options=[announced(peer)])
    flow.expect(SYN)
    flow.send(SYN | ACK, options=[Mss(1400), MpJoinSynAck(False, 3, bytes(8), b"abcd")])
    assert wire.stack.mib()["MPTcpExtMPJoinSynAckHMacFailure"] == 1


@pytest.mark.mib("MPTcpExtMPJoinSynAckBackupRx")
def test_a_server_that_wants_a_backup(wire: Wire, peer: Peer) -> None:
    """§3.2: the B flag of the SYN/ACK."""
    peer.handshake(mptcp=True)
    flow = peer.beside(port=80, **SECOND_PATH)
    peer.send(ACK, options=[announced(peer)])
    flow.accept_join(backup=True)
    assert wire.stack.mib()["MPTcpExtMPJoinSynAckBackupRx"] == 1


@pytest.mark.mib("MPTcpExtMPJoinSynTxBindErr")
def test_no_port_left_for_a_join() -> None:
    """The kernel's bind() fails then; here the pair of addresses and ports is taken."""
    wire = Wire(addresses=TWO, ephemeral_ports=(40000, 40000))
    taken = Peer(wire, port=80, **SECOND_PATH)  # type: ignore[arg-type]
    taken.handshake()
    peer = Peer(wire)
    peer.handshake(mptcp=True)
    peer.send(ACK, options=[announced(peer)])
    wire.advance(ms(10))
    counters = wire.stack.mib()
    assert (counters["MPTcpExtMPJoinSynTxBindErr"], counters["MPTcpExtMPJoinSynTx"]) == (1, 0)


@pytest.mark.mib("MPTcpExtRmSubflow")
def test_a_local_address_goes(wire: Wire, caller: Peer) -> None:
    """§3.4.2: the subflows that use it are closed, each counted."""
    connection = caller.handshake(active=False, mptcp=True)
    second(caller).join()
    wire.stack.interface_down(wire.now, 2)
    assert len(connection.subflows) == 1
    assert wire.stack.mib()["MPTcpExtRmSubflow"] == 1


# -- addresses (RFC 8684 §3.4) ---------------------------------------------------------------------


@pytest.mark.mib("MPTcpExtEchoAddTxDrop", "MPTcpExtAddAddrTxDrop", "MPTcpExtRmAddrTxDrop")
def test_options_that_find_no_room() -> None:
    """Design rule 6: at most 16 options wait on a subflow; what does not fit is counted by kind."""
    wire = Wire(addresses=("10.0.0.1/24", "10.0.1.1/24"), nodelay=True, max_addresses=30)
    wire.stack.listen(5000)
    caller = Peer(wire, port=40000, local_port=5000)
    caller.handshake(active=False, mptcp=True)
    caller.drain()
    stack = wire.stack
    for address_id in range(10, 30):  # all of them before anything is sent
        option = announced(caller, f"10.0.9.{address_id}", address_id)
        stack.handle_packet(wire.now, 1, memoryview(caller.packet(ACK, options=[option])))
    stack.interface_down(wire.now, 2)
    stack.interface_up(wire.now, wire.interfaces[1])
    counters = stack.mib()
    assert (counters["MPTcpExtEchoAddTx"], counters["MPTcpExtEchoAddTxDrop"]) == (16, 4)
    assert counters["MPTcpExtAddAddr"] == 20
    assert counters["MPTcpExtRmAddrTxDrop"] == 1
    assert counters["MPTcpExtAddAddrTxDrop"] == 1


# -- data ------------------------------------------------------------------------------------------


@pytest.mark.mib("MPTcpExtOFOMerge")
def test_data_out_of_order_that_continues(wire: Wire, caller: Peer) -> None:
    """Kept at the end of the queue, joined with what was there, or neither: 21, then 31, then 11
    to 20; 41 stands alone; 1 to 10 is in order and none of them."""
    connection = caller.handshake(active=False, mptcp=True)
    for dsn in (21, 31, 51, 11):
        dss = caller.dss(data_ack=1, dsn=dsn, ssn=caller.nxt, length=10)
        caller.send(ACK, data=b"0123456789", options=[dss])
    counters = wire.stack.mib()
    assert counters["MPTcpExtOFOQueue"] == 4
    assert counters["MPTcpExtOFOQueueTail"] == 3
    assert counters["MPTcpExtOFOMerge"] == 2
    assert connection.recv() == b""
    dss = caller.dss(data_ack=1, dsn=1, ssn=caller.nxt, length=10)
    caller.send(ACK, data=b"0123456789", options=[dss])
    assert len(connection.recv()) == 40
    assert wire.stack.mib()["MPTcpExtOFOQueue"] == 4


class Elsewhere(Scheduler):
    """Chooses what it was not offered."""

    choice: ClassVar[object] = None

    def select(self, ready: Sequence[P], queued: int) -> P | None:
        return self.choice  # type: ignore[return-value]


@pytest.fixture
def elsewhere() -> Iterator[str]:
    schedulers.add("elsewhere", Elsewhere)
    yield "elsewhere"
    Elsewhere.choice = None
    schedulers.unregister("elsewhere")


@pytest.mark.mib("SchedulerChoiceNotReady")
def test_a_choice_that_was_not_offered(elsewhere: str) -> None:
    """docs/stack-api.md: counted, and not followed: the subflow that asked takes the data."""
    wire = Wire(addresses=TWO, nodelay=True, scheduler=elsewhere)
    wire.stack.listen(5000)
    caller = Peer(wire, port=40000, local_port=5000)
    connection = caller.handshake(active=False, mptcp=True)
    flow = second(caller)
    flow.join()
    stranger = Peer(wire, port=81)
    stranger.handshake()
    Elsewhere.choice = stranger.subflow()
    connection.send(b"x" * 100)
    assert sum(len(seen.data) for seen in [*caller.drain(), *flow.drain()]) == 100
    assert wire.stack.mib()["SchedulerChoiceNotReady"] > 0
