"""IP headers: scapy writes and we read, we write and scapy reads, rubbish raises ParseError."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    PadN,
    RouterAlert,
)
from scapy.layers.ipsec import AH
from scapy.packet import Raw

from mptcp.wire import ChecksumError, ParseError
from mptcp.wire.ip import IpHeader, ip_header, ipv4_header, ipv6_header, parse_ip

V4A, V4B = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
V6A = bytes.fromhex("20010db8000000000000000000000001")
V6B = bytes.fromhex("20010db8000000000000000000000002")


def header_of(packet: object, trailing: bytes = b"") -> IpHeader:
    """Parse what scapy wrote, with link padding behind."""
    return parse_ip(memoryview(bytes(packet) + trailing))  # type: ignore[call-overload]


def test_ipv4_from_scapy() -> None:
    """Every field, options skipped, padding cut."""
    packet = IP(src="10.0.0.1", dst="10.0.0.2", ttl=7, tos=0xB9, id=0x1234, flags="MF", frag=3)
    ip = header_of(packet / Raw(b"x" * 16), b"padding")
    assert (ip.version, ip.src, ip.dst, ip.protocol) == (4, V4A, V4B, 0)
    assert (ip.offset, ip.end, ip.ttl, ip.tos, ip.identification) == (20, 36, 7, 0xB9, 0x1234)
    assert (ip.fragment_offset, ip.more_fragments, ip.is_fragment) == (24, True, True)
    assert (ip.fragment_header_offset, ip.fragment_data_offset) == (20, 20)
    assert "fragment 24" in repr(ip)


def test_ipv4_options_are_skipped() -> None:
    """RFC 791 §3.1: the header may have 60 bytes."""
    raw = bytes(IP(src="10.0.0.1", dst="10.0.0.2", proto=6, options=[b"\x94\x04\0\0"]) / b"data")
    ip = parse_ip(memoryview(raw))
    assert (ip.offset, ip.end, ip.protocol, ip.is_fragment) == (24, 28, 6, False)
    assert "fragment" not in repr(ip)


def test_ipv4_checksum() -> None:
    """RFC 1122 §3.2.1.2: a host MUST verify it."""
    raw = bytearray(ipv4_header(V4A, V4B, 6, 0))
    raw[8] ^= 1
    with pytest.raises(ChecksumError):
        parse_ip(memoryview(raw))
    assert parse_ip(memoryview(raw), quoted=True).ttl == 65


def test_quoted_packets_may_be_cut_short() -> None:
    """RFC 792: an ICMP error quotes the header and 8 bytes or more."""
    raw = ipv4_header(V4A, V4B, 6, 1000) + bytes(8)
    ip = parse_ip(memoryview(raw), quoted=True)
    assert (ip.offset, ip.end) == (20, 28)
    raw = ipv6_header(V6A, V6B, 6, 1000) + bytes(8)
    ip = parse_ip(memoryview(raw), quoted=True)
    assert (ip.offset, ip.end) == (40, 48)


def test_large_packets() -> None:
    """A segmentation-offloaded packet is as large as the length field allows."""
    ip = parse_ip(memoryview(ipv4_header(V4A, V4B, 6, 65515) + bytes(65515)))
    assert ip.end == 65535
    ip = parse_ip(memoryview(ipv6_header(V6A, V6B, 6, 65535) + bytes(65535)))
    assert ip.end == 65575


def test_ipv6_from_scapy() -> None:
    """The plain header."""
    raw = IPv6(src="2001:db8::1", dst="2001:db8::2", hlim=9, tc=0x2E, fl=0x12345) / TCP()
    ip = header_of(raw, b"pad")
    assert (ip.version, ip.src, ip.dst, ip.protocol) == (6, V6A, V6B, 6)
    assert (ip.offset, ip.end, ip.ttl, ip.tos) == (40, 60, 9, 0x2E)
    assert not ip.is_fragment


def test_ipv6_extension_headers() -> None:
    """All that a host skips, in the order RFC 8200 §4.1 recommends."""
    packet = (
        IPv6(src="2001:db8::1", dst="2001:db8::2")
        / IPv6ExtHdrHopByHop(options=[RouterAlert(), PadN(optdata=b"\0" * 2)])
        / IPv6ExtHdrDestOpt(options=[PadN(optdata=b"\0" * 4)])
        / IPv6ExtHdrRouting(segleft=0, addresses=["2001:db8::9"])
        / IPv6ExtHdrFragment(nh=51, offset=0, m=0, id=0xDEADBEEF)
        / AH(nh=60, payloadlen=4, icv=b"\0" * 12)
        / IPv6ExtHdrDestOpt()
        / TCP(sport=1, dport=2)
    )
    ip = header_of(packet)
    assert ip.protocol == 6
    assert ip.end - ip.offset == 20
    assert ip.identification == 0xDEADBEEF
    # RFC 6946: a fragment that is the whole datagram is no fragment.
    assert not ip.is_fragment
    assert ip.fragment_header_offset == 40 + 16 + 8 + 24
    assert ip.fragment_data_offset == ip.fragment_header_offset + 8


def test_ipv6_fragment_is_not_looked_into() -> None:
    """The data of a fragment is opaque, even when it looks like an extension header."""
    packet = (
        IPv6(src="2001:db8::1", dst="2001:db8::2")
        / IPv6ExtHdrDestOpt()
        / IPv6ExtHdrFragment(offset=2, m=1, id=7, nh=60)
        / Raw(b"\xff" * 16)
    )
    ip = header_of(packet)
    assert (ip.fragment_offset, ip.more_fragments, ip.protocol) == (16, True, 60)
    assert (ip.offset, ip.end, ip.fragment_next_header_at) == (56, 72, 40)
    assert ip.is_fragment


def test_no_next_header() -> None:
    """RFC 8200 §4.7."""
    assert parse_ip(memoryview(ipv6_header(V6A, V6B, 59, 3) + b"abc")).protocol == 59


def chain(*headers: tuple[int, bytes], last: int = 6, data: bytes = b"") -> bytes:
    """Build an IPv6 packet of raw extension headers, each without its next-header byte."""
    kinds = [kind for kind, _ in headers] + [last]
    body = b"".join(bytes([kinds[i + 1]]) + rest for i, (_, rest) in enumerate(headers))
    return ipv6_header(V6A, V6B, kinds[0], len(body) + len(data)) + body + data


_PAD6 = bytes.fromhex("000104 00000000")

BAD_PACKETS = {
    "empty": b"",
    "19 bytes": bytes([0x45]) + bytes(18),
    "version 5": bytes([0x55]) + bytes(30),
    "IPv4 header of 16": bytes([0x44]) + bytes(30),
    "IPv4 total below header": bytes([0x45, 0, 0, 19]) + bytes(20),
    "IPv4 truncated": ipv4_header(V4A, V4B, 6, 10) + bytes(9),
    "IPv4 options truncated": bytes([0x4F, 0, 0, 60]) + bytes(20),
    "IPv6 header truncated": ipv6_header(V6A, V6B, 6, 0)[:39],
    "IPv6 truncated": ipv6_header(V6A, V6B, 6, 10) + bytes(9),
    "extension header cut": ipv6_header(V6A, V6B, 60, 7) + bytes(7),
    "extension header too long": chain((60, bytes([1]) + bytes(6))),
    "routing, segments left": chain((43, bytes([0, 0, 1]) + bytes(4))),
    "hop-by-hop second": chain((60, _PAD6), (0, _PAD6)),
    "unknown option, discard": chain((60, bytes.fromhex("00 41 04 00000000"))),
    "unknown option, answer": chain((0, bytes.fromhex("00 c2 04 00010000"))),
    "option runs over": chain((60, bytes.fromhex("00 01 05 00000000"))),
    "option cut": chain((60, bytes.fromhex("00 01 03 000000 01"))),
    "nine extension headers": chain(*[(60, _PAD6)] * 9),
}


@pytest.mark.parametrize("packet", BAD_PACKETS.values(), ids=BAD_PACKETS.keys())
def test_bad_packets(packet: bytes) -> None:
    """A host refuses these."""
    with pytest.raises(ParseError):
        parse_ip(memoryview(packet))


def test_eight_extension_headers_are_enough() -> None:
    """The bound itself is still accepted, with unknown options that may be skipped."""
    packet = chain(*[(60, bytes.fromhex("00 3e 02 0000 0000"))] * 8, data=bytes(20))
    assert parse_ip(memoryview(packet)).offset == 40 + 64


@given(st.binary(max_size=120), st.sampled_from([None, 4, 6]), st.booleans())
def test_rubbish(data: bytes, version: int | None, quoted: bool) -> None:
    """Arbitrary bytes give a header inside the packet or a ParseError."""
    if version is not None and data:
        data = bytes([version << 4 | 5]) + data[1:]
    try:
        ip = parse_ip(memoryview(data), quoted=quoted)
    except ParseError:
        return
    assert 20 <= ip.offset <= ip.end <= len(data)


@given(st.lists(st.tuples(st.sampled_from([0, 43, 44, 51, 60]), st.binary(min_size=7, max_size=7))))
def test_rubbish_extension_headers(headers: list[tuple[int, bytes]]) -> None:
    """Chains of extension headers with arbitrary contents."""
    packet = chain(*headers, data=bytes(8))
    for cut in range(40, len(packet) + 1):
        try:
            ip = parse_ip(memoryview(packet[:cut]), quoted=True)
        except ParseError:
            continue
        assert ip.offset <= ip.end <= cut


@given(
    st.integers(0, 255),
    st.integers(0, 2000),
    st.integers(0, 255),
    st.integers(0, 255),
    st.integers(0, 65535),
    st.booleans(),
)
def test_ipv4_header_for_scapy(
    protocol: int, length: int, ttl: int, tos: int, identification: int, dont_fragment: bool
) -> None:
    """Scapy reads what we write, and the checksum is the one it would write."""
    raw = ip_header(
        V4A,
        V4B,
        protocol,
        length,
        ttl=ttl,
        tos=tos,
        identification=identification,
        dont_fragment=dont_fragment,
    )
    packet = IP(raw)
    assert (packet.src, packet.dst, packet.proto) == ("10.0.0.1", "10.0.0.2", protocol)
    assert (packet.len, packet.ttl, packet.tos) == (20 + length, ttl, tos)
    assert (packet.id, packet.flags.DF, packet.frag) == (identification, dont_fragment, 0)
    written = packet.chksum
    del packet.chksum
    assert IP(bytes(packet)).chksum == written
    assert parse_ip(memoryview(raw + bytes(length))).end == 20 + length


@given(
    st.integers(0, 255),
    st.integers(0, 2000),
    st.integers(0, 255),
    st.integers(0, 255),
    st.integers(0, 0xFFFFF),
)
def test_ipv6_header_for_scapy(
    protocol: int, length: int, hop_limit: int, traffic_class: int, flow_label: int
) -> None:
    """Scapy reads what we write."""
    raw = ip_header(
        V6A, V6B, protocol, length, ttl=hop_limit, tos=traffic_class, flow_label=flow_label
    )
    packet = IPv6(raw)
    assert (packet.src, packet.dst, packet.nh) == ("2001:db8::1", "2001:db8::2", protocol)
    assert (packet.plen, packet.hlim) == (length, hop_limit)
    assert (packet.tc, packet.fl) == (traffic_class, flow_label)


def test_values_that_do_not_fit() -> None:
    """Emitters raise ValueError."""
    with pytest.raises(ValueError, match="4 bytes"):
        ipv4_header(V4A, V6B, 6, 0)
    with pytest.raises(ValueError, match="16 bytes"):
        ipv6_header(V6A, V4B, 6, 0)
    with pytest.raises(ValueError, match="IPv4 header"):
        ipv4_header(V4A, V4B, 6, 65516)
    with pytest.raises(ValueError, match="IPv6 header"):
        ipv6_header(V6A, V6B, 6, 65536)
    with pytest.raises(ValueError, match="flow label"):
        ipv6_header(V6A, V6B, 6, 0, flow_label=1 << 20)
