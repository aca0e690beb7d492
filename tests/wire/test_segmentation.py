"""`split_tcp` judged by scapy, by our own parser, and by putting the pieces together again."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.packet import Raw

from mptcp.wire import ParseError
from mptcp.wire.checksum import ones_sum, pseudo_sum
from mptcp.wire.ip import ipv4_header, parse_ip
from mptcp.wire.mptcp_options import Dss
from mptcp.wire.segmentation import split_tcp
from mptcp.wire.tcp import (
    ACK,
    CWR,
    ECE,
    FIN,
    PSH,
    HeaderTemplate,
    emit_options,
    parse_segment,
    timestamps_option,
)

V4A, V4B = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
V6A = bytes.fromhex("20010db8000000000000000000000001")
V6B = bytes.fromhex("20010db8000000000000000000000002")
OPTIONS = emit_options([timestamps_option(1, 2), Dss(3, True, 4, True, 5, 60000).emit()])
EDGE_FLAGS = FIN | PSH | CWR


@given(
    st.sampled_from([(V4A, V4B), (V6A, V6B)]),
    st.binary(max_size=3000),
    st.integers(1, 1500),
    st.integers(0, 0xFFFF_FFFF),
    st.sampled_from([ACK, ACK | PSH, ACK | FIN | PSH | CWR | ECE]),
    st.integers(0, 65535),
)
def test_split(
    addresses: tuple[bytes, bytes],
    payload: bytes,
    gso_size: int,
    seq: int,
    flags: int,
    identification: int,
) -> None:
    """Linux's rules, packet by packet; our parser verifies both checksums."""
    if len(payload) // gso_size > 60:
        gso_size = len(payload) // 60
    template = HeaderTemplate(*addresses, 1000, 2000)
    header = template.build(
        seq, 7, flags, 8, OPTIONS, len(payload), identification=identification, flow_label=5, tos=2
    )
    packets = split_tcp(bytes(header) + payload + b"link padding", gso_size)
    assert len(packets) == max(1, -(-len(payload) // gso_size))
    rebuilt = b""
    for index, packet in enumerate(packets):
        view = memoryview(packet)
        ip = parse_ip(view)
        segment = parse_segment(view, ip, verify_checksum=True)
        assert ip.end == len(packet)
        assert ip.tos == 2
        assert segment.seq == (seq + len(rebuilt)) & 0xFFFF_FFFF
        assert (segment.ack, segment.window, segment.ts_val, segment.ts_ecr) == (7, 8, 1, 2)
        assert segment.dss == Dss(3, True, 4, True, 5, 60000)
        last = index == len(packets) - 1
        expected = flags & ~EDGE_FLAGS
        expected |= flags & (FIN | PSH) if last else 0
        expected |= flags & CWR if not index else 0
        assert segment.flags == expected
        assert len(segment.payload) == gso_size or last
        if ip.version == 4:
            assert ip.identification == (identification + index) & 0xFFFF
        rebuilt += segment.payload
    assert rebuilt == payload


@pytest.mark.parametrize(("src", "dst"), [(V4A, V4B), (V6A, V6B)], ids=["v4", "v6"])
def test_scapy_agrees(src: bytes, dst: bytes) -> None:
    """Scapy recomputes lengths and checksums and gets the same bytes, for a full-size chunk."""
    payload = bytes(i * 7 & 0xFF for i in range(60001))
    template = HeaderTemplate(src, dst, 1000, 2000)
    header = template.build(0xFFFF_8000, 7, ACK | PSH, 8, OPTIONS, len(payload))
    packets = split_tcp(bytearray(bytes(header) + payload), 1400)
    assert len(packets) == 43
    for packet in packets:
        theirs = IP(packet) if len(src) == 4 else IPv6(packet)
        assert str(theirs.src) == str(ip_address(src))
        if len(src) == 4:
            del theirs.len, theirs.chksum
        else:
            del theirs.plen
        del theirs[TCP].chksum
        assert bytes(theirs) == packet
    assert b"".join(bytes(IP(p)[Raw] if len(src) == 4 else IPv6(p)[Raw]) for p in packets) == (
        payload
    )


def test_ipv6_extension_headers_are_repeated() -> None:
    """Their length is part of the payload length (RFC 8200 §3)."""
    raw = bytes(
        IPv6(src="2001:db8::1", dst="2001:db8::2")
        / IPv6ExtHdrDestOpt()
        / TCP(sport=1, dport=2, flags="A")
        / Raw(b"abcdefgh")
    )
    packets = split_tcp(raw, 5)
    assert [IPv6(packet)[Raw].load for packet in packets] == [b"abcde", b"fgh"]
    assert all(IPv6ExtHdrDestOpt in IPv6(packet) for packet in packets)
    for packet in packets:
        view = memoryview(packet)
        parse_segment(view, parse_ip(view), verify_checksum=True)


def test_partial_checksums() -> None:
    """Without `checksum` each field holds the sum of its own pseudo-header."""
    template = HeaderTemplate(V4A, V4B, 1, 2)
    header = template.build(1, 2, ACK, 3, b"", 10)
    for packet in split_tcp(bytes(header) + bytes(10), 6, checksum=False):
        field = int.from_bytes(packet[36:38], "big")
        assert field == pseudo_sum(V4A, V4B, 6, len(packet) - 20) % 0xFFFF
        assert ones_sum(packet[:20]) == 0


def test_small_packets_are_completed() -> None:
    """A packet of one segment changes in its checksum only, which may have been anything."""
    template = HeaderTemplate(V6A, V6B, 1, 2)
    header = template.build(1, 2, ACK, 3, OPTIONS, 4)
    partial = bytes(header) + b"data"
    template.finish_checksum(header, [b"data"])
    assert split_tcp(partial, 4) == split_tcp(partial, 1400) == [bytes(header) + b"data"]
    assert split_tcp(bytes(header) + b"data", 4) == [bytes(header) + b"data"]


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        bytes(IP(src="10.0.0.1", dst="10.0.0.2", proto=17) / Raw(bytes(20))),
        bytes(IP(src="10.0.0.1", dst="10.0.0.2", proto=6, flags="MF") / Raw(bytes(24))),
        bytes(IP(src="10.0.0.1", dst="10.0.0.2", proto=6) / Raw(bytes(19))),
        ipv4_header(V4A, V4B, 6, 20) + bytes(12) + b"\x40" + bytes(7),
        ipv4_header(V4A, V4B, 6, 20) + bytes(12) + b"\x60" + bytes(7),
    ],
)
def test_not_a_tcp_packet(packet: bytes) -> None:
    """Only whole TCP packets are cut."""
    with pytest.raises(ParseError):
        split_tcp(packet, 1400)


def test_gso_size_of_nothing() -> None:
    """It would never end."""
    with pytest.raises(ValueError, match="gso_size"):
        split_tcp(ipv4_header(V4A, V4B, 6, 20) + bytes(20), 0)
