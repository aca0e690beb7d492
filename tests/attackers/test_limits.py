"""Limits of docs/limits.md that no other attack reaches: each bites, is counted, and hurts nobody
who means it."""

from __future__ import annotations

import struct

import pytest

from mptcp import keys
from mptcp.wire.checksum import finish, ones_sum
from mptcp.wire.mptcp_options import (
    RST_LACK_OF_RESOURCES,
    MpJoinAck,
    MpJoinSyn,
    MpJoinSynAck,
    MpTcprst,
)
from mptcp.wire.tcp import ACK, FIN, RST, SYN
from tests.attackers.scene import ROGUE_PORT, Scene
from tests.attackers.test_rogues import announce, rogue_server
from tests.options import Mss, has
from tests.peer import Peer, Seen, Wire


def fragment(number: int, offset: int, data: bytes, more: bool) -> bytes:
    """An IPv4 fragment of a datagram that is never completed (RFC 791 §3.1)."""
    field = (offset >> 3) | (0x2000 if more else 0)
    head = struct.pack(
        "!BBHHHBBH4s4s",
        *(0x45, 0, 20 + len(data), number & 0xFFFF, field, 64, 6, 0),
        bytes((10, 9, number >> 8 & 0xFF, number & 0xFF)),
        bytes((10, 0, 1, 2)),
    )
    return head[:10] + finish(ones_sum(head)).to_bytes(2, "big") + head[12:] + data


@pytest.mark.mib("IpReasmEvicted", "IpReasmFails")
def test_fragments() -> None:
    """RFC 791 §3.2, RFC 1858: first fragments without end: bytes and datagrams are bounded."""
    for fields in ({"max_reassembly_bytes": 40_000}, {"max_fragmented_datagrams": 10}):
        scene = Scene(81, openers=2, size=400_000, server=dict(fields))
        numbers = iter(range(1, 1 << 16))
        scene.every(
            1000,
            lambda numbers=numbers: [fragment(next(numbers), 0, bytes(1400), True)] * 2,  # type: ignore[misc]
        )
        scene.finish()
        assert scene.counters["IpReasmEvicted"] > 50
        assert scene.counters["IpReasmFails"] >= scene.counters["IpReasmEvicted"]
        assert scene.counters["IpReasmOKs"] == 0


def test_time_wait() -> None:
    """RFC 9293 §3.4.1: connections that a peer has the stack close first are bounded in number."""
    wire = Wire(mptcp=False, max_time_wait=5)
    wire.stack.listen(5000)
    for number in range(20):
        peer = Peer(wire, port=1000 + number, local_port=5000)
        connection = peer.handshake(active=False)
        connection.close()
        peer.drain()
        peer.send(FIN | ACK)
        assert len(wire.stack.connections) <= 5
    assert wire.stack.counters["TcpExtTCPTimeWaitOverflow"] == 15


@pytest.mark.mib("MPTcpExtHalfOpenJoinsDropped")
def test_joins_that_are_remembered() -> None:
    """RFC 8684 §3.2: of those that wait for their third ACK a fixed number is remembered; the
    others are told that they may try again (§3.6, T flag)."""
    wire = Wire(max_half_open_joins=1, backlog=1)
    wire.stack.listen(5000)
    first = Peer(wire, port=1000, local_port=5000)
    connection = first.handshake(active=False, mptcp=True)
    late = [first.beside(port=2000 + number, local_port=5000) for number in range(4)]
    answers = []
    for peer in late:
        token = connection.token
        peer.send(SYN, options=[Mss(1400), MpJoinSyn(False, 1, token, peer.local_nonce)])
        answers.append(peer.expect(SYN | ACK))
    for number in (2, 3):
        late[number].send(ACK, options=[third_ack(late[number], answers[number])])
    late[2].expect(RST, options=has(MpTcprst(RST_LACK_OF_RESOURCES, True)))
    late[3].expect(ACK, ack=1)
    assert sum(s.fully_established for s in connection.subflows) == 2


def test_joins_beyond_the_limit() -> None:
    """RFC 8684 §3.2, §3.6: a subflow too many is refused for lack of resources, at its SYN, or at
    its third ACK when others were faster."""
    wire = Wire(max_subflows=2)
    wire.stack.listen(5000)
    first = Peer(wire, port=1000, local_port=5000)
    connection = first.handshake(active=False, mptcp=True)
    late = [first.beside(port=2000 + number, local_port=5000) for number in range(2)]
    answers = []
    for peer in late:
        token = connection.token
        peer.send(SYN, options=[Mss(1400), MpJoinSyn(False, 1, token, peer.local_nonce)])
        answers.append(peer.expect(SYN | ACK))
    assert not any(s.is_join and s.fully_established for s in connection.subflows)
    for peer, answer in zip(late, answers, strict=True):
        peer.send(ACK, options=[third_ack(peer, answer)])
    late[0].expect(ACK)
    late[1].expect(RST | ACK, options=has(MpTcprst(RST_LACK_OF_RESOURCES, True)))
    assert len(connection.subflows) == 2
    third = first.beside(port=3000, local_port=5000)
    third.send(SYN, options=[Mss(1400), MpJoinSyn(False, 1, connection.token, b"abcd")])
    third.expect(RST | ACK)
    assert wire.stack.counters["MPTcpExtMPJoinRejected"] == 2


def third_ack(peer: Peer, answer: Seen) -> MpJoinAck:
    """The MP_JOIN of the third ACK that goes with a SYN/ACK."""
    option = answer.option(MpJoinSynAck)
    level = peer.data
    mac = keys.ack_hmac(level.key, level.stack_key, peer.local_nonce, option.nonce)
    return MpJoinAck(mac)


def test_echoes_that_wait() -> None:
    """RFC 8684 §3.4.1: addresses announced faster than their echoes go out are not all echoed: the
    peer repeats them."""
    scene = Scene(82, openers=1, size=100_000, server={"max_waiting_signals": 2})
    peer = rogue_server(scene)
    now = scene.sim.now
    for number in range(1, 6):
        packet = announce(peer, number, bytes((10, 0, 4, 10 + number)))
        scene.server.stack.handle_packet(now, 4, memoryview(packet))
    assert scene.counters["MPTcpExtEchoAddTxDrop"] == 3
    scene.server.wake()
    scene.finish()


def test_data_beyond_the_window_of_the_connection() -> None:
    """RFC 8684 §3.3.5: a peer that sends outside the connection's window: dropped, no DATA_ACK."""
    scene = Scene(83, openers=1, server={"receive_buffer": 1 << 16})
    peer = scene.peer()
    assert peer.local_port == ROGUE_PORT
    meta = peer.subflow().meta
    for dsn in (1 + (1 << 16), 1 << 20, 1 << 40):
        mapping = peer.dss(data_ack=1, dsn=dsn, ssn=peer.nxt, length=4)
        scene.put(peer.packet(ACK, data=b"evil", options=[mapping]), 4)
    assert scene.counters["MPTcpExtNoDSSInWindow"] == 3
    assert meta.rx.reorder.memory == 0
    assert meta.rx.nxt == meta.remote_idsn + 1
    scene.finish()
