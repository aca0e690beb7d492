"""Below TCP: echo (RFC 1122 §3.2.2.6), fragments; ICMP errors are in test_icmp.py, test_pmtu.py."""

from __future__ import annotations

import pytest

from mptcp.wire.checksum import finish, ones_sum, pseudo_sum
from mptcp.wire.ip import ICMP, ICMPV6, ip_header, parse_ip
from mptcp.wire.tcp import ACK, SYN
from tests.options import Mss
from tests.peer import Peer, Wire, ms, seconds


@pytest.mark.parametrize("family", [4, 6])
def test_echo(family: int) -> None:
    """RFC 1122 §3.2.2.6, RFC 4443 §4.2: the data comes back unchanged, source and target turned."""
    four = family == 4
    wire = Wire(addresses=["10.0.0.1/24" if four else "fd00::1/64"])
    here = bytes([10, 0, 0, 1]) if four else b"\xfd" + bytes(14) + b"\x01"
    there = here[:-1] + b"\x02"
    protocol = ICMP if four else ICMPV6
    body = b"\x12\x34\x00\x07" + bytes(range(100))
    kind = 8 if four else 128
    total = (kind << 8) + ones_sum(body)
    if not four:
        total += pseudo_sum(there, here, protocol, 4 + len(body))
    request = bytes([kind, 0]) + finish(total).to_bytes(2, "big") + body
    wire.inject(ip_header(there, here, protocol, len(request)) + request)
    (reply,) = wire.raw
    ip = parse_ip(memoryview(reply))
    assert (ip.src, ip.dst, ip.protocol) == (here, there, protocol)
    assert reply[ip.offset : ip.offset + 2] == bytes([0 if four else 129, 0])
    assert reply[ip.offset + 4 :] == body


def test_fragments_are_put_together(wire: Wire, peer: Peer) -> None:
    """RFC 791 §3.2: a segment that a middlebox fragmented arrives whole."""
    connection = peer.handshake()
    packet = peer.packet(ACK, data=bytes(range(250)) * 4)
    for fragment in reversed(split(packet, 400)):
        wire.inject(fragment)
    assert connection.recv() == bytes(range(250)) * 4


def test_missing_fragment_expires(wire: Wire, peer: Peer) -> None:
    """What never becomes whole is forgotten and delivers nothing."""
    connection = peer.handshake()
    wire.inject(split(peer.packet(ACK, data=bytes(1000)), 400)[0])
    assert wire.stack.fragments.bytes_held > 0
    wire.advance(seconds(61))
    assert wire.stack.fragments.bytes_held == 0
    assert connection.recv() == b""


def split(packet: bytes, size: int) -> list[bytes]:
    """Fragment an IPv4 packet in pieces of `size` (a multiple of 8) bytes of data."""
    pieces = []
    data = packet[20:]
    for at in range(0, len(data), size):
        more = at + size < len(data)
        header = bytearray(packet[:20])
        header[2:4] = (20 + len(data[at : at + size])).to_bytes(2, "big")
        header[4:6] = b"\x77\x77"
        header[6:8] = ((0x2000 if more else 0) | at >> 3).to_bytes(2, "big")
        header[10:12] = b"\0\0"
        header[10:12] = finish(ones_sum(header)).to_bytes(2, "big")
        pieces.append(bytes(header) + data[at : at + size])
    return pieces


def test_interface_down_ends_its_connections(wire: Wire, peer: Peer) -> None:
    """A plain connection over an interface that is gone is over; nothing more is sent on it."""
    connection = peer.handshake()
    wire.stack.interface_down(wire.now, 1)
    wire.flush()
    assert connection.ended is not None
    peer.expect_nothing(until=seconds(10))


def test_syn_with_data_is_not_lost(wire: Wire) -> None:
    """RFC 9293 §3.10.7.2: data on a SYN may be queued or be left for the peer to resend."""
    wire.stack.listen(5000)
    peer = Peer(wire, port=40000, local_port=5000)
    peer.send(SYN, data=b"early", options=[Mss(1460)])
    ack = peer.expect(SYN | ACK).ack
    assert ack in (1, 6)
    peer.send(ACK, seq=ack, ack=1, data=b"early"[ack - 1 :] + b" rest")
    (meta,) = wire.stack.metas
    assert meta.recv() == b"early rest"
    wire.advance(ms(100))
