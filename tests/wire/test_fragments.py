"""Reassembly: any order, duplicates, overlaps, rubbish, bounded memory, time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, fragment
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt, IPv6ExtHdrFragment, fragment6
from scapy.packet import Raw

from mptcp.wire import ParseError
from mptcp.wire.fragments import Reassembler
from mptcp.wire.ip import ipv4_header, ipv6_header, parse_ip

DATA = bytes(i * 13 & 0xFF for i in range(3001))
V4A, V4B = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
V6A = bytes.fromhex("20010db8000000000000000000000001")
V6B = bytes.fromhex("20010db8000000000000000000000002")


def give(reassembler: Reassembler, packet: bytes, now: int = 0) -> bytes | None:
    """Hand over one fragment."""
    view = memoryview(packet)
    ip = parse_ip(view)
    assert ip.is_fragment
    return reassembler.add(now, view, ip)


def piece(
    offset: int, data: bytes, more: bool, identification: int = 1, version: int = 4, tos: int = 0
) -> bytes:
    """Build one fragment of a datagram of protocol 6 by hand; `offset` in bytes."""
    assert offset % 8 == 0
    if version == 4:
        raw = bytearray(
            ipv4_header(
                V4A, V4B, 6, len(data), tos=tos, identification=identification, dont_fragment=False
            )
        )
        raw[6:8] = (more << 13 | offset >> 3).to_bytes(2, "big")
        packet = IP(bytes(raw))
        del packet.chksum
        return bytes(packet) + data
    head = bytes([6, 0]) + (offset | more).to_bytes(2, "big") + identification.to_bytes(4, "big")
    return ipv6_header(V6A, V6B, 44, 8 + len(data), traffic_class=tos) + head + data


VERSIONS = pytest.mark.parametrize("version", [4, 6])


@given(st.permutations(range(7)), st.lists(st.integers(0, 6), max_size=5))
def test_v4_any_order(order: list[int], repeated: list[int]) -> None:
    """Scapy cuts; in any order, with duplicates, the datagram comes out as it went in."""
    whole = IP(src="10.0.0.1", dst="10.0.0.2", id=77, ttl=9, proto=6) / Raw(DATA)
    cuts = [bytes(part) for part in fragment(whole, fragsize=496)]
    assert len(cuts) == 7
    reassembler = Reassembler()
    results = [give(reassembler, cuts[i]) for i in order[:-1]]
    results += [give(reassembler, cuts[i]) for i in repeated if i != order[-1]]
    assert not any(results)
    assert give(reassembler, cuts[order[-1]]) == bytes(whole)
    assert (len(reassembler), reassembler.bytes_held) == (0, 0)
    assert reassembler.reassembled == 1


@given(st.permutations(range(3)))
def test_v6_any_order(order: list[int]) -> None:
    """The unfragmentable part stays, the fragment header goes (RFC 8200 §4.5)."""
    plain = IPv6(src="2001:db8::1", dst="2001:db8::2", nh=60, tc=2) / IPv6ExtHdrDestOpt(nh=6)
    cut = (
        IPv6(src="2001:db8::1", dst="2001:db8::2", nh=60, tc=2)
        / IPv6ExtHdrDestOpt(nh=44)
        / IPv6ExtHdrFragment(nh=6, id=99)
        / Raw(DATA)
    )
    cuts = [bytes(part) for part in fragment6(cut, 1280)]
    assert len(cuts) == 3
    reassembler = Reassembler()
    assert not any([give(reassembler, cuts[i]) for i in order[:-1]])
    assert give(reassembler, cuts[order[-1]]) == bytes(plain / Raw(DATA))
    assert reassembler.bytes_held == 0


@VERSIONS
def test_two_datagrams_at_once(version: int) -> None:
    """The identification keeps them apart; in IPv4 so does the protocol."""
    reassembler = Reassembler()
    assert give(reassembler, piece(0, b"a" * 8, True, 1, version)) is None
    assert give(reassembler, piece(0, b"b" * 8, True, 2, version)) is None
    one = give(reassembler, piece(8, b"A", False, 1, version))
    two = give(reassembler, piece(8, b"B", False, 2, version))
    assert one is not None
    assert two is not None
    assert (one[-9:], two[-9:]) == (b"a" * 8 + b"A", b"b" * 8 + b"B")
    assert not parse_ip(memoryview(one)).is_fragment
    assert parse_ip(memoryview(one)).protocol == 6


@VERSIONS
@pytest.mark.parametrize(
    "pieces",
    [
        [(0, b"a" * 16, True), (8, b"b" * 16, True)],
        [(8, b"b" * 16, True), (0, b"a" * 16, True)],
        [(0, b"a" * 16, True), (0, b"b" * 16, True)],  # same place, other contents
        [(0, b"a" * 16, True), (0, b"a" * 8, True)],
        [(8, b"a" * 8, False), (0, b"a" * 24, True)],
        [(8, b"a" * 8, False), (16, b"b" * 8, True)],  # behind the end
        [(8, b"a" * 8, False), (16, b"b" * 8, False)],  # two ends
        [(16, b"a" * 8, True), (8, b"b" * 8, False)],  # an end before what has come
        [(8, b"a" * 8, True), (8, b"a" * 8, False)],  # was not the last, is the last
        [(8, b"a" * 8, False), (8, b"a" * 8, True)],
    ],
)
def test_overlaps_condemn_the_datagram(version: int, pieces: list[tuple[int, bytes, bool]]) -> None:
    """RFC 5722 §4: discarded, with the fragments still to come."""
    reassembler = Reassembler()
    for offset, data, more in pieces:
        assert give(reassembler, piece(offset, data, more, version=version)) is None
    assert reassembler.overlapped == 1
    for offset, data, more in [(0, b"c" * 8, True), (8, b"c" * 8, False)]:
        assert give(reassembler, piece(offset, data, more, version=version)) is None
    assert reassembler.overlapped == 1
    assert len(reassembler) == 1
    held = reassembler.bytes_held
    reassembler.expire(30_000_000)
    assert (len(reassembler), reassembler.bytes_held, reassembler.timed_out) == (0, 0, 0)
    assert held < 1000


@VERSIONS
@pytest.mark.parametrize(
    ("offset", "data", "more"),
    [
        (0, b"a" * 12, True),  # not a multiple of 8
        (8, b"", False),
        (65528, b"a" * 8, False),  # more than a packet can have
    ],
)
def test_malformed(version: int, offset: int, data: bytes, more: bool) -> None:
    """RFC 8200 §4.5: such a fragment is discarded, and what it belongs to with it."""
    reassembler = Reassembler()
    assert give(reassembler, piece(offset, data, more, version=version)) is None
    assert reassembler.malformed == 1
    assert give(reassembler, piece(0, b"a" * 8, True, version=version)) is None
    assert give(reassembler, piece(8, b"a" * 8, False, version=version)) is None


def test_too_many_fragments() -> None:
    """The work for one datagram is bounded."""
    reassembler = Reassembler()
    for index in range(257):
        assert reassembler.malformed == 0
        assert give(reassembler, piece(8 * index, b"a" * 8, True)) is None
    assert reassembler.malformed == 1


@VERSIONS
def test_congestion_marks(version: int) -> None:
    """RFC 3168 §5.3: CE on any fragment marks the datagram, unless one is not ECT."""
    reassembler = Reassembler()
    assert give(reassembler, piece(0, b"a" * 8, True, 1, version, tos=0xB8 | 2)) is None
    whole = give(reassembler, piece(8, b"b", False, 1, version, tos=0xB8 | 3))
    assert whole is not None
    assert parse_ip(memoryview(whole)).tos == 0xB8 | 3
    assert give(reassembler, piece(0, b"a" * 8, True, 2, version, tos=0)) is None
    assert give(reassembler, piece(8, b"b", False, 2, version, tos=3)) is None
    assert reassembler.malformed == 1


def test_time() -> None:
    """A datagram has 30 seconds from its first fragment; early calls do nothing."""
    reassembler = Reassembler()
    assert reassembler.next_deadline() is None
    give(reassembler, piece(0, b"a" * 8, True, 1), now=1_000)
    give(reassembler, piece(0, b"a" * 8, True, 2), now=5_000)
    assert reassembler.next_deadline() == 30_001_000
    reassembler.expire(30_000_999)
    assert (len(reassembler), reassembler.timed_out) == (2, 0)
    reassembler.expire(30_001_000)
    assert (len(reassembler), reassembler.timed_out) == (1, 1)
    assert reassembler.next_deadline() == 30_005_000
    # A fragment that comes too late starts anew.
    assert give(reassembler, piece(8, b"b", False, 2), now=30_005_000) is None
    assert (len(reassembler), reassembler.timed_out) == (1, 2)
    assert reassembler.next_deadline() == 60_005_000


def test_bounded_datagrams() -> None:
    """The oldest makes room."""
    reassembler = Reassembler(max_datagrams=3)
    for identification in range(1, 6):
        give(reassembler, piece(0, b"a" * 8, True, identification))
    assert (len(reassembler), reassembler.evicted) == (3, 2)
    assert give(reassembler, piece(8, b"b", False, 5)) is not None
    assert give(reassembler, piece(8, b"b", False, 1)) is None


def test_bounded_bytes() -> None:
    """The oldest goes when the bytes are used up, and a single one that is too large goes too."""
    reassembler = Reassembler(max_bytes=2000)
    for identification in (1, 2, 3):
        give(reassembler, piece(0, b"a" * 600, True, identification))
    assert (len(reassembler), reassembler.evicted) == (2, 1)
    assert reassembler.bytes_held <= 2000
    give(reassembler, piece(0, b"a" * 1960, True, 4))
    assert (len(reassembler), reassembler.bytes_held, reassembler.evicted) == (0, 0, 4)


def test_bounds_of_nothing() -> None:
    """A reassembler that may hold nothing is a mistake."""
    with pytest.raises(ValueError, match="bound"):
        Reassembler(max_datagrams=0)
    with pytest.raises(ValueError, match="bound"):
        Reassembler(max_bytes=0)


@given(
    st.lists(
        st.tuples(
            st.integers(0, 40),
            st.binary(max_size=60),
            st.booleans(),
            st.integers(0, 6),
            st.sampled_from([4, 6]),
        ),
        max_size=40,
    )
)
def test_rubbish_is_bounded(pieces: list[tuple[int, bytes, bool, int, int]]) -> None:
    """Whatever strangers send, the bounds hold, and what comes out is a whole packet."""
    reassembler = Reassembler(max_bytes=2000, max_datagrams=4)
    for now, (offset, data, more, identification, version) in enumerate(pieces):
        packet = piece(offset * 8, data, more, identification, version)
        view = memoryview(packet)
        ip = parse_ip(view)
        if ip.is_fragment:
            whole = reassembler.add(now, view, ip)
            if whole is not None:
                header = parse_ip(memoryview(whole))
                assert header.end == len(whole)
                assert not header.is_fragment
        assert 0 <= reassembler.bytes_held <= 2000
        assert len(reassembler) <= 4
    reassembler.expire(1 << 60)
    assert (len(reassembler), reassembler.bytes_held) == (0, 0)
    assert reassembler.next_deadline() is None


@given(st.binary(min_size=20, max_size=100))
def test_rubbish_headers(data: bytes) -> None:
    """Anything `parse_ip` lets through can be added."""
    reassembler = Reassembler()
    for packet in (data, bytes([0x60]) + data[1:6] + bytes([44]) + data[7:]):
        view = memoryview(packet)
        try:
            ip = parse_ip(view, quoted=True)
        except ParseError:
            continue
        if ip.is_fragment:
            reassembler.add(0, view, ip)
    assert reassembler.reassembled == 0
