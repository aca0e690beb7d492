"""ICMP both ways against scapy, and the silences RFC 1122 §3.2.2 and RFC 4443 §2.4 (e) demand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoReply,
    ICMPv6EchoRequest,
    ICMPv6ND_RS,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrFragment,
)
from scapy.packet import Packet, Raw

from mptcp.wire import ChecksumError, ParseError
from mptcp.wire.icmp import (
    EchoRequest,
    IcmpError,
    IcmpKind,
    echo_reply,
    packet_too_big,
    parse_icmp,
    unreachable,
)
from mptcp.wire.ip import ipv4_header, ipv6_header, parse_ip
from mptcp.wire.tcp import ACK, HeaderTemplate

V4A, V4B, V4R = bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2]), bytes([10, 0, 0, 254])
V6A = bytes.fromhex("20010db8000000000000000000000001")
V6B = bytes.fromhex("20010db8000000000000000000000002")
V6R = bytes.fromhex("20010db80000000000000000000000fe")
OURS4 = IP(src="10.0.0.1", dst="10.0.0.2") / TCP(sport=1000, dport=2000, seq=0xDEADBEEF)
OURS6 = IPv6(src="2001:db8::1", dst="2001:db8::2") / TCP(sport=1000, dport=2000, seq=0xDEADBEEF)
BACK4 = IP(src="10.0.0.254", dst="10.0.0.1")
BACK6 = IPv6(src="2001:db8::fe", dst="2001:db8::1")


def read(packet: bytes) -> IcmpError | EchoRequest | None:
    """Parse a whole packet."""
    view = memoryview(packet)
    return parse_icmp(view, parse_ip(view))


def about(kind: IcmpKind, mtu: int | None, version: int, payload: int = 0) -> IcmpError:
    """Return what an error about OURS4 or OURS6, or one with `payload` bytes, must say."""
    addresses = (V4A, V4B) if version == 4 else (V6A, V6B)
    # The length field counts, not how much was quoted.
    size = (40 if version == 4 else 60) + payload
    return IcmpError(kind, mtu, *addresses, 1000, 2000, 0xDEADBEEF, size)


@pytest.mark.parametrize(
    ("number", "code", "kind"),
    [
        (3, 0, IcmpKind.UNREACHABLE),
        (3, 1, IcmpKind.UNREACHABLE),
        (3, 2, IcmpKind.PROTOCOL_UNREACHABLE),
        (3, 3, IcmpKind.PORT_UNREACHABLE),
        (3, 9, IcmpKind.ADMIN_PROHIBITED),
        (3, 10, IcmpKind.ADMIN_PROHIBITED),
        (3, 13, IcmpKind.ADMIN_PROHIBITED),
        (11, 0, IcmpKind.TIME_EXCEEDED),
        (12, 0, IcmpKind.PARAMETER_PROBLEM),
    ],
)
@pytest.mark.parametrize("quoted", [28, 40])
def test_errors_v4(number: int, code: int, kind: IcmpKind, quoted: int) -> None:
    """RFC 792 quotes 8 bytes of the segment, RFC 1812 more; both tell enough."""
    packet = BACK4 / ICMP(type=number, code=code) / Raw(bytes(OURS4)[:quoted])
    assert read(bytes(packet)) == about(kind, None, 4)


@pytest.mark.parametrize(("told", "mtu"), [(1400, 1400), (0, None)])
def test_fragmentation_needed(told: int, mtu: int | None) -> None:
    """RFC 1191 §5: an old router leaves the field zero."""
    packet = BACK4 / ICMP(type=3, code=4, nexthopmtu=told) / Raw(bytes(OURS4))
    assert read(bytes(packet)) == about(IcmpKind.PACKET_TOO_BIG, mtu, 4)


@pytest.mark.parametrize(
    ("error", "kind", "mtu"),
    [
        (ICMPv6DestUnreach(code=0), IcmpKind.UNREACHABLE, None),
        (ICMPv6DestUnreach(code=1), IcmpKind.ADMIN_PROHIBITED, None),
        (ICMPv6DestUnreach(code=3), IcmpKind.UNREACHABLE, None),
        (ICMPv6DestUnreach(code=4), IcmpKind.PORT_UNREACHABLE, None),
        (ICMPv6DestUnreach(code=5), IcmpKind.ADMIN_PROHIBITED, None),
        (ICMPv6PacketTooBig(mtu=1280), IcmpKind.PACKET_TOO_BIG, 1280),
        (ICMPv6PacketTooBig(mtu=70000), IcmpKind.PACKET_TOO_BIG, 70000),
        (ICMPv6TimeExceeded(code=0), IcmpKind.TIME_EXCEEDED, None),
        (ICMPv6ParamProblem(code=0), IcmpKind.PARAMETER_PROBLEM, None),
        (ICMPv6ParamProblem(code=1), IcmpKind.PROTOCOL_UNREACHABLE, None),
    ],
)
def test_errors_v6(error: Packet, kind: IcmpKind, mtu: int | None) -> None:
    """RFC 4443 §3."""
    assert read(bytes(BACK6 / error / OURS6)) == about(kind, mtu, 6)


@pytest.mark.parametrize(
    "packet",
    [
        BACK4 / ICMP(type=4) / OURS4,  # source quench, RFC 6633
        BACK4 / ICMP(type=5) / OURS4,
        BACK4 / ICMP(type=0),
        BACK4 / ICMP(type=3) / IP(src="10.0.0.1") / UDP(),
        BACK4 / ICMP(type=3) / IP(src="10.0.0.1", frag=1, proto=6) / Raw(b"x" * 8),
        BACK4 / ICMP(type=3) / Raw(bytes(OURS6)),
        BACK6 / ICMPv6EchoReply(),
        BACK6 / ICMPv6ND_RS(),
        BACK6 / ICMPv6TimeExceeded() / IPv6(src="2001:db8::1") / UDP(),
        BACK6
        / ICMPv6TimeExceeded()
        / IPv6(src="2001:db8::1")
        / IPv6ExtHdrFragment(nh=6, offset=1)
        / Raw(b"x" * 8),
    ],
)
def test_what_means_nothing_to_tcp(packet: Packet) -> None:
    """Other types, and errors about anything but the start of a TCP segment, are None."""
    assert read(bytes(packet)) is None


@pytest.mark.parametrize("back", [BACK4 / ICMP(type=3), BACK6 / ICMPv6DestUnreach()])
def test_short_and_damaged(back: Packet) -> None:
    """A quote without ports is a ParseError, as is a wrong checksum or a short header."""
    ours = bytes(OURS4 if back.version == 4 else OURS6)
    enough = len(ours) - 20 + 8
    for size in range(enough):
        with pytest.raises(ParseError):
            read(bytes(back / Raw(ours[:size])))
    good = bytes(back / Raw(ours[:enough]))
    assert isinstance(read(good), IcmpError)
    for at in range(len(bytes(back)) - 8, len(good)):
        with pytest.raises(ChecksumError):
            read(good[:at] + bytes([good[at] ^ 4]) + good[at + 1 :])
    short = ipv4_header(V4B, V4A, 1, 7) if back.version == 4 else ipv6_header(V6B, V6A, 58, 7)
    with pytest.raises(ParseError, match="shorter"):
        read(short + bytes(7))


@given(st.binary(max_size=300), st.integers(0, 65535), st.integers(0, 65535))
def test_echo_v4(data: bytes, identifier: int, sequence: int) -> None:
    """RFC 792: addresses swapped, the rest as it came; scapy makes the same packet."""
    ping = bytes(
        IP(src="10.0.0.1", dst="10.0.0.2") / ICMP(type=8, id=identifier, seq=sequence) / Raw(data)
    )
    view = memoryview(ping)
    request = read(ping)
    assert isinstance(request, EchoRequest)
    assert (request.identifier, request.sequence) == (identifier, sequence)
    assert bytes(request.payload) == data
    reply = IP(echo_reply(view, parse_ip(view)))
    assert (reply.src, reply.dst, reply.proto) == ("10.0.0.2", "10.0.0.1", 1)
    assert (reply[ICMP].type, reply[ICMP].id, reply[ICMP].seq) == (0, identifier, sequence)
    assert bytes(reply[ICMP].payload) == data
    assert read(bytes(reply)) is None  # so its checksum is right


@given(st.binary(max_size=300), st.integers(0, 65535))
def test_echo_v6(data: bytes, identifier: int) -> None:
    """RFC 4443 §4.2."""
    ping = bytes(
        IPv6(src="2001:db8::1", dst="2001:db8::2") / ICMPv6EchoRequest(id=identifier, data=data)
    )
    view = memoryview(ping)
    request = read(ping)
    assert isinstance(request, EchoRequest)
    reply = IPv6(echo_reply(view, parse_ip(view)))
    assert (reply.src, reply.dst) == ("2001:db8::2", "2001:db8::1")
    assert (reply[ICMPv6EchoReply].id, reply[ICMPv6EchoReply].data) == (identifier, data)
    assert read(bytes(reply)) is None


def test_echo_of_nothing_but_zeros() -> None:
    """The sum of an all-zero message is 0, and its checksum must be 0xffff, not 0."""
    ping = bytes(IP(src="10.0.0.1", dst="10.0.0.2") / ICMP(type=8, id=0, seq=0) / Raw(bytes(8)))
    view = memoryview(ping)
    assert IP(echo_reply(view, parse_ip(view)))[ICMP].chksum == 0xFFFF


def segment(version: int, length: int) -> memoryview:
    """Build a TCP packet of ours with `length` bytes of payload."""
    addresses = (V4A, V4B) if version == 4 else (V6A, V6B)
    template = HeaderTemplate(*addresses, 1000, 2000)
    header = template.build(0xDEADBEEF, 0, ACK, 0, b"", length)
    template.finish_checksum(header, [bytes(length)])
    return memoryview(bytes(header) + bytes(length))


@pytest.mark.parametrize(("version", "router", "limit"), [(4, V4R, 576), (6, V6R, 1280)])
@pytest.mark.parametrize("length", [0, 1, 1460, 40000])
def test_packet_too_big_round_trip(version: int, router: bytes, limit: int, length: int) -> None:
    """What a simulated router sends is understood, and no longer than the RFCs allow."""
    error = packet_too_big(segment(version, length), 1300, router)
    assert error is not None
    assert len(error) == min(len(segment(version, length)) + (28 if version == 4 else 48), limit)
    assert read(error) == about(IcmpKind.PACKET_TOO_BIG, 1300, version, length)
    theirs = IP(error)[ICMP] if version == 4 else IPv6(error)[ICMPv6PacketTooBig]
    assert (theirs.nexthopmtu if version == 4 else theirs.mtu) == 1300
    if version == 4:
        assert (theirs.type, theirs.code) == (3, 4)


@pytest.mark.parametrize(("version", "router"), [(4, V4R), (6, V6R)])
@pytest.mark.parametrize("kind", IcmpKind)
def test_unreachable_round_trip(version: int, router: bytes, kind: IcmpKind) -> None:
    """Each kind an emitter knows is read back as itself."""
    if kind in (IcmpKind.PACKET_TOO_BIG, IcmpKind.PARAMETER_PROBLEM):
        with pytest.raises(ValueError, match=kind.name):
            unreachable(segment(version, 10), router, kind)
        return
    error = unreachable(segment(version, 10), router, kind)
    assert error is not None
    assert read(error) == about(kind, None, version, 10)


@pytest.mark.parametrize(
    "offending",
    [
        BACK4 / ICMP(type=3) / OURS4,
        BACK4 / ICMP(type=5) / OURS4,
        IP(src="10.0.0.1", dst="10.0.0.2", proto=1),
        IP(src="10.0.0.1", dst="10.0.0.2", frag=1) / Raw(b"x" * 8),
        IP(src="0.0.0.0", dst="10.0.0.2") / TCP(),
        IP(src="10.0.0.1", dst="224.0.0.1") / UDP(),
        IP(src="10.0.0.1", dst="255.255.255.255") / UDP(),
        IP(src="240.0.0.1", dst="10.0.0.2") / UDP(),
        BACK6 / ICMPv6DestUnreach() / OURS6,
        IPv6(src="2001:db8::1", dst="2001:db8::2", nh=58),
        IPv6(src="2001:db8::1", dst="2001:db8::2", nh=58) / Raw(bytes([137]) + bytes(7)),
        IPv6(src="2001:db8::1", dst="ff02::1") / UDP(),
        IPv6(src="ff02::1", dst="2001:db8::1") / UDP(),
        IPv6(src="::", dst="2001:db8::1") / UDP(),
    ],
)
def test_no_error_about(offending: Packet) -> None:
    """Errors about errors, fragments, multicast and the unspecified address are not sent."""
    view = memoryview(bytes(offending))
    router = V4R if offending.version == 4 else V6R
    assert unreachable(view, router) is None
    assert packet_too_big(view, 1280, router) is None


def test_errors_about_pings_are_sent() -> None:
    """RFC 1122 §3.2.2 forbids errors about ICMP errors, not about queries."""
    ping4 = memoryview(bytes(IP(src="10.0.0.1", dst="10.0.0.2") / ICMP(type=8)))
    ping6 = memoryview(bytes(IPv6(src="2001:db8::1", dst="2001:db8::2") / ICMPv6EchoRequest()))
    for ping, router in ((ping4, V4R), (ping6, V6R)):
        error = unreachable(ping, router)
        assert error is not None
        assert read(error) is None


def test_emitters_refuse_nonsense() -> None:
    """An address of the other family, and bytes that are no packet."""
    with pytest.raises(ValueError, match="family"):
        unreachable(segment(4, 1), V6R)
    with pytest.raises(ValueError, match="family"):
        packet_too_big(segment(6, 1), 1280, V4R)
    with pytest.raises(ParseError):
        packet_too_big(memoryview(b""), 1280, V4R)


def with_checksum(message: bytes, pseudo: bytes = b"") -> bytes:
    """Fill in the checksum, made with a plain sum."""
    summed = pseudo + message + b"\0" * (len(message) & 1)
    total = sum(int.from_bytes(summed[i : i + 2], "big") for i in range(0, len(summed), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return message[:2] + (~total & 0xFFFF).to_bytes(2, "big") + message[4:]


@given(
    st.sampled_from([4, 6]),
    st.sampled_from([0, 1, 2, 3, 4, 8, 11, 12, 128]) | st.integers(0, 255),
    st.integers(0, 15),
    st.binary(max_size=80) | st.sampled_from([bytes(OURS4), bytes(OURS6)]),
    st.integers(0, 90),
    st.integers(0, 255),
)
def test_rubbish(version: int, kind: int, code: int, quote: bytes, at: int, value: int) -> None:
    """Arbitrary messages and damaged quotes under a right checksum raise only ParseError."""
    message = bytes([kind, code]) + bytes(6) + quote[:at] + bytes([value]) + quote[at + 1 :]
    if version == 4:
        packet = ipv4_header(V4B, V4A, 1, len(message)) + with_checksum(message)
    else:
        pseudo = V6B + V6A + len(message).to_bytes(4, "big") + b"\0\0\0\x3a"
        packet = ipv6_header(V6B, V6A, 58, len(message)) + with_checksum(message, pseudo)
    try:
        result = read(packet)
    except ChecksumError:
        raise AssertionError("the checksum is right") from None
    except ParseError:
        return
    if isinstance(result, IcmpError):
        assert len(result.src) == len(result.dst) == (4 if version == 4 else 16)


@given(st.binary(max_size=60), st.sampled_from([1, 58]))
def test_rubbish_without_checksum(data: bytes, protocol: int) -> None:
    """Arbitrary bytes raise only ParseError."""
    header = ipv4_header(V4B, V4A, 1, len(data)) if protocol == 1 else b""
    try:
        read((header or ipv6_header(V6B, V6A, 58, len(data))) + data)
    except ParseError:
        return
    assert len(data) >= 8
