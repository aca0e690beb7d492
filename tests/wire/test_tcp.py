"""TCP segments: round trips, scapy on both sides, options that lie, and rubbish."""

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw

from mptcp.wire import ChecksumError, ParseError
from mptcp.wire.ip import parse_ip
from mptcp.wire.mptcp_options import Dss, MpPrio
from mptcp.wire.tcp import (
    ACK,
    CSUM_OFFSET,
    FIN,
    PSH,
    SACK_PERMITTED,
    SYN,
    URG,
    HeaderTemplate,
    Segment,
    emit_options,
    fast_open_option,
    flag_names,
    mss_option,
    parse_segment,
    sack_option,
    timestamps_option,
    window_scale_option,
)

from .cases import OPTION_CASES, Case

V4A, V4B = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
V6A = bytes.fromhex("20010db8000000000000000000000001")
V6B = bytes.fromhex("20010db8000000000000000000000002")
FAMILIES = pytest.mark.parametrize(("src", "dst"), [(V4A, V4B), (V6A, V6B)], ids=["v4", "v6"])
_bits16 = st.integers(0, 0xFFFF)
_bits32 = st.integers(0, 0xFFFF_FFFF)


def inet_ntop(address: bytes) -> str:
    """Return an address as scapy wants it."""
    return str(ip_address(address))


def read(packet: bytes, *, verify_checksum: bool = True) -> Segment:
    """Parse a whole packet."""
    view = memoryview(packet)
    return parse_segment(view, parse_ip(view), verify_checksum=verify_checksum)


def packet_with(options: bytes, flags: int = ACK, payload: bytes = b"") -> bytes:
    """Build an IPv4 packet around raw options (padded with end-of-options bytes)."""
    options += bytes(-len(options) & 3)
    template = HeaderTemplate(V4A, V4B, 1000, 2000)
    header = template.build(1, 2, flags, 3, options, len(payload))
    template.finish_checksum(header, [payload])
    return bytes(header) + payload


@given(
    st.sampled_from([(V4A, V4B), (V6A, V6B)]),
    _bits16,
    _bits16,
    _bits32,
    _bits32,
    st.integers(0, 255),
    _bits16,
    st.integers(0, 255),
    st.lists(st.binary(max_size=50), max_size=4),
)
def test_header_round_trip_and_scapy(
    addresses: tuple[bytes, bytes],
    sport: int,
    dport: int,
    seq: int,
    ack: int,
    flags: int,
    window: int,
    tos: int,
    parts: list[bytes],
) -> None:
    """What the template builds is read back by us and by scapy, checksums included."""
    payload = b"".join(parts)
    template = HeaderTemplate(*addresses, sport, dport, ttl=33)
    options = emit_options([timestamps_option(7, 8)])
    header = template.build(
        seq, ack, flags, window, options, len(payload), tos=tos, identification=99, flow_label=98
    )
    template.finish_checksum(header, parts)
    packet = bytes(header) + payload
    segment = read(packet)
    assert (segment.src, segment.dst, segment.sport, segment.dport) == (*addresses, sport, dport)
    assert (segment.seq, segment.ack, segment.flags) == (seq, ack, flags)
    assert (segment.window, segment.tos, segment.urgent) == (window, tos, 0)
    assert (segment.ts_val, segment.ts_ecr, bytes(segment.payload)) == (7, 8, payload)

    theirs = IP(packet) if len(addresses[0]) == 4 else IPv6(packet)
    tcp = theirs[TCP]
    assert (tcp.sport, tcp.dport, tcp.seq, tcp.ack) == (sport, dport, seq, ack)
    assert (int(tcp.flags), tcp.window, tcp.dataofs) == (flags, window, 8)
    assert tcp.options == [("NOP", None), ("NOP", None), ("Timestamp", (7, 8))]
    if len(addresses[0]) == 4:
        assert (theirs.id, theirs.ttl, theirs.flags.DF, theirs.tos) == (99, 33, True, tos)
        del theirs.chksum
    else:
        assert (theirs.fl, theirs.hlim, theirs.tc) == (98, 33, tos)
    del tcp.chksum
    assert bytes(theirs) == packet


@FAMILIES
def test_partial_checksum(src: bytes, dst: bytes) -> None:
    """VIRTIO_NET_HDR_F_NEEDS_CSUM: the sum from csum_start on, field included, completes it."""
    template = HeaderTemplate(src, dst, 1, 2)
    payload = b"odd"
    header = template.build(1, 2, ACK, 3, b"", len(payload))
    start = template.csum_start
    assert start == len(header) - 20
    partial = bytes(header)
    # What the kernel does: sum everything from csum_start, complement, store at csum_offset.
    data = partial[start:] + payload + b"\0"
    total = sum(int.from_bytes(data[i : i + 2], "big") for i in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    at = start + CSUM_OFFSET
    completed = partial[:at] + (~total & 0xFFFF).to_bytes(2, "big") + partial[at + 2 :]
    template.finish_checksum(header, [b"o", b"", b"dd"])
    assert bytes(header) == completed
    with pytest.raises(ChecksumError):
        read(partial + payload)
    assert read(partial + payload, verify_checksum=False).payload == payload


@FAMILIES
def test_template_limits(src: bytes, dst: bytes) -> None:
    """The length field is the limit, and what does not fit is a ValueError."""
    template = HeaderTemplate(src, dst, 1, 2)
    room = 65535 - 20 - (20 if len(src) == 4 else 0)
    header = template.build(0, 0, ACK, 0, b"", room)
    assert read(bytes(header) + bytes(room), verify_checksum=False).payload == bytes(room)
    for arguments in (
        (0, 0, ACK, 0, b"", room + 1),
        (0, 0, ACK, 0, b"\1", 0),
        (0, 0, ACK, 0, bytes(44), 0),
        (1 << 32, 0, ACK, 0, b"", 0),
        (0, -1, ACK, 0, b"", 0),
        (0, 0, ACK, 65536, b"", 0),
    ):
        with pytest.raises(ValueError, match=r"TCP"):
            template.build(*arguments)


def test_template_of_nonsense() -> None:
    """Addresses of two families, and numbers that do not fit."""
    with pytest.raises(ValueError, match="addresses"):
        HeaderTemplate(V4A, V6B, 1, 2)
    with pytest.raises(ValueError, match="addresses"):
        HeaderTemplate(b"", b"", 1, 2)
    for sport, dport, ttl in ((-1, 1, 1), (1, 65536, 1), (1, 1, 0), (1, 1, 256)):
        with pytest.raises(ValueError, match="range"):
            HeaderTemplate(V4A, V4B, sport, dport, ttl=ttl)


@FAMILIES
def test_options_from_scapy(src: bytes, dst: bytes) -> None:
    """Every option we know, as scapy writes it."""
    ip = IP() if len(src) == 4 else IPv6()
    ip.src, ip.dst = inet_ntop(src), inet_ntop(dst)
    options = [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (5, 6)), ("NOP", None), ("WScale", 7)]
    segment = read(bytes(ip / TCP(flags="S", options=options)))
    assert (segment.mss, segment.sack_permitted, segment.wscale) == (1460, True, 7)
    assert (segment.ts_val, segment.ts_ecr, segment.bad_options) == (5, 6, 0)
    tfo = read(bytes(ip / TCP(flags="S", options=[("TFO", (0x01020304, 0x05060708))])))
    assert tfo.fast_open == bytes(range(1, 9))
    sack = [("NOP", None), ("NOP", None), ("SAck", (1, 2, 3, 4))]
    segment = read(bytes(ip / TCP(flags="A", options=sack) / Raw(b"payload")))
    assert segment.sack == ((1, 2), (3, 4))
    assert bytes(segment.payload) == b"payload"


def test_options_for_scapy() -> None:
    """Scapy reads what the emitters write."""
    block = emit_options(
        [mss_option(1460), SACK_PERMITTED, window_scale_option(7), fast_open_option(b"12345678")]
    )
    options = TCP(packet_with(block, SYN)[20:]).options
    assert [option for option in options if option[0] != "NOP"] == [
        ("MSS", 1460),
        ("SAckOK", b""),
        ("WScale", 7),
        ("TFO", (0x31323334, 0x35363738)),
    ]
    block = emit_options([timestamps_option(1, 2), sack_option([(1, 2), (3, 4), (5, 6)])])
    assert len(block) == 40
    options = TCP(packet_with(block)[20:]).options
    assert ("SAck", (1, 2, 3, 4, 5, 6)) in options
    assert ("Timestamp", (1, 2)) in options


def test_syn_options_outside_a_syn() -> None:
    """RFC 9293 §3.2, RFC 7323 §2.2, RFC 2018 §2: ignored on a segment without SYN."""
    block = emit_options([mss_option(1460), SACK_PERMITTED, window_scale_option(7)])
    segment = read(packet_with(block + fast_open_option(b"")))
    assert (segment.mss, segment.wscale, segment.sack_permitted) == (None, None, False)
    assert segment.fast_open is None
    assert segment.bad_options == 0


def test_a_window_scale_above_14_counts_as_14() -> None:
    """RFC 7323 §2.3."""
    assert read(packet_with(b"\x03\x03\xff", SYN)).wscale == 14


def test_fast_open_cookie_request() -> None:
    """RFC 7413 §2: an empty cookie asks for one."""
    segment = read(packet_with(fast_open_option(b""), SYN))
    assert segment.fast_open == b""
    assert "tfo=" in repr(segment)


@pytest.mark.parametrize("case", OPTION_CASES.values(), ids=OPTION_CASES.keys())
@pytest.mark.parametrize("lead", [b"", timestamps_option(1, 2)], ids=["bare", "after TS"])
def test_mptcp_options_in_a_segment(case: Case, lead: bytes) -> None:
    """Each option alone, behind timestamps, and in front of another."""
    wire = case.value.emit()
    trail = MpPrio(True).emit() if len(lead) + len(wire) <= 36 else b""
    if len(emit_options([wire])) + len(lead) > 40:
        lead = b""
    segment = read(packet_with(lead + emit_options([wire]) + trail))
    others = (MpPrio(True),) if trail else ()
    if isinstance(case.value, Dss):
        assert segment.dss == case.value
        assert segment.mptcp == others
    else:
        assert segment.dss is None
        assert segment.mptcp == (case.value, *others)
    assert segment.bad_options == 0
    assert (segment.ts_val, segment.ts_ecr) == ((1, 2) if lead else (-1, 0))


def test_first_of_two_dss_is_kept() -> None:
    """One mapping and one DATA_ACK a segment; a second DSS would be an ambiguity."""
    first, second = Dss(1, False), Dss(2, False)
    for lead in (b"", timestamps_option(1, 2)):
        segment = read(packet_with(lead + first.emit() + second.emit()))
        assert segment.dss == first
        assert segment.bad_options == 0


@pytest.mark.parametrize(
    ("options", "bad"),
    [
        ("02", 1),  # a kind without a length, at the very end
        ("0101 01 02", 1),
        ("02 04 05b4 05 00", 1),  # length 0
        ("02 04 05b4 05 01", 1),
        ("02 04 05b4 05 0a 0000", 1),  # runs over the header
        ("02 03 05 02 04 05b4 00", 1),  # MSS of 3, then a good one
        ("02 04 0000 02 04 05b4", 1),  # MSS of 0
        ("02 04 05b4 03 04 0101", 1),
        ("02 04 05b4 03 02 0000", 1),
        ("02 04 05b4 04 03 0101", 1),
        ("02 04 05b4 08 08 000000000000", 1),
        ("02 04 05b4 05 02 0101", 1),  # SACK without blocks
        ("02 04 05b4 05 0c 00000000000000000000", 1),
        ("02 04 05b4 22 05 010203 01", 1),  # fast open cookie of 3
        ("02 04 05b4 22 04 0102", 1),
        ("02 04 05b4 1e 02 0101", 1),  # MPTCP without subtype
        ("02 04 05b4 1e 03 20 01", 1),
        ("02 04 05b4 1e 05 2001 00 010101", 1),
        ("02 04 05b4 1e 04 f000", 0),  # MPTCP, private subtype
        ("02 04 05b4 13 04 0000", 0),  # unknown kind
        ("02 04 05b4 00 05 0000", 0),  # behind the end of options
    ],
)
def test_malformed_options(options: str, bad: int) -> None:
    """A malformed option costs itself, or the rest when its length lies; never the segment."""
    segment = read(packet_with(bytes.fromhex(options), SYN, b"data"))
    assert segment.bad_options == bad
    assert bytes(segment.payload) == b"data"
    if options.startswith("02 0"):
        assert segment.mss == 0x05B4
    assert (segment.wscale, segment.sack, segment.fast_open, segment.dss) == (None, (), None, None)


def test_malformed_dss_behind_timestamps() -> None:
    """The fast path skips and counts as the slow one does, and goes on behind it."""
    block = timestamps_option(1, 2) + bytes.fromhex("1e062001 0000 0101") + MpPrio(True).emit()
    segment = read(packet_with(block))
    assert (segment.ts_val, segment.dss, segment.bad_options) == (1, None, 1)
    assert segment.mptcp == (MpPrio(True),)
    # A length that runs over the header is left to the careful loop.
    segment = read(packet_with(timestamps_option(1, 2) + bytes.fromhex("1e0820010000 0101")[:4]))
    assert (segment.ts_val, segment.dss, segment.bad_options) == (1, None, 1)


def test_unaligned_timestamps() -> None:
    """Timestamps need not be padded, nor come first."""
    block = b"\x08\x0a" + timestamps_option(9, 10)[4:]
    assert (read(packet_with(block)).ts_val, read(packet_with(block)).ts_ecr) == (9, 10)
    segment = read(packet_with(mss_option(5) + timestamps_option(9, 10), SYN))
    assert (segment.mss, segment.ts_val) == (5, 9)
    assert read(packet_with(b"\1" * 12)).ts_val == -1


def test_bad_headers() -> None:
    """Too short, a data offset below 5 or behind the end, a wrong checksum."""
    good = packet_with(b"", payload=b"data")
    for size in range(20):
        cut = packet_with(b"")[: 20 + size]
        cut = cut[:2] + len(cut).to_bytes(2, "big") + cut[4:]
        with pytest.raises(ParseError):
            parse_segment(
                memoryview(cut), parse_ip(memoryview(cut), quoted=True), verify_checksum=False
            )
    for offset in (0x40, 0x00, 0x70, 0xF0):
        bad = good[:32] + bytes([offset]) + good[33:]
        with pytest.raises(ParseError, match="offset"):
            read(bad)
    for at in range(20, len(good)):
        bad = good[:at] + bytes([good[at] ^ 0x10]) + good[at + 1 :]
        with pytest.raises(ParseError):
            read(bad)


@given(st.binary(max_size=60), st.binary(max_size=40), st.booleans())
def test_rubbish(header: bytes, options: bytes, verify_checksum: bool) -> None:
    """Arbitrary bytes behind an IP header, and arbitrary options, raise only ParseError."""
    options += bytes(-len(options) & 3)
    segment = read(packet_with(options, SYN, b"x"))
    assert bytes(segment.payload) == b"x"
    assert repr(segment).startswith("Segment(")
    packet = bytes(IP(src="10.0.0.1", dst="10.0.0.2", proto=6) / Raw(header))
    try:
        read(packet, verify_checksum=verify_checksum)
    except ParseError:
        return
    assert len(header) >= 20


@given(
    st.lists(st.sampled_from([case.value.emit() for case in OPTION_CASES.values()]), max_size=3),
    st.integers(0, 39),
    st.integers(0, 255),
)
def test_mutated_options(chosen: list[bytes], at: int, value: int) -> None:
    """One byte changed in legal options never raises, and the payload stays where it is."""
    block = bytearray((timestamps_option(1, 2) + b"".join(chosen))[:40])
    if at < len(block):
        block[at] = value
    segment = read(packet_with(bytes(block), FIN | ACK, b"payload"))
    assert bytes(segment.payload) == b"payload"


def test_limits_of_option_emitters() -> None:
    """Each refuses what has no form."""
    with pytest.raises(ValueError, match="40 fit"):
        emit_options([timestamps_option(1, 2), bytes(28), b"\1"])
    for bad in (-1, 65536):
        with pytest.raises(ValueError, match="MSS"):
            mss_option(bad)
    for bad in (-1, 15):
        with pytest.raises(ValueError, match="window scale"):
            window_scale_option(bad)
    for count in (0, 5):
        with pytest.raises(ValueError, match="blocks"):
            sack_option([(1, 2)] * count)
    for size in (2, 3, 5, 18):
        with pytest.raises(ValueError, match="cookie"):
            fast_open_option(bytes(size))


def test_padding() -> None:
    """Each option starts on a word, and NOPs fill the gaps."""
    assert emit_options([]) == b""
    assert emit_options([SACK_PERMITTED, b"\x1e\x03\x51"]) == b"\x04\x02\1\1\x1e\x03\x51\1"


def test_repr_tells_everything() -> None:
    """For people who debug."""
    segment = Segment(V4A, V4B, 1, 2, 3, 4, SYN | ACK | URG | PSH, 5, 6, memoryview(b"xyz"))
    segment.mss = 1460
    segment.wscale = 7
    segment.sack_permitted = True
    segment.ts_val, segment.ts_ecr = 8, 9
    segment.sack = ((10, 11), (12, 13))
    segment.fast_open = b"\xaa\xbb\xcc\xdd"
    segment.user_timeout = 15
    segment.dss = Dss(14)
    segment.mptcp = (MpPrio(True),)
    segment.bad_options = 2
    assert repr(segment) == (
        "Segment(0a000001.1>0a000002.2 SYN|PSH|ACK|URG seq=3 ack=4 win=5 len=3 urg=6 mss=1460 "
        "wscale=7 sackOK ts=8/9 sack=10-11,12-13 tfo=aabbccdd uto=15 Dss(data_ack=14) "
        "MpPrio(backup=True) bad_options=2)"
    )
    assert flag_names(0) == "none"
