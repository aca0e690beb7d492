"""What leaves and when: Nagle, push, wrap, chunks for an offload device (design rule 2)."""

from __future__ import annotations

import pytest

from mptcp.tcp.host import GSO_NONE, GSO_TCPV4, GSO_TCPV6, Transmit
from mptcp.wire.checksum import pseudo_sum
from mptcp.wire.ip import parse_ip
from mptcp.wire.tcp import ACK, SYN
from tests.options import Mss, SackPermitted
from tests.peer import PSH, Peer, Wire, ms, seconds


def nagling() -> tuple[Wire, Peer]:
    """A stack with Nagle's algorithm on."""
    wire = Wire(mptcp=False, nodelay=False)
    return wire, Peer(wire)


def test_nagle() -> None:
    """RFC 9293 §3.7.4: with data unacknowledged, small ones wait for an ACK or a full segment."""
    _, peer = nagling()
    connection = peer.handshake(mss=1000, rtt=ms(100))  # no tail loss probe meanwhile
    connection.send(b"a" * 10)
    peer.expect(ACK, seq=1, data=b"a" * 10)
    connection.send(b"b" * 10)
    connection.send(b"c" * 10)
    peer.expect_nothing(until=ms(10))
    peer.send(ACK)
    peer.expect(ACK, seq=11, data=b"b" * 10 + b"c" * 10)
    connection.send(b"d" * 1015)
    peer.expect(ACK, seq=31, length=1000)
    peer.expect_nothing(until=ms(20))
    peer.send(ACK)
    peer.expect(ACK, seq=1031, length=15)


def test_no_nagle(wire: Wire, peer: Peer) -> None:
    """RFC 1122 §4.2.3.4: it can be turned off."""
    connection = peer.handshake(mss=1000)
    for number in range(5):
        connection.send(bytes([number]))
        peer.expect(ACK, seq=1 + number, data=bytes([number]))


def test_nagle_does_not_hold_the_end() -> None:
    """The last small segment goes at once when the connection is shut down."""
    wire, peer = nagling()
    connection = peer.handshake(mss=1000)
    connection.send(b"a" * 10)
    connection.send(b"b" * 10)
    peer.drain()
    connection.send(b"c" * 10)
    connection.shutdown()
    wire.flush()
    assert peer.acked() == 32


def test_push(wire: Wire, peer: Peer) -> None:
    """RFC 9293 §3.9.1.2: PSH on the last segment of what was queued."""
    connection = peer.handshake(mss=1000)
    connection.send(bytes(2500))
    assert [bool(seen.flags & PSH) for seen in peer.drain()] == [False, False, True]


@pytest.mark.parametrize("below", [10, 1, 1 << 20])
def test_sequence_numbers_wrap(below: int) -> None:
    """RFC 9293 §3.4: arithmetic modulo 2^32, both directions, SACK blocks too."""
    start = (1 << 32) - below
    wire = Wire(mptcp=False, nodelay=True, isn=start)
    peer = Peer(wire, isn=start)
    connection = peer.handshake(mss=1000, timestamps=True)
    data = bytes(range(200)) * 10
    connection.send(data)
    sent = peer.drain()
    assert b"".join(seen.data for seen in sent) == data
    assert sent[-1].segment.seq == (start + sent[-1].seq) % (1 << 32)
    peer.send(ACK, ack=2001)
    peer.send(ACK, seq=101, data=data[100:200])
    peer.expect(ACK, ack=1, sack=[(101, 201)])
    peer.send(ACK, seq=1, data=data[:100])
    peer.expect(ACK, ack=201)
    assert connection.recv() == data[:200]


# -- offload ----------------------------------------------------------------------------------


def offload(mtu: int = 1500, address: str = "10.0.0.1/24", **changes: object) -> Wire:
    """A stack on an interface that segments and checksums."""
    return Wire(mtu=mtu, offload=True, addresses=[address], **{"mptcp": False, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize("mtu", [1500, 1280, 9000, 600])
@pytest.mark.parametrize("peer_mss", [1460, 1000, 8960])
@pytest.mark.parametrize("timestamps", [True, False])
def test_a_chunk_fits_the_mtu_when_cut(mtu: int, peer_mss: int, timestamps: bool) -> None:
    """gso_size + headers is at most the MTU and at most what the peer's MSS allows (RFC 6691)."""
    wire = offload(mtu)
    peer = Peer(wire)
    connection = peer.handshake(mss=peer_mss, timestamps=timestamps, rtt=ms(1))
    connection.send(bytes(60_000))
    chunk = peer.expect(ACK)
    assert len(chunk.data) > chunk.gso_size > 0
    full = chunk.gso_size + len(chunk.option_bytes)
    assert full == min(mtu - 40, peer_mss)


def test_chunk_size_rule() -> None:
    """Design rule 2: chunk <= max(2 MSS, min(cwnd / 2, pacing rate * 1 ms)), below 64 KiB."""
    wire = offload(nodelay=True)
    peer = Peer(wire)
    peer.window = 65535
    connection = peer.handshake(mss=1460, wscale=7, rtt=ms(1))
    peer.send(ACK)
    cc = peer.subflow().cc
    connection.send(bytes(3_000_000))
    limits = []
    for _ in range(400):
        cwnd, srtt = cc.cwnd, peer.subflow().srtt
        seen = peer.drain()
        if not seen:
            break
        for chunk in seen:
            rate = 2 * cwnd / srtt  # bytes per µs in slow start
            assert len(chunk.data) <= max(2 * 1460, min(cwnd / 2, rate * 1000))
            assert len(chunk.data) < 65536 - 40
            limits.append(len(chunk.data))
        peer.send(ACK, at=wire.time + ms(1))
    assert peer.acked() == 3_000_001
    assert min(limits[:3]) >= 2 * 1460
    assert max(limits) > 60_000


def test_slow_path_gets_small_chunks() -> None:
    """A path with an RTT of 100 ms and a window of 10 segments is sent two at a time."""
    wire = offload()
    peer = Peer(wire)
    connection = peer.handshake(mss=1460, rtt=ms(100))
    connection.send(bytes(100_000))
    assert {len(chunk.data) for chunk in peer.drain()} == {2 * 1460}


@pytest.mark.parametrize(("family", "gso"), [(4, GSO_TCPV4), (6, GSO_TCPV6)])
def test_what_is_left_to_the_device(family: int, gso: int) -> None:
    """NEEDS_CSUM wants the folded pseudo-header sum in the field; the GSO type is the family's."""
    four = family == 4
    wire = offload(address="10.0.0.1/24" if four else "fd00::1/64", nodelay=True)
    peer = Peer(
        wire, address="10.0.0.2" if four else "fd00::2", local="10.0.0.1" if four else "fd00::1"
    )
    kept: list[Transmit] = []

    def keep(transmit: Transmit) -> bool:
        kept.append(transmit)
        return False

    wire.refuse = keep
    connection = peer.handshake(mss=1400, rtt=ms(1))
    connection.send(bytes(10_000))
    connection.send(b"tail")
    wire.flush()
    for transmit in kept:
        packet = memoryview(transmit.packet())
        ip = parse_ip(packet)
        assert transmit.csum_start == ip.offset
        field = int.from_bytes(packet[ip.offset + 16 : ip.offset + 18], "big")
        total = pseudo_sum(ip.src, ip.dst, 6, ip.end - ip.offset) % 0xFFFF
        assert field % 0xFFFF == total
        size = sum(map(len, transmit.payload))
        if size > 1400:
            assert (transmit.gso_type, transmit.gso_size) == (gso, 1400)
        else:
            assert (transmit.gso_type, transmit.gso_size) == (GSO_NONE, 0)
    assert any(transmit.gso_size for transmit in kept)


def test_sack_cuts_a_chunk() -> None:
    """SACK, loss and retransmission count bytes: of a chunk only the missing part is resent."""
    wire = offload(nodelay=True, min_rto_us=seconds(1))
    peer = Peer(wire)
    connection = peer.handshake(mss=1000, rtt=ms(1))
    connection.send(bytes(10_000))
    assert sum(len(seen.data) for seen in peer.drain()) == 10_000
    peer.send(ACK, ack=1001, options=[peer.sacked((2001, 10_001))])
    resent = peer.expect(ACK, seq=1001, length=1000)
    assert resent.gso_size == 0
    peer.send(ACK, ack=10_001)
    peer.expect_nothing(until=seconds(60))


def test_a_refused_write_is_a_loss_and_is_recovered() -> None:
    """Design rule 1: a refused write counts as a loss; the bytes come again without an RTO."""
    wire = offload(nodelay=True, min_rto_us=seconds(1))
    peer = Peer(wire)
    connection = peer.handshake(mss=1000, rtt=ms(10))
    refused: list[int] = []

    def refuse(transmit: Transmit) -> bool:
        if transmit.payload and not refused:
            refused.append(sum(map(len, transmit.payload)))
            return True
        return False

    wire.refuse = refuse
    connection.send(bytes(10_000))
    peer.drain()
    assert wire.stack.counters["IpOutDiscards"] == 1
    peer.wire.advance(ms(50))
    for _ in range(20):
        peer.send(ACK)
        peer.drain()
    assert peer.acked() == 10_001
    assert wire.time < ms(100)
    assert connection.tx.used == 0


def test_refused_control_packets_are_harmless() -> None:
    """A SYN and a pure ACK that the device refuses are repeated by their timers."""
    wire = Wire(mptcp=False, timestamps=False)
    peer = Peer(wire)
    count = 0

    def refuse(transmit: Transmit) -> bool:
        nonlocal count
        count += 1
        return count == 1

    wire.refuse = refuse
    connection = wire.stack.connect("10.0.0.2", 80)
    peer.expect(SYN, within=seconds(1))
    peer.send(SYN | ACK, options=[Mss(1460), SackPermitted()])
    peer.expect(ACK, seq=1)
    assert connection.established


@pytest.mark.parametrize("gso", [True, False])
def test_views_of_many_small_writes(gso: bool) -> None:
    """Many one-byte writes make full segments, not one segment each."""
    wire = Wire(mptcp=False, nodelay=False, offload=gso)
    peer = Peer(wire)
    connection = peer.handshake(mss=1000)
    for number in range(9000):
        connection.send(bytes([number % 251]))
    seen = peer.drain()
    assert b"".join(s.data for s in seen) == bytes(number % 251 for number in range(9000))
    assert len(seen) <= 9


def test_a_segment_of_the_largest_packet() -> None:
    """RFC 791 §3.1: a packet may have 65535 octets; so may the one segment of a chunk."""
    wire = offload(65535)
    peer = Peer(wire)
    connection = peer.handshake(mss=65495, timestamps=True, wscale=4, rtt=ms(1))
    connection.send(bytes(200_000))
    assert len(peer.expect(ACK).data) == 65535 - 20 - 32
